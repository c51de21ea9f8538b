//! Recovery: weights whose descent step would move them towards the aligned model are restored to it, the largest
//! gradients first (paper section IV; METHOD.md section 3). The settings are here, the algorithm in
//! `run.rs`.

mod progress;
mod rollback;
mod run;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use progress::Progress;
use serde::{Deserialize, Serialize};

use crate::error::{check_counts, check_rate, check_share};
use crate::{Inputs, Knob, Layer, Needs, Repair, Repaired, Result, Ties};

/// The settings of a recovery; defaults are the paper's where METHOD.md section 7 does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Recover {
    /// Share of the hidden layers' parameters restored per step (recovery rate).
    #[arg(long, default_value_t = Self::default().rate)]
    pub rate: f64,
    /// Number of steps.
    #[arg(long, default_value_t = Self::default().steps)]
    pub steps: usize,
    /// Steps before the first decision on rollback.
    #[arg(long, default_value_t = Self::default().warmup)]
    pub warmup: usize,
    /// A checkpoint every so many steps.
    #[arg(long, default_value_t = Self::default().save_every)]
    pub save_every: usize,
    /// Share of the fine-tuned model's task score that may be lost.
    #[arg(long, default_value_t = Self::default().metric_drop)]
    pub metric_drop: f64,
    /// Share of a step's restored weights that a rollback takes back (rollback rate).
    #[arg(long, default_value_t = Self::default().rollback_rate)]
    pub rollback_rate: f64,
    /// When steps are followed by a rollback.
    #[arg(long, value_enum, default_value_t = Self::default().rollback)]
    pub rollback: Rollback,
    /// Prompts per batch of the cosine loss.
    #[arg(long, default_value_t = Self::default().batch)]
    pub batch: usize,
    /// The direction layer: a share of the blocks such as 4/6, or a block's number from 1.
    #[arg(long, default_value_t = Self::default().layer)]
    pub layer: Layer,
    /// What happens to equal gradients at the threshold.
    #[arg(long, value_enum, default_value_t = Self::default().ties)]
    pub ties: Ties,
    /// Whether gradients add up over the steps without rollback.
    #[arg(long, value_enum, default_value_t = Self::default().gradient)]
    pub gradient: GradientMode,
}

/// When steps are followed by a rollback half-step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Rollback {
    /// The task's score decides, and the answer with it (METHOD.md section 3, Flow); without a score as `off`.
    Auto,
    /// In every step; all steps are done, whatever the score.
    On,
    /// In no step; all steps are done, whatever the score.
    Off,
}

/// Whether gradients add up over the steps. With rollback on they are always fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum GradientMode {
    /// The gradient is never zeroed (released code and paper).
    Cumulative,
    /// Each step has its own gradient.
    PerStep,
}

impl Default for Recover {
    fn default() -> Self {
        Self {
            rate: 0.002,
            steps: 20,
            warmup: 5,
            save_every: 5,
            metric_drop: 0.05,
            rollback_rate: 0.2,
            rollback: Rollback::Auto,
            batch: 8,
            layer: Layer::default(),
            ties: Ties::Exact,
            gradient: GradientMode::Cumulative,
        }
    }
}

impl Repair for Recover {
    fn needs(&self) -> Needs {
        Needs { prompts: true, task_prompts: self.rollback != Rollback::Off, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_rate("rate", self.rate)?;
        check_share("metric_drop", self.metric_drop)?;
        check_share("rollback_rate", self.rollback_rate)?;
        let Self { steps, save_every, batch, warmup, .. } = *self;
        check_counts(&[("steps", steps), ("save_every", save_every), ("batch", batch), ("warmup", warmup)])
    }

    fn has_patch(&self) -> bool {
        true
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "steps", values: &[] })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        run::recover(self, inputs)
    }
}
