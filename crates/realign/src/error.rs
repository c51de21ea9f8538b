//! What can go wrong with a stage.

use std::path::Path;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a stage has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// Samples, a tokenizer or a chat template could not be used.
    #[error(transparent)]
    Prompts(#[from] prompts::Error),
    /// A model could not be read, written or run.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A training failed.
    #[error(transparent)]
    Finetune(finetune::Error),
    /// A direction could not be computed.
    #[error(transparent)]
    Direction(#[from] direction::Error),
    /// A method failed.
    #[error(transparent)]
    Recovery(recovery::Error),
    /// Answers could not be judged or scored.
    #[error(transparent)]
    Evaluation(#[from] evaluation::EvaluationError),
    /// A stage's settings or summary are not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A report's page could not be made.
    #[error(transparent)]
    Page(#[from] page::Error),
    /// A prompt is too long for the model.
    #[error("{source}")]
    TooLong {
        /// The prompt, which the message leaves out.
        prompt: String,
        /// How long it is.
        source: model::Error,
    },
    /// What was done, or with which model, when another error came up.
    #[error("{what}: {source}")]
    In {
        /// In words.
        what: String,
        /// The error.
        source: Box<Error>,
    },
    /// The machine is too small for the work.
    #[error("{needed} of {what} are needed, and there are {there}; {help}")]
    TooLarge {
        /// Memory or disk.
        what: &'static str,
        /// How much is needed.
        needed: String,
        /// How much there is.
        there: String,
        /// What would help.
        help: String,
    },
    /// A model of the Hugging Face hub could not be fetched.
    #[error("{model}, taken for a model of the hub: {reason}")]
    Hub {
        /// Its name.
        model: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Input that makes no sense; says what to do.
    #[error("{0}")]
    Invalid(String),
    /// The caller asked to stop; what is done is kept in the stage's directory.
    #[error("stopped; the same command goes on from here")]
    Stopped,
}

impl Error {
    pub(crate) fn too_long(sample: &prompts::Sample, source: model::Error) -> Self {
        Self::TooLong { prompt: sample.prompt.clone(), source }
    }

    /// The error with the line of the prompt that it is about, if one of the files has it.
    #[must_use]
    pub fn located(self, files: &[&Path]) -> Self {
        let prompt = match self {
            Self::In { what, source } => return Self::In { what, source: Box::new(source.located(files)) },
            Self::TooLong { ref prompt, .. } => prompt,
            other => return other,
        };
        let place = files.iter().find_map(|file| {
            let mut rows = prompts::rows(file, None).ok()?.map_while(prompts::Result::ok);
            let row = rows.find(|row| row.object.values().any(|value| holds(value, prompt)))?;
            Some(format!("{}, line {}", row.file.display(), row.line))
        });
        match place {
            Some(what) => Self::In { what, source: Box::new(self) },
            None => self,
        }
    }

    /// Whether the caller asked to stop, and nothing failed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::In { source, .. } => source.is_stopped(),
            _ => false,
        }
    }
}

/// Whether a text is a value of a line, or of its messages.
fn holds(json: &serde_json::Value, text: &str) -> bool {
    use serde_json::Value;
    match json {
        Value::String(value) => value == text,
        Value::Array(values) => values.iter().any(|value| holds(value, text)),
        Value::Object(values) => values.values().any(|value| holds(value, text)),
        _ => false,
    }
}

impl From<finetune::Error> for Error {
    fn from(error: finetune::Error) -> Self {
        if matches!(error, finetune::Error::Stopped) { Self::Stopped } else { Self::Finetune(error) }
    }
}

impl From<recovery::Error> for Error {
    fn from(error: recovery::Error) -> Self {
        if matches!(error, recovery::Error::Stopped) { Self::Stopped } else { Self::Recovery(error) }
    }
}

/// Adds to an error what was done when it came up.
pub trait Within<T> {
    /// `what` in front of the error's own words.
    ///
    /// # Errors
    /// The error of `self`, with those words.
    fn within(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Within<T> for std::result::Result<T, E> {
    fn within(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::In { what: what(), source: Box::new(error.into()) })
    }
}

/// An [`Error::Invalid`].
pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(text.into()))
}
