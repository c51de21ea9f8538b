//! Evaluation: answers are written first, then scored, so that scoring alone can be run again.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use evaluation::{Metric, Provenance, RefusalJudge, ScoreFile, harmful_rate, over_refusal};
use prompts::Sample;

use super::Report;
use super::generate::{GenerateSettings, answer_file};
use crate::loaded::ModelSource;

/// One set of prompts and how it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The samples; a task's have responses.
    pub samples: &'a [Sample],
    /// How answers are made.
    pub generate: GenerateSettings,
}

/// What a model is asked; none is left out of the scores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Questions<'a> {
    /// Harmful prompts.
    pub harmful: Option<Asked<'a>>,
    /// Harmless prompts.
    pub harmless: Option<Asked<'a>>,
    /// The task's test split.
    pub task: Option<(Asked<'a>, Metric)>,
}

/// File names of the answers, by kind.
const ANSWERS: [&str; 3] = ["answers-harmful.jsonl", "answers-harmless.jsonl", "answers-task.jsonl"];

/// Answers all questions into `dir`; what is answered there already is kept, as [`answer_file`] says.
///
/// # Errors
/// When the model cannot be read, a template fails, or a file cannot be written.
pub fn answer(
    model: &Path,
    questions: &Questions<'_>,
    dir: &Path,
    device: &Device,
    report: &mut Report<'_>,
) -> Result<()> {
    let kinds = [questions.harmful, questions.harmless, questions.task.map(|(asked, _)| asked)];
    let mut model = ModelSource::new(model, device);
    for (asked, name) in kinds.into_iter().zip(ANSWERS) {
        if let Some(asked) = asked {
            answer_file(&mut model, asked.samples, asked.generate, &dir.join(name), report)?;
        }
    }
    Ok(())
}

/// Scores the answers in `dir` and writes `scores.json` there.
///
/// # Errors
/// When there is no answer file, or one is damaged.
pub fn score(dir: &Path, metric: Metric, provenance: Provenance) -> Result<ScoreFile> {
    let started = Instant::now();
    let judge = RefusalJudge::embedded();
    let read = |name: &str| -> Result<Option<Vec<evaluation::Answer>>> {
        let path = dir.join(name);
        if path.exists() { Ok(Some(evaluation::read_answers(&path)?)) } else { Ok(None) }
    };
    let [harmful, harmless, task] = ANSWERS;
    let mut scores = ScoreFile {
        harmful: read(harmful)?.map(|answers| harmful_rate(&judge, &answers)).transpose()?,
        over_refusal: read(harmless)?.map(|answers| over_refusal(&judge, &answers)).transpose()?,
        task: read(task)?.map(|answers| metric.score(&answers)).transpose()?,
        provenance,
    };
    if scores.harmful.is_none() && scores.over_refusal.is_none() && scores.task.is_none() {
        anyhow::bail!("{}: there is no answer file ({})", dir.display(), ANSWERS.join(", "));
    }
    scores.provenance.seconds += started.elapsed().as_secs_f64();
    scores.write(&dir.join("scores.json"))?;
    Ok(scores)
}
