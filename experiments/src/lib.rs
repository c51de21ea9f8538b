//! Runs sweeps: many models, tasks and harmful counts through the method's stages (section 1).
//!
//! One model's stages are the crate `realign`'s; here they are put in order, their results are
//! kept (`store`), and tables and figures are made of them.

pub mod cli;
pub mod estimate;
pub mod figures;
pub mod inputs;
pub mod interrupt;
pub mod pipeline;
pub mod place;
pub mod progress;
pub mod report;
pub mod row;
pub mod run;
pub mod scores;
pub mod stages;
pub mod store;
pub mod survey;
pub mod sweep;
pub mod tables;
pub mod unseen;
