//! An attack on a model: its answers to prompts then, judged by refusal phrases. Other judges read the same answers.

use std::path::Path;

use evaluation::{Evaluation, PromptKind};
use model::Dtype;
use serde::Serialize;

use super::attack::Asked;
use super::evaluate::{by_phrases, write_index};
use super::{AnswerFile, Attack, Stage};
use crate::model::LazyModel;
use crate::{Artifact, Job, Result, Samples};

/// Attacks a model and asks it prompts.
#[derive(Debug, Clone, Serialize)]
pub struct Attacked {
    /// The model.
    pub model: Artifact,
    /// The attack.
    pub attack: Attack,
    /// Of which kind the prompts are.
    #[serde(skip_serializing_if = "is_harmful")]
    pub kind: PromptKind,
    /// The prompts.
    pub samples: Samples,
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
    /// What decides the verdicts of the refusal phrases.
    pub phrases: serde_json::Value,
    /// The precision to which the weights are rounded; as they are where it is none.
    pub dtype: Option<Dtype>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_harmful(kind: &PromptKind) -> bool {
    *kind == PromptKind::Harmful
}

impl Attacked {
    /// What its files of answers hold, with the number of training steps before each.
    #[must_use]
    pub fn answer_files(&self) -> Vec<(AnswerFile, Option<usize>)> {
        self.attack.answer_files(self.kind.name(), self.kind)
    }
}

impl Stage for Attacked {
    type Summary = Evaluation;

    fn kind(&self) -> &'static str {
        "attack"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<Evaluation> {
        let samples = self.samples.read()?;
        let model = LazyModel::new(&self.model, self.dtype, job.device);
        let (set, kind, max_new_tokens) = (self.kind.name(), self.kind, self.max_new_tokens);
        let asked = Asked { set, kind, samples: &samples, max_new_tokens };
        let files = self.attack.ask(model, asked, out, job)?;
        write_index(out, &files)?;
        by_phrases(out, &files, job)
    }
}
