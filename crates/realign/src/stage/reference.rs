//! What a model gives to the responses of samples: computed once for all SoftSFT runs that start from it.

use std::path::Path;

use ::finetune::ReferenceLogProbs;
use anyhow::Result;
use prompts::Sample;

use super::Report;
use crate::Compute;
use crate::loaded::{ModelSource, encode_samples};

/// Writes the log-probabilities of the response tokens of `samples`, which are from `file`, under the
/// model in `source`; samples longer than `max_len` are left out. Gives back the number of distinct samples.
///
/// # Errors
/// When a sample has no response, or a file cannot be read or written.
pub fn reference_log_probs(
    source: &Path,
    (samples, file): (&[Sample], &Path),
    max_len: usize,
    out: &Path,
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<usize> {
    let model = ModelSource::new(source, compute).into_loaded()?;
    let examples = encode_samples(&model.tokenizer, samples, file)?;
    let values =
        ReferenceLogProbs::new(&model.decoder, &examples, max_len, &mut |done, all| report(done, all, "reference"))?;
    values.write(out)?;
    Ok(values.len())
}
