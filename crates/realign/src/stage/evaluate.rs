//! Evaluation (paper, "Evaluation"): a model is asked prompt sets and tasks; its answers are judged and scored. Another judge
//! or metric reads the same answers; no model is asked again.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use evaluation::{
    Evaluation, Judge, JudgeScores, Judged, Metric, PromptId, PromptKind, Provenance, SetScores, TaskScores,
};
use files::Hashes;
use model::Dtype;
use prompts::Sample;
use serde::{Deserialize, Serialize};

use super::Stage;
use crate::answers::{Wanted, answer_files};
use crate::error::{Within as _, invalid};
use crate::guard::{ToJudge, judge_sets};
use crate::model::LazyModel;
use crate::{Artifact, Job, Result, Samples};

/// A set of prompts or a task.
#[derive(Debug, Clone, Serialize)]
pub struct Question {
    /// Name in files and tables, and what its answers tell.
    pub asked: AnswerFile,
    /// The samples; those without an id get their number.
    pub samples: Samples,
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
}

/// What a file of answers holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerFile {
    /// Name in files and tables.
    pub name: String,
    /// What the answers tell.
    pub aim: Aim,
}

/// What answers are made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Verdicts of judges.
    Prompts(PromptKind),
    /// Verdicts of judges on so many drawn answers to each prompt, one behind the other; the worst one counts.
    BestOf {
        /// The kind of the prompts.
        kind: PromptKind,
        /// Answers to each prompt.
        draws: usize,
    },
    /// Scores: the deciding metric, then those beside it.
    Task(Vec<Metric>),
}

/// How the answers of a file were made: what must be alike in two evaluations that are compared, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// Where the model was.
    pub model: String,
    /// The hash of its files, and of what it is an adapter on.
    pub key: String,
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
    /// What the template saw as `enable_thinking`; without it the template decides.
    pub enable_thinking: Option<bool>,
    /// The precision of the weights.
    pub dtype: Dtype,
    /// Whether the model's own precision is another one, from which they were rounded.
    pub rounded: bool,
}

/// What the index says of a file of answers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    aim: Aim,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
}

impl AnswerFile {
    /// The name of the file of the answers.
    #[must_use]
    pub fn answers_name(&self) -> String {
        format!("answers-{}.jsonl", self.name)
    }

    /// The name of the file of a judge's verdicts on them.
    #[must_use]
    pub fn verdicts_name(&self, judge: &Judge) -> String {
        format!("verdicts-{}-{}.jsonl", self.name, judge.name())
    }
}

/// Answers questions, and judges and scores the answers by refusal phrases and the tasks' metrics.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluate {
    /// The model.
    pub model: Artifact,
    /// What it is asked.
    pub questions: Vec<Question>,
    /// What decides the verdicts of the refusal phrases.
    pub phrases: serde_json::Value,
    /// The precision to which the weights are rounded; as they are where it is none.
    pub dtype: Option<Dtype>,
}

impl Stage for Evaluate {
    type Summary = Evaluation;

    fn kind(&self) -> &'static str {
        "evaluate"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<Evaluation> {
        let samples = self.questions.iter().map(|question| question.samples.read()).collect::<Result<Vec<_>>>()?;
        let questions: Vec<(&AnswerFile, &[Sample], usize)> = self
            .questions
            .iter()
            .zip(&samples)
            .map(|(one, samples)| (&one.asked, samples.as_slice(), one.max_new_tokens))
            .collect();
        let mut model = LazyModel::new(&self.model, self.dtype, job.device);
        ask(&mut model, &questions, out, job)?;
        let asked: Vec<AnswerFile> = self.questions.iter().map(|question| question.asked.clone()).collect();
        by_phrases(out, &asked, job)
    }
}

/// Scores the answers in a stage's directory, by the phrases of a refusal.
pub(super) fn by_phrases(out: &Path, asked: &[AnswerFile], job: &mut Job<'_>) -> Result<Evaluation> {
    let (judges, hashes) = ([Judge::phrases()], Hashes::default());
    let measured = Measured { answers: out, asked, judges: &judges, verdicts: out, hashes: &hashes };
    let evaluation = measure(measured, provenance(), job)?;
    evaluation.write(out, &[])?;
    Ok(evaluation)
}

/// The provenance of scores in a stage's directory, whose manifest has the rest.
pub(super) fn provenance() -> Provenance {
    let device = "see stage.json".to_owned();
    Provenance { settings: serde_json::Value::Null, seed: 0, git_revision: None, device, seconds: 0.0 }
}

/// The file that says what a directory of answers holds.
const INDEX: &str = "asked.json";

/// Answers the questions, each with its samples and length of answers, into `dir`. An answer that is there already is
/// kept, as [`answer_files`] says.
///
/// # Errors
/// When two questions share a name, the model cannot be read, or a file cannot be written.
pub fn ask(
    model: &mut LazyModel<'_>,
    questions: &[(&AnswerFile, &[Sample], usize)],
    dir: &Path,
    job: &mut Job<'_>,
) -> Result<()> {
    check_names(questions)?;
    let wanted = questions.iter().map(|&(asked, samples, max_new_tokens)| Wanted {
        samples,
        max_new_tokens,
        how: Vec::new(),
        path: dir.join(asked.answers_name()),
    });
    let wanted: Vec<Wanted<'_>> = wanted.collect();
    answer_files(model, &wanted, job)?;
    let asked: Vec<&AnswerFile> = questions.iter().map(|(asked, ..)| *asked).collect();
    write_index(dir, &asked)
}

/// Says what a directory of answers holds.
///
/// # Errors
/// When the file cannot be written.
pub fn write_index(dir: &Path, asked: &[impl Borrow<AnswerFile>]) -> Result<()> {
    let asked: Vec<&AnswerFile> = asked.iter().map(Borrow::borrow).collect();
    Ok(files::write_json(&dir.join(INDEX), &asked)?)
}

/// The same of answers of which it is known how they were made.
///
/// # Errors
/// When the file cannot be written.
pub fn write_answered(dir: &Path, asked: &[(AnswerFile, Answered)]) -> Result<()> {
    let entry = |(AnswerFile { name, aim }, answered): &(AnswerFile, Answered)| Entry {
        name: name.clone(),
        aim: aim.clone(),
        answered: Some(answered.clone()),
    };
    Ok(files::write_json(&dir.join(INDEX), &asked.iter().map(entry).collect::<Vec<_>>())?)
}

fn check_names(questions: &[(&AnswerFile, &[Sample], usize)]) -> Result<()> {
    for (index, (AnswerFile { name, .. }, ..)) in questions.iter().enumerate() {
        if !files::is_name(name) {
            return invalid(format!(
                "the name {name:?} of a prompt set or task must be letters, digits, `-`, `_` or `.`"
            ));
        }
        if questions[..index].iter().any(|(other, ..)| other.name == *name) {
            return invalid(format!("two prompt sets or tasks are called {name:?}; rename one"));
        }
    }
    Ok(())
}

/// What a directory of answers holds.
///
/// # Errors
/// When there are no answers, or the file that says it is damaged.
pub fn read_index(dir: &Path) -> Result<Vec<AnswerFile>> {
    Ok(entries(dir)?.into_iter().map(|Entry { name, aim, .. }| AnswerFile { name, aim }).collect())
}

/// How the answers in a directory were made, by the names of prompt sets and tasks, as far as it is known.
///
/// # Errors
/// As [`read_index`].
pub fn read_answered(dir: &Path) -> Result<BTreeMap<String, Answered>> {
    Ok(entries(dir)?.into_iter().filter_map(|Entry { name, answered, .. }| Some((name, answered?))).collect())
}

fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(INDEX);
    if !path.exists() {
        return invalid(format!("{}: no answers are stored here; name a model and what it is asked", dir.display()));
    }
    files::read_json(&path).within(|| "delete the file to answer again".to_owned())
}

/// Stored answers, and who judges them.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// The directory of the answers.
    pub answers: &'a Path,
    /// Which of them are measured.
    pub asked: &'a [AnswerFile],
    /// The judges of the answers to prompts.
    pub judges: &'a [Judge],
    /// The directory for the verdicts, one file per judge and prompt set.
    pub verdicts: &'a Path,
    /// The hashes of guards' files, so that each is read for it once.
    pub hashes: &'a Hashes,
}

/// Judges and scores answers. A judge of safety is not asked about harmless prompts, where the question is whether they
/// are refused.
///
/// # Errors
/// When a file is damaged, or a judge cannot run.
pub fn measure(stored: Measured<'_>, mut provenance: Provenance, job: &mut Job<'_>) -> Result<Evaluation> {
    let started = Instant::now();
    let mut sets = Vec::new();
    let mut tasks = Vec::new();
    for asked in stored.asked {
        let answers = stored.answers.join(asked.answers_name());
        let (kind, draws) = match &asked.aim {
            Aim::Prompts(kind) => (*kind, 1),
            Aim::BestOf { kind, draws } => (*kind, *draws),
            Aim::Task(metrics) => {
                tasks.push(TaskScores::new(&asked.name, metrics, || evaluation::answers(&answers))?);
                continue;
            }
        };
        let prompts = evaluation::answers(&answers)?.map(|answer| Ok(answer?.prompt_id()));
        let prompts = prompts.collect::<Result<Vec<PromptId>>>()?;
        sets.push(Judging { asked, kind, draws, answers, prompts, verdicts: Vec::new() });
    }
    for judge in stored.judges {
        let able = |set: &&mut Judging<'_>| set.kind == PromptKind::Harmful || judge.tells_refusals();
        let mut chosen: Vec<&mut Judging<'_>> = sets.iter_mut().filter(able).collect();
        let to_judge = |set: &&mut Judging<'_>| ToJudge {
            answers: set.answers.clone(),
            count: set.prompts.len(),
            path: stored.verdicts.join(set.asked.verdicts_name(judge)),
        };
        let to_judge: Vec<ToJudge> = chosen.iter().map(to_judge).collect();
        for (set, judged) in chosen.iter_mut().zip(judge_sets(judge, &to_judge, stored.hashes, job)?) {
            set.verdicts.push((judge.name().to_owned(), judged));
        }
    }
    let scored =
        |set: &Judging<'_>| SetScores::best_of(&set.asked.name, set.kind, set.draws, &set.prompts, &set.verdicts);
    let prompt_sets = sets.iter().map(scored).collect::<Result<_, _>>()?;
    provenance.seconds += started.elapsed().as_secs_f64();
    Ok(Evaluation { provenance, prompt_sets, tasks })
}

/// Answers to prompts that are being judged: the file, and what of it is in memory.
struct Judging<'a> {
    asked: &'a AnswerFile,
    kind: PromptKind,
    draws: usize,
    answers: PathBuf,
    prompts: Vec<PromptId>,
    /// By judges' names.
    verdicts: Vec<(String, Vec<Judged>)>,
}

/// Checks that each judge judged something; the first problem is quoted.
///
/// # Errors
/// Names the judge and the set of prompts.
pub fn check_judged(evaluation: &Evaluation, out: &Path) -> Result<()> {
    for set in &evaluation.prompt_sets {
        let is_silent = |judge: &&JudgeScores| judge.n > 0 && judge.rate.is_none() && judge.mean_p_harmful.is_none();
        let Some(judge) = set.judges.iter().find(is_silent) else { continue };
        let file = verdicts(out, &set.name, &judge.judge);
        let first = |key| first_of(&file, key);
        let why = match (first("problem"), first("reply")) {
            (Some(problem), _) => format!("; the first: {problem}"),
            (None, Some(reply)) => format!("; it has no label in its replies, of which the first begins: {reply:?}"),
            (None, None) => String::new(),
        };
        let lasts = judge.failed > 0 && judge.transient == 0;
        let lasts =
            if lasts { ". To run again does not change that: correct the judge's settings or its server" } else { "" };
        return invalid(format!(
            "judge {} judged none of the {} answers to {}, see {}{why}{lasts}",
            judge.judge,
            judge.n,
            set.name,
            file.display()
        ));
    }
    Ok(())
}

/// The file of a judge's verdicts on a set of prompts.
fn verdicts(dir: &Path, set: &str, judge: &str) -> PathBuf {
    dir.join(format!("verdicts-{set}-{judge}.jsonl"))
}

/// Why a judge has no verdict on an answer to a set of prompts: the first reason in the file of its verdicts in `dir`.
#[must_use]
pub fn first_problem(dir: &Path, set: &str, judge: &str) -> Option<String> {
    first_of(&verdicts(dir, set, judge), "problem")
}

/// The first text under a key in a file of verdicts.
fn first_of(verdicts: &Path, key: &str) -> Option<String> {
    let lines = std::fs::read_to_string(verdicts).ok()?;
    let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    lines.lines().find_map(|line| record(line)?[key].as_str().map(str::to_owned))
}
