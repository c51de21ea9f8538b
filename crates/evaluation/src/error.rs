//! The errors of this crate: each names the file, line or value, and says what to do.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = EvaluationError> = std::result::Result<T, E>;

/// Why answers could not be read, judged or scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file could not be read or written, or is not the JSON that it should be.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file of prompts cannot be read.
    #[error(transparent)]
    Prompts(#[from] prompts::Error),
    /// A YAML file does not hold the settings it should.
    #[error("{}: {source}; correct the file", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What the parser said, with key and line.
        source: serde_yaml::Error,
    },
    /// Settings of judges, prompt sets or tasks that cannot be used.
    #[error("{name}: {problem}")]
    Format {
        /// The file or format.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A judge that cannot judge any answer.
    #[error("judge {name:?}: {problem}")]
    Judge {
        /// The judge.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A line of a data file lacks what the settings say it has.
    #[error("{}, line {line}: {problem}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key.
        problem: String,
    },
    /// There is nothing to score.
    #[error("there are no answers to score: the answers file is empty; generate the answers again")]
    NoAnswers,
    /// The judge has no verdict on any answer.
    #[error("the judge has no verdict on any of the {n} answers: look at the answers file")]
    NothingJudged {
        /// Number of answers.
        n: usize,
    },
    /// A metric needs a reference that the answer lacks.
    #[error(
        "answer {id:?} has no `reference`: generate from the task's file, with a `response` on every line, \
         or add `reference` to the answers file"
    )]
    NoReference {
        /// The answer's id.
        id: String,
    },
    /// A reference is neither class.
    #[error("answer {id:?} has the reference {reference:?}, which holds no label 0 or 1: is it an F1 task's file?")]
    NoClass {
        /// The answer's id.
        id: String,
        /// The reference.
        reference: String,
    },
    /// A stored F1 score lacks its classes.
    #[error("the F1 score has no `classes`, which its interval needs; score the answers again")]
    NoClasses,
    /// Two scores are not of the same metric.
    #[error("a score by {left} cannot be compared with one by {right}: score both models by the same metric")]
    Unlike {
        /// The first model's metric.
        left: &'static str,
        /// The second model's metric.
        right: &'static str,
    },
    /// Two evaluations are not of the same prompts, judges or metrics.
    #[error("{left} and {right} cannot be compared: {differ}")]
    Incomparable {
        /// The first evaluation.
        left: String,
        /// The second one.
        right: String,
        /// What differs.
        differ: String,
    },
    /// Two methods' outcomes are not of the same samples.
    #[error("{left} outcomes cannot be paired with {right}: score both methods on the same prompts, in one order")]
    Unpaired {
        /// Number of the first method's outcomes.
        left: usize,
        /// Number of the second method's.
        right: usize,
    },
}
