//! The control arm that draws what it restores among the weights that a recovery's first step could choose: a descent
//! step would move them towards the aligned value. Not in the paper.

use std::collections::HashMap;

use direction::{Objective, accumulate, mean_direction};
use model::weights;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::check_counts;
use crate::{Inputs, Layer, Needs, Region, Repair, Repaired, Result, is_in_region};

/// As many weights as set, drawn at random, are set to the aligned value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Random {
    /// Number of weights to restore [default: as many as a recovery restored].
    #[arg(long)]
    pub count: Option<usize>,
    /// The direction layer: a share of the blocks such as 4/6, or a block's number from 1.
    #[arg(long, default_value_t = Self::default().layer)]
    pub layer: Layer,
    /// Prompts per batch of the cosine loss.
    #[arg(long, default_value_t = Self::default().batch)]
    pub batch: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { count: None, layer: Layer::default(), batch: 8 }
    }
}

impl Repair for Random {
    fn needs(&self) -> Needs {
        Needs { prompts: true, recovery: self.count.is_none(), ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        check_counts(&[("batch", self.batch)])
    }

    fn has_patch(&self) -> bool {
        true
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        self.check()?;
        inputs.check_prompts(Self::WORD, self.needs())?;
        let count = inputs.count(Self::WORD, self.count)?;
        let region = Region::new(inputs.aligned, inputs.fine_tuned, self.layer)?;
        let layer = region.layer();
        let direction = mean_direction(inputs.aligned, inputs.of_aligned(), layer)?;
        let objective = Objective { rows: inputs.prompts, direction, layer, batch: self.batch };
        let decoder = weights::track(inputs.fine_tuned.clone(), |info| is_in_region(info, layer));
        let mut gradients = HashMap::new();
        accumulate(&decoder, &objective, &mut gradients)?;
        draw_sizes(&region, &mut gradients, inputs.seed);
        region.repaired(&gradients, count)
    }
}

/// Keeps the signs of the gradients, which decide what is a candidate, and draws their sizes.
fn draw_sizes(region: &Region, gradients: &mut HashMap<String, Vec<f32>>, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for info in &region.infos {
        let Some(gradient) = gradients.get_mut(&info.name) else { continue };
        for value in gradient.iter_mut().filter(|value| **value != 0.0) {
            *value = rng.random_range(f32::MIN_POSITIVE..1.0).copysign(*value);
        }
    }
}
