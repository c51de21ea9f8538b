//! The control arm that restores the whole region. Not in the paper.

use serde::{Deserialize, Serialize};

use crate::{Inputs, Layer, Needs, Region, Repair, Repaired, Result};

/// Every weight of the region is set to the aligned value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct FullRevert {
    /// The direction layer: a share of the blocks such as 4/6, or a block's number from 1.
    #[arg(long, default_value_t = Self::default().layer)]
    pub layer: Layer,
}

impl Repair for FullRevert {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired> {
        let region = Region::new(inputs.aligned, inputs.fine_tuned, self.layer)?;
        let differences = region.differences();
        // A patch of a whole region would be larger than the model.
        Ok(Repaired { path: None, ..region.repaired(&differences, usize::MAX)? })
    }
}
