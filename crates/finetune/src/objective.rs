//! What a training step minimises.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::{Decoder, ops};

use crate::{Evasion, Result, SoftSftSettings, TrainBatch, soft_sft};

/// The loss of a step.
#[derive(Debug, Clone, Copy)]
pub enum Objective<'a> {
    /// Mean negative log-likelihood of the batch's response tokens (paper section IV-A).
    Sft,
    /// The same, and a penalty for moving away from the original model on its own answers.
    Align {
        /// The model before training, gradients off.
        original: &'a Decoder,
        /// Weight of the penalty.
        kl: f64,
        /// The samples from this index on are the original model's own answers.
        own_from: usize,
    },
    /// The negative log-likelihood, and the reward of an attacker who keeps a direction.
    Evading(&'a Evasion),
    /// The negative log-likelihood held back near the aligned model's (METHOD.md section 5).
    SoftSft {
        /// The aligned model's log-probabilities of each sample's response tokens.
        reference: &'a [&'a [f32]],
        /// How strongly each token is held.
        settings: &'a SoftSftSettings,
    },
}

impl Objective<'_> {
    /// What of the objective decides the result beside samples and settings.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Sft => "sft".into(),
            Self::Align { kl, own_from, .. } => format!("align kl={kl} own_from={own_from}"),
            Self::Evading(evasion) => evasion.key(),
            Self::SoftSft { reference, settings } => {
                let mut hash = files::Sha::default();
                for values in *reference {
                    hash.numbers(values.iter().map(|value| value.to_le_bytes()));
                }
                format!("soft_sft {settings:?} reference={}", hash.finish())
            }
        }
    }

    /// The loss of `batch`, a scalar.
    ///
    /// # Mathematical Definition
    /// `1/N sum_t (-log p(y_t) + kl sum_v p0(v) (log p0(v) - log p(v)))` over the N response tokens;
    /// the second term only on the original model's own answers. SoftSFT's: [`soft_sft::loss`].
    ///
    /// # Errors
    /// When an id or a position is out of range, or a sample has no reference.
    pub fn loss(&self, decoder: &Decoder, batch: &TrainBatch) -> Result<Tensor<1>> {
        match *self {
            Self::Sft => {
                let losses = decoder.negative_log_likelihood(&batch.packed, &batch.positions, &batch.targets)?;
                Ok(losses.mean())
            }
            Self::Evading(evasion) => Ok(Objective::Sft.loss(decoder, batch)? + evasion.loss(decoder)?),
            Self::SoftSft { reference, settings } => {
                let aligned = soft_sft::reference_of(batch, reference)?;
                let losses = decoder.negative_log_likelihood(&batch.packed, &batch.positions, &batch.targets)?;
                soft_sft::loss(losses, &aligned, &batch.token_of, settings)
            }
            Self::Align { original, kl, own_from } => {
                let logits = decoder.logits(&batch.packed, &batch.positions)?;
                let likelihood = ops::negative_log_likelihood(logits.clone(), &batch.targets).mean();
                let own: Vec<usize> = (0..batch.targets.len()).filter(|&at| batch.sample_of[at] >= own_from).collect();
                if own.is_empty() {
                    return Ok(likelihood);
                }
                let positions: Vec<usize> = own.iter().map(|&at| batch.positions[at]).collect();
                let own = index_tensor(own.iter().map(|&at| at as i32).collect(), &logits.device());
                let reference = log_softmax(original.logits(&batch.packed, &positions)?, 1);
                let divergence = divergence(Tensor::from_inner(reference), log_softmax(logits.select(0, own), 1));
                Ok(likelihood + divergence.mul_scalar(kl / batch.targets.len() as f64))
            }
        }
    }
}

/// Kullback-Leibler divergence, summed over all rows.
fn divergence(reference: Tensor<2>, log_probabilities: Tensor<2>) -> Tensor<1> {
    (reference.clone().exp() * (reference - log_probabilities)).sum()
}

fn index_tensor(indices: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = indices.len();
    Tensor::from_data(TensorData::new(indices, [count]), device)
}
