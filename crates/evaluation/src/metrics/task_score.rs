//! The score of answers with its interval.

use serde::{Deserialize, Serialize};

use super::{Classes, Metric, Score};
use crate::{Answer, Result, statistics::BootstrapSettings};

/// The score of one model's answers to a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// How the answers are scored.
    pub metric: Metric,
    /// Number of answers.
    pub n: usize,
    /// The figure, 0 to 1.
    pub value: f64,
    /// Bootstrap 95 % interval over the samples.
    pub interval: (f64, f64),
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
    /// The true class and the answered one of each sample; F1 only, which is not a mean of `per_sample`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<Classes>>,
    /// The metric's further figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl TaskScore {
    /// Scores answers that carry a reference, one by one as they are read.
    ///
    /// # Errors
    /// As [`Metric::score_each`].
    pub fn new(metric: Metric, answers: impl Iterator<Item = Result<Answer>>) -> Result<Self> {
        let Score { value, per_sample, classes, details } = metric.score_each(answers)?;
        let (n, interval) = (per_sample.len(), (value, value));
        let mut score = Self { metric, n, value, interval, per_sample, classes, details };
        score.interval = Metric::interval(&score, &BootstrapSettings::default())?.interval;
        Ok(score)
    }
}
