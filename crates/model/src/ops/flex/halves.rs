//! Weights in bf16: kept as they are, and widened, exactly, where a product reads them.

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;
use half::bf16;
use rayon::prelude::*;

use super::super::part;
use super::{contiguous, zeros};

/// The tensor in f32; of one in bf16 a copy.
pub fn wide(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    let Some(halves) = tensor.as_slice::<bf16>() else { return tensor };
    const PIECE: usize = 1 << 16;
    let mut values = zeros(halves.len());
    values.par_chunks_mut(PIECE).zip(halves.par_chunks(PIECE)).for_each(|(values, halves)| {
        values.iter_mut().zip(halves).for_each(|(value, &half)| *value = part::wide(half));
    });
    FlexTensor::from_data(TensorData::new(values, tensor.layout().shape().clone()))
}
