//! Safe Delta (Lu and others, ICML 2025), as the authors' code has it: the aligned model takes what fine-tuning changed
//! where that costs safety little, and the rest of it makes up for the cost.
//!
//! Left open there, and fixed here: entries of equal cost are in the order of their rows; sums are in double precision.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::TensorData;
use model::{Decoder, weights};
use serde::{Deserialize, Serialize};

use crate::compensation::{Factor, column_blocks};
use crate::error::{check_counts, check_not_negative};
use crate::evidence::Answered;
use crate::projections::{Calibration, names, read, replaced};
use crate::region::read_like;
use crate::repair::Visit;
use crate::{Error, Inputs, Knob, Needs, Outcome, Repair, Repaired, Report, Result};

/// Share of the entries of a block of columns that is never taken, those that cost most.
const DROPPED: f64 = 0.15;
/// What the choice tries.
const VALUES: &[f64] = &[1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03];
/// Columns that do not make up for each other.
const TOGETHER: usize = 4;

/// The aligned model whose projections have some entries of the fine-tuned ones; the embedding, norms, biases and head stay
/// the aligned model's, and tokens that only the fine-tuned model has keep theirs.
///
/// # Mathematical Definition
/// `H = sum X X'` of a projection's inputs, all tokens of the harmful prompts and answers through the aligned model, with
/// 0.01 of its mean diagonal added to the diagonal; `H^-1 = U' U`, `c_j = 1 / U_jj^2`. In each block of columns, with `W` the
/// aligned weights `[m, in]` as compensated so far: entry `ij` costs `(Wft_ij - W_ij)^2 c_j`. In ascending order of `c_j`,
/// without the last 15 %, those are taken whose costs add up to at most `mean(c) (scale / 2) (m / 4096)`. The later columns
/// make up for what was taken, 4 columns at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct SafeDelta {
    /// What taken entries may cost. Authors' code: 0.1.
    #[arg(long, default_value_t = Self::default().scale)]
    pub scale: f64,
    /// Columns among which is chosen at once. Authors' code: 2048.
    #[arg(long, default_value_t = Self::default().block)]
    pub block: usize,
}

impl Default for SafeDelta {
    fn default() -> Self {
        Self { scale: 0.1, block: 2048 }
    }
}

impl Repair for SafeDelta {
    fn needs(&self) -> Needs {
        Needs { evidence: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_not_negative(&[("scale", self.scale)])?;
        check_counts(&[("block", self.block)])
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "scale", values: VALUES })
    }

    fn apply(&self, mut inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let weights = Weights::new(&mut inputs)?;
        Ok(self.repaired(&weights))
    }

    fn sweep(&self, inputs: &mut Inputs<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.check()?;
        let weights = Weights::new(inputs)?;
        for &scale in VALUES {
            let settings = Self { scale, ..*self };
            visit(settings.repaired(&weights), inputs.report)?;
        }
        Ok(true)
    }
}

/// What does not depend on the settings.
struct Weights {
    /// The aligned model with the fine-tuned one's vocabulary.
    base: Decoder,
    aligned: HashMap<String, Vec<f32>>,
    fine_tuned: HashMap<String, Vec<f32>>,
    /// Names of the weights that share an input, with its factor.
    factors: Vec<(Vec<String>, Factor)>,
}

impl Weights {
    fn new(inputs: &mut Inputs<'_>) -> Result<Self> {
        let rows = inputs.evidence(SafeDelta::WORD)?.harmful_train(SafeDelta::WORD)?;
        let (aligned, fine_tuned) = (inputs.aligned, inputs.fine_tuned);
        let base = with_vocabulary(aligned, fine_tuned)?;
        let factors = factors(aligned, rows, inputs.report)?;
        Ok(Self { base, aligned: read(aligned)?, fine_tuned: read(fine_tuned)?, factors })
    }
}

/// The aligned model as one of the fine-tuned model's shape.
fn with_vocabulary(aligned: &Decoder, fine_tuned: &Decoder) -> Result<Decoder> {
    if weights::infos(aligned) == weights::infos(fine_tuned) {
        return Ok(aligned.clone());
    }
    let mut tensors = read_like(("aligned", aligned), ("fine-tuned", fine_tuned))?.into_iter();
    let mut own = weights::read(fine_tuned, |_| true)?.into_iter();
    Ok(weights::replace(fine_tuned.clone(), |info| {
        let ((_, from), (_, mut values)) = (tensors.next()?, own.next()?);
        values.iter_mut().zip(from).for_each(|(value, from)| *value = from);
        Some(TensorData::new(values, info.shape.clone()))
    }))
}

/// The factors of all inputs of a decoder's projections.
fn factors(decoder: &Decoder, rows: &[Answered], report: &mut Report<'_>) -> Result<Vec<(Vec<String>, Factor)>> {
    let (mut calibration, blocks) = (Calibration::new(decoder, rows)?, decoder.config().num_hidden_layers);
    let mut factors = Vec::new();
    for block in 0..blocks {
        for (input, gram) in calibration.grams(decoder)? {
            factors.push((names(block, input).collect(), gram.factor()?));
        }
        if report(block + 1, blocks, "inputs of the blocks").is_break() {
            return Err(Error::Stopped);
        }
    }
    Ok(factors)
}

impl SafeDelta {
    fn repaired(&self, weights: &Weights) -> Repaired {
        let mut edited = HashMap::new();
        for (names, factor) in &weights.factors {
            for name in names {
                if let (Some(aligned), Some(tuned)) = (weights.aligned.get(name), weights.fine_tuned.get(name)) {
                    edited.insert(name.clone(), self.edited(aligned, tuned, factor));
                }
            }
        }
        let decoder = replaced(weights.base.clone(), edited);
        Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: None }
    }

    fn edited(&self, aligned: &[f32], tuned: &[f32], factor: &Factor) -> Vec<f32> {
        let width = factor.width();
        let mut w: Vec<f64> = aligned.iter().map(|&value| f64::from(value)).collect();
        for columns in column_blocks(width, self.block) {
            let taken = self.taken(&w, tuned, factor, columns.clone());
            factor.settle(&mut w, columns, TOGETHER, |row, column| {
                let at = row * width + column;
                taken[at].then(|| f64::from(tuned[at]))
            });
        }
        w.into_iter().map(|value| value as f32).collect()
    }

    /// Which entries of a block of columns are taken.
    fn taken(&self, w: &[f64], tuned: &[f32], factor: &Factor, columns: Range<usize>) -> Vec<bool> {
        let (width, rows) = (factor.width(), w.len() / factor.width());
        let cost = |column: usize| 1.0 / factor.diagonal(column).powi(2);
        let mut order: Vec<(f64, usize)> = columns.map(|column| (cost(column), column)).collect();
        let mean = order.iter().map(|(cost, _)| cost).sum::<f64>() / order.len() as f64;
        let budget = mean * self.scale / 2.0 * rows as f64 / 4096.0;
        order.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: the lower column first
        let entries = rows * order.len();
        let kept = entries - (DROPPED * entries as f64) as usize;
        let places = order.iter().flat_map(|&(cost, column)| (0..rows).map(move |row| (cost, row * width + column)));
        let (mut taken, mut sum) = (vec![false; w.len()], 0.0);
        for (cost, at) in places.take(kept) {
            sum += (f64::from(tuned[at]) - w[at]).powi(2) * cost;
            if sum > budget {
                break;
            }
            taken[at] = true;
        }
        taken
    }
}
