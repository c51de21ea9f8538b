//! `y = x W^T`: gradients come out in the weight's own layout.

use burn::backend::flex::FlexTensor;

use super::super::Sum;
use super::matmul::{matrix, multiply, values_of};
use super::{Fused, Gated, contiguous, tensor, wide};

/// See [`super::super::linear`]; inputs: x, weight.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Where the weight's gradient is added.
    pub sum: Option<Sum>,
}

impl Fused<2> for Linear {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let x = contiguous(x);
        (multiply(matrix(&x), matrix(&wide(weight.clone())).transpose()), [x, weight])
    }

    fn backward(&self, [x, weight]: Self::Saved, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let for_weight = wanted[1].then(|| self.for_weight(&x, &grad)).flatten();
        [wanted[0].then(|| multiply(matrix(&grad), matrix(&wide(weight)))), for_weight]
    }
}

impl Linear {
    /// The weight's gradient, unless it is added to a sum.
    fn for_weight(&self, x: &FlexTensor, grad: &FlexTensor) -> Option<FlexTensor> {
        let (x, grad) = (matrix(x), matrix(grad));
        let gradient = values_of(grad.transpose(), x);
        match &self.sum {
            None => Some(tensor(gradient, [grad.ncols(), x.ncols()])),
            Some(sum) => {
                sum.add(gradient);
                None
            }
        }
    }
}

/// See [`super::super::gated_linear`]; inputs: gate, up, weight.
#[derive(Debug, Clone)]
pub struct GatedLinear {
    /// Makes the layer's input.
    pub gated: Gated,
    /// The layer.
    pub linear: Linear,
}

impl Fused<3> for GatedLinear {
    /// What the input is made of again, and the weight.
    type Saved = (<Gated as Fused<2>>::Saved, FlexTensor);

    fn forward(&self, [gate, up, weight]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let (x, gate_and_up) = self.gated.forward([gate, up]);
        let (y, [_, weight]) = self.linear.forward([x, weight]);
        (y, (gate_and_up, weight))
    }

    fn backward(
        &self,
        (gate_and_up, weight): Self::Saved,
        grad: FlexTensor,
        [gate, up, of_weight]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let again = || self.gated.forward(gate_and_up.clone()).0;
        let for_weight = of_weight.then(|| self.linear.for_weight(&again(), &grad)).flatten();
        let [for_gate, for_up] = match gate || up {
            true => self.gated.backward(gate_and_up, multiply(matrix(&grad), matrix(&wide(weight))), [gate, up]),
            false => [None, None],
        };
        [for_gate, for_up, for_weight]
    }
}
