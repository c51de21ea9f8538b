//! Distillation: all weights of the blocks learn what a strong recovery restores single weights for. Not in the paper; the
//! control arm that says what the sparse form costs or gains.

use std::time::Instant;

use burn::tensor::TensorData;
use model::Decoder;
use model::weights::{self, WeightInfo};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{check_counts, check_not_negative};
use crate::objective::Objective;
use crate::region::{Members, check_same_shape};
use crate::trace::DistillTrace;
use crate::{Error, Inputs, Knob, Needs, Outcome, Repair, Repaired, Result, Trace};

/// Adam (Kingma and Ba 2015) from the fine-tuned model on the loss whose gradient strong recovery sorts weights by. Norms,
/// embeddings and head stay.
///
/// # Mathematical Definition
/// The loss is `KL(aligned || model) + mu KL(reference || model) + lambda T` on harmful, harmless and task prompts, each a
/// mean over answer tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Distill {
    /// Number of updates.
    #[arg(long, default_value_t = Self::default().steps)]
    pub steps: usize,
    /// Learning rate, the same in all updates.
    #[arg(long, default_value_t = Self::default().learning_rate)]
    pub learning_rate: f64,
    /// Weight of the divergence on the task's samples.
    #[arg(long, default_value_t = Self::default().lambda)]
    pub lambda: f64,
    /// Harmful prompts, and as many harmless ones, that give the gradient of a step; twice as many samples of the task do.
    #[arg(long, default_value_t = Self::default().drawn)]
    pub drawn: usize,
}

impl Default for Distill {
    fn default() -> Self {
        Self { steps: 20, learning_rate: 1e-4, lambda: 10.0, drawn: 64 }
    }
}

impl Repair for Distill {
    fn needs(&self) -> Needs {
        Needs { evidence: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_not_negative(&[("learning_rate", self.learning_rate), ("lambda", self.lambda)])?;
        check_counts(&[("steps", self.steps), ("drawn", self.drawn)])
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "learning_rate", values: &[2e-5, 1e-4, 2e-4, 5e-4, 1e-3] })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let start = Instant::now();
        let evidence = inputs.evidence(Self::WORD)?;
        evidence.harmful_train(Self::WORD)?;
        let Inputs { aligned, fine_tuned, .. } = inputs;
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), |info| info.layer.is_some())?;
        let members = Members::of_all_blocks(fine_tuned);
        let read = weights::read(fine_tuned, |info| members.has(info))?;
        let mut objective = Objective::new(&inputs, evidence, members, self.lambda, self.drawn);
        let (infos, mut values): (Vec<_>, Vec<Vec<f32>>) = read.into_iter().unzip();
        let mut moments: Vec<Moments> = values.iter().map(|values| Moments::new(values.len())).collect();
        let mut losses = Vec::new();
        for step in 1..=self.steps {
            let decoder = with_values(fine_tuned.clone(), &infos, &values);
            let (gradients, loss) = objective.gradient(decoder, step - 1)?;
            losses.push(loss);
            for ((info, values), moments) in infos.iter().zip(&mut values).zip(&mut moments) {
                if let Some(gradient) = gradients.get(&info.name) {
                    moments.update(values, gradient, self.learning_rate, step);
                }
            }
            let word = format!("loss {:.3}: harmful {:.3}, harmless {:.3}", loss.loss, loss.harmful, loss.harmless);
            if (inputs.report)(step, self.steps, &word).is_break() {
                return Err(Error::Stopped);
            }
        }
        let trained = values.iter().map(Vec::len).sum();
        let trace = DistillTrace { trained, total_s: start.elapsed().as_secs_f64(), losses };
        Ok(Repaired {
            decoder: with_values(fine_tuned.clone(), &infos, &values),
            path: None,
            restored: None,
            outcome: Outcome::Changed,
            trace: Some(Trace::Distill(trace)),
        })
    }
}

/// `decoder` with these values, by tensor in the checkpoint's order.
fn with_values(decoder: Decoder, infos: &[WeightInfo], values: &[Vec<f32>]) -> Decoder {
    let mut next = infos.iter().zip(values).peekable();
    weights::replace(decoder, |info| {
        let (_, values) = next.next_if(|(own, _)| own.name == info.name)?;
        Some(TensorData::new(values.clone(), info.shape.clone()))
    })
}

/// Decay of Adam's first moment.
const BETA1: f64 = 0.9;
/// Decay of Adam's second moment.
const BETA2: f64 = 0.999;
/// Added to the root of the second moment.
const EPSILON: f64 = 1e-8;

/// Adam's moments of one tensor.
#[derive(Debug)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// One update, `step` counted from 1.
    ///
    /// # Mathematical Definition
    /// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `w -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)`
    fn update(&mut self, values: &mut [f32], gradient: &[f32], rate: f64, step: usize) {
        let [correction1, correction2] = [BETA1, BETA2].map(|beta| 1.0 - beta.powf(step as f64));
        let moments = self.first.par_iter_mut().zip(&mut self.second);
        values.par_iter_mut().zip(gradient).zip(moments).with_min_len(1 << 14).for_each(|((value, &g), (m, v))| {
            let g = f64::from(g);
            let first = BETA1 * f64::from(*m) + (1.0 - BETA1) * g;
            let second = BETA2 * f64::from(*v) + (1.0 - BETA2) * g * g;
            (*m, *v) = (first as f32, second as f32);
            let move_by = rate * (first / correction1) / ((second / correction2).sqrt() + EPSILON);
            *value = (f64::from(*value) - move_by) as f32;
        });
    }
}
