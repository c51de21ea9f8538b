//! Selection: the candidates with the largest gradients (METHOD.md section 3).
//!
//! The k-th largest gradient is found by counting, in two passes over the bits of the absolute
//! values (a radix selection): O(n), no sorting, and no copy of the gradients.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Values per parallel piece of work.
const CHUNK: usize = 1 << 16;
/// Bins of one pass: one per value of half the bits of an f32.
const BINS: usize = 1 << 16;

/// What happens to equal gradients at the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Ties {
    /// Exactly k are restored; ties go by flat index.
    Exact,
    /// Those strictly above the k-th largest are restored: k - 1, and no tie (released code).
    Strict,
}

/// What candidates are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The absolute gradient (the paper's method).
    Gradient,
    /// The first-order gain: gradient times difference to the target.
    Gain,
}

/// One tensor as the selection sees it; all slices have one length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Candidates<'a> {
    /// Current values.
    pub values: &'a [f32],
    /// The values they may be set to.
    pub target: &'a [f32],
    /// Gradient of the loss.
    pub gradient: &'a [f32],
}

/// The selected weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Ascending flat indices per tensor.
    pub indices: Vec<Vec<u32>>,
    /// The k-th largest absolute gradient among the candidates; none without a candidate.
    pub threshold: Option<f32>,
}

impl Selected {
    /// Number of selected weights.
    pub fn len(&self) -> usize {
        self.indices.iter().map(Vec::len).sum()
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Selects up to `k` candidates by absolute gradient.
///
/// A candidate is a weight whose difference to the target and whose gradient have the same strict
/// sign: a descent step would move it towards the target.
pub fn select(tensors: &[Candidates<'_>], k: usize, ties: Ties) -> Selected {
    select_by(tensors, k, ties, Rank::Gradient)
}

/// As [`select`], ranked as asked.
pub(crate) fn select_by(tensors: &[Candidates<'_>], k: usize, ties: Ties, rank: Rank) -> Selected {
    let nothing = || Selected { indices: vec![Vec::new(); tensors.len()], threshold: None };
    if k == 0 {
        return nothing();
    }
    let high = histogram(tensors, rank, |bits| Some((bits >> 16) as usize));
    let found: u64 = high.iter().sum();
    let k = (k as u64).min(found);
    if k == 0 {
        return nothing();
    }
    let (high_bin, above) = bin_of(&high, k);
    let low = histogram(tensors, rank, |bits| ((bits >> 16) as usize == high_bin).then_some((bits & 0xffff) as usize));
    let (low_bin, above_low) = bin_of(&low, k - above);
    let threshold = ((high_bin as u32) << 16) | low_bin as u32;
    let quota = match ties {
        Ties::Exact => k - above - above_low,
        Ties::Strict => 0,
    };
    Selected { indices: collect(tensors, rank, threshold, quota as usize), threshold: Some(f32::from_bits(threshold)) }
}

/// The bits of the absolute gradient or gain, which order as the values do; none unless a candidate.
#[inline]
fn key(rank: Rank, value: f32, target: f32, gradient: f32) -> Option<u32> {
    let towards = (value > target && gradient > 0.0) || (value < target && gradient < 0.0);
    let ranked = match rank {
        Rank::Gradient => gradient,
        Rank::Gain => gradient * (value - target),
    };
    towards.then_some(ranked.to_bits() & 0x7fff_ffff)
}

/// Number of candidates per bin.
fn histogram(tensors: &[Candidates<'_>], rank: Rank, bin: impl Fn(u32) -> Option<usize> + Sync) -> Vec<u64> {
    let count = |mut bins: Vec<u64>, (values, target, gradient): (&[f32], &[f32], &[f32])| {
        for ((&value, &target), &gradient) in values.iter().zip(target).zip(gradient) {
            if let Some(bin) = key(rank, value, target, gradient).and_then(&bin) {
                bins[bin] += 1;
            }
        }
        bins
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let pieces = |tensor: &Candidates<'_>| {
        let (values, target, gradient) = (tensor.values, tensor.target, tensor.gradient);
        values
            .par_chunks(CHUNK)
            .zip(target.par_chunks(CHUNK))
            .zip(gradient.par_chunks(CHUNK))
            .map(|((v, t), g)| (v, t, g))
            .fold(|| vec![0u64; BINS], count)
            .reduce(|| vec![0u64; BINS], add)
    };
    tensors.iter().map(pieces).fold(vec![0u64; BINS], add)
}

/// The bin that holds the k-th largest, and how many lie in the bins above it.
fn bin_of(bins: &[u64], k: u64) -> (usize, u64) {
    let mut above = 0;
    for (bin, &count) in bins.iter().enumerate().rev() {
        if above + count >= k {
            return (bin, above);
        }
        above += count;
    }
    (0, above)
}

/// All candidates above the threshold, and the first `quota` at it.
fn collect(tensors: &[Candidates<'_>], rank: Rank, threshold: u32, mut quota: usize) -> Vec<Vec<u32>> {
    let at_or_above = |tensor: &Candidates<'_>| -> Vec<(u32, bool)> {
        (0..tensor.values.len())
            .into_par_iter()
            .with_min_len(CHUNK)
            .filter_map(|index| {
                let bits = key(rank, tensor.values[index], tensor.target[index], tensor.gradient[index])?;
                (bits >= threshold).then_some((index as u32, bits == threshold))
            })
            .collect()
    };
    let mut take = |tied: bool| {
        let taken = !tied || quota > 0;
        quota -= usize::from(tied && quota > 0);
        taken
    };
    tensors
        .iter()
        .map(|tensor| at_or_above(tensor).into_iter().filter(|&(_, tied)| take(tied)).map(|(index, _)| index).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    fn all<'a>(values: &'a [f32], target: &'a [f32], gradient: &'a [f32]) -> [Candidates<'a>; 1] {
        [Candidates { values, target, gradient }]
    }

    #[test]
    fn only_weights_that_descend_towards_the_target_are_candidates() {
        // Differences +, -, 0, +, -; gradients +, -, +, -, +: the first two alone agree.
        let tensors = all(&[1., -1., 0., 1., -1.], &[0.; 5], &[0.5, -0.7, 9., -9., 9.]);
        let selected = super::select(&tensors, 10, Ties::Exact);
        assert_eq!(selected.indices, [vec![0, 1]]);
        assert_eq!(selected.threshold, Some(0.5));
    }

    #[test]
    fn exact_restores_k_and_breaks_ties_by_index_while_strict_drops_them() {
        let tensors = all(&[1.; 5], &[0.; 5], &[0.5, 0.9, 0.5, 0.5, 0.1]);
        assert_eq!(super::select(&tensors, 3, Ties::Exact).indices, [vec![0, 1, 2]]);
        assert_eq!(super::select(&tensors, 3, Ties::Strict).indices, [vec![1]]);
        assert!(super::select(&tensors, 0, Ties::Exact).is_empty());
    }

    #[test]
    fn the_threshold_is_the_one_that_sorting_finds() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-1.0f32..1.0)).collect() };
        let sizes = [70_000, 3, 150_000];
        let data: Vec<_> = sizes.iter().map(|&n| (draw(n), draw(n), draw(n))).collect();
        let tensors: Vec<_> =
            data.iter().map(|(values, target, gradient)| Candidates { values, target, gradient }).collect();
        let mut keys: Vec<f32> = tensors
            .iter()
            .flat_map(|t| {
                (0..t.values.len())
                    .filter(|&i| (t.values[i] - t.target[i]) * t.gradient[i] > 0.0)
                    .map(|i| t.gradient[i].abs())
            })
            .collect();
        keys.sort_by(|a, b| b.total_cmp(a));
        for k in [1, 2, 1000, 50_000, keys.len()] {
            let selected = super::select(&tensors, k, Ties::Exact);
            assert_eq!(selected.threshold, Some(keys[k - 1]), "k = {k}");
            assert_eq!(selected.len(), k);
        }
    }
}
