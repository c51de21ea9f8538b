//! The errors of this crate: each names the file, line or value, and says what to do.

use std::{io, path::PathBuf};

/// Why answers could not be read, judged or scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the free space and the folder's rights", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of an answers file is no answer.
    #[error("{}, line {line}: {source}; expected an object with `response`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said, with the key.
        source: serde_json::Error,
    },
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
    /// A line of a verdict file is no verdict.
    #[error("{}, line {line}: {source}; delete the file to judge the answers again", path.display())]
    VerdictLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said, with the key.
        source: serde_json::Error,
    },
    /// A line of a data file lacks what the settings say of it.
    #[error("{}, line {line}: {problem}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key.
        problem: String,
    },
    /// A file of answers or scores could not be written.
    #[error(transparent)]
    Jsonl(#[from] prompts::Error),
    /// There is nothing to score.
    #[error("there are no answers to score: the answers file is empty; generate the answers again")]
    NoAnswers,
    /// The judge can tell no answer.
    #[error("none of the {n} answers holds a letter or digit, so none can be judged: look at the answers file")]
    NothingJudged {
        /// Number of answers.
        n: usize,
    },
    /// A metric needs a reference that the answer has not.
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
    /// Two methods' outcomes are not of the same samples.
    #[error("{left} outcomes cannot be paired with {right}: score both methods on the same prompts, in one order")]
    Unpaired {
        /// Number of the first method's outcomes.
        left: usize,
        /// Number of the second method's.
        right: usize,
    },
}
