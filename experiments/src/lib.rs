//! Runs sweeps: many models, tasks and harmful counts through the method's stages (section 1).

mod figures;
pub mod record;
pub mod report;
mod tables;
