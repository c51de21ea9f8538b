//! A task as data (paper, "Fine-tuning tasks"): its files and its metric. Reading a YAML file into a [`TaskSpec`] and
//! resolving its paths belong to the caller.

use std::{path::PathBuf, str::FromStr};

use serde::{
    Deserialize, Serialize,
    de::{self, IntoDeserializer as _},
};

use crate::{
    Answer, EvaluationError, Score,
    metrics::{exact_match, f1, nl2bash, rouge, sql_normalized},
};

/// One fine-tuning task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Training samples, JSONL with `prompt` and `response`.
    pub train: PathBuf,
    /// Validation samples; without them the caller holds some of `train` out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// Test samples, only reported on.
    pub test: PathBuf,
    /// How an answer is scored.
    pub metric: Metric,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
}

/// How a task's answers are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Stripped strings equal (SQL).
    #[serde(alias = "sql")]
    ExactMatch,
    /// The same SQL, however it is formatted.
    SqlNormalized,
    /// F1 of class 1 (CHEAT, toxicity).
    F1,
    /// Utilities and flags of the commands (NL2Bash).
    Nl2bash,
    /// ROUGE-1 F (SAMSum).
    Rouge,
}

impl Metric {
    /// Scores answers that carry a reference.
    pub fn score(self, answers: &[Answer]) -> Result<Score, EvaluationError> {
        match self {
            Self::ExactMatch => exact_match(answers),
            Self::SqlNormalized => sql_normalized(answers),
            Self::F1 => f1(answers),
            Self::Nl2bash => nl2bash(answers),
            Self::Rouge => rouge(answers),
        }
    }

    /// Whether a larger value is the better one.
    pub fn higher_is_better(self) -> bool {
        match self {
            Self::ExactMatch | Self::SqlNormalized | Self::F1 | Self::Nl2bash | Self::Rouge => true,
        }
    }
}

impl FromStr for Metric {
    type Err = de::value::Error;

    /// A metric by the name that it has in a task file.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::deserialize(name.into_deserializer())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPEC: &str =
        r#"{"name": "lab", "train": "a.jsonl", "test": "b.jsonl", "metric": "exact_match", "max_new_tokens": 16"#;

    #[test]
    fn a_task_is_read_without_a_validation_file() {
        let task: TaskSpec = serde_json::from_str(&format!("{SPEC}}}")).unwrap();
        assert_eq!((task.metric, task.max_new_tokens, task.valid), (Metric::ExactMatch, 16, None));
    }

    #[test]
    fn a_metric_has_the_names_of_a_task_file() {
        let names = [
            ("exact_match", Metric::ExactMatch),
            ("sql", Metric::ExactMatch),
            ("sql_normalized", Metric::SqlNormalized),
            ("f1", Metric::F1),
            ("nl2bash", Metric::Nl2bash),
            ("rouge", Metric::Rouge),
        ];
        for (name, metric) in names {
            assert_eq!(name.parse::<Metric>().unwrap(), metric);
            assert!(metric.higher_is_better());
        }
        let error = "f2".parse::<Metric>().unwrap_err().to_string();
        assert!(error.contains("f2") && error.contains("sql_normalized"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = format!(r#"{SPEC}, "tests": "c.jsonl"}}"#);
        let error = serde_json::from_str::<TaskSpec>(&text).unwrap_err();
        assert!(error.to_string().contains("`tests`"), "{error}");
    }
}
