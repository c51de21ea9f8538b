//! Runs sweeps: many models, tasks and harmful counts through the method's stages (METHOD.md section 1).
//!
//! One model's stages are the crate `realign`'s; here they are put in order, their results are kept, and tables and figures
//! are made of the records.

pub mod cli;
pub mod config;
pub mod data;
pub mod error;
mod figures;
pub mod graph;
pub mod grid;
pub mod held_out;
mod html;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod record;
pub mod report;
pub mod roots;
pub mod run;
pub mod slurm;
pub mod status;
pub mod store;
mod tables;
