//! The settings of a training run and what values they may have.

use serde::{Deserialize, Serialize};

use crate::lora::LoraSettings;
use crate::{Error, Result};

/// Settings of a training run. The defaults are the paper's where it gives one (METHOD.md section 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Passes over the data. Paper: 1.
    pub epochs: usize,
    /// Samples per step; the last batch of an epoch may be smaller. Not given by the paper.
    pub batch: usize,
    /// Learning rate after the warm-up. Paper: 2e-5 in its configurations, 1e-4 in its released paths.
    pub learning_rate: f64,
    /// Steps of linear warm-up, the first of them at 1/n of the rate; 0 is a constant rate, as in the paper.
    pub warmup_steps: usize,
    /// AdamW's decoupled weight decay. Paper: 0.
    pub weight_decay: f64,
    /// AdamW's decay rates of the two moments.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Largest norm of the whole gradient; a larger one is scaled down to it. Off by default.
    pub max_grad_norm: Option<f64>,
    /// Longer samples are dropped and counted. Paper: 512.
    pub max_len: usize,
    /// Decides the order of the samples, the adapters' start and the dropout.
    pub seed: u64,
    /// Steps between two checkpoints, where a checkpoint file is given.
    pub save_every: usize,
    /// What is trained.
    pub method: Method,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// Low-rank adapters, merged into the dense weights at the end.
    Lora(LoraSettings),
    /// All weights.
    Full,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch: 8,
            learning_rate: 1e-4,
            warmup_steps: 0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            max_grad_norm: None,
            max_len: 512,
            seed: 0,
            save_every: 50,
            method: Method::Lora(LoraSettings::default()),
        }
    }
}

impl TrainSettings {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// Names the first setting that does not.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [("epochs", self.epochs), ("batch", self.batch), ("save_every", self.save_every)] {
            require(value > 0, key, value, "must be at least 1")?;
        }
        require(self.max_len > 1, "max_len", self.max_len, "must be at least 2")?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        require(positive(self.learning_rate), "learning_rate", self.learning_rate, "must be above 0")?;
        require(positive(self.epsilon), "epsilon", self.epsilon, "must be above 0")?;
        require(
            self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
            "weight_decay",
            self.weight_decay,
            "must not be below 0",
        )?;
        for beta in self.betas {
            require((0.0..1.0).contains(&beta), "betas", beta, "must be at least 0 and below 1")?;
        }
        if let Some(norm) = self.max_grad_norm {
            require(positive(norm), "max_grad_norm", norm, "must be above 0; leave it out for no clipping")?;
        }
        match &self.method {
            Method::Lora(lora) => lora.check(),
            Method::Full => Ok(()),
        }
    }

    /// The learning rate of the `step`-th update, from 0.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64
        } else {
            self.learning_rate
        }
    }
}

/// An [`Error::Setting`] unless `fine`.
pub(crate) fn require(fine: bool, key: &'static str, value: impl ToString, reason: &'static str) -> Result<()> {
    match fine {
        true => Ok(()),
        false => Err(Error::Setting { key, value: value.to_string(), reason }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_take_the_default() {
        let settings: TrainSettings =
            serde_json::from_str(r#"{"batch": 4, "method": {"lora": {"rank": 16}}}"#).unwrap();
        let lora = LoraSettings { rank: 16, ..LoraSettings::default() };
        assert_eq!(settings, TrainSettings { batch: 4, method: Method::Lora(lora), ..TrainSettings::default() });
        let full: TrainSettings = serde_json::from_str(r#"{"method": "full"}"#).unwrap();
        assert_eq!(full.method, Method::Full);
        let error = serde_json::from_str::<TrainSettings>(r#"{"bach": 4}"#).unwrap_err().to_string();
        assert!(error.contains("bach"), "{error}");
        assert!(serde_json::from_str::<TrainSettings>(r#"{"method": {"lora": {"targets": ["lm_head"]}}}"#).is_err());
    }

    #[test]
    fn senseless_values_are_named() {
        let message = |settings: TrainSettings| settings.check().unwrap_err().to_string();
        assert_eq!(
            message(TrainSettings { batch: 0, ..Default::default() }),
            "setting `batch` = 0: must be at least 1"
        );
        let nan = TrainSettings { learning_rate: f64::NAN, ..Default::default() };
        assert_eq!(message(nan), "setting `learning_rate` = NaN: must be above 0");
        let lora = LoraSettings { dropout: 1.0, ..Default::default() };
        let dropout = TrainSettings { method: Method::Lora(lora), ..Default::default() };
        assert!(message(dropout).contains("`dropout` = 1"));
        assert!(TrainSettings::default().check().is_ok());
    }

    #[test]
    fn warm_up_is_linear_and_then_constant() {
        let settings = TrainSettings { warmup_steps: 4, learning_rate: 1.0, ..Default::default() };
        let rates: Vec<f64> = (0..6).map(|step| settings.learning_rate_at(step)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(TrainSettings { learning_rate: 0.5, ..Default::default() }.learning_rate_at(0), 0.5);
    }
}
