//! The draw of an answer's ids: temperature and top-p as in transformers. A draw depends on its seed and the index of the id in
//! the answer alone, so that an answer is the same in every batch.

use files::uniform;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which ids may come next, and how probable each is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Logits are divided by it.
    pub temperature: f64,
    /// The most probable ids are kept, as few as reach this sum together.
    #[serde(default = "all")]
    pub top_p: f64,
}

fn all() -> f64 {
    1.0
}

impl Sampling {
    /// Checks that both values make sense.
    ///
    /// # Errors
    /// Names the one that does not.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p } = *self;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Input(format!("`temperature` = {temperature}: must be above 0")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Input(format!("`top_p` = {top_p}: must be above 0 and at most 1")));
        }
        Ok(())
    }

    /// The ids that may come next with their probabilities, the most probable first.
    ///
    /// # Mathematical Definition
    /// `p = softmax(logits / temperature)`; an id is kept when the sum of the more probable ones is below `top_p`; the kept
    /// ones are divided by their sum.
    #[must_use]
    pub fn probabilities(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |&logit: &f32| ((f64::from(logit) - f64::from(largest)) / self.temperature).exp();
        let mut ids: Vec<(u32, f64)> = (0..).zip(logits.iter().map(weight)).collect();
        ids.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let sum: f64 = ids.iter().map(|id| id.1).sum();
        let mut above = 0.0;
        let kept = ids.iter().take_while(|id| {
            let is_kept = above < self.top_p;
            above += id.1 / sum;
            is_kept
        });
        let kept = kept.count().max(1);
        ids.truncate(kept);
        let sum: f64 = ids.iter().map(|id| id.1).sum();
        ids.into_iter().map(|(id, weight)| (id, weight / sum)).collect()
    }
}

/// The draw of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// From which ids.
    pub sampling: Sampling,
    /// Decides the draw.
    pub seed: u64,
}

impl Draw {
    /// The id at a place of the answer, counted from 0.
    #[must_use]
    pub fn id(&self, logits: &[f32], place: usize) -> u32 {
        let uniform = uniform(self.seed, place as u64);
        let ids = self.sampling.probabilities(logits);
        let mut sum = 0.0;
        let hit = ids.iter().find(|id| {
            sum += id.1;
            uniform < sum
        });
        hit.or(ids.last()).map_or(0, |id| id.0) // rounding may leave the sum below 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_ids_that_reach_top_p_are_kept() {
        let logits: Vec<f32> = [0.5, 0.2, 0.3f32].iter().map(|p| p.ln()).collect();
        let kept = |top_p| -> Vec<u32> {
            Sampling { temperature: 1.0, top_p }.probabilities(&logits).into_iter().map(|id| id.0).collect()
        };
        assert_eq!([kept(1.0), kept(0.75), kept(0.45), kept(1e-9)], [vec![0, 2, 1], vec![0, 2], vec![0], vec![0]]);
        let cold = Sampling { temperature: 0.5, top_p: 1.0 }.probabilities(&logits);
        assert!((cold[0].1 - 0.25 / 0.38).abs() < 1e-6, "{cold:?}");
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        for (temperature, top_p, named) in
            [(0.0, 1.0, "temperature"), (f64::NAN, 1.0, "temperature"), (1.0, 0.0, "top_p")]
        {
            assert!(Sampling { temperature, top_p }.check().unwrap_err().to_string().contains(named));
        }
    }
}
