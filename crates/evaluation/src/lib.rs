//! Answers to scores: the paper's section "Evaluation" (harmful rate, over-refusal, task score).
//!
//! Answers are written as JSONL first and scored afterwards, so that a changed metric or judge needs no model again. This
//! crate does not use burn: it generates nothing, loads no model and draws no figure.

pub mod answers;
pub mod error;
pub mod gate;
pub mod judge;
pub mod metrics;
pub mod prompt_set;
mod read;
pub mod report;
pub mod samples;
pub mod score;
pub mod statistics;
pub mod summary;
pub mod task;

pub use answers::{Answer, AnswerRecord, PromptId, answers, read_answers};
pub use error::{EvaluationError, Result};
pub use judge::{
    Verdict,
    format::JudgeFormat,
    http::{HttpJudge, HttpOutcome},
    refusal::RefusalJudge,
    settings::{Judge, JudgeSpec},
    trained::TrainedJudge,
    verdicts::{Judged, VerdictRecord, unusable, verdict_key},
};
pub use metrics::{Metric, Score, TaskScore};
pub use prompt_set::{PromptKind, PromptSet};
pub use samples::{Fields, read_samples};
pub use score::{JudgedRate, Provenance};
pub use statistics::wilson;
pub use summary::{Evaluation, JudgeScores, SetScores, TaskScores};
pub use task::{TaskEntry, TaskSpec};
