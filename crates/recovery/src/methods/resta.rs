//! RESTA (Bhardwaj et al. 2024, "Language Models are Homer Simpson!"): the paper's baseline after training
//! (METHOD.md section 5).
//!
//! A safety vector, what the aligned model has and one made unaligned on purpose lacks, is added to all
//! weights of the fine-tuned model: embeddings, norms and head too. With DARE (Yu et al. 2024) what
//! fine-tuning changed is thinned out first, as that paper's RESTA_d does; the safety vector is not
//! thinned. With a rank only the largest singular directions of the vector are added, as LoX does (Perin et al. 2025). How the unaligned model is made is not done here.

use burn::tensor::TensorData;
use model::weights::{self, WeightInfo};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::check_counts;
use crate::matrix::{cut_to_rank, matrix, values};
use crate::projections::is_projection;
use crate::region::{check_same_shape, read_like};
use crate::repair::Visit;
use crate::{Error, Inputs, Knob, Needs, Outcome, Repair, Repaired, Result};

/// The fine-tuned model with the safety vector added.
///
/// # Mathematical Definition
/// `theta + gamma (aligned - unaligned)`. With DARE, `theta` is first replaced by
/// `aligned + m (theta - aligned) / (1 - dare)`, where each element of `m` is 0 with probability `dare`
/// and else 1, so that the expectation is `theta`. With a rank, `aligned - unaligned` of each linear layer of a block is
/// replaced by the nearest matrix of that rank. Tokens that one of the models lacks keep the fine-tuned values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Resta {
    /// How much of the safety vector, aligned - unaligned, is added. Paper: 1.
    #[arg(long, allow_negative_numbers = true, default_value_t = Self::default().gamma)]
    pub gamma: f64,
    /// Probability with which DARE drops an element of what fine-tuning changed; 0 is off. Paper: off.
    #[arg(long, default_value_t = Self::default().dare)]
    pub dare: f64,
    /// Rank of the safety vector in each linear layer of a block [default: all of it]. Paper: all of it.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for Resta {
    fn default() -> Self {
        Self { gamma: 1.0, dare: 0.0, rank: None }
    }
}

impl Repair for Resta {
    fn needs(&self) -> Needs {
        Needs { unaligned: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        let error = |key, reason: String| Err(Error::Setting { key, reason });
        if !self.gamma.is_finite() {
            return error("gamma", format!("{} is not a finite number", self.gamma));
        }
        if !(0.0..1.0).contains(&self.dare) {
            return error("dare", format!("{} is not at least 0 and below 1", self.dare));
        }
        check_counts(&[("rank", self.rank.unwrap_or(1))])
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "gamma", values: VALUES })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        self.added(&inputs, &self.tensors(&inputs)?)
    }

    fn sweep(&self, inputs: &mut Inputs<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.check()?;
        let tensors = self.tensors(inputs)?;
        for &gamma in VALUES {
            visit(Self { gamma, ..*self }.added(inputs, &tensors)?, inputs.report)?;
        }
        Ok(true)
    }
}

const VALUES: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0];

/// One tensor of the aligned and the unaligned model, and their difference where the rank cuts it.
struct Vector {
    aligned: Vec<f32>,
    unaligned: Vec<f32>,
    cut: Option<Vec<f64>>,
}

impl Resta {
    /// What does not depend on gamma: all tensors, in order.
    fn tensors(&self, inputs: &Inputs<'_>) -> Result<Vec<Vector>> {
        let (aligned, unaligned) = (("aligned", inputs.aligned), ("unaligned", inputs.unaligned(Self::WORD)?));
        check_same_shape(aligned, unaligned, |info| info.layer.is_some())?;
        let read = |model| read_like(model, ("fine-tuned", inputs.fine_tuned));
        let vector = |((info, aligned), (_, unaligned)): ((WeightInfo, Vec<f32>), (_, Vec<f32>))| {
            let cut = self.cut(&info, &aligned, &unaligned)?;
            Ok(Vector { aligned, unaligned, cut })
        };
        read(aligned)?.into_par_iter().zip(read(unaligned)?).map(vector).collect()
    }

    /// The safety vector of one tensor where the rank cuts it.
    fn cut(&self, info: &WeightInfo, aligned: &[f32], unaligned: &[f32]) -> Result<Option<Vec<f64>>> {
        let Some(rank) = self.rank.filter(|_| is_projection(info)) else { return Ok(None) };
        let vector = aligned.iter().zip(unaligned).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect();
        values(cut_to_rank(matrix(vector, [info.shape[0], info.shape[1]]), rank)?).map(Some)
    }

    /// The fine-tuned model with the vector added.
    fn added(&self, inputs: &Inputs<'_>, tensors: &[Vector]) -> Result<Repaired> {
        let mut rng = ChaCha8Rng::seed_from_u64(inputs.seed);
        let mut thinned = |aligned: f64, theta: f64| match self.dare {
            0.0 => theta,
            dare if rng.random_bool(dare) => aligned,
            dare => aligned + (theta - aligned) / (1.0 - dare),
        };
        let mut pairs = weights::read(inputs.fine_tuned, |_| true)?.into_iter().zip(tensors);
        let decoder = weights::replace(inputs.fine_tuned.clone(), |info| {
            let ((_, mut values), Vector { aligned, unaligned, cut }) = pairs.next()?;
            let own = values.iter_mut().zip(aligned).zip(unaligned).enumerate();
            own.for_each(|(i, ((value, &aligned), &unaligned))| {
                let [theta, aligned, unaligned] = [*value, aligned, unaligned].map(f64::from);
                let vector = cut.as_ref().map_or(aligned - unaligned, |cut| cut[i]);
                *value = (thinned(aligned, theta) + self.gamma * vector) as f32;
            });
            Some(TensorData::new(values, info.shape.clone()))
        });
        Ok(Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: None })
    }
}
