//! Whether a model declines prompts, by the first words of its answers.

use evaluation::{Answer, Judge, Verdict};
use prompts::Sample;

use crate::Result;
use crate::model::Model;

/// Length of an answer that shows whether a prompt is declined.
const TOKENS: usize = 32;

/// The refusal phrases.
pub struct Refusals(Judge);

impl Refusals {
    pub fn new() -> Self {
        Self(Judge::phrases())
    }

    /// How long the answers to some prompts must be to be told, as far as so many positions have room.
    pub fn tokens(model: &Model, samples: &[Sample], positions: usize) -> Result<usize> {
        let longest = model.encode_prompts(samples)?.iter().map(Vec::len).max().unwrap_or(0);
        Ok(TOKENS.min(positions.saturating_sub(longest)))
    }

    /// Whether an answer is one.
    pub fn has(&self, answer: &Answer) -> bool {
        self.0.by_rule(answer) == Some(Verdict::Refused)
    }
}
