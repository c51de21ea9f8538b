//! A tensor's memory, read and written where it is.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor};
use half::bf16;

use super::super::Part;
use super::{Input, constant};

/// The values of a tensor in f32 or bf16 on a device that this crate [serves](super::serves); the memory is the tensor's.
#[derive(Debug, Clone)]
pub struct Shared(FlexTensor);

impl Shared {
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self(constant(tensor))
    }

    pub fn part(&self) -> Part<'_> {
        match (self.0.as_slice(), self.0.as_slice()) {
            (Some(values), _) => Part::F32(values),
            (None, Some(values)) => Part::Bf16(values),
            (None, None) => unreachable!("made contiguous, and f32 or bf16"),
        }
    }
}

/// The values of a tensor that can be written.
pub enum Writable<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

/// Changes the values of a tensor, as [`Shared`] has them, in place where nobody else holds them; with gradients, the result is
/// a leaf that is tracked as the tensor was.
pub fn change<const D: usize>(tensor: Tensor<D>, change: impl FnOnce(Writable<'_>)) -> Tensor<D> {
    let (autodiff, tracked) = (tensor.device().is_autodiff(), tensor.is_require_grad());
    let Input::Plain(plain) = Input::new(tensor.without_autodiff(), false) else {
        unreachable!("asked for without gradients")
    };
    let mut plain = whole(plain);
    match plain.dtype() {
        DType::BF16 => change(Writable::Bf16(plain.storage_mut())),
        _ => change(Writable::F32(plain.storage_mut())),
    }
    let changed = Tensor::from_primitive::<Flex>(plain);
    if autodiff { Tensor::from_inner(changed).set_require_grad(tracked) } else { changed }
}

/// The tensor as all of a memory, row-major: itself, or a copy of a part of a larger one.
fn whole(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}
