//! What the strong method reads and what every method is chosen by: prompts of three kinds with answers, each in a part
//! that gives gradients and a part that decides.

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A prompt with an answer, as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The ids of both.
    pub ids: Vec<u32>,
    /// Where the answer starts; at least 1.
    pub start: usize,
}

/// Answered prompts of one kind. The parts share no prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Those that give gradients.
    pub train: Vec<Answered>,
    /// Those that decide.
    pub held_out: Vec<Answered>,
}

/// Which model a repaired one is to agree with on harmless prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Reference {
    /// The aligned model.
    #[default]
    Aligned,
    /// The fine-tuned model, where the aligned one refuses too much.
    #[serde(alias = "finetuned")]
    #[value(alias = "finetuned")]
    FineTuned,
}

/// What a repair is to reach and to keep.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Harmful prompts with the aligned model's own answers.
    pub harmful: Parts,
    /// Harmless prompts with the reference's own answers.
    pub harmless: Parts,
    /// The task's prompts with the right answers.
    pub task: Parts,
    /// Whose answers those to the harmless prompts are.
    pub reference: Reference,
    /// How the three are weighed.
    pub merit: MeritSettings,
}

/// How harm, over-refusal and loss of the task are weighed on the prompts that are held out, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeritSettings {
    /// Weight of the divergence on harmless prompts.
    pub mu: f64,
    /// The divergence on harmful prompts below which less of it is worth nothing.
    pub enough: f64,
    /// Weight of the divergence on the task's samples.
    pub task: f64,
    /// The divergence on harmful prompts that is allowed.
    pub max_harmful: f64,
    /// The divergence on harmless prompts that is allowed above the fine-tuned model's.
    pub max_harmless: f64,
    /// The divergence on the task's samples that is allowed.
    pub max_task: f64,
}

impl Default for MeritSettings {
    fn default() -> Self {
        Self { mu: 3.0, enough: 0.01, task: 10.0, max_harmful: 0.05, max_harmless: 0.1, max_task: 0.02 }
    }
}

impl Evidence {
    /// The model that is agreed with on harmless prompts.
    pub(crate) fn harmless_teacher<'a>(&self, aligned: &'a Decoder, fine_tuned: &'a Decoder) -> &'a Decoder {
        match self.reference {
            Reference::Aligned => aligned,
            Reference::FineTuned => fine_tuned,
        }
    }

    /// The harmful prompts that a method learns from.
    pub(crate) fn harmful_train(&self, method: &'static str) -> crate::Result<&[Answered]> {
        let missing = Error::Missing { method, what: "harmful prompts that are not held out" };
        if self.harmful.train.is_empty() { Err(missing) } else { Ok(&self.harmful.train) }
    }
}

impl MeritSettings {
    /// Checks that no weight or bound is below 0.
    ///
    /// # Errors
    /// Names the first that is.
    pub fn check(&self) -> crate::Result<()> {
        let Self { mu, enough, task, max_harmful, max_harmless, max_task } = *self;
        let named = [
            ("mu", mu),
            ("enough", enough),
            ("task", task),
            ("max_harmful", max_harmful),
            ("max_harmless", max_harmless),
            ("max_task", max_task),
        ];
        crate::error::check_not_negative(&named)
    }
}
