//! The stages, in the order of the method.

pub mod align;
pub mod ask;
pub mod control;
pub mod finetune;
pub mod generate;
pub mod import;
pub mod judge;
mod kept;
pub mod measure;
pub mod recover;
pub mod reference;
pub mod resta;

/// Called as a stage goes on: steps done, steps in all, and a word on the last one.
pub type Report<'a> = dyn FnMut(usize, usize, &str) + 'a;
