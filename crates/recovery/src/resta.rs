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
use crate::matrix::{cut_to_rank, is_projection, matrix, values};
use crate::region::check_same_shape;
use crate::{Error, Inputs, Knob, Needs, Outcome, Repair, Repaired, Result};

/// The fine-tuned model with the safety vector added.
///
/// # Mathematical Definition
/// `theta + gamma (aligned - unaligned)`. With DARE, `theta` is first replaced by
/// `aligned + m (theta - aligned) / (1 - dare)`, where each element of `m` is 0 with probability `dare`
/// and else 1, so that the expectation is `theta`. With a rank, `aligned - unaligned` of each linear layer of a block is
/// replaced by the nearest matrix of that rank.
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
        Some(Knob { key: "gamma", values: &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0] })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let (aligned, fine_tuned, unaligned) = (inputs.aligned, inputs.fine_tuned, inputs.unaligned(Self::WORD)?);
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), |_| true)?;
        check_same_shape(("aligned", aligned), ("unaligned", unaligned), |_| true)?;
        let mut rng = ChaCha8Rng::seed_from_u64(inputs.seed);
        let mut thinned = |aligned: f64, theta: f64| match self.dare {
            0.0 => theta,
            dare if rng.random_bool(dare) => aligned,
            dare => aligned + (theta - aligned) / (1.0 - dare),
        };
        let read = |decoder| weights::read(decoder, |_| true);
        let (aligned, unaligned) = (read(aligned)?, read(unaligned)?);
        let cut = |((info, aligned), (_, unaligned)): (&Named, &Named)| self.cut(info, aligned, unaligned);
        let cuts: Vec<Option<Vec<f64>>> = aligned.par_iter().zip(&unaligned).map(cut).collect::<Result<_>>()?;
        let mut models = read(fine_tuned)?.into_iter().zip(aligned).zip(unaligned).zip(cuts);
        let decoder = weights::replace(fine_tuned.clone(), |info| {
            let ((((_, theta), (_, aligned)), (_, unaligned)), cut) = models.next()?;
            let own = theta.into_iter().zip(aligned).zip(unaligned).enumerate();
            let values = own.map(|(i, ((theta, aligned), unaligned))| {
                let [theta, aligned, unaligned] = [theta, aligned, unaligned].map(f64::from);
                let vector = cut.as_ref().map_or(aligned - unaligned, |cut| cut[i]);
                (thinned(aligned, theta) + self.gamma * vector) as f32
            });
            Some(TensorData::new(values.collect::<Vec<f32>>(), info.shape.clone()))
        });
        Ok(Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: None })
    }
}

type Named = (WeightInfo, Vec<f32>);

impl Resta {
    /// The safety vector of one tensor where the rank cuts it.
    fn cut(&self, info: &WeightInfo, aligned: &[f32], unaligned: &[f32]) -> Result<Option<Vec<f64>>> {
        let Some(rank) = self.rank.filter(|_| is_projection(info)) else { return Ok(None) };
        let vector = aligned.iter().zip(unaligned).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect();
        values(cut_to_rank(matrix(vector, [info.shape[0], info.shape[1]]), rank)?).map(Some)
    }
}
