//! A task as data (paper, "Fine-tuning tasks"; `data/tasks/*.yaml`): its files, their keys and its metric. Adding a task
//! is adding a file; only a new metric needs code. The samples are not part of this repository, apart from the lab's.

use std::path::{Path, PathBuf};

use files::{is_name, under};
use prompts::Sample;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    EvaluationError, Metric, Result,
    read::{check_new_tokens, read_yaml},
    samples::{Fields, read_samples},
};

/// One fine-tuning task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Where the samples come from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Their licence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub licence: String,
    /// Script that makes the files when they are not there, as a prompt set's of a sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<PathBuf>,
    /// Training samples, JSONL, relative to the data directory; `~/` is the home directory.
    pub train: PathBuf,
    /// Test samples, which are only reported.
    pub test: PathBuf,
    /// The keys of its files.
    #[serde(default = "task_fields")]
    pub fields: Fields,
    /// How an answer is scored.
    pub metric: Metric,
    /// Scores beside it, which decide nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Metric>,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Share of the training file that is held out for validation, which decides the recovery.
    #[serde(default = "default_validation")]
    pub validation: f64,
}

fn task_fields() -> Fields {
    Fields { response: Some("response".into()), ..Fields::default() }
}

fn default_validation() -> f64 {
    0.1
}

impl TaskSpec {
    /// Reads a task's YAML file.
    ///
    /// # Errors
    /// When the file cannot be read, or a setting makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        read_yaml::<Self>(path)?.checked(&path.display().to_string())
    }

    /// The task, if its settings make sense; an error names `place`.
    fn checked(self, place: &str) -> Result<Self> {
        let problem = if self.fields.response.is_none() {
            "fields.response is missing; a task is scored by its right answers".to_owned()
        } else if !is_name(&self.name) {
            format!("name is {:?}, expected letters, digits, `-`, `_` or `.`", self.name)
        } else if let Err(problem) = check_new_tokens(self.max_new_tokens, 1) {
            problem
        } else if !(0.0..1.0).contains(&self.validation) {
            format!("validation is {}, expected a share from 0 to below 1", self.validation)
        } else {
            return Ok(self);
        };
        Err(EvaluationError::Format { name: place.to_owned(), problem })
    }

    /// How an answer is scored: by the deciding metric, then by those beside it.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        [&[self.metric], self.also.as_slice()].concat()
    }

    /// The test samples, each with an id; `data` is the data directory.
    ///
    /// # Errors
    /// As [`read_samples`].
    pub fn test_samples(&self, data: &Path) -> Result<Vec<Sample>> {
        read_samples(&under(data, &self.test), &self.fields, 0, None)
    }
}

/// A task in a list of tasks, such as a sweep's: `sql`, `{task: sql, max_new_tokens: 128}`, or a whole [`TaskSpec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Value")]
pub enum TaskEntry {
    /// A file in the directory of tasks, without `.yaml`.
    File(String),
    /// A file with other values for some of its keys.
    Changed {
        /// The file, as in [`TaskEntry::File`].
        task: String,
        /// The keys and their values.
        #[serde(flatten)]
        changes: Map<String, Value>,
    },
    /// A task that no file describes.
    Inline(Box<TaskSpec>),
}

impl TryFrom<Value> for TaskEntry {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(file) => Ok(Self::File(file)),
            Value::Object(mut changes) if changes.contains_key("task") => match changes.remove("task") {
                Some(Value::String(task)) => Ok(Self::Changed { task, changes }),
                other => Err(format!("`task` is {}, expected the name of a task's file", other.unwrap_or_default())),
            },
            Value::Object(_) => match serde_json::from_value(value) {
                Ok(task) => Ok(Self::Inline(task)),
                Err(error) => Err(format!("{error}; a task of a file is `name` or `{{task: name, ...}}`")),
            },
            other => Err(format!("{other} is no task; expected the name of a task's file, or its keys")),
        }
    }
}

impl TaskEntry {
    /// The task; `dir` is the directory of the tasks' files.
    ///
    /// # Errors
    /// When there is no such file, or a setting is unknown or makes no sense.
    pub fn resolve(&self, dir: &Path) -> Result<TaskSpec> {
        let (file, changes) = match self {
            Self::Inline(task) => return task.as_ref().clone().checked(&format!("task {:?}", task.name)),
            Self::File(file) => (file, None),
            Self::Changed { task, changes } => (task, Some(changes)),
        };
        let path = dir.join(format!("{file}.yaml"));
        if !is_name(file) || !path.is_file() {
            let problem = format!("there is no task {file:?} in {}; {}", dir.display(), known(dir));
            return Err(EvaluationError::Format { name: "tasks".into(), problem });
        }
        let Some(changes) = changes else { return TaskSpec::read(&path) };
        let place = format!("task {file:?} with {}", Value::Object(changes.clone()));
        let mut task: Value = read_yaml(&path)?;
        merge(&mut task, changes);
        let failed =
            |error: serde_json::Error| EvaluationError::Format { name: place.clone(), problem: error.to_string() };
        serde_json::from_value::<TaskSpec>(task).map_err(failed)?.checked(&place)
    }
}

/// Puts the values of `changes` over those of `value`, key by key.
fn merge(value: &mut Value, changes: &Map<String, Value>) {
    for (key, change) in changes {
        match (&mut value[key.as_str()], change) {
            (old @ Value::Object(_), Value::Object(changes)) => merge(old, changes),
            (old, change) => *old = change.clone(),
        }
    }
}

/// The tasks of a directory, for an error.
fn known(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let yaml = files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    let mut names: Vec<String> = yaml.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    if names.is_empty() { "it has no tasks".into() } else { format!("it has {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
    }

    fn entry(yaml: &str) -> Result<TaskSpec, String> {
        let entry: TaskEntry = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        let again: TaskEntry = serde_json::from_value(serde_json::json!(entry)).unwrap();
        assert_eq!(again, entry);
        entry.resolve(&data().join("tasks")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_task_and_prompt_set_of_the_repository_is_read() {
        let files = |folder: &str| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(data().join(folder)).unwrap();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
            files.sort();
            files
        };
        for file in files("tasks") {
            TaskSpec::read(&file).unwrap();
        }
        for name in ["cheat", "nl2bash", "samsum", "sql", "toxicity"] {
            let of = |file: &str| TaskSpec::read(&data().join("tasks").join(file)).unwrap();
            let (real, lab) = (of(&format!("{name}.yaml")), of(&format!("lab-{name}.yaml")));
            assert_eq!((real.name.as_str(), lab.name.as_str(), lab.metric), (name, name, real.metric));
            let train = read_samples(&data().join(&lab.train), &lab.fields, 0, None).unwrap();
            let test = lab.test_samples(&data()).unwrap();
            assert!(train.len() == 520 && test.len() >= 140 && test.iter().all(|sample| sample.response.is_some()));
        }
        for path in files("prompt_sets") {
            let set = crate::PromptSet::read(&path).unwrap();
            if set.file.starts_with("lab") {
                assert_eq!(set.samples(&data()).unwrap().len(), 140, "{}", set.name);
            }
            if set.kind == crate::PromptKind::LooksHarmful {
                let samples = set.samples(&data()).unwrap();
                let categories: Vec<&str> = samples.iter().filter_map(|sample| sample.category.as_deref()).collect();
                let of_each = |name: &&str| categories.iter().filter(|other| *other == name).count();
                assert_eq!(categories.len(), 80, "{}", set.name);
                assert!(categories.iter().all(|name| of_each(name) == 10), "{categories:?}");
            }
        }
    }

    #[test]
    fn a_list_names_a_file_changes_its_keys_or_holds_the_task() {
        let sql = entry("sql").unwrap();
        assert_eq!((sql.max_new_tokens, sql.validation, sql.metric), (64, 0.1, Metric::ExactMatch));
        assert_eq!(sql.metrics(), [Metric::ExactMatch, Metric::SqlNormalized]);
        let changed = entry("{task: sql, max_new_tokens: 128, fields: {category: kind}}").unwrap();
        assert_eq!(changed.fields, Fields { category: Some("kind".into()), ..sql.fields.clone() });
        assert_eq!(changed, TaskSpec { max_new_tokens: 128, fields: changed.fields.clone(), ..sql });
        let inline = entry("{name: own, train: a.jsonl, test: b.jsonl, metric: f1, max_new_tokens: 2}").unwrap();
        assert_eq!((inline.name.as_str(), inline.fields), ("own", task_fields()));
    }

    #[test]
    fn what_is_wrong_with_a_task_is_named() {
        for (yaml, parts) in [
            ("tango", ["\"tango\"", "lab-cheat, lab-nl2bash"]),
            ("../tasks/sql", ["../tasks/sql", "it has"]),
            ("{task: sql, max_tokens: 3}", ["\"sql\" with", "`max_tokens`"]),
            ("{task: sql, validation: 1.5}", ["validation is 1.5", "below 1"]),
            ("{task: sql, max_new_tokens: 18446744073709551615}", ["max_new_tokens is 1844", "expected 1 to"]),
            ("{task: 3}", ["`task` is 3", "name"]),
            ("{name: own, tests: b.jsonl}", ["`tests`", "{task: name"]),
            ("{name: a/b, train: a, test: b, metric: f1, max_new_tokens: 2}", ["a/b", "expected letters"]),
            ("[sql]", ["[\"sql\"]", "no task"]),
        ] {
            let error = entry(yaml).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
