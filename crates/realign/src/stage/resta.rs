//! RESTA of a fine-tuned model directory: see [`recovery::resta`](recovery::resta()).

use std::path::Path;

use anyhow::Result;
use model::Dtype;
use recovery::{RestaSettings, resta};

use crate::Compute;
use crate::loaded::{Loaded, home_of_fine_tuned};

/// The three models of RESTA; those that were fine-tuned may be peft adapters on the aligned one.
#[derive(Debug, Clone, Copy)]
pub struct RestaModels<'a> {
    /// Directory of the fine-tuned model.
    pub fine_tuned: &'a Path,
    /// Directory of the aligned model.
    pub aligned: &'a Path,
    /// Directory of the aligned model after fine-tuning on harmful samples alone.
    pub unaligned: &'a Path,
}

/// Writes the fine-tuned model with the safety vector added to `out`; `seed` decides what DARE drops.
///
/// # Errors
/// When the models differ in shape, a setting is out of its range, or a file cannot be read or written.
pub fn resta_model(
    models: RestaModels<'_>,
    settings: &RestaSettings,
    seed: u64,
    out: &Path,
    compute: Compute<'_>,
) -> Result<()> {
    let home = home_of_fine_tuned(models.fine_tuned, models.aligned);
    let dtype = compute.dtype_for(home)?;
    // In f32 whatever is written: what an adapter adds is small, and its difference rounded is mostly rounding.
    let tuned = |dir: &Path| Loaded::open_fine_tuned(dir, models.aligned, Dtype::F32, compute.device);
    let (fine_tuned, unaligned) = (tuned(models.fine_tuned)?.decoder, tuned(models.unaligned)?.decoder);
    let aligned = Loaded::open_as(models.aligned, Dtype::F32, compute.device)?.decoder;
    let decoder = resta(&fine_tuned, &aligned, &unaligned, settings, seed)?;
    Loaded::save(&decoder, dtype, home, out)
}
