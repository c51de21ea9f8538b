//! Control arms: restorations that a recovery has to beat to be worth its name.
//!
//! Not in the paper. Each changes the fine-tuned model towards the aligned one without looking for
//! the weights that carry alignment, and needs no score.

use std::collections::HashMap;

use burn::tensor::TensorData;
use direction::{Objective, accumulate, default_layer, mean_direction};
use model::{Decoder, weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::region::is_in_region;
use crate::restore::{candidates, set};
use crate::selection::select;
use crate::{RecoverySettings, Region, Result, Ties};

/// What is changed instead of what a recovery would change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Control {
    /// As many weights as given, drawn at random among those that a recovery's first step could
    /// choose: a descent step would move them towards the aligned value.
    Random {
        /// Number of weights.
        count: usize,
        /// Decides which.
        seed: u64,
    },
    /// As many weights of the region as given, those that differ most from the aligned model's.
    LargestDifference {
        /// Number of weights.
        count: usize,
    },
    /// Every weight of the region.
    FullRevert,
    /// All weights, norms included, at `aligned + lambda (fine_tuned - aligned)`.
    Interpolation {
        /// 0 is the aligned model, 1 the fine-tuned one.
        lambda: f64,
    },
}

/// A control arm's model, and the number of weights that were set to the aligned value
/// (none for an interpolation, which moves all of them).
///
/// `prompts` are the token ids of the recovery prompts; [`Control::Random`] alone reads them.
///
/// # Errors
/// When the models differ in shape, there is no prompt where one is needed, or a loss is not finite.
pub fn control(
    aligned: &Decoder,
    fine_tuned: &Decoder,
    prompts: &[Vec<u32>],
    settings: &RecoverySettings,
    control: Control,
) -> Result<(Decoder, Option<usize>)> {
    let layer = settings.layer.unwrap_or_else(|| default_layer(fine_tuned.config().num_hidden_layers));
    let mut region = Region::new(aligned, fine_tuned, layer)?;
    let (gradients, count) = match control {
        Control::Interpolation { lambda } => return Ok((interpolate(aligned, fine_tuned, lambda)?, None)),
        Control::FullRevert => (differences(&region), usize::MAX),
        Control::LargestDifference { count } => (differences(&region), count),
        Control::Random { count, seed } => {
            let direction = mean_direction(aligned, prompts, layer)?;
            let objective = Objective { rows: prompts.to_vec(), direction, layer, batch: settings.batch };
            let decoder = weights::track(fine_tuned.clone(), |info| is_in_region(info, layer));
            let mut gradients = HashMap::new();
            accumulate(&decoder, &objective, &mut gradients)?;
            shuffle_sizes(&region, &mut gradients, seed);
            (gradients, count)
        }
    };
    let selected = select(&candidates(&region, &region.aligned, &gradients), count, Ties::Exact);
    if count != usize::MAX && selected.len() < count {
        tracing::warn!("{control:?}: only {} weights can be restored", selected.len());
    }
    set(&mut region.values, &region.aligned, &selected.indices);
    Ok((region.write(fine_tuned.clone()), Some(selected.len())))
}

/// Fine-tuned minus aligned, in the place of a gradient: every weight that differs is a candidate,
/// ranked by its difference.
fn differences(region: &Region) -> HashMap<String, Vec<f32>> {
    let tensors = region.infos.iter().zip(region.fine_tuned.iter().zip(&region.aligned));
    let difference = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a - b).collect();
    tensors.map(|(info, pair)| (info.name.clone(), difference(pair))).collect()
}

/// Keeps the signs of the gradients, on which candidacy rests, and draws their sizes at random.
fn shuffle_sizes(region: &Region, gradients: &mut HashMap<String, Vec<f32>>, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for info in &region.infos {
        let Some(gradient) = gradients.get_mut(&info.name) else { continue };
        for value in gradient.iter_mut().filter(|value| **value != 0.0) {
            *value = rng.random_range(f32::MIN_POSITIVE..1.0).copysign(*value);
        }
    }
}

fn interpolate(aligned: &Decoder, fine_tuned: &Decoder, lambda: f64) -> Result<Decoder> {
    let mut aligned = weights::read(aligned, |_| true)?.into_iter();
    let mut tuned = weights::read(fine_tuned, |_| true)?.into_iter();
    let between = |(a, b): (f32, f32)| (f64::from(a) + lambda * (f64::from(b) - f64::from(a))) as f32;
    Ok(weights::replace(fine_tuned.clone(), |info| {
        let ((_, a), (_, b)) = (aligned.next()?, tuned.next()?);
        Some(TensorData::new(a.into_iter().zip(b).map(between).collect::<Vec<f32>>(), info.shape.clone()))
    }))
}
