//! A control arm of a fine-tuned model directory: see [`recovery::Control`].

use std::path::Path;

use anyhow::Result;
use prompts::Sample;
use recovery::{Control, RecoverySettings, control};

use crate::Compute;
use crate::loaded::{Loaded, encode_prompts};

/// Writes the control arm's model to `out`; gives back the number of weights set to the aligned value.
///
/// # Errors
/// When the models differ in shape, a prompt set is empty, a loss is not finite, or a file cannot
/// be read or written.
pub fn control_model(
    (aligned, fine_tuned): (&Path, &Path),
    prompts: &[Sample],
    settings: &RecoverySettings,
    arm: Control,
    out: &Path,
    compute: Compute<'_>,
) -> Result<Option<usize>> {
    let dtype = compute.dtype_for(fine_tuned)?;
    let aligned = Loaded::open_as(aligned, dtype, compute.device)?;
    let tuned = Loaded::open_as(fine_tuned, dtype, compute.device)?;
    let rows = encode_prompts(&tuned.tokenizer, prompts)?;
    let (decoder, restored) = control(&aligned.decoder, &tuned.decoder, &rows, settings, arm)?;
    Loaded::save(&decoder, dtype, fine_tuned, out)?;
    Ok(restored)
}
