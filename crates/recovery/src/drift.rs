//! What Safe LoRA and SafeMERGE share: for each linear layer of the blocks, how much of what fine-tuning changed lies where
//! alignment changed the model.
//!
//! `V = aligned - base`, the model before alignment, and `D = fine_tuned - aligned`, of each weight matrix `[out, in]`; a
//! matrix `C` made of `V` projects `D`, and the cosine of `C D` and `D` decides. Embeddings, head, norms and biases are left
//! alone.

use burn::tensor::TensorData;
use model::Decoder;
use model::weights::{self, WeightInfo};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::{gram_times, in_column_space, matrix, values};
use crate::projections::is_projection;
use crate::region::check_same_shape;
use crate::{Inputs, ModuleTrace, ModulesTrace, Outcome, Repaired, Result, Trace};

/// The matrix that projects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Projector {
    /// `V V' / ||V||`, as in the released code: the norm is not squared, so what is projected is longer or shorter with it.
    #[default]
    Released,
    /// `V (V'V)^+ V'`, as in the paper. It changes nothing where V has as many independent columns as rows.
    Exact,
}

/// One weight matrix.
pub(crate) struct Module {
    info: WeightInfo,
    /// The cosine of `C D` and `D`, rounded to 5 digits as in the released code; 0 where one of them is 0.
    pub(crate) cosine: f64,
    /// What it becomes when it is changed.
    repaired: Vec<f32>,
}

/// A weight matrix with what was made of it.
pub(crate) struct Drift<'a> {
    /// Its place among the modules.
    pub(crate) place: usize,
    pub(crate) aligned: &'a [f32],
    /// `D`.
    pub(crate) drift: &'a [f64],
    /// `C D`.
    pub(crate) projected: &'a [f64],
}

/// All modules; `repair` says what each becomes when it is changed.
pub(crate) fn modules(
    method: &'static str,
    inputs: &Inputs<'_>,
    projector: Projector,
    repair: impl Fn(Drift<'_>) -> Vec<f32> + Sync,
) -> Result<Vec<Module>> {
    let base = inputs.base(method)?;
    check_same_shape(("aligned", inputs.aligned), ("fine-tuned", inputs.fine_tuned), is_projection)?;
    check_same_shape(("aligned", inputs.aligned), ("base", base), is_projection)?;
    let read = |decoder| weights::read(decoder, is_projection);
    let (aligned, tuned, base) = (read(inputs.aligned)?, read(inputs.fine_tuned)?, read(base)?);
    let module = |(place, (((info, aligned), (_, tuned)), (_, base))): Numbered<'_>| {
        let v = difference(aligned, base);
        let drift = difference(tuned, aligned);
        let projected = project(v, drift.clone(), [info.shape[0], info.shape[1]], projector)?;
        let cosine = (cosine(&projected, &drift) * 1e5).round() / 1e5;
        let repaired = repair(Drift { place, aligned, drift: &drift, projected: &projected });
        Ok(Module { info: info.clone(), cosine, repaired })
    };
    aligned.par_iter().zip(&tuned).zip(&base).enumerate().map(module).collect()
}

type Named = (WeightInfo, Vec<f32>);
type Numbered<'a> = (usize, ((&'a Named, &'a Named), &'a Named));

fn difference(a: &[f32], b: &[f32]) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect()
}

/// `C D`.
fn project(v: Vec<f64>, drift: Vec<f64>, shape: [usize; 2], projector: Projector) -> Result<Vec<f64>> {
    let norm = norm(&v);
    if norm == 0.0 {
        return Ok(vec![0.0; drift.len()]);
    }
    let (v, drift) = (matrix(v, shape), matrix(drift, shape));
    values(match projector {
        Projector::Released => gram_times(&v, drift) / norm,
        Projector::Exact => in_column_space(&v, drift)?,
    })
}

fn norm(a: &[f64]) -> f64 {
    a.iter().map(|a| a * a).sum::<f64>().sqrt()
}

/// The cosine of two matrices as vectors, 0 where one of them is 0.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let product = norm(a) * norm(b);
    if product == 0.0 { 0.0 } else { a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / product }
}

/// The fine-tuned model with those modules changed whose cosine is accepted; `threshold` is what decided.
pub(crate) fn change(
    fine_tuned: &Decoder,
    modules: &[Module],
    threshold: Option<f64>,
    is_changed: impl Fn(f64) -> bool,
) -> Repaired {
    let named = |module: &Module| ModuleTrace {
        name: module.info.name.clone(),
        cosine: module.cosine,
        changed: is_changed(module.cosine),
    };
    let trace = Trace::Modules(ModulesTrace { threshold, modules: modules.iter().map(named).collect() });
    let mut changed = modules.iter().filter(|module| is_changed(module.cosine)).peekable();
    let decoder = weights::replace(fine_tuned.clone(), |info| {
        let module = changed.next_if(|module| module.info.name == info.name)?;
        Some(TensorData::new(module.repaired.clone(), info.shape.clone()))
    });
    Repaired { decoder, path: None, restored: None, outcome: Outcome::Changed, trace: Some(trace) }
}
