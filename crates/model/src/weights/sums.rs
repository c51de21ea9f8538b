//! Gradients that add up: each is added to its sum as soon as the backward of its layer has made it, so that there is
//! never a second copy of all.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::{add_gradients, gradients};
use crate::lanes::in_lanes;
use crate::ops::Sum;
use crate::{Decoder, Error};

/// Sums of gradients by parameter.
#[derive(Debug)]
pub struct Sums {
    decoder: Decoder,
    /// Those that are not added to in the backward.
    rest: HashMap<String, Vec<f32>>,
}

impl Sums {
    /// Goes on from earlier sums, of the parameters that `decoder` [tracks](super::track).
    #[must_use]
    pub fn new(decoder: &Decoder, mut earlier: HashMap<String, Vec<f32>>) -> Self {
        let mut decoder = decoder.clone();
        for (path, linear) in decoder.linears_mut() {
            if linear.lora.is_none() && linear.weight.val().is_require_grad() {
                linear.sum = Some(Sum::new(earlier.remove(&weight(&path)).unwrap_or_default()));
            }
        }
        Self { decoder, rest: earlier }
    }

    /// Adds the gradients of each pass's loss, which `loss` gets from the decoder that it is called with, in the order of the
    /// passes. Returns what else `loss` gives.
    ///
    /// # Errors
    /// Those of `loss`, and when the device fails; the sums are then of no use.
    pub fn add<T: Sync, R: Send, E: From<Error> + Send>(
        &mut self,
        passes: &[T],
        loss: impl Fn(&Decoder, usize, &T) -> Result<(Tensor<1>, R), E> + Sync,
    ) -> Result<Vec<R>, E> {
        let found = in_lanes(&self.decoder.device(), passes, |turn, pass| {
            let decoder = self.of_turn(turn);
            let (loss, other) = loss(&decoder, turn, pass)?;
            Ok((gradients(&decoder, loss.backward())?, other))
        });
        for (_, linear) in self.decoder.linears_mut() {
            linear.sum = linear.sum.take().map(|sum| Sum::new(sum.take()));
        }
        let add = |found: Result<_, E>| {
            let (left, other) = found?;
            add_gradients(&mut self.rest, left);
            Ok(other)
        };
        found.into_iter().map(add).collect()
    }

    /// The decoder for one pass: with a graph of its own, as burn's backward locks the graph of all parameters that it shares.
    fn of_turn(&self, turn: usize) -> Decoder {
        let mut decoder = self.decoder.clone().map(&mut Detached);
        for (_, linear) in decoder.linears_mut() {
            linear.sum = linear.sum.take().map(|sum| sum.of_turn(turn));
        }
        decoder
    }

    /// The sums, by parameter, row-major.
    #[must_use]
    pub fn finish(self) -> HashMap<String, Vec<f32>> {
        let Self { decoder, mut rest } = self;
        for (path, linear) in decoder.linears() {
            let sum = linear.sum.as_ref().map(Sum::take).unwrap_or_default();
            if !sum.is_empty() {
                add_gradients(&mut rest, HashMap::from([(weight(&path), sum)]));
            }
        }
        rest
    }
}

/// Makes every parameter the beginning of a new graph.
struct Detached;

impl ModuleMapper for Detached {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(Tensor::detach)
    }
}

fn weight(path: &str) -> String {
    format!("{path}.weight")
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::super::tests::tiny;
    use super::super::track;
    use super::*;
    use crate::{Packed, Result};

    #[test]
    fn sums_of_the_backward_are_those_of_the_gradients_added_whatever_comes_first() {
        let decoder = track(tiny(), |info| info.layer == Some(0));
        let loss = |decoder: &Decoder, row: &[u32]| {
            let packed = Packed::new(&[row]).unwrap();
            decoder.hidden(&packed, 2, &[row.len() - 1]).unwrap().powi_scalar(2).sum()
        };
        let rows: [&[u32]; 5] = [&[1, 2, 3], &[4, 5], &[6, 7, 8, 9], &[2, 2], &[9, 1, 9]];
        let mut wanted = HashMap::new();
        for row in rows {
            add_gradients(&mut wanted, gradients(&decoder, loss(&decoder, row).backward()).unwrap());
        }
        for threads in 1..4 {
            let mut found = HashMap::new();
            for rows in [&rows[..2], &rows[2..]] {
                let mut sums = Sums::new(&decoder, found);
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let lengths: Result<Vec<usize>> = pool.install(|| {
                    sums.add(rows, |decoder, turn, row| {
                        // The first is the last to end.
                        std::thread::sleep(std::time::Duration::from_millis(if turn == 0 { 50 } else { 0 }));
                        Ok((loss(decoder, row), row.len()))
                    })
                });
                assert_eq!(lengths.unwrap(), rows.iter().map(|row| row.len()).collect::<Vec<_>>());
                found = sums.finish();
            }
            assert_eq!(found.len(), 9, "seven projections and two norms");
            assert_eq!(found, wanted, "{threads} threads");
            assert!(found.values().all(|sum| sum.iter().any(|&value| value != 0.0)));
        }
    }
}
