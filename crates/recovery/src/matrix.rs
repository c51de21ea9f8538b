//! Products of the weights of linear layers in f64, `[out, in]`, on the CPU whatever the models are on.

use burn::tensor::{DType, Device, Tensor, TensorData};
use model::weights::WeightInfo;

use crate::eigen::eigen;
use crate::{Error, Result};

/// A singular value of at most this share of the largest counts as 0.
const RANK_CUT: f64 = 1e-5;

/// Whether a parameter is the matrix of a linear layer of a block.
pub(crate) fn is_projection(info: &WeightInfo) -> bool {
    info.layer.is_some() && !info.is_norm && info.shape.len() == 2
}

/// A matrix of these values, row-major.
pub(crate) fn matrix(values: Vec<f64>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

/// The values, row-major.
pub(crate) fn values(matrix: Tensor<2>) -> Result<Vec<f64>> {
    let device = |error: String| Error::from(model::Error::Device(error));
    let data = matrix.try_into_data().map_err(|error| device(error.to_string()))?;
    data.try_into_vec().map_err(|error| device(error.to_string()))
}

/// `V V' D`, by the smaller product between.
pub(crate) fn gram_times(v: &Tensor<2>, d: Tensor<2>) -> Tensor<2> {
    let transposed = v.clone().transpose();
    if is_wide(v) { v.clone().matmul(transposed).matmul(d) } else { v.clone().matmul(transposed.matmul(d)) }
}

/// `V (V'V)^+ V' D`: the part of `D` in the column space of `V`.
pub(crate) fn in_column_space(v: &Tensor<2>, d: Tensor<2>) -> Result<Tensor<2>> {
    let mut pairs = gram_pairs(v)?;
    let largest = pairs.first().map_or(0.0, |(value, _)| *value);
    pairs.retain(|(value, _)| *value > RANK_CUT * RANK_CUT * largest);
    if pairs.is_empty() {
        return Ok(d.zeros_like());
    }
    let scales: Vec<f64> = pairs.iter().map(|(value, _)| value.recip()).collect();
    let vectors = rows(pairs);
    let transposed = vectors.clone().transpose();
    if is_wide(v) {
        return Ok(transposed.matmul(vectors.matmul(d)));
    }
    let scales = matrix(scales, [vectors.dims()[0], 1]);
    let inner = vectors.matmul(v.clone().transpose().matmul(d)) * scales;
    Ok(v.clone().matmul(transposed.matmul(inner)))
}

/// The nearest matrix of at most that rank, 1 or more.
pub(crate) fn cut_to_rank(v: Tensor<2>, rank: usize) -> Result<Tensor<2>> {
    if rank >= v.dims().into_iter().min().unwrap_or(0) {
        return Ok(v);
    }
    let mut pairs = gram_pairs(&v)?;
    pairs.truncate(rank);
    let vectors = rows(pairs);
    let transposed = vectors.clone().transpose();
    Ok(if is_wide(&v) { transposed.matmul(vectors.matmul(v)) } else { v.matmul(transposed).matmul(vectors) })
}

fn is_wide(v: &Tensor<2>) -> bool {
    let [out, input] = v.dims();
    out <= input
}

/// The eigenvectors of the smaller of `V V'` and `V'V`: the singular vectors of that side, each with its squared singular
/// value. Squares lose half of the digits, and f64 has enough: against the largest, a singular value of 1e-5 is a square of
/// 1e-10, and rounding is 1e-16. It is much less work than the singular values of `V` itself.
fn gram_pairs(v: &Tensor<2>) -> Result<Vec<(f64, Vec<f64>)>> {
    let transposed = v.clone().transpose();
    let gram = if is_wide(v) { v.clone().matmul(transposed) } else { transposed.matmul(v.clone()) };
    let n = gram.dims()[0];
    eigen(values(gram)?, n)
}

/// The vectors as rows.
fn rows(pairs: Vec<(f64, Vec<f64>)>) -> Tensor<2> {
    let shape = [pairs.len(), pairs.first().map_or(0, |(_, vector)| vector.len())];
    matrix(pairs.into_iter().flat_map(|(_, vector)| vector).collect(), shape)
}
