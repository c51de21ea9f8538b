//! What can go wrong with a recovery.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of a recovery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decoder refused something, or the device failed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A direction or its gradient could not be computed.
    #[error(transparent)]
    Direction(#[from] direction::Error),
    /// Two models are not of one shape.
    #[error("the {} and the {} model differ: {reason}; both must be of one shape", .models[0], .models[1])]
    ShapesDiffer {
        /// Which two.
        models: [&'static str; 2],
        /// What differs.
        reason: String,
    },
    /// A setting is out of its range.
    #[error("setting `{key}`: {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The task could not be scored.
    #[error("scoring the task failed: {0}")]
    Measure(Box<dyn std::error::Error + Send + Sync>),
    /// The recovery's checkpoint could not be read or written.
    #[error("{path}: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
