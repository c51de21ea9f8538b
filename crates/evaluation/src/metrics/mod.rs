//! Task scores (paper, "Evaluation metrics"): one file per metric, each from answers to a [`Score`].

mod exact_match;
mod f1;
mod nl2bash;
mod nl2bash_parse;
mod rouge;
mod rouge_porter;
mod sql_normalized;

pub use exact_match::exact_match;
pub use f1::{F1Details, f1, f1_difference, f1_interval};
pub use nl2bash::{nl2bash, nl2bash_pair};
pub use rouge::{Overlap, RougeScores, rouge, rouge_pair};
pub use sql_normalized::{normalize_sql, sql_normalized};

/// A task score with what every sample got.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The metric's figure, 0 to 1: the mean over the samples where the metric does not say otherwise.
    pub value: f64,
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
    /// Number of samples.
    pub n: usize,
    /// The metric's further figures, by name.
    pub details: Option<serde_json::Value>,
}

impl Score {
    /// The mean of `per_sample`, which holds at least one value.
    pub(crate) fn mean_of(per_sample: Vec<f64>) -> Self {
        let n = per_sample.len();
        let value = per_sample.iter().sum::<f64>() / n as f64;
        Self { value, per_sample, n, details: None }
    }
}
