//! The operations as compositions of burn's own, for every device; see [`super`] for the shapes.

use burn::tensor::activation::{gelu_approximate, log_softmax, silu, softmax};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::{Activation, AttentionPlan, LowRank, Rope, Scores, Span};

pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    biased(x.matmul(weight.transpose()), bias)
}

/// `y + b`, where there is a bias.
pub fn biased(y: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

pub fn adapted_linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, update: LowRank) -> Tensor<2> {
    let masked = match update.mask {
        Some(mask) => x.clone() * mask,
        None => x.clone(),
    };
    let low = masked.matmul(update.a.transpose()).mul_scalar(update.scale);
    linear(x, weight, bias) + low.matmul(update.b.transpose())
}

pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let mean_square = x.clone().powi_scalar(2).mean_dim(1);
    x * mean_square.add_scalar(epsilon).sqrt().recip() * weight.unsqueeze()
}

pub fn rotate(x: Tensor<3>, rope: &Rope) -> Tensor<3> {
    let [_, _, head_dim] = x.dims();
    let half = head_dim / 2;
    let (cos, sin) = (rope.cos.clone().unsqueeze_dim::<3>(1), rope.sin.clone().unsqueeze_dim::<3>(1));
    let first = x.clone().narrow(2, 0, half);
    let second = x.narrow(2, half, half);
    Tensor::cat(vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin], 2)
}

pub fn gated(gate: Tensor<2>, up: Tensor<2>, activation: Activation) -> Tensor<2> {
    match activation {
        Activation::Silu => silu(gate) * up,
        Activation::GeluTanh => gelu_approximate(gate) * up,
    }
}

pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    plan: &AttentionPlan,
    scores: Scores,
) -> Tensor<3> {
    let of_span = |span: &Span| {
        let gather = |x: &Tensor<3>| {
            let own = x.clone().narrow(0, span.keys.start, span.keys.len());
            let seen =
                if span.sees_prefix { Tensor::cat(vec![x.clone().narrow(0, 0, plan.prefix), own], 0) } else { own };
            seen.swap_dims(0, 1)
        };
        let query = query.clone().narrow(0, span.queries.start, span.queries.len());
        attend_span(query, gather(&key), gather(&value), mask(plan, span, &key), scores)
    };
    Tensor::cat(plan.spans.iter().map(of_span).collect(), 0)
}

/// True where the query does not see the key: `[1, queries, keys]`.
fn mask(plan: &AttentionPlan, span: &Span, like: &Tensor<3>) -> Tensor<3, Bool> {
    let before = if span.sees_prefix { plan.prefix } else { 0 };
    let keys = before + span.keys.len();
    let hidden: Vec<bool> = (0..span.queries.len())
        .flat_map(|query| {
            let visible = plan.visible(span, query);
            (0..keys).map(move |key| !visible.contains(&key))
        })
        .collect();
    Tensor::from_data(TensorData::new(hidden, [1, span.queries.len(), keys]), &like.device())
}

/// `query`: `[n, heads, head_dim]`; `key`, `value`: `[kv_heads, m, head_dim]`; `mask`: `[1, n, m]`.
fn attend_span(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, mask: Tensor<3, Bool>, how: Scores) -> Tensor<3> {
    let [n, heads, head_dim] = query.dims();
    let [kv_heads, m, _] = key.dims();
    let group = heads / kv_heads;
    let query = query.swap_dims(0, 1).reshape([kv_heads, group * n, head_dim]);
    let scores = how.apply(query.matmul(key.swap_dims(1, 2)));
    let scores = scores.reshape([heads, n, m]).mask_fill(mask.expand([heads, n, m]), f32::NEG_INFINITY);
    let weights = softmax(scores, 2).reshape([kv_heads, group * n, m]);
    weights.matmul(value).reshape([heads, n, head_dim]).swap_dims(0, 1)
}

pub fn negative_log_likelihood(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [rows, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).reshape([rows]).neg()
}
