//! RESTA (Bhardwaj et al. 2024, "Language Models are Homer Simpson!"): the paper's baseline after training
//! (METHOD.md section 5).
//!
//! A safety vector, what the aligned model has and one made unaligned on purpose lacks, is added to all
//! weights of the fine-tuned model: embeddings, norms and head too. With DARE (Yu et al. 2024) what
//! fine-tuning changed is thinned out first, as that paper's RESTA_d does; the safety vector is not
//! thinned. How the unaligned model is made is not done here.

use burn::tensor::TensorData;
use model::{Decoder, weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::region::check_same_shape;
use crate::{Error, Result};

/// Settings of RESTA.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestaSettings {
    /// How much of the safety vector is added. Paper: 1.0.
    pub gamma: f64,
    /// Probability with which DARE drops an element of what fine-tuning changed; 0 is off. Paper: off.
    pub dare: f64,
}

impl Default for RestaSettings {
    fn default() -> Self {
        Self { gamma: 1.0, dare: 0.0 }
    }
}

impl RestaSettings {
    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        let error = |key, reason: String| Err(Error::Setting { key, reason });
        if !self.gamma.is_finite() {
            return error("gamma", format!("{} is not a finite number", self.gamma));
        }
        if !(0.0..1.0).contains(&self.dare) {
            return error("dare", format!("{} is not at least 0 and below 1", self.dare));
        }
        Ok(())
    }
}

/// The fine-tuned model with the safety vector added; `seed` decides what DARE drops.
///
/// # Mathematical Definition
/// `theta + gamma (aligned - unaligned)`. With DARE, `theta` is first replaced by
/// `aligned + m (theta - aligned) / (1 - dare)`, where each element of `m` is 0 with probability `dare`
/// and else 1, so that the expectation is `theta`.
///
/// # Errors
/// When a setting is out of its range, the models differ in shape, or the device fails.
pub fn resta(
    fine_tuned: &Decoder,
    aligned: &Decoder,
    unaligned: &Decoder,
    settings: &RestaSettings,
    seed: u64,
) -> Result<Decoder> {
    settings.check()?;
    check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned))?;
    check_same_shape(("aligned", aligned), ("unaligned", unaligned))?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut thinned = |aligned: f64, theta: f64| match settings.dare {
        0.0 => theta,
        dare if rng.random_bool(dare) => aligned,
        dare => aligned + (theta - aligned) / (1.0 - dare),
    };
    let read = |decoder| weights::read(decoder, |_| true);
    let mut models = read(fine_tuned)?.into_iter().zip(read(aligned)?).zip(read(unaligned)?);
    Ok(weights::replace(fine_tuned.clone(), |info| {
        let (((_, theta), (_, aligned)), (_, unaligned)) = models.next()?;
        let values = theta.into_iter().zip(aligned).zip(unaligned).map(|((theta, aligned), unaligned)| {
            let [theta, aligned, unaligned] = [theta, aligned, unaligned].map(f64::from);
            (thinned(aligned, theta) + settings.gamma * (aligned - unaligned)) as f32
        });
        Some(TensorData::new(values.collect::<Vec<f32>>(), info.shape.clone()))
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_named() {
        let message = |settings: RestaSettings| settings.check().unwrap_err().to_string();
        assert!(message(RestaSettings { dare: 1.0, ..Default::default() }).contains("`dare`: 1 is not"));
        assert!(message(RestaSettings { gamma: f64::NAN, ..Default::default() }).contains("`gamma`: NaN"));
        assert!(RestaSettings::default().check().is_ok());
    }
}
