//! A model is asked prompt sets and tasks; its answers stand in one directory, one file for each, with their prompts'
//! ids. What they are worth is said in `measure.rs`, which asks the model nothing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use evaluation::{Judge, Metric, PromptKind, PromptSet, Split, TaskSpec};
use prompts::Sample;
use serde::{Deserialize, Serialize};

use super::Report;
use super::generate::{Wanted, answer_files};
use crate::Compute;
use crate::loaded::ModelSource;

/// A set of prompts or a task, with its samples.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name in files and tables, and what its answers tell.
    pub asked: Asked,
    /// The samples; those without an id get their number.
    pub samples: Vec<Sample>,
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
}

/// What stands in a file of answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Name in files and tables.
    pub name: String,
    /// What the answers tell.
    pub aim: Aim,
}

/// What answers are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Verdicts of judges.
    Prompts(PromptKind),
    /// Scores: the deciding metric, then those beside it.
    Task(Vec<Metric>),
}

impl Asked {
    /// The name of the file of the answers.
    pub fn answers_name(&self) -> String {
        format!("answers-{}.jsonl", self.name)
    }

    /// The name of the file of a judge's verdicts on them.
    pub fn verdicts_name(&self, judge: &Judge) -> String {
        format!("verdicts-{}-{}.jsonl", self.name, judge.name())
    }
}

impl Question {
    /// A prompt set of a YAML file.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub fn prompts(file: &Path, data: &Path) -> Result<Self> {
        let set = PromptSet::read(file)?;
        let samples = set.samples(data)?;
        let asked = Asked { name: set.name, aim: Aim::Prompts(set.kind) };
        Ok(Self { asked, samples, max_new_tokens: set.max_new_tokens })
    }

    /// The test split of a task's YAML file.
    ///
    /// # Errors
    /// As [`prompts`](Self::prompts).
    pub fn task(file: &Path, data: &Path) -> Result<Self> {
        let task = TaskSpec::read(file)?;
        let samples = task.samples(data, Split::Test, None)?;
        let metrics = [vec![task.metric], task.also].concat();
        let asked = Asked { name: task.name, aim: Aim::Task(metrics) };
        Ok(Self { asked, samples, max_new_tokens: task.max_new_tokens })
    }
}

/// The file that says what stands in a directory of answers.
const ASKED: &str = "asked.json";

/// Answers the questions into `dir`, from the model in the directory `model`. An answer that is there already is kept, as
/// [`answer_files`] says; the model is read when one is missing.
///
/// # Errors
/// When two questions share a name, the model cannot be read, or a file cannot be written.
pub fn ask(
    model: &Path,
    questions: &[Question],
    batch: usize,
    dir: &Path,
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<()> {
    check_names(questions)?;
    let wanted = questions.iter().map(|Question { asked, samples, max_new_tokens }| Wanted {
        samples,
        max_new_tokens: *max_new_tokens,
        path: dir.join(asked.answers_name()),
    });
    let wanted: Vec<Wanted<'_>> = wanted.collect();
    answer_files(&mut ModelSource::new(model, compute), &wanted, batch, report)?;
    let asked: Vec<&Asked> = questions.iter().map(|question| &question.asked).collect();
    prompts::write_whole(&dir.join(ASKED), serde_json::to_string_pretty(&asked)?.as_bytes())?;
    Ok(())
}

fn check_names(questions: &[Question]) -> Result<()> {
    for (index, Question { asked: Asked { name, .. }, .. }) in questions.iter().enumerate() {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            bail!("the name {name:?} of a prompt set or task must be letters, digits, `-`, `_` or `.`");
        }
        if questions[..index].iter().any(|other| other.asked.name == *name) {
            bail!("two prompt sets or tasks are called {name:?}; rename one");
        }
    }
    Ok(())
}

/// What stands in a directory of answers.
///
/// # Errors
/// When there are none, or the file that says it is damaged.
pub fn read_asked(dir: &Path) -> Result<Vec<Asked>> {
    let path = dir.join(ASKED);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: no answers are stored here; name a model and what it is asked", dir.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: delete it to answer again", path.display()))
}
