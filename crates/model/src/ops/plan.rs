//! What the operations are told beside tensors.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Segments;

/// The query rows of a pack, and what each may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionPlan {
    /// Pack position of each query row.
    pub query_positions: Vec<usize>,
    /// Number of shared positions at the start of the pack.
    pub prefix: usize,
    /// One span per row of the batch (and one for the prefix), covering all query rows in order.
    pub spans: Vec<Span>,
    /// Positions that a query sees, its own included; `None` when it sees all up to its own.
    pub window: Option<usize>,
}

/// Queries that see the same keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Query rows.
    pub queries: std::ops::Range<usize>,
    /// The row's own keys, as pack positions; a query sees those up to its own position.
    pub keys: std::ops::Range<usize>,
    /// Whether the queries also see the whole prefix.
    pub sees_prefix: bool,
}

impl AttentionPlan {
    /// The plan for the query rows at `positions` of the pack (ascending, any subset).
    pub fn new(segments: &Segments, positions: &[usize], window: Option<usize>) -> Self {
        let own = segments.ranges().map(|keys| (keys, true));
        let all = std::iter::once((0..segments.prefix, false)).chain(own);
        let mut spans = Vec::new();
        for (keys, sees_prefix) in all {
            let start = positions.partition_point(|&p| p < keys.start);
            let end = positions.partition_point(|&p| p < keys.end);
            if start < end {
                spans.push(Span { queries: start..end, keys, sees_prefix: sees_prefix && segments.prefix > 0 });
            }
        }
        Self { query_positions: positions.to_vec(), prefix: segments.prefix, spans, window }
    }

    /// Keys of a span that its `query`-th query sees, as a range of the prefix (where the span sees
    /// it) followed by the span's own keys.
    pub fn visible(&self, span: &Span, query: usize) -> std::ops::Range<usize> {
        let before = if span.sees_prefix { self.prefix } else { 0 };
        let end = before + self.query_positions[span.queries.start + query] - span.keys.start + 1;
        end - self.window.map_or(end, |window| window.min(end))..end
    }
}

/// How scores become attention weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Factor on the products of query and key.
    pub scale: f64,
    /// Bound that scores approach.
    pub softcap: Option<f64>,
}

impl Scores {
    /// The scores that go into the softmax, given the products of query and key.
    ///
    /// # Mathematical Definition
    /// `s = scale * product`, and `cap * tanh(s / cap)` where there is a cap
    pub fn apply<const D: usize>(self, products: Tensor<D>) -> Tensor<D> {
        let scores = products.mul_scalar(self.scale);
        match self.softcap {
            None => scores,
            Some(cap) => super::softcap(scores, cap),
        }
    }
}

/// The activation of the gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x * sigmoid(x)`: Llama, Mistral, Qwen.
    #[serde(rename = "silu")]
    Silu,
    /// The tanh approximation of GeLU: Gemma.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
}

/// Cosines and sines of the rotation by position, each `[positions, head_dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Cosine of position times frequency.
    pub cos: Tensor<2>,
    /// Sine of position times frequency.
    pub sin: Tensor<2>,
}

impl Rope {
    /// The tables' rows at some indices.
    pub fn select(&self, rows: Tensor<1, Int>) -> Self {
        Self { cos: self.cos.clone().select(0, rows.clone()), sin: self.sin.clone().select(0, rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_covers_the_queries_in_order() {
        let segments = Segments { prefix: 2, bounds: vec![2, 4, 5, 7] };
        let all = AttentionPlan::new(&segments, &[0, 1, 2, 3, 4, 5, 6], None);
        assert_eq!(all.spans.iter().map(|s| s.queries.clone()).collect::<Vec<_>>(), [0..2, 2..4, 4..5, 5..7]);
        assert!(!all.spans[0].sees_prefix && all.spans[1].sees_prefix);
        let last = AttentionPlan::new(&segments, &segments.last(), None);
        assert_eq!(last.spans.len(), 3);
        assert_eq!(last.spans[2], Span { queries: 2..3, keys: 5..7, sees_prefix: true });
    }

    #[test]
    fn a_window_ends_at_the_query_and_counts_the_prefix() {
        let segments = Segments { prefix: 3, bounds: vec![3, 5, 8] };
        let positions: Vec<usize> = (0..8).collect();
        let seen = |window| {
            let plan = AttentionPlan::new(&segments, &positions, window);
            let of = |span: &Span| (0..span.queries.len()).map(|query| plan.visible(span, query)).collect::<Vec<_>>();
            plan.spans.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(seen(None), [vec![0..1, 0..2, 0..3], vec![0..4, 0..5], vec![0..4, 0..5, 0..6]]);
        assert_eq!(seen(Some(2)), [vec![0..1, 0..2, 1..3], vec![2..4, 3..5], vec![2..4, 3..5, 4..6]]);
        assert_eq!(seen(Some(9)), seen(None));
    }
}
