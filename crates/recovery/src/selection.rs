//! Selection: the candidates with the largest gradients (METHOD.md section 3).
//!
//! A threshold that is surely low enough is guessed from a sample, so that one pass over all weights finds the few that
//! can be among the largest; the k-th largest of these is found by partial sorting. The guess changes no result.

use std::cmp::Ordering;

use model::weights::Part;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Values per parallel piece of work.
const CHUNK: usize = 1 << 16;
/// One of so many values of a piece is looked at for the guess.
const SAMPLED: usize = 64;
/// Fewer weights are all looked at.
const FEW: usize = 1 << 20;

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
    pub values: Part<'a>,
    /// The values they may be set to.
    pub target: Part<'a>,
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
    let pieces = pieces(tensors);
    let (mut floor, mut lower) = (guess(&pieces, k, rank), 1 << 24);
    let mut found = at_or_above(&pieces, floor, rank);
    while floor > 0 && found.iter().map(Vec::len).sum::<usize>() < k {
        (floor, lower) = (floor.saturating_sub(lower), lower * 2);
        found = at_or_above(&pieces, floor, rank);
    }
    let Some((threshold, quota)) = threshold(&pieces, &found, k, rank) else { return nothing() };
    let mut quota = if ties == Ties::Exact { quota } else { 0 };
    let mut indices = vec![Vec::new(); tensors.len()];
    for (piece, found) in pieces.iter().zip(found) {
        let taken = found.into_iter().filter(|&at| match piece.rank_of(at, rank).cmp(&threshold) {
            Ordering::Greater => true,
            Ordering::Equal if quota > 0 => {
                quota -= 1;
                true
            }
            _ => false,
        });
        indices[piece.tensor].extend(taken.map(|at| piece.start + at));
    }
    Selected { indices, threshold: Some(f32::from_bits(threshold)) }
}

/// Part of a tensor.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    tensor: usize,
    /// Flat index of its first value.
    start: u32,
    candidates: Candidates<'a>,
}

impl Piece<'_> {
    /// What one of its candidates is ranked by: the bits of an absolute value, which order as the values do.
    fn rank_of(&self, at: u32, rank: Rank) -> u32 {
        let (Candidates { values, target, gradient }, at) = (self.candidates, at as usize);
        ranked(rank, values.at(at), target.at(at), gradient[at]).to_bits()
    }
}

fn pieces<'a>(tensors: &[Candidates<'a>]) -> Vec<Piece<'a>> {
    let of_tensor = |(tensor, all): (usize, &Candidates<'a>)| {
        let parts = all.values.chunks(CHUNK).zip(all.target.chunks(CHUNK)).zip(all.gradient.chunks(CHUNK));
        let piece = |(number, ((values, target), gradient))| Piece {
            tensor,
            start: (number * CHUNK) as u32,
            candidates: Candidates { values, target, gradient },
        };
        parts.enumerate().map(piece).collect::<Vec<_>>()
    };
    tensors.iter().enumerate().flat_map(of_tensor).collect()
}

#[inline]
fn ranked(rank: Rank, value: f32, target: f32, gradient: f32) -> f32 {
    match rank {
        Rank::Gradient => gradient.abs(),
        Rank::Gain => (gradient * (value - target)).abs(),
    }
}

/// Whether a weight is a candidate of at least this rank.
#[inline]
fn counts(rank: Rank, floor: f32, value: f32, target: f32, gradient: f32) -> bool {
    let towards = ((value > target) & (gradient > 0.0)) | ((value < target) & (gradient < 0.0));
    towards & (ranked(rank, value, target, gradient) >= floor)
}

/// A rank that at least `k` candidates surely reach, by a sample of every piece; 0 where there is no telling.
fn guess(pieces: &[Piece<'_>], k: usize, rank: Rank) -> u32 {
    if pieces.iter().map(|piece| piece.candidates.values.len()).sum::<usize>() < FEW {
        return 0;
    }
    let sample = |piece: &Piece<'_>| {
        let Candidates { values, target, gradient } = piece.candidates;
        let count = values.len().div_ceil(SAMPLED);
        let (values, target) = (values.first(count).wide(), target.first(count).wide());
        let sampled = values.iter().zip(&*target).zip(gradient);
        let candidates = sampled.filter(|&((&value, &target), &gradient)| counts(rank, 0.0, value, target, gradient));
        candidates.map(|((&value, &target), &gradient)| ranked(rank, value, target, gradient).to_bits()).collect()
    };
    let mut ranks: Vec<u32> = pieces.par_iter().map(sample).collect::<Vec<Vec<u32>>>().concat();
    // Twice as many as are looked for, and some for the chance of a small sample.
    let wanted = (k / SAMPLED).saturating_mul(2).saturating_add(64);
    if wanted >= ranks.len() {
        return 0;
    }
    let at = ranks.len() - wanted;
    *ranks.select_nth_unstable(at).1
}

/// The candidates of at least a rank, by piece, as ascending places in it.
fn at_or_above(pieces: &[Piece<'_>], floor: u32, rank: Rank) -> Vec<Vec<u32>> {
    let floor = f32::from_bits(floor);
    let of_piece = |piece: &Piece<'_>| match rank {
        Rank::Gradient => indices(&piece.candidates, |v, t, g| counts(Rank::Gradient, floor, v, t, g)),
        Rank::Gain => indices(&piece.candidates, |v, t, g| counts(Rank::Gain, floor, v, t, g)),
    };
    pieces.par_iter().map(of_piece).collect()
}

/// The places whose weights count. Few do, so that a row of weights is asked at once, without a branch.
fn indices(candidates: &Candidates<'_>, counts: impl Fn(f32, f32, f32) -> bool) -> Vec<u32> {
    const ROW: usize = 32;
    let Candidates { values, target, gradient } = *candidates;
    let (values, target) = (values.wide(), target.wide());
    let is_one = |at: usize| counts(values[at], target[at], gradient[at]);
    let (whole, rest) = (values.as_chunks::<ROW>().0, values.len() / ROW * ROW..values.len());
    let rows = whole.iter().zip(target.as_chunks::<ROW>().0).zip(gradient.as_chunks::<ROW>().0);
    let mut places = Vec::new();
    for (row, ((values, target), gradient)) in rows.enumerate() {
        if (0..ROW).fold(false, |any, at| any | counts(values[at], target[at], gradient[at])) {
            places.extend((row * ROW..(row + 1) * ROW).filter(|&at| is_one(at)).map(|at| at as u32));
        }
    }
    places.extend(rest.filter(|&at| is_one(at)).map(|at| at as u32));
    places
}

/// The k-th largest rank of those found, or the least where there are fewer, and how many of that rank are taken; none
/// without a candidate.
fn threshold(pieces: &[Piece<'_>], found: &[Vec<u32>], k: usize, rank: Rank) -> Option<(u32, usize)> {
    let of_piece = |(piece, found): (&Piece<'_>, &Vec<u32>)| -> Vec<u32> {
        found.iter().map(|&at| piece.rank_of(at, rank)).collect()
    };
    let mut ranks = pieces.par_iter().zip(found).map(of_piece).collect::<Vec<_>>().concat();
    let k = k.min(ranks.len());
    if k == 0 {
        return None;
    }
    let at = ranks.len() - k;
    let (_, &mut threshold, above) = ranks.select_nth_unstable(at);
    Some((threshold, k - above.iter().filter(|&&rank| rank > threshold).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    fn all<'a>(values: &'a [f32], target: &'a [f32], gradient: &'a [f32]) -> [Candidates<'a>; 1] {
        [Candidates { values: values.into(), target: target.into(), gradient }]
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
        let sizes = [70_000, 3, FEW];
        let mut data: Vec<_> = sizes.iter().map(|&n| (draw(n), draw(n), draw(n))).collect();
        // A sample as drawn, and then one that misleads: what is looked at for the guess is far larger than the rest.
        for times in [1.0, 1000.0] {
            for (_, _, gradient) in &mut data {
                gradient
                    .chunks_mut(CHUNK)
                    .flat_map(|piece| {
                        let sampled = piece.len().div_ceil(SAMPLED);
                        &mut piece[..sampled]
                    })
                    .for_each(|value| *value *= times);
            }
            let tensors: Vec<_> =
                data.iter().flat_map(|(values, target, gradient)| all(values, target, gradient)).collect();
            let is_candidate = |t: &Candidates<'_>, i: usize| (t.values.at(i) - t.target.at(i)) * t.gradient[i] > 0.0;
            let of = |t: &Candidates<'_>| -> Vec<f32> {
                (0..t.values.len()).filter(|&i| is_candidate(t, i)).map(|i| t.gradient[i].abs()).collect()
            };
            let mut keys: Vec<f32> = tensors.iter().flat_map(of).collect();
            keys.sort_by(|a, b| b.total_cmp(a));
            for k in [1, 2, 1000, 50_000, keys.len()] {
                let selected = super::select(&tensors, k, Ties::Exact);
                assert_eq!(selected.threshold, Some(keys[k - 1]), "k = {k}, sample {times} times the rest");
                assert_eq!(selected.len(), k);
                let least = |(t, indices): (&Candidates<'_>, &Vec<u32>)| {
                    indices.iter().all(|&i| is_candidate(t, i as usize) && t.gradient[i as usize].abs() >= keys[k - 1])
                        && indices.is_sorted_by(|a, b| a < b)
                };
                assert!(tensors.iter().zip(&selected.indices).all(least), "k = {k}");
            }
        }
    }
}
