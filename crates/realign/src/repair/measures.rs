//! What a model answers to the test part, judged and scored: before and after a repair, and of the aligned model.

use std::collections::BTreeMap;
use std::path::Path;

use evaluation::gate::Stored;
use evaluation::{Answer, Judge, JudgeScores, PromptKind, Provenance, read_answers};
use files::Hashes;
use prompts::Sample;
use serde::{Deserialize, Serialize};

use crate::stage::{Aim, AnswerFile, Measured, ask, check_judged, measure};
use crate::{Job, LazyModel, Result};

/// One figure of three models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What it is: `harmful rate`, `over-refusal`, `over-refusal (look harmful)` or `task score`.
    pub figure: String,
    /// The prompts.
    pub set: String,
    /// The judge or the metric.
    pub by: String,
    /// The aligned model's.
    pub aligned: Figure,
    /// The fine-tuned model's.
    pub before: Figure,
    /// The recovered model's.
    pub after: Figure,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The share, if any answer has a verdict.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: (f64, f64),
    /// Number of answers.
    pub n: usize,
    /// Those without a verdict.
    pub unknown: usize,
    /// Those that neither decline nor comply.
    pub broken: usize,
}

/// What a model is asked, and who judges it.
pub(super) struct Questions {
    pub asked: Vec<(AnswerFile, Vec<Sample>)>,
    pub max_new_tokens: usize,
    pub judges: Vec<Judge>,
}

impl Questions {
    /// Asks a model and measures its answers, which are kept in `dir`.
    pub fn ask(&self, model: &mut LazyModel<'_>, name: &str, dir: &Path, job: &mut Job<'_>) -> Result<Stored> {
        let questions: Vec<(&AnswerFile, &[Sample], usize)> =
            self.asked.iter().map(|(asked, samples)| (asked, samples.as_slice(), self.max_new_tokens)).collect();
        ask(model, &questions, dir, job)?;
        let asked: Vec<AnswerFile> = self.asked.iter().map(|(asked, _)| asked.clone()).collect();
        let hashes = Hashes::default();
        let stored = Measured { answers: dir, asked: &asked, judges: &self.judges, verdicts: dir, hashes: &hashes };
        let provenance = Provenance {
            settings: serde_json::Value::Null,
            seed: 0,
            git_revision: None,
            device: format!("{:?}", job.device),
            seconds: 0.0,
        };
        let evaluation = measure(stored, provenance, job)?;
        check_judged(&evaluation, dir)?;
        let answers = |one: &AnswerFile| Ok((one.name.clone(), read_answers(&dir.join(one.answers_name()))?));
        let answers = asked.iter().map(answers).collect::<Result<BTreeMap<String, Vec<Answer>>>>()?;
        Ok(Stored { name: name.to_owned(), evaluation, answers })
    }

    /// The harmful or harmless prompts that are asked.
    pub fn prompts(&self, kind: PromptKind) -> Vec<Sample> {
        let wanted = self.asked.iter().filter(|(asked, _)| asked.aim == Aim::Prompts(kind));
        wanted.flat_map(|(_, samples)| samples.clone()).collect()
    }
}

/// The rate of the first judge that has one, over the sets of a kind.
pub(super) fn rate(stored: &Stored, is_meant: impl Fn(PromptKind) -> bool) -> Option<f64> {
    let sets = stored.evaluation.prompt_sets.iter().filter(|set| is_meant(set.kind));
    let rates: Vec<_> = sets.filter_map(|set| set.judges.iter().find_map(|judge| judge.rate.as_ref())).collect();
    let judged: usize = rates.iter().map(|rate| rate.judged()).sum();
    (judged > 0).then(|| rates.iter().map(|rate| rate.rate * rate.judged() as f64).sum::<f64>() / judged as f64)
}

fn of_judge(judge: &JudgeScores) -> Figure {
    let (value, interval) = judge.rate.as_ref().map_or((None, (0.0, 1.0)), |rate| (Some(rate.rate), rate.interval));
    Figure { value, interval, n: judge.n, unknown: judge.unknown, broken: judge.broken }
}

/// The figures of the same questions to the aligned, the fine-tuned and the recovered model.
pub(super) fn table([aligned, before, after]: [&Stored; 3]) -> Vec<Measure> {
    let models = [aligned, before, after];
    let mut measures = Vec::new();
    for (at, set) in after.evaluation.prompt_sets.iter().enumerate() {
        for (place, judge) in set.judges.iter().enumerate() {
            let [aligned, before, after] =
                models.map(|model| of_judge(&model.evaluation.prompt_sets[at].judges[place]));
            let (figure, by) = (set.kind.rate_name().to_owned(), judge.judge.clone());
            measures.push(Measure { figure, set: set.name.clone(), by, aligned, before, after });
        }
    }
    for (at, task) in after.evaluation.tasks.iter().enumerate() {
        for (place, score) in task.scores.iter().enumerate() {
            let [aligned, before, after] = models.map(|model| {
                let score = &model.evaluation.tasks[at].scores[place];
                Figure { value: Some(score.value), interval: score.interval, n: score.n, unknown: 0, broken: 0 }
            });
            let (figure, by) = ("task score".to_owned(), score.metric.name().to_owned());
            measures.push(Measure { figure, set: task.name.clone(), by, aligned, before, after });
        }
    }
    measures
}
