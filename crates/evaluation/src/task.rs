//! A task as data (paper, "Fine-tuning tasks"; `data/tasks/*.yaml`): its files, their keys and its metric. Adding a task
//! is adding a file; only a new metric needs code. The samples are no part of this repository.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use prompts::Sample;

use serde::{
    Deserialize, Serialize,
    de::{self, IntoDeserializer as _},
};

use crate::{
    Answer, EvaluationError, Score,
    metrics::{exact_match, f1, f1_difference, f1_interval, nl2bash, rouge, sql_normalized},
    samples::{Fields, read_samples},
    statistics::{BootstrapSettings, Estimate, bootstrap_mean, paired_bootstrap},
    yaml::read_yaml,
};

/// One fine-tuning task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Where the samples come from.
    pub source: String,
    /// Their licence.
    pub licence: String,
    /// Training samples, JSONL, relative to the data directory.
    pub train: PathBuf,
    /// Validation samples; without them the caller holds some of `train` out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// Test samples, only reported on.
    pub test: PathBuf,
    /// The keys of its files.
    #[serde(default = "task_fields")]
    pub fields: Fields,
    /// How an answer is scored; what is better is the metric's to say ([`Metric::higher_is_better`]).
    pub metric: Metric,
    /// Scores that stand beside it and decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Metric>,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
}

fn task_fields() -> Fields {
    Fields { response: Some("response".into()), ..Fields::default() }
}

/// A part of a task's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// For choosing settings and steps.
    Valid,
    /// For reporting alone.
    #[default]
    Test,
}

impl TaskSpec {
    /// Reads a task's YAML file.
    pub fn read(path: &Path) -> Result<Self, EvaluationError> {
        let task: Self = read_yaml(path)?;
        match task.fields.response {
            Some(_) => Ok(task),
            None => {
                let problem = "fields.response is missing; a task is scored by its right answers".into();
                Err(EvaluationError::Format { name: path.display().to_string(), problem })
            }
        }
    }

    /// The first `count` samples of a split, all without it, each with an id.
    ///
    /// # Errors
    /// When the task has no such file, or as [`read_samples`].
    pub fn samples(&self, data: &Path, split: Split, count: Option<usize>) -> Result<Vec<Sample>, EvaluationError> {
        let file = match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
            Split::Valid => self.valid.as_ref().ok_or_else(|| EvaluationError::Format {
                name: format!("task {:?}", self.name),
                problem: "has no `valid` file; name one, or hold some of `train` out".into(),
            })?,
        };
        read_samples(&data.join(file), &self.fields, 0, count)
    }
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

    /// The name in task files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact_match",
            Self::SqlNormalized => "sql_normalized",
            Self::F1 => "f1",
            Self::Nl2bash => "nl2bash",
            Self::Rouge => "rouge",
        }
    }

    /// The score with its bootstrap interval, from the samples' scores, or from the answers where it is no mean of them.
    ///
    /// # Errors
    /// When there is no sample, or an answer cannot be scored.
    pub fn interval(
        self,
        per_sample: &[f64],
        answers: &[Answer],
        settings: &BootstrapSettings,
    ) -> Result<Estimate, EvaluationError> {
        match self {
            Self::F1 => f1_interval(answers, settings),
            Self::ExactMatch | Self::SqlNormalized | Self::Nl2bash | Self::Rouge => {
                bootstrap_mean(per_sample, settings)
            }
        }
    }

    /// The score of one model minus that of another on the same samples, in one order, with its bootstrap interval; of each
    /// model its samples' scores and its answers, as for [`interval`](Self::interval).
    ///
    /// # Errors
    /// When there is no sample, the models have different numbers of them, or an answer cannot be scored.
    pub fn difference(
        self,
        left: (&[f64], &[Answer]),
        right: (&[f64], &[Answer]),
        settings: &BootstrapSettings,
    ) -> Result<Estimate, EvaluationError> {
        match self {
            Self::F1 => f1_difference(left.1, right.1, settings),
            Self::ExactMatch | Self::SqlNormalized | Self::Nl2bash | Self::Rouge => {
                paired_bootstrap(left.0, right.0, settings)
            }
        }
    }

    /// Whether the score is the mean of its samples' scores; where it is not, an interval asks for the answers.
    #[must_use]
    pub fn is_mean(self) -> bool {
        match self {
            Self::F1 => false,
            Self::ExactMatch | Self::SqlNormalized | Self::Nl2bash | Self::Rouge => true,
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

    const SPEC: &str = r#"{"name": "lab", "source": "own", "licence": "own", "train": "a.jsonl", "test": "b.jsonl", "metric": "exact_match", "max_new_tokens": 16"#;

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
            assert_eq!(metric.name().parse::<Metric>().unwrap(), metric);
            assert!(metric.higher_is_better());
        }
        let error = "f2".parse::<Metric>().unwrap_err().to_string();
        assert!(error.contains("f2") && error.contains("sql_normalized"), "{error}");
    }

    #[test]
    fn every_task_and_prompt_set_of_the_repository_is_read() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
        let files = |folder: &str| -> Vec<PathBuf> {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(data.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
            files.sort();
            files
        };
        let tasks: Vec<TaskSpec> = files("tasks").iter().map(|path| TaskSpec::read(path).unwrap()).collect();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["cheat", "lab-sql", "nl2bash", "samsum", "sql", "toxicity"]);
        let lab = tasks[1].samples(&data, Split::Test, Some(3)).unwrap();
        assert!(lab.len() == 3 && lab.iter().all(|sample| sample.response.is_some()));
        for path in files("prompt_sets") {
            let set = crate::PromptSet::read(&path).unwrap();
            if set.file.starts_with("lab") {
                assert_eq!(set.samples(&data).unwrap().len(), 140, "{}", set.name);
            }
            if set.kind == crate::PromptKind::LooksHarmful {
                let samples = set.samples(&data).unwrap();
                let categories: Vec<&str> = samples.iter().filter_map(|sample| sample.category.as_deref()).collect();
                let of_each = |name: &&str| categories.iter().filter(|other| *other == name).count();
                assert_eq!(categories.len(), 80, "{}", set.name);
                assert!(categories.iter().all(|name| of_each(name) == 10), "{categories:?}");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = format!(r#"{SPEC}, "tests": "c.jsonl"}}"#);
        let error = serde_json::from_str::<TaskSpec>(&text).unwrap_err();
        assert!(error.to_string().contains("`tests`"), "{error}");
    }
}
