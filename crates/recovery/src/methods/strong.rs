//! Strong recovery, our extension of the paper's method (METHOD.md section 10): sparse weights go back to their aligned
//! values, or forth again, in the order of what that gains on harmful prompts, harmless prompts and the task together over
//! what it costs to second order; how many is decided on prompts that are held out.

mod run;
mod sides;

use serde::{Deserialize, Serialize};

use crate::error::{check_counts, check_not_negative, check_rate, check_share};
use crate::{Error, Inputs, Needs, Repair, Repaired, Result};

/// The settings of a strong recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Strong {
    /// Weight of the task's divergence in the order of the weights.
    #[arg(long, default_value_t = Self::default().lambda)]
    pub lambda: f64,
    /// Share of a round's gradient that is of the rounds before: one round's prompts are few.
    #[arg(long, default_value_t = Self::default().momentum)]
    pub momentum: f64,
    /// Share of the hidden layers' parameters that a round tries first; it is doubled or halved from there.
    #[arg(long, default_value_t = Self::default().rate)]
    pub rate: f64,
    /// Share of the hidden layers' parameters that may be restored, unless that leaves more harm than the bound allows.
    #[arg(long, default_value_t = Self::default().cap)]
    pub cap: f64,
    /// Share that may be restored at most: a cap that is reached while more harm is left than the bound allows is doubled, up to
    /// this.
    #[arg(long, default_value_t = Self::default().max_cap)]
    pub max_cap: f64,
    /// Rounds at most, from the start and from each doubling of the cap.
    #[arg(long, default_value_t = Self::default().rounds)]
    pub rounds: usize,
    /// Rounds in a row of little gain after which it stops, once no more harm is left than the bound allows.
    #[arg(long, default_value_t = Self::default().patience)]
    pub patience: usize,
    /// What is little gain, as a share of the divergence that is left.
    #[arg(long, default_value_t = Self::default().tolerance)]
    pub tolerance: f64,
    /// Harmful prompts, and as many harmless ones, that give the gradient of a round; twice as many samples of the task do.
    #[arg(long, default_value_t = Self::default().drawn)]
    pub drawn: usize,
    /// Norms, the embedding and the head may be restored as well, where they differ: what fine-tuning all weights moves, or an
    /// attacker who knows that blocks alone are restored. Where it is not said they may not; a whole repair sets it.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_tensors: Option<bool>,
}

impl Default for Strong {
    fn default() -> Self {
        Self {
            lambda: 10.0,
            momentum: 0.5,
            rate: 0.001,
            cap: 0.04,
            max_cap: 0.5,
            rounds: 12,
            patience: 2,
            tolerance: 0.02,
            drawn: 64,
            all_tensors: None,
        }
    }
}

impl Repair for Strong {
    fn needs(&self) -> Needs {
        Needs { evidence: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_rate("rate", self.rate)?;
        check_rate("cap", self.cap)?;
        check_rate("max_cap", self.max_cap)?;
        if self.max_cap < self.cap {
            let reason = format!("{} is less than cap, {}; make it at least that", self.max_cap, self.cap);
            return Err(Error::Setting { key: "max_cap", reason });
        }
        check_share("momentum", self.momentum)?;
        check_not_negative(&[("lambda", self.lambda), ("tolerance", self.tolerance)])?;
        check_counts(&[("rounds", self.rounds), ("patience", self.patience), ("drawn", self.drawn)])
    }

    fn has_patch(&self) -> bool {
        true
    }

    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        run::recover(self, inputs)
    }
}
