//! The cosine loss and its gradient (METHOD.md section 3).

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use model::weights::Sums;
use model::{Decoder, Packed};

use crate::mean::check_layer;
use crate::{Error, Result, runs};

/// A direction and the prompts whose hidden states are to turn towards it.
#[derive(Debug, Clone)]
pub struct Objective {
    /// Token ids of the prompts, in order.
    pub rows: Vec<Vec<u32>>,
    /// The direction, of the model's width.
    pub direction: Vec<f32>,
    /// The block after which the hidden state is taken, counted from 1.
    pub layer: usize,
    /// Rows per batch; the loss is taken of each batch's mean, so this is part of the method.
    pub batch: usize,
}

/// Adds the gradient of the objective to `sums` (by parameter name, row-major) and returns the
/// mean loss of a batch. Only the parameters that `decoder` tracks
/// ([`model::weights::track`]) get a gradient.
///
/// # Mathematical Definition
/// `loss = sum over batches B of -cos(mean over x in B of h_L(x), d)`
///
/// # Errors
/// When there is no prompt, layer or width do not fit, a batch size is 0, or the loss is not finite.
pub fn accumulate(decoder: &Decoder, objective: &Objective, sums: &mut HashMap<String, Vec<f32>>) -> Result<f64> {
    check_layer(decoder, objective.layer)?;
    let width = decoder.config().hidden_size;
    if objective.direction.len() != width {
        return Err(Error::Width { found: objective.direction.len(), expected: width });
    }
    if objective.rows.is_empty() || objective.batch == 0 {
        return Err(Error::NoPrompts);
    }
    let batches: Vec<&[Vec<u32>]> = objective.rows.chunks(objective.batch).collect();
    let mut adding = Sums::new(decoder, std::mem::take(sums));
    let runs = runs(&batches, decoder.config().positions_at_once());
    let losses = adding.add(&runs, |decoder, _, run| {
        let packed = Packed::new(&run.concat())?;
        let hidden = decoder.hidden(&packed, objective.layer, &packed.segments.last())?;
        let loss = batch_losses(hidden, run, &objective.direction);
        let value: f32 = loss.clone().into_scalar();
        match value.is_finite() {
            true => Ok((loss, f64::from(value))),
            false => Err(Error::NotFinite { what: format!("the cosine loss at layer {}", objective.layer) }),
        }
    });
    *sums = adding.finish();
    Ok(losses?.into_iter().sum::<f64>() / batches.len() as f64)
}

/// Sum of the batches' losses; `hidden`: `[rows, width]`, the batches' rows in order.
fn batch_losses(hidden: Tensor<2>, batches: &[&[Vec<u32>]], direction: &[f32]) -> Tensor<1> {
    let [rows, width] = hidden.dims();
    let device = hidden.device();
    // Means as one product with a constant matrix: [batches, rows] x [rows, width].
    let mut weights = vec![0f32; batches.len() * rows];
    let mut start = 0;
    for (index, batch) in batches.iter().enumerate() {
        weights[index * rows + start..][..batch.len()].fill(1.0 / batch.len() as f32);
        start += batch.len();
    }
    let averaging = Tensor::<2>::from_data(TensorData::new(weights, [batches.len(), rows]), &device);
    let means = averaging.matmul(hidden);
    let norm = direction.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt().max(1e-8);
    let unit: Vec<f32> = direction.iter().map(|&d| (f64::from(d) / norm) as f32).collect();
    let unit = Tensor::<2>::from_data(TensorData::new(unit, [1, width]), &device);
    let dots = (means.clone() * unit).sum_dim(1);
    let norms = means.powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-8);
    (dots / norms).sum().neg()
}
