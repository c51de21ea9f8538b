//! `realign evaluate`: a model's answers to prompt sets and tasks, judged by a list of judges and scored. Answers are
//! kept with their prompts' ids; another judge or metric reads the same answers and asks the model nothing.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use evaluation::{
    Answer, Evaluation, Judge, Metric, PromptKind, PromptSet, Provenance, SetScores, Split, TaskScores, TaskSpec,
    VerdictRecord,
};
use prompts::Sample;
use serde::{Deserialize, Serialize};

use super::Report;
use super::generate::{GenerateSettings, answer_file};
use super::judge::{ToJudge, judge_sets};
use crate::Compute;
use crate::loaded::ModelSource;

/// A set of prompts or a task, with its samples.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name in files and tables.
    pub name: String,
    /// What its answers tell.
    pub aim: Aim,
    /// The samples, each with its own id.
    pub samples: Vec<Sample>,
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
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

impl Question {
    /// A prompt set of a YAML file.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub fn prompts(file: &Path, data: &Path) -> Result<Self> {
        let set = PromptSet::read(file)?;
        let samples = set.samples(data)?;
        Ok(Self { name: set.name, aim: Aim::Prompts(set.kind), samples, max_new_tokens: set.max_new_tokens })
    }

    /// The test split of a task's YAML file.
    ///
    /// # Errors
    /// As [`prompts`](Self::prompts).
    pub fn task(file: &Path, data: &Path) -> Result<Self> {
        let task = TaskSpec::read(file)?;
        let samples = task.samples(data, Split::Test, None)?;
        let metrics = [vec![task.metric], task.also].concat();
        Ok(Self { name: task.name, aim: Aim::Task(metrics), samples, max_new_tokens: task.max_new_tokens })
    }
}

/// What stands in a directory of answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    aim: Aim,
}

/// The file that says what stands in a directory of answers.
const ASKED: &str = "asked.json";

/// Answers the questions into `dir`, from the model in the directory `model`. An answer that is there already is kept, as
/// [`answer_file`] says; the model is read when one is missing.
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
    let asked = |question: &Question| Asked { name: question.name.clone(), aim: question.aim.clone() };
    let asked: Vec<Asked> = questions.iter().map(asked).collect();
    let mut source = ModelSource::new(model, compute);
    for question in questions {
        let settings = GenerateSettings { max_new_tokens: question.max_new_tokens, batch };
        answer_file(&mut source, &question.samples, settings, &answers_path(dir, &question.name), report)?;
    }
    prompts::write_whole(&dir.join(ASKED), serde_json::to_string_pretty(&asked)?.as_bytes())?;
    Ok(())
}

fn check_names(questions: &[Question]) -> Result<()> {
    for (index, question) in questions.iter().enumerate() {
        let name = &question.name;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            bail!("the name {name:?} of a prompt set or task must be letters, digits, `-`, `_` or `.`");
        }
        if questions[..index].iter().any(|other| other.name == *name) {
            bail!("two prompt sets or tasks are called {name:?}; rename one");
        }
    }
    Ok(())
}

fn answers_path(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("answers-{name}.jsonl"))
}

fn read_asked(dir: &Path) -> Result<Vec<Asked>> {
    let path = dir.join(ASKED);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: no answers are stored here; name a model and what it is asked", dir.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: delete it to answer again", path.display()))
}

/// Judges and scores the answers in `dir`; writes the verdicts, `scores.json` and `report.md` there. The report holds
/// prompts and answers only if not `redact`.
///
/// # Errors
/// When there are no answers, a file is damaged, or a judge cannot run.
pub fn measure(
    dir: &Path,
    judges: &[Judge],
    mut provenance: Provenance,
    redact: bool,
    device: &Device,
    report: &mut Report<'_>,
) -> Result<Evaluation> {
    let started = Instant::now();
    let mut sets: Vec<(String, PromptKind, Vec<Answer>)> = Vec::new();
    let mut tasks = Vec::new();
    for asked in read_asked(dir)? {
        let answers = evaluation::read_answers(&answers_path(dir, &asked.name))?;
        match asked.aim {
            Aim::Prompts(kind) => sets.push((asked.name, kind, answers)),
            Aim::Task(metrics) => tasks.push(TaskScores::new(&asked.name, &metrics, &answers)?),
        }
    }
    let mut verdicts: Vec<Vec<(String, Vec<VerdictRecord>)>> = vec![Vec::new(); sets.len()];
    for judge in judges {
        let able = |kind: PromptKind| kind == PromptKind::Harmful || judge.tells_refusals();
        let chosen: Vec<usize> = (0..sets.len()).filter(|&index| able(sets[index].1)).collect();
        let to_judge = |&index: &usize| {
            let (name, _, answers) = &sets[index];
            ToJudge { answers, path: dir.join(format!("verdicts-{name}-{}.jsonl", judge.name())) }
        };
        let to_judge: Vec<ToJudge<'_>> = chosen.iter().map(to_judge).collect();
        for (index, records) in chosen.iter().zip(judge_sets(judge, &to_judge, device, report)?) {
            verdicts[*index].push((judge.name().to_owned(), records));
        }
    }
    let scored =
        sets.iter().zip(&verdicts).map(|((name, kind, answers), all)| SetScores::new(name, *kind, answers, all));
    let prompt_sets = scored.collect::<Result<_, _>>()?;
    provenance.seconds += started.elapsed().as_secs_f64();
    let evaluation = Evaluation { provenance, prompt_sets, tasks };
    let shown: Vec<(&str, &[Answer])> = match redact {
        true => Vec::new(),
        false => sets.iter().map(|(name, _, answers)| (name.as_str(), answers.as_slice())).collect(),
    };
    evaluation.write(dir, &shown)?;
    Ok(evaluation)
}
