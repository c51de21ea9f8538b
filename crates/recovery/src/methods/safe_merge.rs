//! SafeMERGE (Djuhera et al. 2025, "SafeMERGE: Preserving Safety Alignment in Fine-Tuned Large Language Models via Selective
//! Layer-Wise Model Merging"): a comparison that merges with a safe model, the aligned one after fine-tuning on refusals of
//! harmful prompts and answers to harmless ones. How the safe model is made is not done here.
//!
//! On whole weights: where the released code merges the two factors of adapters, each by itself, here what they make
//! is merged, without the cross terms.

use model::{Decoder, weights};
use serde::{Deserialize, Serialize};

use crate::drift::{Module, Projector, change, modules};
use crate::error::check_share;
use crate::projections::is_projection;
use crate::region::check_same_shape;
use crate::repair::Visit;
use crate::{Inputs, Knob, Needs, Repair, Repaired, Result};

/// Modules where fine-tuning changed least of what alignment changed are merged with the safe model's.
///
/// # Mathematical Definition
/// `W0 + w (W - W0) + (1 - w) (Ws - W0)` for a weight matrix with `cos(C (W - W0), W - W0) < threshold`, of the aligned
/// model `W0`, the fine-tuned model `W` and the safe model `Ws`, with `C` of [`Projector::Released`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct SafeMerge {
    /// Merge the modules whose cosine is below this.
    #[arg(long, default_value_t = Self::default().threshold)]
    pub threshold: f64,
    /// Weight of what fine-tuning changed; the rest is the safe model's.
    #[arg(long, default_value_t = Self::default().weight)]
    pub weight: f64,
}

impl Default for SafeMerge {
    fn default() -> Self {
        Self { threshold: 0.35, weight: 0.8 }
    }
}

impl Repair for SafeMerge {
    fn needs(&self) -> Needs {
        Needs { base: true, safe: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_share("threshold", self.threshold)?;
        check_share("weight", self.weight)
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "threshold", values: VALUES })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        Ok(self.merged(inputs.fine_tuned, &self.modules(&inputs)?))
    }

    fn sweep(&self, inputs: &mut Inputs<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.check()?;
        let modules = self.modules(inputs)?;
        for &threshold in VALUES {
            let settings = Self { threshold, ..*self };
            visit(settings.merged(inputs.fine_tuned, &modules), inputs.report)?;
        }
        Ok(true)
    }
}

const VALUES: &[f64] = &[0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

impl SafeMerge {
    /// The modules, each with what it is when it is merged.
    fn modules(&self, inputs: &Inputs<'_>) -> Result<Vec<Module>> {
        let safe = inputs.safe(Self::WORD)?;
        check_same_shape(("aligned", inputs.aligned), ("safe", safe), is_projection)?;
        let safe = weights::read(safe, is_projection)?;
        modules(Self::WORD, inputs, Projector::Released, |module| {
            let merged = |((&w, drift), &safe): ((&f32, &f64), &f32)| {
                let w = f64::from(w);
                (w + self.weight * drift + (1.0 - self.weight) * (f64::from(safe) - w)) as f32
            };
            module.aligned.iter().zip(module.drift).zip(&safe[module.place].1).map(merged).collect()
        })
    }

    /// The fine-tuned model with those merged that the threshold selects.
    fn merged(&self, fine_tuned: &Decoder, modules: &[Module]) -> Repaired {
        change(fine_tuned, modules, Some(self.threshold), |cosine| cosine < self.threshold)
    }
}
