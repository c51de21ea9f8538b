//! A tensor's memory, read and written where it is.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, TensorData};

use super::{Input, constant, contiguous, values};

/// The values of a tensor that this crate [serves](super::serves); the memory is the tensor's.
#[derive(Debug, Clone)]
pub struct Shared(FlexTensor);

impl Shared {
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self(constant(tensor))
    }

    pub fn values(&self) -> &[f32] {
        values(&self.0)
    }
}

/// Changes the values of a tensor that this crate [serves](super::serves), in place where nobody else holds it; with
/// gradients, the result is a leaf that is tracked as the tensor was.
pub fn change<const D: usize>(tensor: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let (autodiff, tracked) = (tensor.device().is_autodiff(), tensor.is_require_grad());
    let Input::Plain(plain) = Input::new(tensor.without_autodiff(), false) else {
        unreachable!("asked for without gradients")
    };
    let mut plain = contiguous(plain);
    if plain.storage::<f32>().len() != values(&plain).len() {
        // A part of a larger tensor.
        plain = FlexTensor::from_data(TensorData::new(values(&plain).to_vec(), plain.layout().shape().clone()));
    }
    change(plain.storage_mut());
    let changed = Tensor::from_primitive::<Flex>(plain);
    if autodiff { Tensor::from_inner(changed).set_require_grad(tracked) } else { changed }
}
