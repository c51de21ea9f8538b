//! The attacks on the models of a sweep, `evaluation.attacks`, and an attacker's aim in fine-tuning (METHOD.md section 11).

use std::path::PathBuf;

use model::Sampling;
use realign::stage::Attack;
use recovery::Layer;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::PromptSet;

/// One attack on every model of a cell; it has one of the keys beside `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackSpec {
    /// Name in tables and figures.
    pub name: String,
    /// The answer's first words are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<PrefillSpec>,
    /// Answers are drawn, and one that is harmful is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingSpec>,
    /// The refusal direction is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablation: Option<AblationSpec>,
    /// The model is fine-tuned further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retraining: Option<RetrainingSpec>,
}

impl AttackSpec {
    /// How many samples of the sweep's `inject` it trains on, if it reads them.
    #[must_use]
    pub fn injected(&self) -> Option<usize> {
        self.retraining.as_ref().filter(|one| one.samples.is_none()).map(|one| one.harmful)
    }
}

/// What an answer begins with: a text, which is not judged, or the first tokens of a harmful answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillSpec {
    /// The text.
    #[serde(default)]
    pub text: Option<String>,
    /// Harmful answers (`prompt`, `response`) to the prompts that are asked, relative to `data`.
    #[serde(default)]
    pub answers: Option<PathBuf>,
    /// Tokens of the harmful answer.
    #[serde(default = "ten")]
    pub tokens: usize,
}

fn ten() -> usize {
    10
}

/// How answers are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingSpec {
    /// Logits are divided by it.
    pub temperature: f64,
    /// The most probable tokens are kept, as few as reach this sum together.
    #[serde(default = "most")]
    pub top_p: f64,
    /// Answers to each prompt.
    #[serde(default = "eight")]
    pub draws: usize,
}

fn most() -> f64 {
    0.9
}

fn eight() -> usize {
    8
}

impl SamplingSpec {
    /// Which tokens may come, and how probable each is.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, top_p: self.top_p }
    }
}

/// The prompts of a refusal direction; none of them is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AblationSpec {
    /// Harmful prompts.
    pub harmful: PromptSet,
    /// Harmless prompts.
    pub harmless: PromptSet,
    /// The block after which the direction is found.
    #[serde(default)]
    pub layer: Layer,
}

/// A fine-tuning after the repair, and when the model is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrainingSpec {
    /// Harmful samples, as many of those that neither a cell injects nor the unaligned model reads.
    #[serde(default)]
    pub harmful: usize,
    /// Other samples (`prompt`, `response`).
    #[serde(default)]
    pub samples: Option<PromptSet>,
    /// Steps after which the model is asked, rising.
    #[serde(default = "usual_steps")]
    pub steps: Vec<usize>,
    /// Trainings, each with a seed.
    #[serde(default = "three_seeds")]
    pub seeds: Vec<u64>,
    /// Keys over `finetune`.
    #[serde(default)]
    pub train: Option<Value>,
}

fn usual_steps() -> Vec<usize> {
    vec![1, 2, 5, 10, 20]
}

fn three_seeds() -> Vec<u64> {
    vec![1, 2, 3]
}

impl AttackSpec {
    /// What makes no sense, as a key below the attack's own and a sentence.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let Self { prefill, sampling, ablation, retraining, .. } = self;
        let kinds = [prefill.is_some(), sampling.is_some(), ablation.is_some(), retraining.is_some()]
            .iter()
            .filter(|there| **there)
            .count();
        if kinds != 1 {
            return Some(("", "must have one of prefill, sampling, ablation and retraining".into()));
        }
        if prefill.as_ref().is_some_and(|one| one.text.is_some() == one.answers.is_some() || one.tokens == 0) {
            return Some(("prefill", "must have `text`, or `answers` with at least one of their `tokens`".into()));
        }
        if let Some(one) = sampling {
            let problem = one.sampling().check().err().map(|error| error.to_string());
            return Some(("sampling", problem.or_else(|| Attack::check_draws(one.draws).err())?));
        }
        let retraining = retraining.as_ref()?;
        if (retraining.harmful > 0) == retraining.samples.is_some() {
            return Some(("retraining", "must have `harmful` or `samples`".into()));
        }
        (!finetune::are_rising(&retraining.steps) || retraining.seeds.is_empty())
            .then(|| ("retraining", "`steps` must rise from at least 1, and `seeds` not be empty".to_owned()))
    }
}

/// An attacker who keeps the direction by which the paper's method repairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvadingSpec {
    /// Harmful prompts.
    pub prompts: PromptSet,
    /// The block after which the direction is kept.
    #[serde(default)]
    pub layer: Layer,
    /// Weight of the cosine beside the loss per token.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}
