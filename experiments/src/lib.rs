//! Runs sweeps: many models, tasks and harmful counts through the method's stages (section 1).

pub mod config;
pub mod data;
pub mod figures;
pub mod grid;
pub mod record;
pub mod report;
pub mod tables;
