//! Attention over packed rows: one span at a time, heads of a group as one matrix, the scores
//! computed again in the backward instead of kept.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use faer::MatRef;
use rayon::prelude::*;

use super::super::{AttentionPlan, Scores, Span};
use super::elementwise::exp;
use super::matmul::{multiply_heads, per_head};
use super::{Fused, contiguous, dims, fold, tensor, values, widely, zeros};

/// See [`super::super::attention`]; inputs: query, key, value.
#[derive(Debug, Clone)]
pub struct Attention {
    /// What each query sees.
    pub plan: Arc<AttentionPlan>,
    /// How scores become weights.
    pub scores: Scores,
}

/// The heads of a call.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Of the query's and the key's dimensions.
    pub fn of([_, heads, head_dim]: [usize; 3], [_, kv_heads, _]: [usize; 3]) -> Self {
        Self { heads, kv_heads, head_dim }
    }

    pub fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    pub fn query_width(self) -> usize {
        self.heads * self.head_dim
    }

    pub fn key_width(self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Fused<3> for Attention {
    type Saved = [FlexTensor; 3];

    fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let [query, key, value] = inputs.map(contiguous);
        let heads = Heads::of(dims(&query), dims(&key));
        let mut output = zeros(values(&query).len());
        let spans: Vec<(&Span, &mut [f32])> = self.cut(&mut output, heads.query_width());
        spans.into_par_iter().for_each(|(span, output)| {
            let own = SpanTensors::new(&self.plan, span, heads, [&query, &key, &value]);
            let weights = own.weights(self, span);
            let attended = multiply_heads(per_head(&weights), per_head(&own.value));
            scatter_rows(values(&attended), output, heads.group(), heads);
        });
        let [rows, _, _] = dims(&query);
        (tensor(output, [rows, heads.heads, heads.head_dim]), [query, key, value])
    }

    fn backward(&self, [query, key, value]: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let heads = Heads::of(dims(&query), dims(&key));
        let mut for_query = zeros(values(&query).len());
        let cut = self.cut(&mut for_query, heads.query_width());
        let parts: Vec<(&Span, [FlexTensor; 2])> = cut
            .into_par_iter()
            .map(|(span, for_query)| {
                let own = SpanTensors::new(&self.plan, span, heads, [&query, &key, &value]);
                let grad = grouped(rows(&grad, &span.queries, heads.query_width()), heads.group(), heads);
                let [span_query, span_key, span_value] = own.backward(self, span, grad);
                scatter_rows(values(&span_query), for_query, heads.group(), heads);
                (span, [span_key, span_value])
            })
            .collect();
        let mut for_key = zeros(values(&key).len());
        let mut for_value = zeros(values(&key).len());
        for (span, [span_key, span_value]) in parts {
            self.add_rows(&span_key, span, &mut for_key, heads);
            self.add_rows(&span_value, span, &mut for_value, heads);
        }
        let [query_rows, _, _] = dims(&query);
        let key_shape: [usize; 3] = dims(&key);
        [
            Some(tensor(for_query, [query_rows, heads.heads, heads.head_dim])),
            Some(tensor(for_key, key_shape)),
            Some(tensor(for_value, key_shape)),
        ]
    }
}

impl Attention {
    /// The query rows of each span, which follow one another.
    fn cut<'a>(&'a self, mut all: &'a mut [f32], width: usize) -> Vec<(&'a Span, &'a mut [f32])> {
        let mut parts = Vec::with_capacity(self.plan.spans.len());
        for span in &self.plan.spans {
            let (part, rest) = all.split_at_mut(span.queries.len() * width);
            parts.push((span, part));
            all = rest;
        }
        parts
    }

    /// Adds a span's key or value gradient, `[kv_heads, seen, head_dim]`, to all positions.
    fn add_rows(&self, part: &FlexTensor, span: &Span, all: &mut [f32], heads: Heads) {
        let before = if span.sees_prefix { self.plan.prefix } else { 0 };
        let seen = before + span.keys.len();
        let part = values(part);
        for position in 0..seen {
            let target = if position < before { position } else { span.keys.start + position - before };
            for head in 0..heads.kv_heads {
                let from = &part[(head * seen + position) * heads.head_dim..][..heads.head_dim];
                let to = &mut all[target * heads.key_width() + head * heads.head_dim..][..heads.head_dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }
}

/// A span's inputs with the heads in front, the queries of a group stacked:
/// query `[kv_heads, group * n, head_dim]`, key and value `[kv_heads, seen, head_dim]`.
struct SpanTensors {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
}

impl SpanTensors {
    fn new(plan: &AttentionPlan, span: &Span, heads: Heads, [query, key, value]: [&FlexTensor; 3]) -> Self {
        let seen = |x: &FlexTensor| {
            let prefix = if span.sees_prefix { 0..plan.prefix } else { 0..0 };
            let width = heads.key_width();
            let all = [rows(x, &prefix, width), rows(x, &span.keys, width)].concat();
            grouped(&all, 1, heads)
        };
        let query = grouped(rows(query, &span.queries, heads.query_width()), heads.group(), heads);
        Self { query, key: seen(key), value: seen(value) }
    }

    /// The attention weights, `[kv_heads, group * n, seen]`.
    fn weights(&self, op: &Attention, span: &Span) -> FlexTensor {
        self.weights_of(self.products(), op, span)
    }

    fn products(&self) -> FlexTensor {
        multiply_heads(per_head(&self.query), per_head(&self.key).map(MatRef::transpose))
    }

    fn weights_of(&self, products: FlexTensor, op: &Attention, span: &Span) -> FlexTensor {
        let shape: [usize; 3] = dims(&products);
        let mut weights = values(&products).to_vec();
        for (row, weights) in weights.chunks_mut(shape[2]).enumerate() {
            let visible = op.plan.visible(span, row % span.queries.len());
            weights[..visible.start].fill(0.0);
            weights[visible.end..].fill(0.0);
            let visible = &mut weights[visible];
            widely(
                #[inline(always)]
                || weigh(visible, op.scores),
            );
        }
        tensor(weights, shape)
    }

    /// Gradients of query, key and value, given the output's, `[kv_heads, group * n, head_dim]`.
    fn backward(self, op: &Attention, span: &Span, grad: FlexTensor) -> [FlexTensor; 3] {
        let products = self.products();
        let weights = self.weights_of(products.clone(), op, span);
        let for_value = multiply_heads(per_head(&weights).map(MatRef::transpose), per_head(&grad));
        let for_weights = multiply_heads(per_head(&grad), per_head(&self.value).map(MatRef::transpose));
        let shape: [usize; 3] = dims(&weights);
        let scale = op.scores.scale as f32;
        let mut for_scores = zeros(values(&weights).len());
        let pairs = values(&weights).chunks(shape[2]).zip(values(&for_weights).chunks(shape[2]));
        for (output, (weights, grads)) in for_scores.chunks_mut(shape[2]).zip(pairs) {
            widely(
                #[inline(always)]
                || {
                    let dot = fold::sum([weights, grads], |[weight, grad]| weight * grad);
                    for ((output, weight), grad) in output.iter_mut().zip(weights).zip(grads) {
                        *output = weight * (grad - dot) * scale;
                    }
                },
            );
        }
        if op.scores.softcap.is_some() {
            for (output, product) in for_scores.iter_mut().zip(values(&products)) {
                let tanh = tanh(op.scores, *product);
                *output *= 1.0 - tanh * tanh;
            }
        }
        let for_scores = tensor(for_scores, shape);
        let for_key = multiply_heads(per_head(&for_scores).map(MatRef::transpose), per_head(&self.query));
        [multiply_heads(per_head(&for_scores), per_head(&self.key)), for_key, for_value]
    }
}

/// `tanh(scale * product / cap)`; 0 where there is no cap.
fn tanh(scores: Scores, product: f32) -> f32 {
    scores.softcap.map_or(0.0, |cap| (product * (scores.scale / cap) as f32).tanh())
}

/// Makes attention weights of the products of a query with the keys that it sees.
#[inline(always)] // into code with the processor's vectors
pub(super) fn weigh(products: &mut [f32], scores: Scores) {
    match scores.softcap {
        None => softmax(products, scores.scale as f32),
        Some(cap) => {
            products.iter_mut().for_each(|x| *x = cap as f32 * tanh(scores, *x));
            softmax(products, 1.0);
        }
    }
}

#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) {
    let max = fold::max(row);
    row.iter_mut().for_each(|x| *x = exp((*x - max) * scale));
    let inverse = 1.0 / fold::sum([row], |[x]| x);
    row.iter_mut().for_each(|x| *x *= inverse);
}

fn rows<'a>(x: &'a FlexTensor, range: &std::ops::Range<usize>, width: usize) -> &'a [f32] {
    &values(x)[range.start * width..range.end * width]
}

/// `[n, kv_heads * group, head_dim]` to `[kv_heads, group * n, head_dim]`.
fn grouped(rows: &[f32], group: usize, heads: Heads) -> FlexTensor {
    let Heads { kv_heads, head_dim, .. } = heads;
    let all_heads = kv_heads * group;
    let n = rows.len() / (all_heads * head_dim);
    let mut output = Vec::with_capacity(rows.len());
    for head in 0..all_heads {
        for row in 0..n {
            output.extend_from_slice(&rows[(row * all_heads + head) * head_dim..][..head_dim]);
        }
    }
    tensor(output, [kv_heads, group * n, head_dim])
}

/// The reverse of [`grouped`].
fn scatter_rows(grouped: &[f32], rows: &mut [f32], group: usize, heads: Heads) {
    let Heads { kv_heads, head_dim, .. } = heads;
    let all_heads = kv_heads * group;
    let n = rows.len() / (all_heads * head_dim);
    for head in 0..all_heads {
        for row in 0..n {
            rows[(row * all_heads + head) * head_dim..][..head_dim]
                .copy_from_slice(&grouped[(head * n + row) * head_dim..][..head_dim]);
        }
    }
}
