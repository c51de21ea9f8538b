//! A control arm of a fine-tuned model directory: see [`recovery::Control`].

use std::path::Path;

use anyhow::Result;
use prompts::Sample;
use recovery::{Control, RecoverySettings, control};

use crate::Compute;
use crate::loaded::{Loaded, encode_prompts, home_of_fine_tuned};

/// Writes the control arm's model to `out`; gives back the number of weights set to the aligned value. The fine-tuned model
/// may be a peft adapter on the aligned one.
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
    let home = home_of_fine_tuned(fine_tuned, aligned);
    let dtype = compute.dtype_for(home)?;
    let tuned = Loaded::open_fine_tuned(fine_tuned, aligned, dtype, compute.device)?;
    let aligned = Loaded::open_as(aligned, dtype, compute.device)?;
    let rows = encode_prompts(&tuned.tokenizer, prompts)?;
    let (decoder, restored) = control(&aligned.decoder, &tuned.decoder, &rows, settings, arm)?;
    Loaded::save(&decoder, dtype, home, out)?;
    Ok(restored)
}
