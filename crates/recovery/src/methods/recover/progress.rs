//! How far a recovery is, and what it is of.

use std::borrow::Cow;

use direction::Objective;
use serde::{Deserialize, Serialize};

use crate::{Region, TraceStep, checkpoint};

/// How far a recovery is; what a checkpoint holds besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The next step.
    pub step: usize,
    /// Whether this is the second start, with rollback in every step.
    pub rollback: bool,
    /// Score of the fine-tuned model.
    pub base_score: Option<f64>,
    /// Score after the warm-up of the first start.
    pub warmup_score: Option<f64>,
    /// The step after which the last checkpoint at or above the floor was taken.
    pub kept_step: Option<usize>,
    /// The steps so far.
    pub steps: Vec<TraceStep>,
}

impl checkpoint::Progress for Progress {
    fn steps(&self) -> usize {
        self.step
    }
}

/// Hash of the region's aligned and fine-tuned values and of the objectives (prompts and directions).
pub(super) fn fingerprint(region: &Region, objectives: &[&Objective]) -> String {
    let mut hash = files::Sha::default();
    let values = region.aligned.iter().chain(&region.fine_tuned);
    let directions = objectives.iter().map(|objective| objective.direction.as_slice());
    for values in values.map(|values| values.part().wide()).chain(directions.map(Cow::Borrowed)) {
        hash.numbers(values.iter().map(|value| value.to_le_bytes()));
    }
    for row in objectives.iter().flat_map(|objective| &objective.rows) {
        hash.numbers(row.iter().map(|id| id.to_le_bytes()));
    }
    hash.finish()
}
