//! Safe LoRA (Hsu et al. 2024, "Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning Large Language
//! Models"): a comparison that needs no data, but the model before alignment.
//!
//! On whole weights: of an adapter `B A` it is the same as `B <- C B`. The released code counts the modules that it projects,
//! 10 of those with an adapter; here it is a share of all, since a count would say something else in each model. Where
//! that code pairs modules of the two models by order, here it is by name.

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::drift::{Module, Projector, change, modules};
use crate::error::check_share;
use crate::repair::Visit;
use crate::{Inputs, Knob, Needs, Repair, Repaired, Result};

/// What fine-tuning changed is projected to where alignment changed the model, in the modules where they differ most.
///
/// # Mathematical Definition
/// `W0 + C (W - W0)` for a weight matrix with `cos(C (W - W0), W - W0) <= tau`, of the aligned model `W0` and the fine-tuned
/// model `W`; see [`Projector`] for `C`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct SafeLora {
    /// Share of the modules that are projected, those of the smallest cosines, and all that tie with the last.
    #[arg(long, default_value_t = Self::default().share)]
    pub share: f64,
    /// Project the modules whose cosine is at most this, in place of a share.
    #[arg(long)]
    pub threshold: Option<f64>,
    /// The matrix that projects.
    #[arg(long, value_enum, default_value_t = Self::default().projector)]
    pub projector: Projector,
}

impl Default for SafeLora {
    /// The released code's count, of the query and value projections of 32 blocks.
    fn default() -> Self {
        Self { share: 10.0 / 64.0, threshold: None, projector: Projector::Released }
    }
}

impl Repair for SafeLora {
    fn needs(&self) -> Needs {
        Needs { base: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_share("share", self.share)?;
        self.threshold.map_or(Ok(()), |threshold| check_share("threshold", threshold))
    }

    fn knob(&self) -> Option<Knob> {
        let key = if self.threshold.is_some() { "threshold" } else { "share" };
        Some(Knob { key, values: VALUES })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        Ok(self.projected(inputs.fine_tuned, &self.modules(&inputs)?))
    }

    fn sweep(&self, inputs: &mut Inputs<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.check()?;
        let modules = self.modules(inputs)?;
        for &value in VALUES {
            let settings = match self.threshold {
                Some(_) => Self { threshold: Some(value), ..*self },
                None => Self { share: value, ..*self },
            };
            visit(settings.projected(inputs.fine_tuned, &modules), inputs.report)?;
        }
        Ok(true)
    }
}

const VALUES: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

impl SafeLora {
    /// The modules, each with what it is when it is projected.
    fn modules(&self, inputs: &Inputs<'_>) -> Result<Vec<Module>> {
        modules(Self::WORD, inputs, self.projector, |module| {
            module.aligned.iter().zip(module.projected).map(|(&w, cd)| (f64::from(w) + cd) as f32).collect()
        })
    }

    /// The fine-tuned model with those projected that the share or the threshold selects.
    fn projected(&self, fine_tuned: &Decoder, modules: &[Module]) -> Repaired {
        let tau = self.threshold.or_else(|| {
            let mut cosines: Vec<f64> = modules.iter().map(|module| module.cosine).collect();
            cosines.sort_by(f64::total_cmp);
            let count = (self.share * cosines.len() as f64).round() as usize;
            cosines.get(count.checked_sub(1)?).copied()
        });
        change(fine_tuned, modules, tau, |cosine| tau.is_some_and(|tau| cosine <= tau))
    }
}
