//! Answers to scores: the paper's section "Evaluation" (harmful rate, over-refusal, task score).
//!
//! Answers are written as JSONL first and scored afterwards, so that a metric can be mended and run again without a
//! model. This crate never sees burn: it generates nothing, loads no model and draws nothing.

pub mod answers;
pub mod error;
pub mod judge;
pub mod metrics;
pub mod report;
pub mod score;
pub mod statistics;
pub mod task;

pub use answers::{Answer, read_answers, write_answers};
pub use error::EvaluationError;
pub use judge::{Verdict, refusal::RefusalJudge};
pub use metrics::Score;
pub use report::ScoreReport;
pub use score::{JudgedRate, Provenance, ScoreFile, harmful_rate, over_refusal};
pub use statistics::wilson;
pub use task::{Metric, TaskSpec};
