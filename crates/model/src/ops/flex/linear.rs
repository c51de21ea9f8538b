//! `y = x W^T`: gradients come out in the weight's own layout.

use burn::backend::flex::FlexTensor;

use super::super::Sum;
use super::{Fused, matmul, values};

/// See [`super::super::linear`]; inputs: x, weight.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Where the weight's gradient is added.
    pub sum: Option<Sum>,
}

impl Fused<2> for Linear {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        (matmul(x.clone(), weight.transpose(0, 1)), [x, weight])
    }

    fn backward(&self, [x, weight]: Self::Saved, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let mut for_weight = wanted[1].then(|| matmul(grad.transpose(0, 1), x));
        if let Some((sum, gradient)) = self.sum.as_ref().zip(for_weight.as_ref()) {
            sum.add(values(gradient));
            for_weight = None;
        }
        let for_x = wanted[0].then(|| matmul(grad, weight));
        [for_x, for_weight]
    }
}
