//! RESTA of a fine-tuned model directory: see [`recovery::resta`](recovery::resta()).

use std::path::Path;

use anyhow::Result;
use recovery::{RestaSettings, resta};

use crate::Compute;
use crate::loaded::Loaded;

/// The three models of RESTA.
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
    let dtype = compute.dtype_for(models.fine_tuned)?;
    let open = |dir: &Path| Ok::<_, anyhow::Error>(Loaded::open_as(dir, dtype, compute.device)?.decoder);
    let (fine_tuned, aligned, unaligned) = (open(models.fine_tuned)?, open(models.aligned)?, open(models.unaligned)?);
    let decoder = resta(&fine_tuned, &aligned, &unaligned, settings, seed)?;
    Loaded::save(&decoder, dtype, models.fine_tuned, out)
}
