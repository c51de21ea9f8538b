//! The stages of the method as values: what a stage reads and how it is set, serialised whole, is its key.
//!
//! A stage writes into the directory that it is given and hands back a summary. It is told to stop by what its report
//! returns, and then leaves its checkpoint there, so that the same stage in the same directory goes on from it.

mod align;
mod attack;
mod attacked;
mod choose;
mod divergence;
mod evaluate;
mod finetune;
mod import;
mod judge;
mod own_answers;
mod patch;
mod pretrain;
mod repair;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use align::Align;
pub use attack::{Asked, Attack};
pub use attacked::Attacked;
pub use choose::Choose;
pub use divergence::Divergence;
pub use evaluate::{
    Aim, AnswerFile, Answered, Evaluate, Measured, Question, ask, check_judged, first_problem, measure, read_answered,
    read_index, write_answered, write_index,
};
pub use finetune::{
    ADAPTER, Finetune, Inject, Objective, OwnPairs, REFERENCE, Reference, TrainSummary, TrainingSet, WithAdapter,
};
pub use import::Import;
pub use judge::Judge;
pub use own_answers::OwnAnswers;
pub use patch::{ApplyPatch, PATCH, PatchSummary};
pub use pretrain::Pretrain;
pub(crate) use repair::compare;
pub use repair::{Gate, Repair, RepairSummary};

use crate::{Job, Result};

/// The directory of a stage's model within the stage's own.
pub const MODEL: &str = "model";

/// The file beside a model that says what came of the method, and how the model was made.
pub const OUTCOME: &str = "outcome.json";

/// One stage of the method, ready to run.
pub trait Stage: Serialize {
    /// The figures that it hands back.
    type Summary: Serialize + DeserializeOwned;

    /// Its kind in tables and directories.
    fn kind(&self) -> &'static str;

    /// Raised when the code computes something else from the same value.
    fn version(&self) -> u32 {
        1
    }

    /// Does the work; what it makes goes into `out`, which may hold what a stopped attempt left.
    ///
    /// # Errors
    /// When an input is missing or makes no sense, or a file cannot be written; [`Error::Stopped`](crate::Error::Stopped) when the report says so.
    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<Self::Summary>;

    /// The name of its result: 16 hexadecimal digits of the hash of its kind, version and whole value.
    ///
    /// # Errors
    /// When the value is not JSON.
    fn key(&self) -> Result<String> {
        Ok(files::hash_json(&(self.kind(), self.version(), self))?[..16].to_owned())
    }
}
