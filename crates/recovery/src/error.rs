//! What can go wrong with a method, and the rules that settings are checked by.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of the methods.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decoder refused something, or the device failed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A direction or its gradient could not be computed.
    #[error(transparent)]
    Direction(#[from] direction::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The report stopped the work; what was done is in the checkpoint, where there is one.
    #[error("stopped before the end; the same again goes on from the checkpoint, where there is one")]
    Stopped,
    /// There is no method of this word.
    #[error("there is no method `{word}`; the methods are {known}")]
    UnknownMethod {
        /// The word.
        word: String,
        /// The words of all methods.
        known: String,
    },
    /// Settings are not those of the method.
    #[error("settings of `{method}`: {source}")]
    Settings {
        /// The method's word.
        method: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A setting is out of its range.
    #[error("setting `{key}`: {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A method lacks an input.
    #[error("the method `{method}` needs {what}")]
    Missing {
        /// The method's word.
        method: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A prompt has no answer after it.
    #[error("answered prompt {row} (from 0) has no answer token, or no token before its answer")]
    NoAnswer {
        /// Which of the prompts that were given.
        row: usize,
    },
    /// A loss is not finite.
    #[error("{what} is not finite; the weights or the prompts are damaged")]
    NotFinite {
        /// Which loss.
        what: &'static str,
    },
    /// A method has no knob.
    #[error("`{method}` has no knob to choose by held-out merit")]
    NoKnob {
        /// The method's word.
        method: &'static str,
    },
    /// Two models are not of one shape.
    #[error("the {} and the {} model differ: {reason}; both must be of one shape", .models[0], .models[1])]
    ShapesDiffer {
        /// Which two.
        models: [&'static str; 2],
        /// What differs.
        reason: String,
    },
    /// The task could not be scored.
    #[error("scoring the task failed: {0}")]
    Measure(Box<dyn std::error::Error + Send + Sync>),
    /// A patch is not one of these models.
    #[error("the patch does not fit the model: tensor `{tensor}` {reason}")]
    Patch {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The steps of a patch do not allow what was asked for.
    #[error("the patch: {reason}")]
    Path {
        /// What is wrong.
        reason: String,
    },
    /// A file is not a patch.
    #[error("{}: not a patch: {reason}", .path.display())]
    NoPatch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint is damaged, or of another recovery.
    #[error("{}: {reason}; delete the file to start again", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An error unless a setting is between 0 and 1.
pub(crate) fn check_share(key: &'static str, value: f64) -> Result<()> {
    let reason = format!("{value} is not between 0 and 1");
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::Setting { key, reason }) }
}

/// An error unless a setting is a share of which something is left.
pub(crate) fn check_rate(key: &'static str, value: f64) -> Result<()> {
    let reason = format!("{value} is not above 0 and at most 1");
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(Error::Setting { key, reason }) }
}

/// An error unless none of these settings is below 0.
pub(crate) fn check_not_negative(settings: &[(&'static str, f64)]) -> Result<()> {
    match settings.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some(&(key, value)) => Err(Error::Setting { key, reason: format!("{value} is not a number of 0 or more") }),
        None => Ok(()),
    }
}

/// An error unless all of these settings are at least 1.
pub(crate) fn check_counts(counts: &[(&'static str, usize)]) -> Result<()> {
    match counts.iter().find(|&&(_, value)| value == 0) {
        Some(&(key, _)) => Err(Error::Setting { key, reason: "0 is too few; at least 1".into() }),
        None => Ok(()),
    }
}
