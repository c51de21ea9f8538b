//! Gradients that add up: each is added to its sum as soon as the backward of its layer has made it, so that there is
//! never a second copy of all.

use std::collections::HashMap;

use burn::tensor::Tensor;

use super::{add_gradients, gradients};
use crate::ops::Sum;
use crate::{Decoder, Result};

/// Sums of gradients by parameter, and the decoder that is to be asked for the losses.
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

    /// The decoder.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Adds the gradients of a loss of the decoder.
    ///
    /// # Errors
    /// When the device fails.
    pub fn add(&mut self, loss: &Tensor<1>) -> Result<()> {
        let left = gradients(&self.decoder, loss.backward())?;
        add_gradients(&mut self.rest, left);
        Ok(())
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

fn weight(path: &str) -> String {
    format!("{path}.weight")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::tiny;
    use super::super::track;
    use super::*;
    use crate::Packed;

    #[test]
    fn sums_of_the_backward_are_those_of_the_gradients_added() {
        let decoder = track(tiny(), |info| info.layer == Some(0));
        let losses = |decoder: &Decoder, row: &[u32]| {
            let packed = Packed::new(&[row]).unwrap();
            decoder.hidden(&packed, 2, &[row.len() - 1]).unwrap().powi_scalar(2).sum()
        };
        let rows: [&[u32]; 3] = [&[1, 2, 3], &[4, 5], &[6, 7, 8, 9]];
        let mut wanted = HashMap::new();
        for row in rows {
            add_gradients(&mut wanted, gradients(&decoder, losses(&decoder, row).backward()).unwrap());
        }
        let mut found = HashMap::new();
        for rows in [&rows[..2], &rows[2..]] {
            let mut sums = Sums::new(&decoder, found);
            for row in rows {
                let loss = losses(sums.decoder(), row);
                sums.add(&loss).unwrap();
            }
            found = sums.finish();
        }
        assert_eq!(found.len(), 9, "seven projections and two norms");
        assert_eq!(found, wanted);
        assert!(found.values().all(|sum| sum.iter().any(|&value| value != 0.0)));
    }
}
