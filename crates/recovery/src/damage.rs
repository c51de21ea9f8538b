//! How far a model is from the fine-tuned one, whatever made it: how many weights differ, and how far its answers move.

use model::{Decoder, weights};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::evidence::Answered;
use crate::lesson::Lesson;
use crate::region::check_same_shape;

/// How far a model is from the fine-tuned one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Damage {
    /// Share of all weights that have another value.
    pub changed: f64,
    /// KL(fine-tuned || model) of the next token over the answers to harmless prompts, in nats per token; none without
    /// such prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
}

/// Compares a model with the fine-tuned one, on answered harmless prompts or on none.
///
/// # Errors
/// When the models differ in shape, or the device fails.
pub fn damage(fine_tuned: &Decoder, model: &Decoder, harmless: &[Answered]) -> Result<Damage> {
    check_same_shape(("fine-tuned", fine_tuned), ("compared", model), |_| true)?;
    let (mut all, mut other) = (0, 0);
    let [own, new] = [fine_tuned, model].map(|decoder| {
        let mut found = Vec::new();
        weights::visit(decoder, |weight| found.push(weight)); // values are read below, a pair at a time
        found
    });
    for (a, b) in own.into_iter().zip(new) {
        let (a, b) = (a.values()?, b.values()?);
        all += a.len();
        other += a.par_iter().zip(&b).with_min_len(1 << 14).filter(|(a, b)| a != b).count();
    }
    let divergence = match harmless.is_empty() {
        true => None,
        false => Some(Lesson::of_teacher(fine_tuned, harmless)?.loss(model)?),
    };
    Ok(Damage { changed: other as f64 / all as f64, divergence })
}
