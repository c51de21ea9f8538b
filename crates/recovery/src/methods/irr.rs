//! IRR (Wu and others, Findings of ACL 2025, arXiv 2412.11041): of what fine-tuning changed, entries that point away from a safety vector and
//! that safe answers depend on go, and the others make up for that on the task.
//!
//! The authors' code has more: no compensation, all entries as candidates, the query and value projections alone. Its inputs are
//! padded to 512 tokens and their padding counts. None of this is built.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use model::{Decoder, weights};
use serde::{Deserialize, Serialize};

use crate::compensation::{Factor, Gram, column_blocks};
use crate::error::{check_counts, check_share};
use crate::evidence::Answered;
use crate::lesson::Lesson;
use crate::projections::{Calibration, is_projection, names, read, replaced};
use crate::region::check_same_shape;
use crate::repair::Visit;
use crate::{Error, Inputs, Knob, Needs, Outcome, Repair, Repaired, Result};

/// What the choice tries.
const VALUES: &[f64] = &[0.96, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0];
/// Harmful prompts of which a gradient is the mean.
const BATCH: usize = 8;

/// The fine-tuned model with another drift in its projections; all else stays.
///
/// # Mathematical Definition
/// `D = W - W0`, `s = W0 - Wu`. `F` is the mean over batches of 8 harmful prompts of the squared gradient, at `W0`, of the
/// negative log-likelihood of the aligned model's answers. Block after block: `H = sum X X'` of each projection's inputs, all
/// tokens of the task's samples through the model with the blocks before edited, with 0.01 of its mean diagonal added to the
/// diagonal. In each block of columns, with `D` as compensated so far, the candidates are the entries with
/// `sign(D) != sign(s)`; in ascending order of `F`, those from position `int(sparsity count)` on are set to 0, one column
/// after the other, and the later columns make up for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Irr {
    /// Share of the candidates that stay, those that safe answers depend on least. Authors' code: 0.96.
    #[arg(long, default_value_t = Self::default().sparsity)]
    pub sparsity: f64,
    /// Columns among which is chosen at once. Authors' code: 4096.
    #[arg(long, default_value_t = Self::default().block)]
    pub block: usize,
}

impl Default for Irr {
    fn default() -> Self {
        Self { sparsity: 0.96, block: 4096 }
    }
}

impl Repair for Irr {
    fn needs(&self) -> Needs {
        Needs { unaligned: true, evidence: true, ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_share("sparsity", self.sparsity)?;
        check_counts(&[("block", self.block)])
    }

    fn knob(&self) -> Option<Knob> {
        Some(Knob { key: "sparsity", values: VALUES })
    }

    fn apply(&self, mut inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        let weights = Weights::new(&inputs)?;
        self.repaired(&mut inputs, &weights)
    }

    fn sweep(&self, inputs: &mut Inputs<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.check()?;
        let weights = Weights::new(inputs)?;
        for &sparsity in VALUES {
            let settings = Self { sparsity, ..*self };
            visit(settings.repaired(inputs, &weights)?, inputs.report)?;
        }
        Ok(true)
    }
}

/// What does not depend on the settings; weights by name.
struct Weights<'a> {
    /// The task's samples.
    task: &'a [Answered],
    aligned: HashMap<String, Vec<f32>>,
    fine_tuned: HashMap<String, Vec<f32>>,
    unaligned: HashMap<String, Vec<f32>>,
    importance: HashMap<String, Vec<f32>>,
}

impl<'a> Weights<'a> {
    fn new(inputs: &Inputs<'a>) -> Result<Self> {
        let evidence = inputs.evidence(Irr::WORD)?;
        let (harmful, task) = (evidence.harmful_train(Irr::WORD)?, evidence.task.train.as_slice());
        if task.is_empty() {
            return Err(Error::Missing { method: Irr::WORD, what: "samples of the task that are not held out" });
        }
        let (aligned, fine_tuned, unaligned) = (inputs.aligned, inputs.fine_tuned, inputs.unaligned(Irr::WORD)?);
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), |info| info.layer.is_some())?;
        check_same_shape(("aligned", aligned), ("unaligned", unaligned), |info| info.layer.is_some())?;
        let importance = importance(aligned, harmful)?;
        let (aligned, fine_tuned, unaligned) = (read(aligned)?, read(fine_tuned)?, read(unaligned)?);
        Ok(Self { task, aligned, fine_tuned, unaligned, importance })
    }

    fn of(&self, name: &str) -> Option<Projection<'_>> {
        Some(Projection {
            aligned: self.aligned.get(name)?,
            fine_tuned: self.fine_tuned.get(name)?,
            unaligned: self.unaligned.get(name)?,
            importance: self.importance.get(name)?,
        })
    }
}

/// Of one projection, row-major.
struct Projection<'a> {
    aligned: &'a [f32],
    fine_tuned: &'a [f32],
    unaligned: &'a [f32],
    importance: &'a [f32],
}

/// The mean over batches of the squared gradient of their loss.
fn importance(decoder: &Decoder, rows: &[Answered]) -> Result<HashMap<String, Vec<f32>>> {
    let decoder = weights::track(decoder.clone(), is_projection);
    let batches = rows.len().div_ceil(BATCH) as f32;
    let mut mean: HashMap<String, Vec<f32>> = HashMap::new();
    for batch in rows.chunks(BATCH) {
        let mut gradients = HashMap::new();
        Lesson::of_answers(decoder.config(), batch)?.accumulate(&decoder, 1.0, &mut gradients)?;
        for (name, gradient) in gradients {
            let mean = mean.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
            mean.iter_mut().zip(gradient).for_each(|(mean, g)| *mean += g * g / batches);
        }
    }
    Ok(mean)
}

impl Irr {
    fn repaired(&self, inputs: &mut Inputs<'_>, weights: &Weights<'_>) -> Result<Repaired> {
        let fine_tuned = inputs.fine_tuned;
        let (mut decoder, blocks) = (fine_tuned.clone(), fine_tuned.config().num_hidden_layers);
        let mut calibration = Calibration::new(&decoder, weights.task)?;
        for block in 0..blocks {
            let mut edited = HashMap::new();
            for (input, gram) in calibration.clone().grams(&decoder)? {
                let factor = gram.factor()?;
                for name in names(block, input) {
                    if let Some(projection) = weights.of(&name) {
                        edited.insert(name, self.edited_weights(&projection, &gram, &factor));
                    }
                }
            }
            decoder = replaced(decoder, edited);
            calibration.pass(&decoder, |_, _| Ok(()))?;
            if (inputs.report)(block + 1, blocks, "blocks").is_break() {
                return Err(Error::Stopped);
            }
        }
        Ok(Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: None })
    }

    fn edited_weights(&self, weights: &Projection<'_>, gram: &Gram, factor: &Factor) -> Vec<f32> {
        let (width, aligned) = (factor.width(), weights.aligned);
        let drift = |(at, (&own, &aligned)): (usize, (&f32, &f32))| {
            if gram.is_dead(at % width) { 0.0 } else { f64::from(own) - f64::from(aligned) }
        };
        let mut drift: Vec<f64> = weights.fine_tuned.iter().zip(aligned).enumerate().map(drift).collect();
        for columns in column_blocks(width, self.block) {
            let removed = self.removed(&drift, weights, width, columns.clone());
            factor.settle(&mut drift, columns, 1, |row, column| removed[row * width + column].then_some(0.0));
        }
        drift.iter().zip(aligned).map(|(drift, &aligned)| (f64::from(aligned) + drift) as f32).collect()
    }

    /// Which entries of a block of columns go.
    fn removed(&self, drift: &[f64], weights: &Projection<'_>, width: usize, columns: Range<usize>) -> Vec<bool> {
        let safety = |at: usize| f64::from(weights.aligned[at]) - f64::from(weights.unaligned[at]);
        let mut candidates: Vec<usize> = (0..drift.len() / width)
            .flat_map(|row| columns.clone().map(move |column| row * width + column))
            .filter(|&at| sign(drift[at]) != sign(safety(at)))
            .collect();
        candidates.sort_by(|&a, &b| weights.importance[a].total_cmp(&weights.importance[b])); // stable
        let first = (candidates.len() as f64 * self.sparsity) as usize;
        let mut removed = vec![false; drift.len()];
        candidates[first..].iter().for_each(|&at| removed[at] = true);
        removed
    }
}

/// Of a number; 0 has one of its own.
fn sign(value: f64) -> Option<Ordering> {
    value.partial_cmp(&0.0)
}
