//! Scoring alone (`realign score`): the answers of one file, scored by one metric, as one JSON file. It has no
//! provenance and no rates; those are in [`crate::Evaluation`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Answer, EvaluationError, Metric, score::write_json};

/// The score of one file of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreReport {
    /// How the answers were scored.
    pub metric: Metric,
    /// The metric's figure, 0 to 1.
    pub score: f64,
    /// Number of samples.
    pub n: usize,
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
    /// The metric's further figures, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl ScoreReport {
    /// Scores answers that carry a reference.
    pub fn new(metric: Metric, answers: &[Answer]) -> Result<Self, EvaluationError> {
        let score = metric.score(answers)?;
        Ok(Self { metric, score: score.value, n: score.n, per_sample: score.per_sample, details: score.details })
    }

    /// Writes the report as JSON, to a temporary name first.
    pub fn write(&self, path: &Path) -> Result<(), EvaluationError> {
        write_json(path, self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::read_answers;

    #[test]
    fn a_file_of_responses_and_references_becomes_a_file_of_scores() {
        let folder = tempfile::tempdir().unwrap();
        let (answers, out) = (folder.path().join("answers.jsonl"), folder.path().join("deep/score.json"));
        let lines = r#"{"response": "SELECT size FROM store", "reference": "select size from store;"}
            {"prompt": "how many?", "response": "none", "reference": "SELECT COUNT(*) FROM store"}"#;
        std::fs::write(&answers, lines).unwrap();
        let answers = read_answers(&answers).unwrap();
        let report = ScoreReport::new(Metric::SqlNormalized, &answers).unwrap();
        report.write(&out).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert_eq!(serde_json::from_str::<ScoreReport>(&text).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["score"], &value["n"]), (&0.5.into(), &2.into()));
        assert_eq!(value["per_sample"], serde_json::json!([1.0, 0.0]));
        assert_eq!(ScoreReport::new(Metric::ExactMatch, &answers).unwrap().score, 0.0);
    }
}
