//! The weights that may be restored, each on one of two sides: the fine-tuned or the aligned model's value.

use std::collections::HashMap;

use model::Decoder;
use rayon::prelude::*;

use crate::region::{Members, Region, candidates};
use crate::selection::{Candidates, Rank, Ties, select_by};
use crate::{Patch, Result};

/// Flat indices by tensor.
pub(super) type Flips = Vec<Vec<u32>>;

/// The weights on their sides.
#[derive(Debug)]
pub(super) struct Sides {
    pub region: Region,
    /// Those that have the aligned value, ascending.
    restored: Flips,
}

impl Sides {
    /// All on the fine-tuned side.
    pub fn new(members: Members, aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        let region = Region::of(members, aligned, fine_tuned)?;
        Ok(Self { restored: vec![Vec::new(); region.infos.len()], region })
    }

    /// Number of weights that are restored.
    pub fn restored(&self) -> usize {
        self.restored.iter().map(Vec::len).sum()
    }

    /// A patch as flips.
    pub fn indices(&self, patch: &Patch) -> Flips {
        self.region.infos.iter().map(|info| patch.indices(&info.name).to_vec()).collect()
    }

    /// Adds the values of both sides to a hash.
    pub fn hash(&self, hash: &mut files::Sha) {
        for values in self.region.fine_tuned.iter().chain(&self.region.aligned) {
            hash.numbers(values.part().wide().iter().map(|value| value.to_le_bytes()));
        }
    }

    /// What a flip of each weight costs to second order, `F d^2 / 2` of the diagonal F of the Fisher information and the
    /// difference d between the sides, and the mean of that over all weights: F is an estimate, and nothing is free.
    pub fn costs(&self, mut fisher: HashMap<String, Vec<f32>>) -> HashMap<String, Vec<f32>> {
        let Region { infos, aligned, fine_tuned, .. } = &self.region;
        let mut sum = 0.0;
        for (info, (aligned, fine_tuned)) in infos.iter().zip(aligned.iter().zip(fine_tuned)) {
            let Some(fisher) = fisher.get_mut(&info.name) else { continue };
            let (aligned, fine_tuned) = (aligned.part().wide(), fine_tuned.part().wide());
            let places = fisher.par_iter_mut().zip(aligned.par_iter().zip(&*fine_tuned)).with_min_len(1 << 14);
            places.for_each(|(cost, (aligned, fine_tuned))| *cost *= (aligned - fine_tuned).powi(2) / 2.0);
            // In pieces of one size, so that the sum does not depend on the number of threads.
            let pieces = fisher.par_chunks(1 << 16).map(|piece| piece.iter().map(|&cost| f64::from(cost)).sum());
            sum += pieces.collect::<Vec<f64>>().iter().sum::<f64>();
        }
        let mean = (sum / self.region.len() as f64) as f32;
        let least = if mean > 0.0 { mean } else { 1.0 };
        fisher.par_iter_mut().for_each(|(_, costs)| costs.iter_mut().for_each(|cost| *cost += least));
        fisher
    }

    /// Gradients by the values as they are become gradients by those of the fine-tuned side, and back: what a flip of a weight
    /// gains is then `gradient * (fine_tuned - aligned)` on either side.
    pub fn orient(&self, gradients: &mut HashMap<String, Vec<f32>>) {
        for (info, restored) in self.region.infos.iter().zip(&self.restored) {
            let Some(gradient) = gradients.get_mut(&info.name) else { continue };
            restored.iter().for_each(|&at| gradient[at as usize] *= -1.0);
        }
    }

    /// Up to `k` weights whose flip lowers the loss most by an oriented gradient, for its cost where the gradient is divided by
    /// it, and their number. Of those that restore the last are left out where more than `cap` would be restored afterwards.
    pub fn best(&self, gradients: &HashMap<String, Vec<f32>>, k: usize, cap: usize) -> (Flips, usize) {
        let Region { infos, aligned, fine_tuned, .. } = &self.region;
        let tensors = candidates(infos, fine_tuned, aligned, gradients);
        let mut flips = select_by(&tensors, k, Ties::Exact, Rank::Gain).indices;
        let taken = count(&flips);
        let (back, mut forth) = self.parted(&flips);
        let left = cap.saturating_sub(self.restored() - count(&back));
        if count(&forth) > left {
            let ordered = ranked(&tensors, &forth);
            forth = vec![Vec::new(); infos.len()];
            ordered.into_iter().take(left).for_each(|(_, tensor, index)| forth[tensor].push(index));
            forth.iter_mut().for_each(|indices| indices.sort_unstable());
            flips = back.iter().zip(&forth).map(|(back, forth)| difference(back, forth)).collect();
        }
        (flips, taken)
    }

    /// Flips as those that give a restored weight back and those that restore one.
    fn parted(&self, flips: &Flips) -> (Flips, Flips) {
        let of_tensor = |(restored, indices): (&Vec<u32>, &Vec<u32>)| {
            indices.iter().copied().partition(|index| restored.binary_search(index).is_ok())
        };
        self.restored.iter().zip(flips).map(of_tensor).unzip()
    }

    /// Turns some weights to their other sides; once more turns them back.
    ///
    /// # Errors
    /// When the device fails.
    pub fn flip(&mut self, flips: &Flips) -> Result<()> {
        let (back, forth) = self.parted(flips);
        for (restored, indices) in self.restored.iter_mut().zip(flips) {
            *restored = difference(restored, indices);
        }
        self.region.restore(&forth)?;
        self.region.roll_back(&back)
    }
}

/// Flips by what they gain, most first, those of equal gain by place.
fn ranked(tensors: &[Candidates<'_>], flips: &Flips) -> Vec<(f32, usize, u32)> {
    let gain = |tensor: usize, index: u32| {
        let (Candidates { values, target, gradient }, at) = (tensors[tensor], index as usize);
        gradient[at] * (values.at(at) - target.at(at))
    };
    let of_tensor =
        |(tensor, indices): (usize, &Vec<u32>)| indices.iter().map(move |&index| (tensor, index)).collect::<Vec<_>>();
    let places = flips.iter().enumerate().flat_map(of_tensor);
    let mut ordered: Vec<_> = places.map(|(tensor, index)| (gain(tensor, index), tensor, index)).collect();
    ordered.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable
    ordered
}

/// Number of flips.
pub(super) fn count(flips: &Flips) -> usize {
    flips.iter().map(Vec::len).sum()
}

/// What is in one of two ascending lists alone.
fn difference(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    let mut alone = Vec::new();
    loop {
        match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x == y => {
                a.next();
                b.next();
            }
            (Some(x), Some(y)) => alone.extend(if x < y { a.next() } else { b.next() }),
            (Some(_), None) => alone.extend(a.next()),
            (None, Some(_)) => alone.extend(b.next()),
            (None, None) => return alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_of_what_is_restored_gives_it_back() {
        assert_eq!(difference(&[1, 3, 5], &[2, 3, 9]), [1, 2, 5, 9]);
        assert_eq!(difference(&[], &[4]), [4]);
        assert_eq!(difference(&[4], &[4]), [0u32; 0]);
    }
}
