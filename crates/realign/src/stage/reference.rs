//! What a model gives to the responses of samples: computed once for all SoftSFT runs that start from it.

use std::path::{Path, PathBuf};

use ::finetune::ReferenceLogProbs;
use anyhow::Result;
use prompts::Sample;

use super::Report;
use super::kept::model_key;
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

/// Those values in a file of `dir` that bears their key, computed unless it is there: what a stopped run left may be of
/// another model or of other samples.
///
/// # Errors
/// As [`reference_log_probs`].
pub fn reference_in(
    dir: &Path,
    source: &Path,
    (samples, file): (&[Sample], &Path),
    max_len: usize,
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<PathBuf> {
    let computed = ModelSource::new(source, compute).compute_in_words();
    let key = model_key(source, &serde_json::to_string(&(max_len, computed, samples))?)?;
    let path = dir.join(format!("reference-{}.safetensors", &key[..16]));
    if !path.exists() {
        reference_log_probs(source, (samples, file), max_len, &path, compute, report)?;
    }
    Ok(path)
}
