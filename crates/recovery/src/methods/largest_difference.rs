//! The control arm that restores the weights that differ most from the aligned model's, without looking for those that
//! carry alignment. Not in the paper.

use serde::{Deserialize, Serialize};

use crate::{Inputs, Layer, Needs, Region, Repair, Repaired, Result};

/// As many weights of the region as set, those that differ most, are set to the aligned value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct LargestDifference {
    /// Number of weights to restore [default: as many as a recovery restored].
    #[arg(long)]
    pub count: Option<usize>,
    /// The direction layer: a share of the blocks such as 4/6, or a block's number from 1.
    #[arg(long, default_value_t = Self::default().layer)]
    pub layer: Layer,
}

impl Repair for LargestDifference {
    fn needs(&self) -> Needs {
        Needs { recovery: self.count.is_none(), ..Needs::default() }
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn has_patch(&self) -> bool {
        true
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        let count = inputs.count(Self::WORD, self.count)?;
        let region = Region::new(inputs.aligned, inputs.fine_tuned, self.layer)?;
        let differences = region.differences();
        region.repaired(&differences, count)
    }
}
