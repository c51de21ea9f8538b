//! `y = x W^T + scale (x mask) A^T B^T`: a linear layer and its low-rank adapter as one operation.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;

use super::matmul::{matrix, multiply, multiply_both};
use super::{Fused, contiguous, wide};

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
    fn scaled(&self, low: FlexTensor) -> FlexTensor {
        Flex::float_mul_scalar(low, self.scale.into())
    }

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
        let inputs = [contiguous(x), weight, contiguous(a), contiguous(b)];
        let [x, weight, a, b] = &inputs;
        let masked = self.masked(x.clone());
        let low = self.scaled(multiply(matrix(&masked), matrix(a).transpose()));
        let weight = wide(weight.clone());
        let y = multiply_both([matrix(x), matrix(&weight).transpose()], [matrix(&low), matrix(b).transpose()]);
        (y, Saved { inputs, masked, low })
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, wanted: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let Saved { inputs: [x, weight, a, b], masked, low } = saved;
        let [for_x, for_weight, for_a, for_b] = wanted;
        let grad = matrix(&grad);
        let for_b = for_b.then(|| multiply(grad.transpose(), matrix(&low)));
        let for_weight = for_weight.then(|| multiply(grad.transpose(), matrix(&x)));
        let for_low = self.scaled(multiply(grad, matrix(&b)));
        let for_low = matrix(&for_low);
        let for_a = for_a.then(|| multiply(for_low.transpose(), matrix(&masked)));
        let for_x = for_x.then(|| {
            let weight = wide(weight);
            match self.mask {
                None => multiply_both([grad, matrix(&weight)], [for_low, matrix(&a)]),
                Some(_) => {
                    let dense = multiply(grad, matrix(&weight));
                    Flex::float_add(dense, self.masked(multiply(for_low, matrix(&a))))
                }
            }
        });
        [for_x, for_weight, for_a, for_b]
    }
}
