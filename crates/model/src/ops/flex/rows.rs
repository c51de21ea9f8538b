//! Attention without gradients, one query row at a time, and the keys and values of rows that are
//! being decoded.
//!
//! As in `product.rs`, a row's result does not depend on the rows beside it. Each row keeps its own
//! keys and values, so that nothing is padded, and nothing moves when rows leave or join.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::super::{AttentionPlan, Scores};
use super::attention::{Heads, weigh};
use super::product::{Strided, dots};
use super::{constant, tensor, values, vectorized, zeros};
use crate::Segments;

/// New positions that memory is taken for at first; it grows for longer answers, of which most are short.
const RESERVED: usize = 64;

/// Keys that go through one tile with a group of queries.
const KEYS: usize = 3;

/// Attention of the query rows over the pack; shapes as [`super::super::attention`].
/// Inputs: query, key, value.
pub fn attend_pack([query, key, value]: [&Tensor<3>; 3], plan: &AttentionPlan, scores: Scores) -> Tensor<3> {
    let heads = Heads::of(query.dims(), key.dims());
    let [query, key, value] = [query, key, value].map(constant);
    let [query, key, value] = [&query, &key, &value].map(values);
    let (query_width, key_width) = (heads.query_width(), heads.key_width());
    let mut output = zeros(query.len());
    let spans: Vec<_> = plan.spans.iter().flat_map(|span| span.queries.clone().map(move |row| (row, span))).collect();
    output.par_chunks_mut(query_width).zip(spans).with_min_len(4).for_each(|(output, (row, span))| {
        let visible = plan.visible(span, row - span.queries.start);
        let before = if span.sees_prefix { plan.prefix } else { 0 };
        let prefix = visible.start.min(before)..before;
        let own = [visible.start.max(before), visible.end].map(|position| span.keys.start + position - before);
        let own = own[0]..own[1];
        let seen = [prefix, own].map(|range| {
            let range = range.start * key_width..range.end * key_width;
            (&key[range.clone()], &value[range])
        });
        let query = &query[row * query_width..][..query_width];
        vectorized(RowAttention { query, seen, heads, scores, output });
    });
    rows_of(output, heads)
}

/// The keys and values of one block for the rows of a batch.
#[derive(Debug, Clone)]
pub struct RowCache {
    /// How the rows lie in the pack that is computed first.
    segments: Segments,
    /// Positions that each row gets at most, beside those of the pack.
    new_tokens: usize,
    /// Positions that a new one sees, its own included.
    window: Option<usize>,
    rows: Vec<CachedRow>,
}

/// One row's keys and values, each `[positions, kv_heads, head_dim]`.
#[derive(Debug, Clone)]
struct CachedRow {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl RowCache {
    /// An empty cache for the rows of a pack.
    pub fn new(segments: &Segments, new_tokens: usize, window: Option<usize>) -> Self {
        Self { segments: segments.clone(), new_tokens, window, rows: Vec::new() }
    }

    /// Stores the pack's keys and values, each `[positions of the pack, kv_heads, head_dim]`.
    pub fn prefill(&mut self, key: &Tensor<3>, value: &Tensor<3>) {
        let [_, kv_heads, head_dim] = key.dims();
        let (width, prefix, reserved) = (kv_heads * head_dim, self.segments.prefix, self.new_tokens.min(RESERVED));
        let [key, value] = [key, value].map(constant);
        let copy = |from: &FlexTensor, own: &std::ops::Range<usize>| {
            let from = values(from);
            let mut row = Vec::with_capacity((prefix + own.len() + reserved) * width);
            row.extend_from_slice(&from[..prefix * width]);
            row.extend_from_slice(&from[own.start * width..own.end * width]);
            row
        };
        let row = |own| CachedRow { keys: copy(&key, &own), values: copy(&value, &own) };
        self.rows = self.segments.ranges().map(row).collect();
    }

    /// Stores one new position per row and attends over all of the row's; shapes as
    /// `attend_pack`, with one query, key and value for each row.
    ///
    /// # Panics
    /// When the rows are not those that are stored: an error of the caller.
    pub fn attend(&mut self, query: &Tensor<3>, key: &Tensor<3>, value: &Tensor<3>, scores: Scores) -> Tensor<3> {
        let (heads, [rows, ..]) = (Heads::of(query.dims(), key.dims()), query.dims());
        assert_eq!(rows, self.rows.len(), "a step needs a prefill before it, and each row a query");
        let (query_width, key_width) = (heads.query_width(), heads.key_width());
        let [query, key, value] = [query, key, value].map(constant);
        let mut output = zeros(values(&query).len());
        let window = self.window;
        let new = values(&key).par_chunks(key_width).zip(values(&value).par_chunks(key_width));
        let asked = output.par_chunks_mut(query_width).zip(values(&query).par_chunks(query_width));
        self.rows.par_iter_mut().zip(new).zip(asked).for_each(|((row, (key, value)), (output, query))| {
            row.keys.extend_from_slice(key);
            row.values.extend_from_slice(value);
            let first = window.map_or(0, |window| row.keys.len().saturating_sub(window.saturating_mul(key_width)));
            let seen = [(&row.keys[first..], &row.values[first..]), (&[], &[])];
            vectorized(RowAttention { query, seen, heads, scores, output });
        });
        rows_of(output, heads)
    }

    /// Keeps the given rows alone; ascending.
    pub fn keep(&mut self, rows: &[usize]) {
        let mut index = 0..;
        self.rows.retain(|_| index.next().is_some_and(|index| rows.binary_search(&index).is_ok()));
    }

    /// Takes in the rows of another cache, behind its own.
    pub fn join(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }
}

/// The output of all rows as a tensor.
fn rows_of(output: Vec<f32>, heads: Heads) -> Tensor<3> {
    let rows = output.len() / heads.query_width();
    Tensor::from_primitive::<Flex>(tensor(output, [rows, heads.heads, heads.head_dim]))
}

/// One query row over the keys and values that it sees, in up to two runs.
struct RowAttention<'a> {
    query: &'a [f32],
    seen: [(&'a [f32], &'a [f32]); 2],
    heads: Heads,
    scores: Scores,
    output: &'a mut [f32],
}

impl WithSimd for RowAttention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let head_dim = self.heads.head_dim;
        let (group, width) = (self.heads.group(), self.heads.key_width());
        let count = self.seen.iter().map(|(keys, _)| keys.len() / width).sum::<usize>();
        let mut weights = zeros(group * count);
        let groups = self.query.chunks(group * head_dim).zip(self.output.chunks_mut(group * head_dim));
        for (head, (query, output)) in groups.enumerate() {
            let mut first = 0;
            for (keys, _) in self.seen {
                for keys in keys.chunks(KEYS * width) {
                    let found = keys.len() / width;
                    let keys = Strided { rows: &keys[head * head_dim..], stride: width };
                    for (turn, query) in query.chunks(4 * head_dim).enumerate() {
                        let put =
                            |row: usize, key: usize, sum: f32| weights[(4 * turn + row) * count + first + key] = sum;
                        dots(simd, Strided { rows: query, stride: head_dim }, keys, 0..head_dim, put);
                    }
                    first += found;
                }
            }
            for (weights, output) in weights.chunks_mut(count).zip(output.chunks_mut(head_dim)) {
                weigh(weights, self.scores);
                let all = self.seen.iter().flat_map(|(_, values)| values.chunks(width));
                for (&weight, value) in weights.iter().zip(all) {
                    add_scaled(simd, output, weight, &value[head * head_dim..][..head_dim]);
                }
            }
        }
    }
}

/// `to += weight * from`.
#[inline(always)]
fn add_scaled<S: Simd>(simd: S, to: &mut [f32], weight: f32, from: &[f32]) {
    let ((to, to_tail), (from, from_tail)) = (S::as_mut_simd_f32s(to), S::as_simd_f32s(from));
    let factor = simd.splat_f32s(weight);
    for (to, from) in to.iter_mut().zip(from) {
        *to = simd.mul_add_e_f32s(factor, *from, *to);
    }
    for (to, from) in to_tail.iter_mut().zip(from_tail) {
        *to += weight * from;
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::Packed;

    #[test]
    fn little_is_reserved_whatever_the_longest_answer() {
        let segments = Packed::new(&[[1u32, 2, 3]]).unwrap().segments;
        let mut cache = RowCache::new(&segments, 1 << 40, None);
        let states = Tensor::<3>::ones([3, 1, 4], &Device::flex());
        cache.prefill(&states, &states);
        assert!(cache.rows.iter().all(|row| row.keys.len() == 12 && row.keys.capacity() <= (3 + RESERVED) * 4));
    }
}
