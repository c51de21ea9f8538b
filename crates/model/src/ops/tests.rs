//! Fused operations agree with their plain compositions, forward and backward.

use std::sync::Arc;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

use super::*;
use crate::checkpoint::tests::{config, numbered};
use crate::config::{LayerType, ModelType};
use crate::{Packed, Segments, weights};

fn device() -> Device {
    let device = Device::flex();
    device.seed(11);
    device.autodiff()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device()).require_grad()
}

fn assert_close(a: &TensorData, b: &TensorData, what: &str) {
    let (a, b) = (a.as_slice::<f32>().expect("f32"), b.as_slice::<f32>().expect("f32"));
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "{what}[{i}]: {a} against {b}");
    }
}

/// Compares outputs, and the gradients of a random weighting of them.
fn compare<const N: usize, const D: usize, const O: usize>(
    inputs: [Tensor<D>; N],
    fused: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    plain: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) {
    let (a, b) = (fused(inputs.clone()), plain(inputs.clone()));
    assert_close(&a.to_data(), &b.to_data(), "output");
    let weighting = Tensor::<O>::random(a.dims(), Distribution::Normal(0.0, 1.0), &device());
    let mut grads_a = (a * weighting.clone()).sum().backward();
    let mut grads_b = (b * weighting).sum().backward();
    for (index, input) in inputs.into_iter().enumerate() {
        let a = input.grad_remove(&mut grads_a).expect("tracked").into_data();
        let b = input.grad_remove(&mut grads_b).expect("tracked").into_data();
        assert_close(&a, &b, &format!("gradient of input {index}"));
    }
}

/// What a GPU runs, on the CPU: its operations, and gradients of the weights that recovery tracks.
#[test]
fn a_whole_decoders_gradients_are_those_of_the_operations_of_other_devices() {
    for family in ModelType::ALL {
        let decoder = numbered(&config(family.name(), true));
        let decoder = weights::track(decoder, |info| info.layer.is_some() && !info.is_norm);
        let rows: [&[u32]; 2] = [&[1, 2, 3, 4], &[5, 6, 7]];
        let packed = Packed::new(&rows).unwrap();
        let gradients = |is_other| {
            flex::IS_OTHER.set(is_other);
            let loss = decoder.logits(&packed, &[1, 3, 6]).unwrap().powi_scalar(2).sum();
            let found = weights::gradients(&decoder, loss.backward()).unwrap();
            flex::IS_OTHER.set(false);
            found
        };
        let (fused, other) = (gradients(false), gradients(true));
        assert!(!fused.is_empty() && fused.len() == other.len(), "{}", family.name());
        for (name, fused) in fused {
            assert!(fused.iter().any(|&value| value != 0.0), "{}, {name}", family.name());
            let [fused, found] = [&fused, &other[&name]].map(|values| TensorData::new(values.clone(), [values.len()]));
            assert_close(&found, &fused, &format!("{}, {name}", family.name()));
        }
    }
}

#[test]
fn linear_agrees_with_its_composition() {
    compare([random([7, 5]), random([3, 5])], |[x, w]| linear(x, w, None), |[x, w]| plain::linear(x, w, None));
}

#[test]
fn an_adapted_linear_agrees_with_its_composition_with_and_without_mask() {
    let mask = Tensor::<2>::random([4, 4], Distribution::Bernoulli(0.5), &device()).mul_scalar(2.0);
    for mask in [None, Some(mask)] {
        let update = |a, b| LowRank { a, b, scale: 0.7, mask: mask.clone() };
        compare(
            [(); 4].map(|()| random([4, 4])),
            |[x, w, a, b]| adapted_linear(x, w, None, update(a.narrow(0, 0, 2), b.narrow(1, 0, 2))),
            |[x, w, a, b]| plain::adapted_linear(x, w, None, update(a.narrow(0, 0, 2), b.narrow(1, 0, 2))),
        );
    }
}

#[test]
fn an_adapter_on_a_frozen_weight_has_the_gradients_of_its_composition() {
    let frozen = random([3, 5]).detach();
    let weight = frozen.clone().without_autodiff();
    for zero in [1.0, 0.0] {
        let inputs = [random([7, 5]), random([2, 5]), random([3, 2])];
        let grads = |f: &dyn Fn(Tensor<2>, Tensor<2>, LowRank) -> Tensor<2>| {
            let [x, a, b] = inputs.clone().map(|t| t.detach().require_grad());
            let b = b.mul_scalar(zero).detach().require_grad();
            let update = LowRank { a: a.clone(), b: b.clone(), scale: 0.7, mask: None };
            let y = f(x.clone().powi_scalar(2), weight.clone(), update.clone());
            let z = f(y.matmul(random([3, 5]).ones_like()), weight.clone(), update);
            let mut grads = z.powi_scalar(2).sum().backward();
            [x, a, b].map(|t| t.grad_remove(&mut grads).expect("tracked").into_data())
        };
        let fused = grads(&|x, w, u| adapted_linear(x, w, None, u));
        let plain = grads(&|x, w, u| plain::adapted_linear(x, Tensor::from_inner(w), None, u));
        for (fused, plain) in fused.iter().zip(&plain) {
            assert_close(fused, plain, "gradient");
        }
    }
}

#[test]
fn rms_norm_agrees_with_its_composition() {
    let norm = |f: fn(Tensor<2>, Tensor<1>, f64) -> Tensor<2>| {
        move |[x, w]: [Tensor<2>; 2]| f(x, w.narrow(0, 0, 1).reshape([16]), 1e-5)
    };
    compare([random([9, 16]), random([9, 16])], norm(rms_norm), norm(plain::rms_norm));
}

#[test]
fn gated_agrees_with_its_composition() {
    for act in [Activation::Silu, Activation::GeluTanh] {
        let wide = || random([5, 33]).mul_scalar(3.0).detach().require_grad();
        let gated = |gate, up| Gated { gate, up, activation: act };
        compare([wide(), wide()], |[g, u]| gated(g, u).values(), |[g, u]| plain::gated(g, u, act));
        compare(
            [wide(), wide(), random([5, 33])],
            |[g, u, w]| gated_linear(gated(g, u), w, None, None),
            |[g, u, w]| plain::linear(plain::gated(g, u, act), w, None),
        );
    }
}

#[test]
fn rotation_agrees_with_its_composition() {
    let json = serde_json::json!({"model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2});
    let config = crate::DecoderConfig::from_json(&json, std::path::Path::new("test")).expect("valid");
    let rope = Rope::new(&config, LayerType::FullAttention, &[0, 1, 5, 2], &device());
    compare([random([4, 2, 8])], |[x]| rotate(x, &rope), |[x]| plain::rotate(x, &rope));
}

/// Fused against plain attention, four query heads of width 8 in groups of two, with and without a
/// prefix, all positions and the last ones of each row asking.
fn compare_attention(window: Option<usize>, scores: Scores) {
    for segments in [Segments { prefix: 0, bounds: vec![0, 4, 9] }, Segments { prefix: 3, bounds: vec![3, 5, 6, 9] }] {
        for positions in [(0..9).collect(), segments.last()] {
            let plan = Arc::new(AttentionPlan::new(&segments, &positions, window));
            let index: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
            let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index, [positions.len()]), &device());
            let split = |f: &dyn Fn(Tensor<3>, Tensor<3>, Tensor<3>) -> Tensor<3>, [q, k, v]: [Tensor<3>; 3]| {
                f(q.select(0, index.clone()), k.narrow(1, 0, 2), v.narrow(1, 0, 2))
            };
            compare(
                [random([9, 4, 8]), random([9, 4, 8]), random([9, 4, 8])],
                |inputs| split(&|q, k, v| attention(q, k, v, &plan, scores), inputs),
                |inputs| split(&|q, k, v| plain::attention(q, k, v, &plan, scores), inputs),
            );
        }
    }
}

#[test]
fn attention_without_gradients_agrees_for_groups_and_widths_of_any_size() {
    let device = Device::flex();
    device.seed(12);
    let segments = Segments { prefix: 3, bounds: vec![3, 5, 6, 14] };
    let positions: Vec<usize> = (0..14).collect();
    for (heads, kv_heads, head_dim, window, softcap) in
        [(4, 2, 8, None, None), (12, 2, 6, Some(2), None), (5, 1, 10, Some(4), Some(1.5)), (3, 3, 64, None, Some(2.0))]
    {
        let plan = Arc::new(AttentionPlan::new(&segments, &positions, window));
        let scores = Scores { scale: 0.4, softcap };
        let random = |heads| Tensor::<3>::random([14, heads, head_dim], Distribution::Normal(0.0, 1.0), &device);
        let [query, key, value] = [random(heads), random(kv_heads), random(kv_heads)];
        let found = attention(query.clone(), key.clone(), value.clone(), &plan, scores);
        assert_close(&found.to_data(), &plain::attention(query, key, value, &plan, scores).to_data(), "output");
    }
}

#[test]
fn attention_agrees_with_its_composition_with_and_without_prefix() {
    compare_attention(None, Scores { scale: 0.35, softcap: None });
}

#[test]
fn windowed_attention_agrees_with_its_composition() {
    for window in [1, 2, 4] {
        compare_attention(Some(window), Scores { scale: 0.6, softcap: None });
    }
}

#[test]
fn soft_capped_attention_agrees_with_its_composition() {
    for window in [None, Some(2)] {
        compare_attention(window, Scores { scale: 0.6, softcap: Some(1.5) });
    }
}

#[test]
fn negative_log_likelihood_agrees_with_its_composition() {
    let targets = [3u32, 0, 39];
    let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(vec![3, 0, 39], [3]), &device());
    compare(
        [random([3, 40]).mul_scalar(5.0).detach().require_grad()],
        |[x]| negative_log_likelihood(x, &targets),
        |[x]| plain::negative_log_likelihood(x, ids.clone()),
    );
}
