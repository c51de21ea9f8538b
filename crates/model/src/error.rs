//! What can go wrong with a model's files and how a message says so.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of model loading, saving and running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// `config.json` is not JSON, or a key has the wrong type.
    #[error("{path}: not a model configuration: {source}")]
    ConfigJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key of `config.json` is missing, wrong, or asks for something this decoder does not do.
    #[error("{path}: key `{key}`: {reason}")]
    Config {
        /// The file, or the GGUF it was read from.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A checkpoint file is damaged, hostile or of an unsupported kind.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong and where in the file.
        reason: String,
    },
    /// A tensor that the decoder needs is not in the checkpoint.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{path}: tensor `{name}` has shape {found:?}, but config.json asks for {expected:?}")]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What config.json asks for.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A prompt and its answer do not fit into the model's positions.
    #[error(
        "a prompt of {tokens} tokens and {new_tokens} new ones exceed max_position_embeddings = {limit}; leave the prompt \
         out or ask for fewer new tokens"
    )]
    TooLong {
        /// Which of the prompts, from 0.
        index: usize,
        /// Its length.
        tokens: usize,
        /// New tokens at most.
        new_tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// The device failed or ran out of memory.
    #[error("the device failed: {0}")]
    Device(String),
    /// Ids that are not in the vocabulary, empty rows and the like.
    #[error("{0}")]
    Input(String),
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Checkpoint`] for `path`.
    pub fn checkpoint(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.into(), reason: reason.into() }
    }
}
