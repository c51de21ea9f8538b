//! The settings of a recovery and the two profiles (METHOD.md sections 3 and 7).

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The settings of a recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoverySettings {
    /// Share of the hidden layers' parameters restored per step (recovery rate).
    pub rate: f64,
    /// Number of steps.
    pub steps: usize,
    /// Steps before the first decision on rollback.
    pub warmup: usize,
    /// A checkpoint every so many steps.
    pub save_every: usize,
    /// Share of the fine-tuned model's task score that may be lost.
    pub metric_drop: f64,
    /// Share of a step's restored weights that a rollback takes back (rollback rate).
    pub rollback_rate: f64,
    /// Prompts per batch of the cosine loss.
    pub batch: usize,
    /// The direction layer, counted from 1; floor(4/6 of the blocks) when not given.
    pub layer: Option<usize>,
    /// What happens to equal gradients at the threshold.
    pub ties: Ties,
    /// Whether gradients add up over the steps without rollback.
    pub gradient: GradientMode,
}

/// What happens to equal gradients at the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// Exactly k are restored; ties go by flat index.
    Exact,
    /// Those strictly above the k-th largest are restored: k - 1, and no tie (released code).
    Strict,
}

/// Whether gradients add up over the steps. With rollback on they are always fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientMode {
    /// The gradient is never zeroed (released code and paper).
    Cumulative,
    /// The gradient of each step stands alone.
    PerStep,
}

/// A named set of choices (METHOD.md section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// What we stand behind.
    #[default]
    Sound,
    /// The released code's choices.
    Released,
}

impl Profile {
    /// The tie rule of this profile.
    pub fn ties(self) -> Ties {
        match self {
            Self::Sound => Ties::Exact,
            Self::Released => Ties::Strict,
        }
    }
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            rate: 0.002,
            steps: 20,
            warmup: 5,
            save_every: 5,
            metric_drop: 0.05,
            rollback_rate: 0.2,
            batch: 8,
            layer: None,
            ties: Ties::Exact,
            gradient: GradientMode::Cumulative,
        }
    }
}

impl RecoverySettings {
    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        let share = |key, value: f64| {
            let reason = format!("{value} is not between 0 and 1");
            if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::Setting { key, reason }) }
        };
        share("rate", self.rate)?;
        share("metric_drop", self.metric_drop)?;
        share("rollback_rate", self.rollback_rate)?;
        let counts =
            [("steps", self.steps), ("save_every", self.save_every), ("batch", self.batch), ("warmup", self.warmup)];
        match counts.into_iter().find(|&(_, value)| value == 0) {
            Some((key, _)) => Err(Error::Setting { key, reason: "0 is too few; at least 1".into() }),
            None => Ok(()),
        }
    }
}
