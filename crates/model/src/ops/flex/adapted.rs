//! `y = x W^T + scale (x mask) A^T B^T`: a linear layer and its low-rank adapter as one operation.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;

use super::{Fused, matmul, wide};

/// See [`super::super::adapted_linear`]; inputs: x, weight, A, B.
#[derive(Debug, Clone)]
pub struct Adapted {
    /// Factor on the adapter's output.
    pub scale: f32,
    /// Factors on the adapter's input, `[rows, in]`.
    pub mask: Option<FlexTensor>,
}

/// What [`Adapted`] keeps.
#[derive(Debug, Clone)]
pub struct Saved {
    inputs: [FlexTensor; 4],
    /// The adapter's input.
    masked: FlexTensor,
    /// `scale (x mask) A^T`, `[rows, rank]`.
    low: FlexTensor,
}

impl Adapted {
    fn masked(&self, x: FlexTensor) -> FlexTensor {
        match &self.mask {
            Some(mask) => Flex::float_mul(x, mask.clone()),
            None => x,
        }
    }
}

impl Fused<4> for Adapted {
    type Saved = Saved;

    fn forward(&self, [x, weight, a, b]: [FlexTensor; 4]) -> (FlexTensor, Self::Saved) {
        let masked = self.masked(x.clone());
        let low = Flex::float_mul_scalar(matmul(masked.clone(), a.transpose(0, 1)), self.scale.into());
        let dense = matmul(x.clone(), wide(weight.clone()).transpose(0, 1));
        let y = Flex::float_add(dense, matmul(low.clone(), b.transpose(0, 1)));
        (y, Saved { inputs: [x, weight, a, b], masked, low })
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let Saved { inputs: [x, weight, a, b], masked, low } = saved;
        let [for_x, for_weight, for_a, for_b] = wanted;
        let transposed = grad.transpose(0, 1);
        let for_b = for_b.then(|| matmul(transposed.clone(), low));
        let for_weight = for_weight.then(|| matmul(transposed, x));
        let for_low = Flex::float_mul_scalar(matmul(grad.clone(), b), self.scale.into());
        let for_a = for_a.then(|| matmul(for_low.transpose(0, 1), masked));
        let for_x = for_x.then(|| Flex::float_add(matmul(grad, wide(weight)), self.masked(matmul(for_low, a))));
        [for_x, for_weight, for_a, for_b]
    }
}
