//! The decoder's operations, each a named function in one place.
//!
//! `plain` composes burn's own operations: it runs on every device and is what the tests compare
//! with. On the CPU the same functions take a fused forward and backward from `flex`.

mod flex;
mod part;
mod plain;
mod plan;
mod sum;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use flex::{Input, run};
pub use flex::{RowCache, serves};
pub(crate) use flex::{Shared, Writable, change};
pub use part::Part;
pub use plan::{Activation, AttentionPlan, Rope, Scores, Span};
pub(crate) use sum::Sum;

/// The tensor in f32, as which every other operation takes what is no weight of a linear layer.
pub fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.dtype() == DType::BF16 { x.cast(DType::F32) } else { x }
}

/// A matrix of zeros that takes no memory, to be replaced by one that does.
pub(crate) fn zero_matrix(shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::<2>::zeros([1, 1], device).expand(shape)
}

/// `y = x W^T + b`; the weight may be in bf16.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]`, bias: `[out]`, output: `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    summed_linear(x, weight, bias, None)
}

/// As [`linear`]; with a sum, the weight's gradient is added to it and to no other.
pub(crate) fn summed_linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, sum: Option<&Sum>) -> Tensor<2> {
    if !serves(&x.device(), x.dtype()) {
        return plain::linear(x, weight, bias);
    }
    let y = match x.device().is_autodiff() {
        true => run(flex::Linear { sum: sum.cloned() }, [Input::new(x, true), Input::new(weight, true)]),
        false => flex::product(&x, &weight),
    };
    plain::biased(y, bias)
}

/// A low-rank update beside a linear layer's weight.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// Factor on the update's output.
    pub scale: f64,
    /// Factors on the update's input, `[rows, in]`: dropout.
    pub mask: Option<Tensor<2>>,
}

/// `y = x W^T + b + scale (x mask) A^T B^T`.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]`, bias: `[out]`, output: `[rows, out]`
pub fn adapted_linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, update: LowRank) -> Tensor<2> {
    if !serves(&x.device(), x.dtype()) {
        return plain::adapted_linear(x, weight, bias, update);
    }
    let LowRank { a, b, scale, mask } = update;
    let autodiff = [&x, &weight, &a, &b].iter().any(|tensor| tensor.device().is_autodiff());
    let op = flex::Adapted { scale: scale as f32, mask: mask.as_ref().map(flex::constant) };
    plain::biased(run(op, [x, weight, a, b].map(|tensor| Input::new(tensor, autodiff))), bias)
}

/// `y = x / sqrt(mean(x^2) + epsilon) * weight`.
///
/// # Shapes
/// - x and output: `[rows, width]`, weight: `[width]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    if !serves(&x.device(), x.dtype()) {
        return plain::rms_norm(x, weight, epsilon);
    }
    let autodiff = x.device().is_autodiff();
    run(flex::RmsNorm { epsilon }, [Input::new(x, autodiff), Input::new(weight, autodiff)])
}

/// Rotates the two halves of each head by its position's angles.
///
/// # Shapes
/// - x and output: `[rows, heads, head_dim]`
pub fn rotate(x: Tensor<3>, rope: &Rope) -> Tensor<3> {
    if !serves(&x.device(), x.dtype()) {
        return plain::rotate(x, rope);
    }
    let autodiff = x.device().is_autodiff();
    let [cos, sin] = [&rope.cos, &rope.sin].map(flex::constant);
    run(flex::Rotate { cos, sin }, [Input::new(x, autodiff)])
}

/// `activation(gate) * up`, not computed yet.
#[derive(Debug, Clone)]
pub struct Gated {
    /// `[rows, width]`.
    pub gate: Tensor<2>,
    /// `[rows, width]`.
    pub up: Tensor<2>,
    /// Of the gate.
    pub activation: Activation,
}

impl Gated {
    /// The values, `[rows, width]`.
    #[must_use]
    pub fn values(&self) -> Tensor<2> {
        let Self { gate, up, activation } = self.clone();
        if !serves(&gate.device(), gate.dtype()) {
            return plain::gated(gate, up, activation);
        }
        let autodiff = gate.device().is_autodiff();
        run(flex::Gated { activation }, [gate, up].map(|tensor| Input::new(tensor, autodiff)))
    }
}

/// As [`linear`] of gated activations, which are made once more in the backward instead of kept for it. With a sum, the weight's
/// gradient is added to it and to no other.
pub(crate) fn gated_linear(x: Gated, weight: Tensor<2>, bias: Option<Tensor<1>>, sum: Option<&Sum>) -> Tensor<2> {
    let device = x.gate.device();
    if !device.is_autodiff() || !serves(&device, x.gate.dtype()) {
        return summed_linear(x.values(), weight, bias, sum);
    }
    let op = flex::GatedLinear {
        gated: flex::Gated { activation: x.activation },
        linear: flex::Linear { sum: sum.cloned() },
    };
    plain::biased(run(op, [x.gate, x.up, weight].map(|tensor| Input::new(tensor, true))), bias)
}

/// Keeps values within a bound, smoothly.
///
/// # Mathematical Definition
/// `cap * tanh(x / cap)`
pub fn softcap<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    x.div_scalar(cap).tanh().mul_scalar(cap)
}

/// Causal attention of the query rows over the pack.
///
/// # Mathematical Definition
/// `softmax(scores(q k^T)) v`, over the keys that the plan lets each query see.
///
/// # Shapes
/// - query and output: `[query rows, heads, head_dim]`
/// - key and value: `[positions, kv_heads, head_dim]`
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    plan: &Arc<AttentionPlan>,
    scores: Scores,
) -> Tensor<3> {
    if !serves(&query.device(), query.dtype()) {
        return plain::attention(query, key, value, plan, scores);
    }
    if !query.device().is_autodiff() {
        return flex::attend_pack([&query, &key, &value], plan, scores);
    }
    let inputs = [query, key, value].map(|input| Input::new(input, true));
    run(flex::Attention { plan: plan.clone(), scores }, inputs)
}

/// Negative log-likelihood of each row's target.
///
/// # Shapes
/// - logits: `[rows, vocab]`, targets and output: `[rows]`
///
/// # Panics
/// When there is not one target below the vocabulary's size per row: an error of the caller.
pub fn negative_log_likelihood(logits: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let [rows, vocab] = logits.dims();
    assert_eq!(rows, targets.len(), "one target per row of logits");
    assert!(targets.iter().all(|&target| (target as usize) < vocab), "targets are below {vocab}");
    if !serves(&logits.device(), logits.dtype()) {
        let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
        let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(ids, [rows]), &logits.device());
        return plain::negative_log_likelihood(logits, ids);
    }
    let autodiff = logits.device().is_autodiff();
    run(flex::NegativeLogLikelihood { targets: targets.to_vec() }, [Input::new(logits, autodiff)])
}
