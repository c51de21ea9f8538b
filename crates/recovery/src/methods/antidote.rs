//! Antidote (Huang and others, ICML 2025): weights that harmful prompts use most lose what fine-tuning changed.
//!
//! The authors prune the matrices of a LoRA adapter on the aligned model. Here the drift of the whole weight takes their
//! place, which is the same for any kind of fine-tuning and its own control: a pruned entry is the aligned model's again.
//! Their variant for full fine-tuning, which prunes q, k and v themselves to 0, is not built.

use std::collections::HashMap;

use model::Input;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::check_share;
use crate::projections::{Calibration, host, names, read, replaced};
use crate::region::check_same_shape;
use crate::{Error, Inputs, Knob, Needs, Outcome, Patch, Path, Repair, Repaired, Result};

/// The fine-tuned model whose projections lose the drift of the largest Wanda score (Sun and others 2023).
///
/// # Mathematical Definition
/// `D = W - W0`; `score_ij = |D_ij| ||X_j||`, `X_j` the inputs of column `j`, all tokens of the harmful prompts and answers
/// through the fine-tuned model. In each row the `in - int(in (1 - ratio))` entries of largest score get `W0_ij`; of equal
/// scores those of the lower columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Antidote {
    /// Share of each row that loses its drift. Paper: 0.1.
    #[arg(long, default_value_t = Self::default().ratio)]
    pub ratio: f64,
}

impl Default for Antidote {
    fn default() -> Self {
        Self { ratio: 0.1 }
    }
}

impl Repair for Antidote {
    fn needs(&self) -> Needs {
        Needs { evidence: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_share("ratio", self.ratio)
    }

    fn has_patch(&self) -> bool {
        true
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "ratio", values: &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0] })
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let rows = inputs.evidence(Self::WORD)?.harmful_train(Self::WORD)?;
        let Inputs { aligned, fine_tuned, .. } = inputs;
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), |info| info.layer.is_some())?;
        let (mut values, aligned) = (read(fine_tuned)?, read(aligned)?);
        let (mut calibration, blocks) = (Calibration::new(fine_tuned, rows)?, fine_tuned.config().num_hidden_layers);
        let mut patch = Vec::new();
        for block in 0..blocks {
            let mut squares: HashMap<Input, Vec<f64>> = HashMap::new();
            calibration.pass(fine_tuned, |input, x| {
                let x = x();
                let width = x.dims()[1];
                let sums = squares.entry(input).or_insert_with(|| vec![0.0; width]);
                for row in host(x)?.chunks(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
                }
                Ok(())
            })?;
            for (input, squares) in squares {
                let norms: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
                for name in names(block, input) {
                    let (Some(own), Some(aligned)) = (values.get_mut(&name), aligned.get(&name)) else { continue };
                    let lost = self.lost(own, aligned, &norms);
                    lost.iter().for_each(|&index| own[index as usize] = aligned[index as usize]);
                    patch.push((name, lost));
                }
            }
            if (inputs.report)(block + 1, blocks, "blocks").is_break() {
                return Err(Error::Stopped);
            }
        }
        let patch = Patch::new(patch);
        Ok(Repaired {
            decoder: replaced(fine_tuned.clone(), values),
            restored: Some(patch.len()),
            path: Some(Path::once(patch)),
            outcome: Outcome::Changed,
            trace: None,
        })
    }
}

impl Antidote {
    /// The entries that lose their drift, ascending; one without a drift has none to lose.
    fn lost(&self, own: &[f32], aligned: &[f32], norms: &[f64]) -> Vec<u32> {
        let width = norms.len();
        let count = width - (width as f64 * (1.0 - self.ratio)) as usize;
        let of_row = |(row, (own, aligned)): (usize, (&[f32], &[f32]))| {
            let drift = own.iter().zip(aligned).map(|(&own, &aligned)| (f64::from(own) - f64::from(aligned)).abs());
            let scores: Vec<f64> = drift.zip(norms).map(|(drift, norm)| drift * norm).collect();
            let mut order: Vec<usize> = (0..width).collect();
            let largest_first = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
            if count < width {
                order.select_nth_unstable_by(count, largest_first);
            }
            order.truncate(count);
            order.retain(|&column| own[column] != aligned[column]);
            order.sort_unstable();
            order.into_iter().map(|column| (row * width + column) as u32).collect::<Vec<u32>>()
        };
        let rows = own.par_chunks(width).zip(aligned.par_chunks(width)).enumerate();
        rows.flat_map_iter(of_row).collect()
    }
}
