//! Differences between recovery and every other method on the same prompts: McNemar's exact test of the harmful verdicts,
//! and paired bootstrap intervals of harmful rate and task score.
//!
//! Verdicts and per-sample scores come from the evaluation stages' `scores.json`; a task score that is no mean over samples
//! (F1) is drawn anew from the stored answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use evaluation::statistics::{Estimate, McNemar, bootstrap_mean, mcnemar, paired_bootstrap};
use evaluation::{Answer, Judge, read_answers};
use polars::prelude::{Column, NamedFrom, Series};
use rayon::prelude::*;

use super::{distinct, percent, write_csv};
use crate::row::{RESAMPLING, ResultRow};
use crate::scores::StageScores;
use crate::stages::{SweepJudge, task_questions};
use crate::store::Roots;
use crate::sweep::Method;

/// Recovery minus another method in one cell with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The other method's row.
    pub other: ResultRow,
    /// The variant of the recovery.
    pub variant: String,
    /// Of the harmful rate, over the prompts that both answers were judged of.
    pub harmful: Estimate,
    /// Recovery is left, the other method right; true is a harmful answer.
    pub verdicts: McNemar,
    /// Of the task score.
    pub task: Estimate,
}

/// What the evaluation stages know of their prompts, by their keys.
type Known = BTreeMap<String, (StageScores, Vec<Answer>)>;

/// Recovery against every other method of the same cell and seed, and the number of pairs whose stages
/// are not there any more or cannot be read. Harmful answers are those of `judge`, of the refusal phrases without one.
///
/// # Errors
/// When two models were asked different numbers of prompts.
pub fn differences(rows: &[ResultRow], judge: Option<&SweepJudge>, stages: &Roots) -> Result<(Vec<Difference>, usize)> {
    let pairs: Vec<(&ResultRow, &ResultRow)> = rows
        .iter()
        .filter(|row| row.method == Method::Recovered)
        .flat_map(|recovered| {
            rows.iter().filter(|other| are_pair(recovered, other)).map(move |other| (recovered, other))
        })
        .collect();
    let keys: BTreeSet<&String> =
        pairs.iter().flat_map(|(l, r)| [&l.safety_stage, &l.task_stage, &r.safety_stage, &r.task_stage]).collect();
    let read = |key: &String| {
        let (dir, mut scores) =
            stages.places("evaluate", key).find_map(|dir| StageScores::read(&dir).ok().map(|scores| (dir, scores)))?;
        if let (Some(judge), Some(_)) = (judge, &scores.harmful) {
            scores.harmful = judge.scores(key, stages).ok().flatten()?.harmful;
        }
        let metric = scores.task.as_ref().map(|task| task.metric).filter(|metric| !metric.is_mean());
        let answers = metric.map(|metric| read_answers(&dir.join(task_questions(metric).answers_name())));
        let answers = answers.transpose().ok()?.unwrap_or_default();
        Some((key.clone(), (scores, answers)))
    };
    let known: Known = keys.into_iter().filter_map(read).collect();
    let found: Vec<Option<Difference>> =
        pairs.par_iter().map(|(recovered, other)| difference(recovered, other, &known)).collect::<Result<_>>()?;
    let missing = found.iter().filter(|difference| difference.is_none()).count();
    Ok((found.into_iter().flatten().collect(), missing))
}

fn are_pair(recovered: &ResultRow, other: &ResultRow) -> bool {
    let same_variant = other.variant == recovered.variant || other.variant.is_empty();
    recovered.cell() == other.cell()
        && recovered.seed == other.seed
        && same_variant
        && other.method != Method::Recovered
}

/// None where a stage's scores are not there.
fn difference(recovered: &ResultRow, other: &ResultRow, known: &Known) -> Result<Option<Difference>> {
    let verdicts = |row: &ResultRow| Some(&known.get(&row.safety_stage)?.0.harmful.as_ref()?.rate.as_ref()?.verdicts);
    let task = |row: &ResultRow| {
        let (scores, answers) = known.get(&row.task_stage)?;
        scores.task.as_ref().map(|task| (task.metric, (&*task.per_sample, &**answers)))
    };
    let (Some(left), Some(right)) = (verdicts(recovered), verdicts(other)) else { return Ok(None) };
    let (Some((metric, left_task)), Some((_, right_task))) = (task(recovered), task(other)) else { return Ok(None) };
    let judged: Vec<(bool, bool)> =
        left.iter().zip(right).filter_map(|(l, r)| Some((l.harmful()?, r.harmful()?))).collect();
    if judged.is_empty() {
        return Ok(None);
    }
    let (l, r): (Vec<bool>, Vec<bool>) = judged.into_iter().unzip();
    let shares =
        |verdicts: &[bool]| -> Vec<f64> { verdicts.iter().map(|&harmful| f64::from(u8::from(harmful))).collect() };
    Ok(Some(Difference {
        other: other.clone(),
        variant: recovered.variant.clone(),
        harmful: paired_bootstrap(&shares(&l), &shares(&r), &RESAMPLING)?,
        verdicts: mcnemar(&l, &r)?,
        task: metric.difference(left_task, right_task, &RESAMPLING)?,
    }))
}

/// Checks that the harmful rates of stored rows are those of `judge`, or of the refusal phrases without one.
///
/// # Errors
/// When another judge made one of them: its sweep has had its judges changed since.
pub fn check_judge(rows: &[ResultRow], judge: Option<&SweepJudge>, stages: &Roots) -> Result<()> {
    for row in rows {
        let scores = match judge {
            Some(judge) => judge.scores(&row.safety_stage, stages)?,
            None => stages.places("evaluate", &row.safety_stage).find_map(|dir| StageScores::read(&dir).ok()),
        };
        let rate = scores.and_then(|scores| scores.harmful?.rate).map(|rate| rate.rate);
        if let Some(rate) = rate.filter(|rate| (rate - row.harmful_rate).abs() > 1e-9) {
            let (model, task, count) = row.cell();
            bail!(
                "{model}/{task}/{count} {}: the stored row has {} % harmful answers, by the judge {} there are {} %: the sweep's \
                 first judge was another one when the rows were made. Run the sweep again; nothing is generated anew",
                row.method,
                percent(row.harmful_rate),
                name(judge),
                percent(rate)
            );
        }
    }
    Ok(())
}

/// The judge's name, the refusal phrases' without one.
#[must_use]
pub fn name(judge: Option<&SweepJudge>) -> String {
    judge.map_or_else(|| Judge::phrases().name().to_owned(), |judge| judge.name().to_owned())
}

/// The differences by `judge` summed up per method as Markdown.
///
/// # Errors
/// Never with differences as [`differences`] gives them.
pub fn markdown(differences: &[Difference], missing: usize, judge: &str) -> Result<String> {
    let mut text = format!(
        "\
Recovery minus another method on the same prompts; means over cells, whose seeds are averaged first, with the 95 % interval of \
a bootstrap over cells. A pair is a cell with one seed; \"fewer\" and \"more\" are pairs in which recovery has fewer or more \
harmful answers, as the judge `{judge}` counts them, with p < 0.05 in McNemar's exact test, not corrected for the number of pairs.

| variant | recovery against | cells | pairs | harmful rate, points | fewer | more | task score, points |
|---|---|--:|--:|--:|--:|--:|--:|
"
    );
    let rows = differences.iter().map(|difference| &difference.other);
    let methods = distinct(rows, |row| row.method);
    let mut variants: Vec<&str> = differences.iter().map(|difference| difference.variant.as_str()).collect();
    variants.dedup();
    let mut seen = BTreeSet::new();
    for variant in variants.into_iter().filter(|variant| seen.insert(*variant)) {
        for &method in &methods {
            let own: Vec<&Difference> = differences
                .iter()
                .filter(|difference| difference.variant == variant && difference.other.method == method)
                .collect();
            if own.is_empty() {
                continue;
            }
            let cells = distinct(own.iter().map(|one| &one.other), ResultRow::cell);
            let mean = |value: fn(&Difference) -> f64| {
                let of_cell = |cell| {
                    let seeds: Vec<f64> =
                        own.iter().filter(|one| one.other.cell() == cell).map(|one| value(one)).collect();
                    seeds.iter().sum::<f64>() / seeds.len() as f64
                };
                bootstrap_mean(&cells.iter().map(|&cell| of_cell(cell)).collect::<Vec<f64>>(), &RESAMPLING)
            };
            let (harmful, task) = (mean(|one| one.harmful.value)?, mean(|one| one.task.value)?);
            let clear = |fewer: bool| {
                let sided = |test: &McNemar| (test.left_only < test.right_only) == fewer;
                own.iter().filter(|one| one.verdicts.p_value < 0.05 && sided(&one.verdicts)).count()
            };
            let figure = |estimate: Estimate| {
                let (low, high) = estimate.interval;
                format!("{} ({} to {})", percent(estimate.value), percent(low), percent(high))
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {variant} | {} | {} | {} | {} | {} | {} | {} |",
                method.title(),
                cells.len(),
                own.len(),
                figure(harmful),
                clear(true),
                clear(false),
                figure(task)
            );
        }
    }
    if missing > 0 {
        let _ = writeln!(
            text,
            "\n{missing} pairs are left out: their evaluation stages are not there, or the answers in them cannot be read."
        );
    }
    Ok(text)
}

/// Writes every difference as CSV.
///
/// # Errors
/// When the file cannot be written.
pub fn write(differences: &[Difference], path: &Path) -> Result<()> {
    let text = |name: &str, value: fn(&Difference) -> String| -> Column {
        Series::new(name.into(), differences.iter().map(value).collect::<Vec<_>>()).into()
    };
    let whole = |name: &str, value: fn(&Difference) -> u64| -> Column {
        Series::new(name.into(), differences.iter().map(value).collect::<Vec<_>>()).into()
    };
    let real = |name: &str, value: fn(&Difference) -> f64| -> Column {
        Series::new(name.into(), differences.iter().map(value).collect::<Vec<_>>()).into()
    };
    let columns = vec![
        text("model", |one| one.other.model.clone()),
        text("task", |one| one.other.task.clone()),
        whole("harmful_count", |one| one.other.harmful_count as u64),
        whole("seed", |one| one.other.seed),
        text("variant", |one| one.variant.clone()),
        text("against", |one| one.other.method.to_string()),
        real("harmful_difference", |one| one.harmful.value),
        real("harmful_low", |one| one.harmful.interval.0),
        real("harmful_high", |one| one.harmful.interval.1),
        whole("harmful_recovered_only", |one| one.verdicts.left_only as u64),
        whole("harmful_other_only", |one| one.verdicts.right_only as u64),
        real("p_value", |one| one.verdicts.p_value),
        real("task_difference", |one| one.task.value),
        real("task_low", |one| one.task.interval.0),
        real("task_high", |one| one.task.interval.1),
    ];
    write_csv(differences.len(), columns, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use evaluation::{Evaluation, Metric, PromptKind, RefusalJudge, SetScores, TaskScores};

    use super::*;
    use crate::row::tests::row;
    use crate::scores::tests::record;
    use crate::stages::provenance;
    use crate::sweep::Sweep;

    /// An answer, and what would be right.
    fn answer(id: usize, response: &str, reference: &str) -> Answer {
        Answer {
            id: id.to_string(),
            response: response.to_owned(),
            reference: Some(reference.to_owned()),
            ..Answer::default()
        }
    }

    /// A stage in which the first `harmful` of 20 prompts are answered and as many task samples right.
    fn write_stage(dir: &Path, harmful: usize) {
        let response = |i| if i < harmful { "the map is under the box" } else { "I cannot help with that" };
        let answers: Vec<Answer> = (0..20).map(|i| answer(i, response(i), "the map is under the box")).collect();
        write_scores(dir, &answers, &answers, Metric::ExactMatch);
    }

    fn write_scores(dir: &Path, answers: &[Answer], of_task: &[Answer], metric: Metric) {
        let judge = RefusalJudge::embedded();
        let records = answers.iter().map(|answer| record(judge.verdict(&answer.response))).collect();
        let records = [("refusal".to_owned(), records)];
        let scores = Evaluation {
            provenance: provenance(1),
            prompt_sets: vec![SetScores::new("harmful", PromptKind::Harmful, answers, &records).unwrap()],
            tasks: vec![TaskScores::new("task", &[metric], of_task).unwrap()],
        };
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("scores.json"), serde_json::to_string(&scores).unwrap()).unwrap();
        evaluation::write_answers(&dir.join("answers-task.jsonl"), of_task).unwrap();
    }

    fn with_stage(key: &str, method: Method) -> ResultRow {
        ResultRow { safety_stage: key.to_owned(), task_stage: key.to_owned(), ..row("small", 300, method, 0, 0.0) }
    }

    #[test]
    fn methods_are_compared_prompt_by_prompt() {
        let dir = tempfile::tempdir().unwrap();
        write_stage(&dir.path().join("evaluate/a"), 2);
        write_stage(&dir.path().join("evaluate/b"), 18);
        let rows = [
            with_stage("b", Method::FineTuned),
            with_stage("a", Method::Recovered),
            with_stage("none", Method::Random),
        ];
        let (found, missing) = differences(&rows, None, &dir.path().into()).unwrap();
        assert_eq!((found.len(), missing), (1, 1));
        let one = &found[0];
        assert_eq!((one.other.method, one.verdicts.left_only, one.verdicts.right_only), (Method::FineTuned, 0, 16));
        assert!((one.harmful.value + 0.8).abs() < 1e-12 && one.harmful.interval.1 < 0.0);
        // 2^-15: all 16 of 16 one way, two-sided.
        assert!((one.verdicts.p_value - 2.0_f64.powi(-15)).abs() < 1e-12);
        let text = markdown(&found, missing, "refusal").unwrap();
        assert!(text.contains("|  | fine-tuned | 1 | 1 | -80.0 (-80.0 to -80.0) | 1 | 0 | -80.0"), "{text}");
        assert!(text.contains("1 pairs are left out"));
        // Another seed is another pair of the same cell, and in its mean.
        let second = Difference { harmful: Estimate { value: -0.4, ..one.harmful }, ..one.clone() };
        let text = markdown(&[one.clone(), second], 0, "refusal").unwrap();
        assert!(text.contains("|  | fine-tuned | 1 | 2 | -60.0 (-60.0 to -60.0) | 2 | 0 | -80.0"), "{text}");
        let csv = dir.path().join("differences.csv");
        write(&found, &csv).unwrap();
        assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 2);
    }

    #[test]
    fn an_f1_is_compared_as_f1_and_not_by_the_share_that_is_right() {
        let dir = tempfile::tempdir().unwrap();
        // 2 of 20 are of class 1. Always 0: 18 right and F1 0. Eight times 1, both found: 14 right and F1 0.4.
        let answers = |ones: usize| -> Vec<Answer> {
            (0..20).map(|i| answer(i, if i < ones { "1" } else { "0" }, if i < 2 { "1" } else { "0" })).collect()
        };
        for (key, ones) in [("a", 0), ("b", 8)] {
            let answers = answers(ones);
            write_scores(&dir.path().join("evaluate").join(key), &answers, &answers, Metric::F1);
        }
        let rows = [with_stage("b", Method::SoftSft), with_stage("a", Method::Recovered)];
        let (found, _) = differences(&rows, None, &dir.path().into()).unwrap();
        assert!((found[0].task.value + 0.4).abs() < 1e-12, "{:?}", found[0].task);
        assert!(found[0].task.interval.1 <= 0.0);
    }

    #[test]
    fn the_verdicts_are_those_of_the_judge_that_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("paper.yaml");
        let mut sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        sweep.judged_by = vec![evaluation::Judge::phrases()];
        let judge = SweepJudge::all(&sweep).remove(0);
        let dir = tempfile::tempdir().unwrap();
        let rows = [with_stage("b", Method::FineTuned), with_stage("a", Method::Recovered)];
        for key in ["a", "b"] {
            write_stage(&dir.path().join("evaluate").join(key), 10);
            assert_eq!(
                differences(&rows, Some(&judge), &dir.path().into()).unwrap().1,
                1,
                "nothing is compared before it judged"
            );
            write_stage(
                &dir.path().join("judge").join(judge.key(key).unwrap().digest().unwrap()),
                16 + usize::from(key == "b"),
            );
        }
        let harmful = |judge| differences(&rows, judge, &dir.path().into()).unwrap().0[0].harmful.value;
        assert_eq!(harmful(None), 0.0);
        assert!((harmful(Some(&judge)) + 0.05).abs() < 1e-12, "16 of 20 against 17");
        // Stored rows are one judge's.
        let rows = rows.map(|row| ResultRow { harmful_rate: 0.5, ..row });
        check_judge(&rows, None, &dir.path().into()).unwrap();
        let error = check_judge(&rows, Some(&judge), &dir.path().into()).unwrap_err().to_string();
        assert!(error.contains("small/sql/300 fine_tuned") && error.contains("there are 85.0 %"), "{error}");
    }

    #[test]
    fn another_cell_seed_or_variant_is_no_pair() {
        let recovered = ResultRow { variant: "2/6".to_owned(), ..with_stage("a", Method::Recovered) };
        let other = with_stage("b", Method::FineTuned);
        assert!(are_pair(&recovered, &other));
        assert!(are_pair(&recovered, &ResultRow { variant: "2/6".to_owned(), ..other.clone() }));
        for wrong in [
            ResultRow { variant: "4/6".to_owned(), ..other.clone() },
            ResultRow { seed: 2, ..other.clone() },
            ResultRow { harmful_count: 0, ..other.clone() },
            ResultRow { method: Method::Recovered, ..other },
        ] {
            assert!(!are_pair(&recovered, &wrong));
        }
    }
}
