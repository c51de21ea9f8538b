//! Answers to scores: the paper's section "Evaluation" (harmful rate, over-refusal, task score).
//!
//! Answers are written as JSONL first and scored afterwards, so that a metric can be mended and run again without a
//! model. This crate never sees burn: it generates nothing, loads no model and draws nothing.

pub mod answers;
pub mod error;
pub mod judge;
pub mod metrics;
pub mod prompt_set;
pub mod report;
pub mod samples;
pub mod score;
pub mod statistics;
pub mod summary;
pub mod task;
mod yaml;

pub use answers::{Answer, read_answers, write_answers};
pub use error::EvaluationError;
pub use judge::{
    Verdict,
    format::JudgeFormat,
    http::HttpJudge,
    refusal::RefusalJudge,
    settings::{Judge, JudgeSpec},
    verdicts::{VerdictFile, VerdictRecord, verdict_key},
};
pub use metrics::Score;
pub use prompt_set::{PromptKind, PromptSet};
pub use report::ScoreReport;
pub use score::{JudgedRate, Provenance};
pub use statistics::wilson;
pub use summary::{Evaluation, JudgeScores, SetScores, TaskScore, TaskScores};
pub use task::{Metric, Split, TaskSpec};
