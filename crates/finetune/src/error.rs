//! What can go wrong in training and how a message says so.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of fine-tuning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decoder refused the ids, or its device failed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A file could not be read or written, or is not as it was written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The report asked to stop; the checkpoint file, where there is one, has the state.
    #[error("stopped; the same call goes on from the checkpoint, where it has one")]
    Stopped,
    /// A setting has a value that makes no sense.
    #[error("setting `{key}` = {value}: {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        reason: &'static str,
    },
    /// More harmful samples were asked for than there are.
    #[error("asked to inject {asked} harmful samples, but the set has {found}; lower the count or give a larger set")]
    TooFewHarmful {
        /// The count that was asked for.
        asked: usize,
        /// The size of the set.
        found: usize,
    },
    /// No sample is left to train on.
    #[error("no sample to train on: {dropped} of {given} are longer than max_len = {max_len} tokens")]
    NoExample {
        /// The number of samples that came in.
        given: usize,
        /// Those too long.
        dropped: usize,
        /// The limit.
        max_len: usize,
    },
    /// A sample has no token that counts in the loss.
    #[error("sample {example} (counted from 0) has no response token to learn; its loss mask is empty")]
    NoResponse {
        /// The sample's index in what was given.
        example: usize,
    },
    /// A sample's ids and loss mask differ in length.
    #[error("sample {example} (counted from 0) has {ids} ids but a loss mask of {mask}")]
    MaskLength {
        /// The sample's index in what was given.
        example: usize,
        /// Number of ids.
        ids: usize,
        /// Length of the mask.
        mask: usize,
    },
    /// SoftSFT lacks what the aligned model gives to a sample.
    #[error(
        "sample {example} (counted from 0) has no log-probabilities of the aligned model; compute them for the \
         same samples and max_len"
    )]
    NoReference {
        /// The sample's index in what was given.
        example: usize,
    },
    /// A file of reference log-probabilities cannot be used.
    #[error("reference log-probabilities {path}: {reason}; delete it to have it computed again")]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Training diverged.
    #[error("{what} is {value} at step {step}; lower learning_rate or set max_grad_norm")]
    NotFinite {
        /// The loss, or the norm of the gradient.
        what: &'static str,
        /// Its value: NaN or infinite.
        value: f64,
        /// The step, from 1.
        step: usize,
    },
    /// A training checkpoint cannot be used.
    #[error("training checkpoint {path}: {reason}; delete it to start from the beginning")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// An [`Error::Setting`] unless `fine`.
pub(crate) fn require(fine: bool, key: &'static str, value: impl ToString, reason: &'static str) -> Result<()> {
    match fine {
        true => Ok(()),
        false => Err(Error::Setting { key, value: value.to_string(), reason }),
    }
}
