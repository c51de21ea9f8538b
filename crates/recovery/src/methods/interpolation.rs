//! The control arm between the two models. Not in the paper.

use burn::tensor::TensorData;
use model::weights;
use serde::{Deserialize, Serialize};

use crate::error::check_share;
use crate::region::read_like;
use crate::{Inputs, Knob, Needs, Outcome, Repair, Repaired, Result};

/// All weights, norms included, are set to `aligned + lambda (fine_tuned - aligned)`; tokens that only the fine-tuned model
/// has keep theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Interpolation {
    /// Where between the models: 0 is the aligned one, 1 the fine-tuned one.
    #[arg(long, default_value_t = Self::default().lambda)]
    pub lambda: f64,
}

impl Default for Interpolation {
    fn default() -> Self {
        Self { lambda: 0.5 }
    }
}

impl Repair for Interpolation {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn check(&self) -> Result<()> {
        check_share("lambda", self.lambda)
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "lambda", values: &[0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0] })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let mut aligned = read_like(("aligned", inputs.aligned), ("fine-tuned", inputs.fine_tuned))?.into_iter();
        let mut tuned = weights::read(inputs.fine_tuned, |_| true)?.into_iter();
        let between = |a: f32, b: f32| (f64::from(a) + self.lambda * (f64::from(b) - f64::from(a))) as f32;
        let decoder = weights::replace(inputs.fine_tuned.clone(), |info| {
            let ((_, a), (_, mut b)) = (aligned.next()?, tuned.next()?);
            b.iter_mut().zip(a).for_each(|(b, a)| *b = between(a, *b));
            Some(TensorData::new(b, info.shape.clone()))
        });
        Ok(Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: None })
    }
}
