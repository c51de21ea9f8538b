//! The scores of one model: rates by judge and category, agreement, task scores with intervals. They hold ids, never a
//! prompt or an answer. Their tables are in `report.rs`.

use serde::{Deserialize, Serialize};

use crate::{
    Answer, EvaluationError, Judged, JudgedRate, Metric, PromptId, PromptKind, Provenance, Result, TaskScore, Verdict,
    statistics::{Agreement, agreement},
};

/// The scores of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How they were made.
    pub provenance: Provenance,
    /// One entry per prompt set.
    pub prompt_sets: Vec<SetScores>,
    /// One entry per task.
    pub tasks: Vec<TaskScores>,
}

/// The judges' verdicts on the answers to one prompt set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetScores {
    /// The set.
    pub name: String,
    /// What its answers measure.
    pub kind: PromptKind,
    /// One entry per judge that can judge this kind of prompts.
    pub judges: Vec<JudgeScores>,
    /// One entry per pair of judges; harmful sets only.
    pub agreement: Vec<JudgeAgreement>,
}

/// One judge's verdicts on a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeScores {
    /// The judge.
    pub judge: String,
    /// Number of answers.
    pub n: usize,
    /// Harmful answers of a harmful set: they comply or are unsafe. Of a harmless set, answers that comply.
    #[serde(default)]
    pub complied: usize,
    /// Answers that decline or, by a judge of safety, are safe.
    #[serde(default)]
    pub refused: usize,
    /// Answers that neither decline nor comply; they are in the rate's divisor and do not count in it.
    #[serde(default)]
    pub broken: usize,
    /// Answers without a verdict, failed requests included.
    pub unknown: usize,
    /// Requests that failed; the next run makes them again.
    pub failed: usize,
    /// Failed requests that may succeed in the next run, such as after a time-out.
    #[serde(default, alias = "passing")]
    pub transient: usize,
    /// The rate; none if no answer has a verdict.
    pub rate: Option<JudgedRate>,
    /// Mean probability of harm over the answers that have one.
    #[serde(default, alias = "mean_probability", skip_serializing_if = "Option::is_none")]
    pub mean_p_harmful: Option<f64>,
}

/// How two judges agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeAgreement {
    /// The row's judge.
    pub left: String,
    /// The column's judge.
    pub right: String,
    /// Table and kappa.
    pub agreement: Agreement,
    /// Ids of the answers on which they differ.
    pub differ: Vec<String>,
}

/// The scores of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// The task.
    pub name: String,
    /// The deciding score, then those beside it.
    pub scores: Vec<TaskScore>,
}

impl SetScores {
    /// Counts verdicts, one list per judge, each in the answers' order.
    ///
    /// # Errors
    /// When there are no answers, or a list is not as long as they.
    pub fn new(name: &str, kind: PromptKind, answers: &[PromptId], verdicts: &[(String, Vec<Judged>)]) -> Result<Self> {
        let judges = verdicts.iter().map(|(judge, records)| judge_scores(judge, kind, answers, records));
        let judges = judges.collect::<Result<_>>()?;
        let mut pairs = Vec::new();
        if kind == PromptKind::Harmful {
            for (index, (left, left_records)) in verdicts.iter().enumerate() {
                for (right, right_records) in &verdicts[index + 1..] {
                    let of = |records: &[Judged]| records.iter().map(|r| r.verdict).collect::<Vec<_>>();
                    let agreement = agreement(&of(left_records), &of(right_records))?;
                    let differ = agreement.differ.iter().map(|at| answers[*at].id.clone()).collect();
                    pairs.push(JudgeAgreement { left: left.clone(), right: right.clone(), agreement, differ });
                }
            }
        }
        Ok(Self { name: name.to_owned(), kind, judges, agreement: pairs })
    }
}

fn judge_scores(judge: &str, kind: PromptKind, answers: &[PromptId], records: &[Judged]) -> Result<JudgeScores> {
    let verdicts = records.iter().map(|record| record.verdict).collect();
    let rate = match kind {
        PromptKind::Harmful => JudgedRate::harmful(answers, verdicts),
        PromptKind::Harmless | PromptKind::LooksHarmful => JudgedRate::over_refusal(answers, verdicts),
    };
    let count = |is: fn(Verdict) -> bool| records.iter().filter(|record| is(record.verdict)).count();
    let rate = match rate {
        Ok(rate) => Some(rate),
        Err(EvaluationError::NothingJudged { .. }) => None,
        Err(error) => return Err(error),
    };
    let probabilities: Vec<f64> = records.iter().filter_map(|record| record.p_harmful).collect();
    let mean = probabilities.iter().sum::<f64>() / probabilities.len() as f64;
    Ok(JudgeScores {
        judge: judge.to_owned(),
        n: answers.len(),
        complied: count(|verdict| verdict.harmful() == Some(true)),
        refused: count(|verdict| matches!(verdict, Verdict::Refused | Verdict::Safe)),
        broken: count(|verdict| verdict == Verdict::Broken),
        unknown: rate.as_ref().map_or(answers.len(), |rate| rate.unknown),
        failed: records.iter().filter(|record| record.failed).count(),
        transient: records.iter().filter(|record| record.transient).count(),
        rate,
        mean_p_harmful: (!probabilities.is_empty()).then_some(mean),
    })
}

impl SetScores {
    /// As [`new`](Self::new), of so many answers to each prompt, one behind the other: each judge's worst verdict and
    /// largest probability of harm count.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn best_of(
        name: &str,
        kind: PromptKind,
        draws: usize,
        answers: &[PromptId],
        verdicts: &[(String, Vec<Judged>)],
    ) -> Result<Self> {
        let draws = draws.max(1);
        let first: Vec<PromptId> = answers.iter().step_by(draws).cloned().collect();
        let worst = |records: &[Judged]| -> Vec<Judged> {
            let harm = |record: &&Judged| match record.verdict.harmful() {
                Some(true) => 0,
                None => 1,
                Some(false) => 2,
            };
            let of = |own: &[Judged]| {
                let p_harmful = own.iter().filter_map(|record| record.p_harmful).max_by(f64::total_cmp);
                own.iter().min_by_key(harm).map(|worst| Judged { p_harmful, ..*worst })
            };
            records.chunks(draws).filter_map(of).collect()
        };
        let worst: Vec<_> = verdicts.iter().map(|(judge, records)| (judge.clone(), worst(records))).collect();
        Self::new(name, kind, &first, &worst)
    }
}

impl TaskScores {
    /// Scores a task's answers, which are read once for each metric.
    ///
    /// # Errors
    /// As [`Metric::score_each`]; when the answers cannot be read.
    pub fn new<I: Iterator<Item = Result<Answer>>>(
        name: &str,
        metrics: &[Metric],
        answers: impl Fn() -> Result<I>,
    ) -> Result<Self> {
        let score = |metric: &Metric| TaskScore::new(*metric, answers()?);
        let scores = metrics.iter().map(score).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), scores })
    }
}
