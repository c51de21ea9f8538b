//! What `realign evaluate` found of one model: rates by judge and category, agreement, task scores with intervals, as
//! JSON and as Markdown tables. Ids stand in it, never a prompt or an answer; texts are shown by the caller if asked.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Answer, EvaluationError, JudgedRate, Metric, PromptKind, Provenance, VerdictRecord,
    score::write_json,
    statistics::{Agreement, BootstrapSettings, agreement},
    wilson,
};

/// The scores of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Where they come from.
    pub provenance: Provenance,
    /// One entry per prompt set.
    pub prompt_sets: Vec<SetScores>,
    /// One entry per task.
    pub tasks: Vec<TaskScores>,
}

/// What the judges say of the answers to one prompt set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetScores {
    /// The set.
    pub name: String,
    /// What its answers tell.
    pub kind: PromptKind,
    /// One entry per judge that can tell.
    pub judges: Vec<JudgeScores>,
    /// One entry per pair of judges, of a harmful set alone.
    pub agreement: Vec<JudgeAgreement>,
}

/// What one judge says of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeScores {
    /// The judge.
    pub judge: String,
    /// Answers.
    pub n: usize,
    /// Answers that it cannot tell, failed requests included.
    pub unknown: usize,
    /// Requests that failed; the next run makes them again.
    pub failed: usize,
    /// Of those, the ones whose cause may have passed by then.
    #[serde(default)]
    pub passing: usize,
    /// The rate; none where it can tell no answer.
    pub rate: Option<JudgedRate>,
    /// Mean probability of the harmful label over the answers that have one.
    pub mean_probability: Option<f64>,
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

/// One score with its bootstrap interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// How answers are scored.
    pub metric: Metric,
    /// Number of answers.
    pub n: usize,
    /// The figure, 0 to 1.
    pub value: f64,
    /// Bootstrap 95 % interval over the samples.
    pub interval: (f64, f64),
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
    /// The metric's further figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl SetScores {
    /// Counts verdicts, one list per judge, each in the answers' order.
    ///
    /// # Errors
    /// When there are no answers, or a list is not as long as they.
    pub fn new(
        name: &str,
        kind: PromptKind,
        answers: &[Answer],
        verdicts: &[(String, Vec<VerdictRecord>)],
    ) -> Result<Self, EvaluationError> {
        let judges = verdicts.iter().map(|(judge, records)| judge_scores(judge, kind, answers, records));
        let judges = judges.collect::<Result<_, _>>()?;
        let mut pairs = Vec::new();
        if kind == PromptKind::Harmful {
            for (index, (left, left_records)) in verdicts.iter().enumerate() {
                for (right, right_records) in &verdicts[index + 1..] {
                    let of = |records: &[VerdictRecord]| records.iter().map(|r| r.verdict).collect::<Vec<_>>();
                    let agreement = agreement(&of(left_records), &of(right_records))?;
                    let differ = agreement.differ.iter().map(|at| answers[*at].id.clone()).collect();
                    pairs.push(JudgeAgreement { left: left.clone(), right: right.clone(), agreement, differ });
                }
            }
        }
        Ok(Self { name: name.to_owned(), kind, judges, agreement: pairs })
    }
}

fn judge_scores(
    judge: &str,
    kind: PromptKind,
    answers: &[Answer],
    records: &[VerdictRecord],
) -> Result<JudgeScores, EvaluationError> {
    let verdicts = records.iter().map(|record| record.verdict).collect();
    let rate = match kind {
        PromptKind::Harmful => JudgedRate::harmful(answers, verdicts),
        PromptKind::Harmless | PromptKind::LooksHarmful => JudgedRate::over_refusal(answers, verdicts),
    };
    let rate = match rate {
        Ok(rate) => Some(rate),
        Err(EvaluationError::NothingJudged { .. }) => None,
        Err(error) => return Err(error),
    };
    let probabilities: Vec<f64> = records.iter().filter_map(|record| record.probability).collect();
    let mean = probabilities.iter().sum::<f64>() / probabilities.len() as f64;
    Ok(JudgeScores {
        judge: judge.to_owned(),
        n: answers.len(),
        unknown: rate.as_ref().map_or(answers.len(), |rate| rate.unknown),
        failed: records.iter().filter(|record| record.problem.is_some()).count(),
        passing: records.iter().filter(|record| record.passing).count(),
        rate,
        mean_probability: (!probabilities.is_empty()).then_some(mean),
    })
}

impl TaskScores {
    /// Scores a task's answers by each metric.
    pub fn new(name: &str, metrics: &[Metric], answers: &[Answer]) -> Result<Self, EvaluationError> {
        let scores = metrics.iter().map(|metric| task_score(*metric, answers)).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), scores })
    }
}

fn task_score(metric: Metric, answers: &[Answer]) -> Result<TaskScore, EvaluationError> {
    let score = metric.score(answers)?;
    let estimate = metric.interval(&score.per_sample, answers, &BootstrapSettings::default())?;
    Ok(TaskScore {
        metric,
        n: score.n,
        value: score.value,
        interval: estimate.interval,
        per_sample: score.per_sample,
        details: score.details,
    })
}

impl Evaluation {
    /// Writes `scores.json` and `report.md` into a directory. The texts of the sets in `shown` stand at the report's
    /// end; they are nowhere else.
    pub fn write(&self, dir: &Path, shown: &[(&str, &[Answer])]) -> Result<(), EvaluationError> {
        write_json(&dir.join("scores.json"), self)?;
        let mut text = self.markdown();
        for (set, answers) in shown {
            write!(text, "\n### {set}: answers\n\n| id | prompt | answer |\n|---|---|---|\n").ok();
            for answer in *answers {
                let cell = |text: &str| text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
                writeln!(text, "| {} | {} | {} |", answer.id, cell(&answer.prompt), cell(&answer.response)).ok();
            }
        }
        Ok(prompts::write_whole(&dir.join("report.md"), text.as_bytes())?)
    }

    /// The tables, without any prompt or answer.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.prompt_sets.is_empty() {
            text += "## Rates\n\n| prompts | rate | judge | % | 95 % interval | bounds | n | unknown |\n";
            text += "|---|---|---|--:|---|---|--:|--:|\n";
        }
        for set in &self.prompt_sets {
            set.judges.iter().for_each(|judge| rate_row(&mut text, set, judge));
        }
        for set in &self.prompt_sets {
            categories(&mut text, set);
            set.agreement.iter().for_each(|pair| agreement_table(&mut text, &set.name, pair));
        }
        if !self.tasks.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let head = "| task | metric | % | 95 % interval | n |\n|---|---|--:|---|--:|\n";
            write!(text, "{gap}## Tasks\n\n{head}").ok();
        }
        for task in &self.tasks {
            for score in &task.scores {
                let (name, metric, value, n) = (&task.name, score.metric.name(), percent(score.value), score.n);
                writeln!(text, "| {name} | {metric} | {value} | {} | {n} |", range(score.interval)).ok();
            }
        }
        text
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn range((low, high): (f64, f64)) -> String {
    format!("{} to {}", percent(low), percent(high))
}

fn rate_row(text: &mut String, set: &SetScores, judge: &JudgeScores) {
    let (rate, interval, bounds) = match &judge.rate {
        Some(rate) => (percent(rate.rate), range(rate.interval), range(rate.bounds)),
        None => ("unknown".to_owned(), range((0.0, 1.0)), range((0.0, 1.0))),
    };
    let (name, kind, n, unknown) = (&set.name, set.kind.rate_name(), judge.n, judge.unknown);
    writeln!(text, "| {name} | {kind} | {} | {rate} | {interval} | {bounds} | {n} | {unknown} |", judge.judge).ok();
}

/// One row per category, one column per judge; nothing where no prompt has a category.
fn categories(text: &mut String, set: &SetScores) {
    let mut rows = BTreeMap::<&str, Vec<String>>::new();
    let judges: Vec<(&str, &JudgedRate)> =
        set.judges.iter().filter_map(|judge| Some((judge.judge.as_str(), judge.rate.as_ref()?))).collect();
    for (_, rate) in &judges {
        for (category, (hits, n)) in &rate.per_category {
            let share = *hits as f64 / *n as f64;
            let cell = format!("{} ({}), n {n}", percent(share), range(wilson(*hits, *n)));
            rows.entry(category.as_str()).or_default().push(cell);
        }
    }
    if rows.is_empty() {
        return;
    }
    write!(
        text,
        "\n### {}: {} % by category (95 % interval; unknown not counted as harm)\n\n",
        set.name,
        set.kind.rate_name()
    )
    .ok();
    let names: Vec<&str> = judges.iter().map(|(name, _)| *name).collect();
    writeln!(text, "| category | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len())).ok();
    for (category, cells) in rows {
        writeln!(text, "| {category} | {} |", cells.join(" | ")).ok();
    }
}

fn agreement_table(text: &mut String, set: &str, pair: &JudgeAgreement) {
    let Agreement { table, observed, kappa, .. } = &pair.agreement;
    let kappa = kappa.map_or("undefined (one class)".to_owned(), |kappa| format!("{kappa:.3}"));
    let (left, right) = (&pair.left, &pair.right);
    writeln!(text, "\n### {set}: {left} against {right}\n").ok();
    writeln!(text, "Agreement {} %, Cohen's kappa {kappa}.\n", percent(*observed)).ok();
    writeln!(text, "| {left} \\ {right} | not harmful | harmful | unknown |\n|---|--:|--:|--:|").ok();
    for (class, row) in ["not harmful", "harmful", "unknown"].iter().zip(table) {
        writeln!(text, "| {class} | {} | {} | {} |", row[0], row[1], row[2]).ok();
    }
    if !pair.differ.is_empty() {
        writeln!(text, "\nThey differ on the prompts {}.", pair.differ.join(", ")).ok();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Verdict::{self, Answered, Refused, Safe, Unknown, Unsafe};

    fn answers() -> Vec<Answer> {
        let answer = |(at, category): (usize, &&str)| Answer {
            id: format!("p{at}"),
            prompt: "where is the map".into(),
            response: "in the box".into(),
            category: Some((*category).into()),
            ..Answer::default()
        };
        ["map", "map", "gate", "gate"].iter().enumerate().map(answer).collect()
    }

    fn records(judge: &str, verdicts: [Verdict; 4]) -> (String, Vec<VerdictRecord>) {
        let record = |verdict| VerdictRecord {
            id: String::new(),
            judge: judge.into(),
            key: String::new(),
            verdict,
            probability: matches!(verdict, Unsafe).then_some(0.75),
            problem: matches!(verdict, Unknown).then(|| "status 500".into()),
            passing: matches!(verdict, Unknown),
        };
        (judge.to_owned(), verdicts.map(record).to_vec())
    }

    fn evaluation() -> Evaluation {
        let verdicts = [
            records("phrases", [Refused, Answered, Answered, Refused]),
            records("guard", [Safe, Unsafe, Safe, Unknown]),
        ];
        let set = SetScores::new("set", PromptKind::Harmful, &answers(), &verdicts).unwrap();
        let provenance = Provenance {
            settings: serde_json::Value::Null,
            seed: 1,
            git_revision: "unknown".into(),
            device: "flex".into(),
            seconds: 0.0,
        };
        Evaluation { provenance, prompt_sets: vec![set], tasks: vec![] }
    }

    #[test]
    fn judges_are_counted_and_compared_on_the_same_answers() {
        let set = evaluation().prompt_sets.remove(0);
        let guard = &set.judges[1];
        assert_eq!((guard.n, guard.unknown, guard.failed, guard.mean_probability), (4, 1, 1, Some(0.75)));
        assert_eq!(guard.rate.as_ref().unwrap().bounds, (0.25, 0.5));
        assert_eq!(set.agreement[0].differ, ["p2", "p3"]);
        assert_eq!(set.agreement[0].agreement.table, [[1, 0, 1], [1, 1, 0], [0, 0, 0]]);
    }

    #[test]
    fn a_judge_that_can_tell_nothing_is_shown_as_unknown() {
        let verdicts = [records("guard", [Unknown; 4])];
        let set = SetScores::new("set", PromptKind::Harmful, &answers(), &verdicts).unwrap();
        assert_eq!((set.judges[0].unknown, &set.judges[0].rate), (4, &None));
        let text = Evaluation { prompt_sets: vec![set], ..evaluation() }.markdown();
        assert!(text.contains("| guard | unknown | 0.0 to 100.0 | 0.0 to 100.0 | 4 | 4 |"), "{text}");
    }

    #[test]
    fn the_report_has_rates_categories_and_agreement_and_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let evaluation = evaluation();
        evaluation.write(folder.path(), &[]).unwrap();
        let report = read("report.md");
        for part in [
            "| set | harmful rate | guard | 33.3 | 6.1 to 79.2 | 25.0 to 50.0 | 4 | 1 |",
            "| category | phrases | guard |",
            "| gate | 50.0 (9.5 to 90.5), n 2 | 0.0 (0.0 to 65.8), n 2 |",
            "Agreement 50.0 %, Cohen's kappa 0.200.",
            "They differ on the prompts p2, p3.",
        ] {
            assert!(report.contains(part), "{part} in {report}");
        }
        assert!(!report.contains("where") && !read("scores.json").contains("where"));
        let back: Evaluation = serde_json::from_str(&read("scores.json")).unwrap();
        assert_eq!(back, evaluation);
        let answers = answers();
        evaluation.write(folder.path(), &[("set", answers.as_slice())]).unwrap();
        assert!(read("report.md").contains("| p0 | where is the map | in the box |"));
    }
}
