//! What the aligned model itself answers to the evidence of repairs: made once, and shared by all repairs of a sweep.

use std::path::Path;

use model::Dtype;
use serde::Serialize;

use super::Stage;
use crate::model::LazyModel;
use crate::{Artifact, Evidence, Job, Result};

/// Asks the aligned model; a repair with the same evidence takes the answers over.
#[derive(Debug, Clone, Serialize)]
pub struct OwnAnswers {
    /// The aligned model.
    pub aligned: Artifact,
    /// What it is asked.
    pub evidence: Evidence,
    /// The precision to which its weights are rounded; as they are where it is none.
    pub dtype: Option<Dtype>,
}

impl OwnAnswers {
    /// The file of the answers to the harmful, or to the harmless, prompts that give gradients.
    #[must_use]
    pub fn file(harmless: bool) -> &'static str {
        Evidence::FILES[if harmless { 2 } else { 0 }]
    }
}

impl Stage for OwnAnswers {
    type Summary = ();

    fn kind(&self) -> &'static str {
        "own_answers"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<()> {
        self.evidence.answer(&mut LazyModel::new(&self.aligned, self.dtype, job.device), out, job)
    }
}
