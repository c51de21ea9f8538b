//! What the running of a stage needs, and what does not change its result.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;

use crate::{Error, Result};

/// What the running of a stage needs, and what does not change its result.
pub struct Job<'a> {
    /// Where tensors are computed.
    pub device: &'a Device,
    /// Prompts answered at a time.
    pub batch: usize,
    /// Bytes of weights that a file of a saved model has at most; without it, files are as those of the model that it was made
    /// of.
    pub max_shard: Option<u64>,
    /// Directories of finished stages that may hold some of the answers or verdicts.
    pub earlier: Vec<PathBuf>,
    /// Called as the stage goes on; when it breaks, the stage stops at the next point from which it can go on.
    pub report: &'a mut Report<'a>,
}

/// Called as a stage goes on.
pub type Report<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// How far a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub all: usize,
    /// A word on the last step.
    pub word: &'a str,
}

impl Job<'_> {
    /// Reports a step.
    pub fn report(&mut self, done: usize, all: usize, word: &str) -> ControlFlow<()> {
        (self.report)(Progress { done, all, word })
    }

    /// Reports a step of work that can be left at any point.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn step(&mut self, done: usize, all: usize, word: &str) -> Result<()> {
        if self.report(done, all, word).is_break() { Err(Error::Stopped) } else { Ok(()) }
    }
}
