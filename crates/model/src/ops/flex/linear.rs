//! `y = x W^T`: gradients come out in the weight's own layout.

use burn::backend::flex::FlexTensor;

use super::super::Sum;
use super::{Fused, Gated, matmul, values, wide};

/// See [`super::super::linear`]; inputs: x, weight.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Where the weight's gradient is added.
    pub sum: Option<Sum>,
}

impl Fused<2> for Linear {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        (matmul(x.clone(), wide(weight.clone()).transpose(0, 1)), [x, weight])
    }

    fn backward(&self, [x, weight]: Self::Saved, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let mut for_weight = wanted[1].then(|| matmul(grad.transpose(0, 1), x));
        if let Some((sum, gradient)) = self.sum.as_ref().zip(for_weight.as_ref()) {
            sum.add(values(gradient));
            for_weight = None;
        }
        let for_x = wanted[0].then(|| matmul(grad, wide(weight)));
        [for_x, for_weight]
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
        let (x, gate_and_up) = self.gated.forward(gate_and_up);
        let [for_x, for_weight] = self.linear.backward([x, weight], grad, [gate || up, of_weight]);
        let for_x = for_x.map(|grad| self.gated.backward(gate_and_up, grad, [gate, up]));
        let [for_gate, for_up] = for_x.unwrap_or_default();
        [for_gate, for_up, for_weight]
    }
}
