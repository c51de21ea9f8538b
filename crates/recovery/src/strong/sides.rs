//! The weights of all blocks, each on one of two sides: the fine-tuned or the aligned model's value.

use std::collections::HashMap;

use model::Decoder;
use model::weights::{self, WeightInfo};

use crate::region::{candidates, check_same_shape, is_in_region, named, with_values};
use crate::selection::{Candidates, Rank, Ties, select_by};
use crate::{Patch, Result};

/// Flat indices by tensor.
pub(super) type Flips = Vec<Vec<u32>>;

/// The weights on their sides.
#[derive(Debug)]
pub(super) struct Sides {
    pub infos: Vec<WeightInfo>,
    /// The values that they have.
    values: Vec<Vec<f32>>,
    /// The values that they would have on the other side.
    other: Vec<Vec<f32>>,
    /// Those that have the aligned value, ascending.
    restored: Flips,
}

impl Sides {
    /// All on the fine-tuned side.
    pub fn new(aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        let blocks = fine_tuned.config().num_hidden_layers;
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), |info| info.layer.is_some())?;
        let read = |decoder| weights::read(decoder, |info| is_in_region(info, blocks));
        let (infos, values): (Vec<_>, Vec<_>) = read(fine_tuned)?.into_iter().unzip();
        let other = read(aligned)?.into_iter().map(|(_, values)| values).collect();
        Ok(Self { restored: vec![Vec::new(); infos.len()], infos, values, other })
    }

    /// Whether the two models are one here.
    pub fn is_same(&self) -> bool {
        self.values == self.other
    }

    /// Number of weights that are restored.
    pub fn restored(&self) -> usize {
        self.restored.iter().map(Vec::len).sum()
    }

    /// A patch as flips.
    pub fn indices(&self, patch: &Patch) -> Flips {
        self.infos.iter().map(|info| patch.indices(&info.name).to_vec()).collect()
    }

    /// Adds the values of both sides to a hash.
    pub fn hash(&self, hash: &mut files::Sha) {
        for values in self.values.iter().chain(&self.other) {
            hash.numbers(values.iter().map(|value| value.to_le_bytes()));
        }
    }

    /// Flips as a patch.
    pub fn named(&self, flips: &Flips) -> Patch {
        named(&self.infos, flips.clone())
    }

    /// Up to `k` weights whose flip a gradient says lowers the loss most; so many of them that at most `cap` are restored
    /// afterwards.
    pub fn best(&self, gradients: &HashMap<String, Vec<f32>>, k: usize, cap: usize) -> Flips {
        let tensors = candidates(&self.infos, &self.values, &self.other, gradients);
        let mut flips = select_by(&tensors, k, Ties::Exact, Rank::Gain).indices;
        let mut restored = self.restored_after(&flips);
        if restored > cap {
            let mut ordered = ranked(&tensors, &flips);
            while restored > cap
                && let Some((_, tensor, index)) = ordered.pop()
            {
                let gives_back = self.restored[tensor].binary_search(&index).is_ok();
                restored = if gives_back { restored + 1 } else { restored - 1 };
            }
            flips = vec![Vec::new(); self.infos.len()];
            ordered.into_iter().for_each(|(_, tensor, index)| flips[tensor].push(index));
            flips.iter_mut().for_each(|indices| indices.sort_unstable());
        }
        flips
    }

    /// How many weights would be restored after these flips.
    fn restored_after(&self, flips: &Flips) -> usize {
        let back = |(restored, flips): (&Vec<u32>, &Vec<u32>)| {
            flips.iter().filter(|index| restored.binary_search(index).is_ok()).count()
        };
        let back: usize = self.restored.iter().zip(flips).map(back).sum();
        self.restored() + count(flips) - 2 * back
    }

    /// Turns some weights to their other sides; once more turns them back.
    pub fn flip(&mut self, flips: &Flips) {
        for (tensor, indices) in flips.iter().enumerate() {
            for &index in indices {
                let at = index as usize;
                std::mem::swap(&mut self.values[tensor][at], &mut self.other[tensor][at]);
            }
            let restored = &mut self.restored[tensor];
            *restored = difference(restored, indices);
        }
    }

    /// `decoder` with the weights as they are.
    pub fn write(&self, decoder: Decoder) -> Decoder {
        with_values(decoder, &self.infos, &self.values)
    }
}

/// Flips by what they gain, most first, those of equal gain by place.
fn ranked(tensors: &[Candidates<'_>], flips: &Flips) -> Vec<(f32, usize, u32)> {
    let gain = |tensor: usize, index: u32| {
        let (Candidates { values, target, gradient }, at) = (tensors[tensor], index as usize);
        gradient[at] * (values[at] - target[at])
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
