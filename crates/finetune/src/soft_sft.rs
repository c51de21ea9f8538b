//! SoftSFT (Qi et al. 2025, "Safety Alignment Should Be Made More Than Just a Few Tokens Deep"): the
//! paper's training-time baseline (METHOD.md section 5).
//!
//! A response token that the model has already made likelier than the aligned model does counts less, the
//! more so among the first ones, where a refusal is decided. The aligned model's log-probabilities come
//! from `reference.rs`, the training from `runs.rs`.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::{Error, Result, TrainBatch};

/// The last response token, counted from 1, that [`SoftSftSettings::beta_early`] holds for.
const LAST_EARLY: usize = 5;

/// Settings of SoftSFT; t counts the response tokens of a sample from 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct SoftSftSettings {
    /// How strongly the first response token is held (beta_1). Paper: 0.5.
    #[arg(long, default_value_t = Self::default().beta_first)]
    pub beta_first: f64,
    /// How strongly the second to the fifth are held. Paper: 2.0.
    #[arg(long, default_value_t = Self::default().beta_early)]
    pub beta_early: f64,
    /// How strongly all later ones are held. Paper: 0.1.
    #[arg(long, default_value_t = Self::default().beta_later)]
    pub beta_later: f64,
    /// The least weight of a token. Paper: 1e-3.
    #[arg(long, default_value_t = Self::default().min_weight)]
    pub min_weight: f64,
}

impl Default for SoftSftSettings {
    fn default() -> Self {
        Self { beta_first: 0.5, beta_early: 2.0, beta_later: 0.1, min_weight: 1e-3 }
    }
}

impl SoftSftSettings {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// Names the first setting that does not.
    pub fn check(&self) -> Result<()> {
        let betas = [("beta_first", self.beta_first), ("beta_early", self.beta_early), ("beta_later", self.beta_later)];
        for (key, beta) in betas {
            require(beta >= 0.0 && beta.is_finite(), key, beta, "must not be below 0")?;
        }
        require((0.0..=1.0).contains(&self.min_weight), "min_weight", self.min_weight, "must be between 0 and 1")
    }

    /// The same, with each beta so many times as large.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let Self { beta_first, beta_early, beta_later, min_weight } = self;
        let [beta_first, beta_early, beta_later] = [beta_first, beta_early, beta_later].map(|beta| factor * beta);
        Self { beta_first, beta_early, beta_later, min_weight }
    }

    /// The weight of response token `t` in the loss, given `log p_theta - log p_aligned`.
    ///
    /// # Mathematical Definition
    /// `w_t = max(min_weight, 2 (1 - sigmoid(beta_t log_ratio)))`: 1 where the two models agree.
    pub fn weight(&self, t: usize, log_ratio: f64) -> f64 {
        let beta = match t {
            ..=1 => self.beta_first,
            2..=LAST_EARLY => self.beta_early,
            _ => self.beta_later,
        };
        // 1 - sigmoid(x) = sigmoid(-x), which does not cancel.
        (2.0 / (1.0 + (beta * log_ratio).exp())).max(self.min_weight)
    }
}

/// The loss of a batch from the `losses` (-log p_theta) of its response tokens, what the aligned model
/// gives to them (log p_aligned) and their numbers `t` within their samples.
///
/// # Mathematical Definition
/// `1/N sum_t -w_t log p_theta(y_t)`; no gradient flows through `w_t`.
///
/// # Shapes
/// - losses: `[tokens]`, output: `[1]`
///
/// # Errors
/// When the device fails.
///
/// # Panics
/// When there is not one reference and one number per token: an error of the caller.
pub fn loss(losses: Tensor<1>, aligned: &[f32], t: &[usize], settings: &SoftSftSettings) -> Result<Tensor<1>> {
    let [tokens] = losses.dims();
    assert!(aligned.len() == tokens && t.len() == tokens, "one reference and one number per response token");
    // Read to the host, so nothing ties the weights to the gradient.
    let own: Vec<f32> = losses.clone().try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?;
    let log_ratio = |(&loss, &aligned): (&f32, &f32)| -f64::from(loss) - f64::from(aligned);
    let ratios = own.iter().zip(aligned).map(log_ratio);
    let weights: Vec<f32> = t.iter().zip(ratios).map(|(&t, ratio)| settings.weight(t, ratio) as f32).collect();
    let weights = Tensor::from_data(TensorData::new(weights, [tokens]), &losses.device());
    Ok((losses * weights).mean())
}

/// What the aligned model gives to each target of `batch`; `reference` holds it by sample and token.
pub(crate) fn reference_of(batch: &TrainBatch, reference: &[&[f32]]) -> Result<Vec<f32>> {
    let of = |(&sample, &t): (&usize, &usize)| {
        let value = reference.get(sample).and_then(|values| values.get(t - 1)).copied();
        value.ok_or(Error::NoReference { example: sample })
    };
    batch.sample_of.iter().zip(&batch.token_of).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_weighs_one_where_the_models_agree_and_less_the_likelier_it_has_become() {
        let settings = SoftSftSettings::default();
        for t in [1, 2, 5, 6, 100] {
            assert_eq!(settings.weight(t, 0.0), 1.0);
            assert!(settings.weight(t, 1.0) < 1.0 && settings.weight(t, -1.0) > 1.0);
        }
        // The second to the fifth are held most, the later ones hardly.
        let at = |t| settings.weight(t, 1.0);
        assert!(at(2) == at(5) && at(5) < at(1) && at(1) < at(6) && at(6) == at(7));
    }

    #[test]
    fn the_weight_stays_finite_and_above_its_floor() {
        let settings = SoftSftSettings::default();
        assert_eq!(settings.weight(3, 1e6), 1e-3);
        assert_eq!(settings.weight(3, -1e6), 2.0);
    }

    #[test]
    fn senseless_settings_are_named() {
        let message = |settings: SoftSftSettings| settings.check().unwrap_err().to_string();
        assert!(message(SoftSftSettings { beta_early: -1.0, ..Default::default() }).contains("`beta_early` = -1"));
        assert!(message(SoftSftSettings { min_weight: 2.0, ..Default::default() }).contains("`min_weight` = 2"));
        assert!(SoftSftSettings::default().check().is_ok());
    }
}
