//! What each judge of a sweep says of the same answers to the harmful prompts: rates with intervals, and how far each two
//! agree (paper, "Evaluation metrics", where further judges check the first).
//!
//! Verdicts come from the judge stages. Which judge is right is not said here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use evaluation::statistics::{Agreement, agreement};
use evaluation::{JudgeScores, Verdict};
use polars::prelude::{Column, NamedFrom, Series};

use super::{percent, write_csv};
use crate::row::ResultRow;
use crate::scores::StageScores;
use crate::stages::SweepJudge;
use crate::store::Roots;

/// The judges' verdicts on the models of some rows.
#[derive(Debug)]
pub struct Judged<'a> {
    lines: Vec<Line<'a>>,
    pairs: Vec<Pair<'a>>,
    /// Rows that are left out: a judge's stage is not there.
    missing: usize,
}

/// One model by one judge.
#[derive(Debug)]
struct Line<'a> {
    row: &'a ResultRow,
    scores: JudgeScores,
    over_refusal: Option<f64>,
}

/// One model by two judges.
#[derive(Debug)]
struct Pair<'a> {
    row: &'a ResultRow,
    judges: (&'a str, &'a str),
    verdicts: (Vec<Verdict>, Vec<Verdict>),
    agreement: Agreement,
}

/// All models by two judges.
#[derive(Debug)]
struct Pooled<'a> {
    judges: (&'a str, &'a str),
    agreement: Agreement,
    models: usize,
}

impl<'a> Judged<'a> {
    /// Reads the verdicts.
    ///
    /// # Errors
    /// When a guard's directory is not there, so that its stages cannot be named, or a stage's scores are damaged.
    pub fn of(rows: &'a [ResultRow], judges: &'a [SweepJudge], stages: &Roots) -> Result<Self> {
        let mut judged = Self { lines: Vec::new(), pairs: Vec::new(), missing: 0 };
        for row in rows {
            let found = judges.iter().map(|judge| judge.scores(&row.safety_stage, stages));
            let Some(found) = found.collect::<Result<Option<Vec<_>>>>()? else {
                judged.missing += 1;
                continue;
            };
            let of = |(judge, scores): (&SweepJudge, StageScores)| {
                // A judge's stage may have been made under another name.
                let harmful = JudgeScores { judge: judge.name().to_owned(), ..scores.harmful? };
                let over_refusal = scores.over_refusal.and_then(|scores| Some(scores.rate?.rate));
                Some(Line { row, scores: harmful, over_refusal })
            };
            let lines: Vec<Line<'_>> = judges.iter().zip(found).filter_map(of).collect();
            for (i, left) in lines.iter().enumerate() {
                for (j, right) in lines.iter().enumerate().skip(i + 1) {
                    let verdicts = (verdicts(&left.scores), verdicts(&right.scores));
                    let agreement = agreement(&verdicts.0, &verdicts.1)?;
                    let judges = (judges[i].name(), judges[j].name());
                    judged.pairs.push(Pair { row, judges, verdicts, agreement });
                }
            }
            judged.lines.extend(lines);
        }
        Ok(judged)
    }

    /// The tables as Markdown; shares are in percent.
    ///
    /// # Errors
    /// Never with verdicts as [`of`](Self::of) reads them.
    pub fn markdown(&self) -> Result<String> {
        let mut text = "\
All judges read the same stored answers to the harmful prompts. A rate is over the answers that the judge can tell, with \
Wilson's 95 % interval; unknown are those that it cannot.

| model | task | injected | seed | variant | method | judge | harmful rate % | prompts | unknown | failed |
|---|---|--:|--:|---|---|---|--:|--:|--:|--:|
"
        .to_owned();
        // Writing to a string cannot fail.
        for Line { row, scores, .. } in &self.lines {
            let JudgeScores { judge, n, unknown, failed, .. } = scores;
            let rate = scores.rate.as_ref().map_or("unknown".to_owned(), |rate| {
                let (low, high) = rate.interval;
                format!("{} ({} to {})", percent(rate.rate), percent(low), percent(high))
            });
            let _ = writeln!(text, "| {} | {judge} | {rate} | {n} | {unknown} | {failed} |", place(row));
        }
        if !self.pairs.is_empty() {
            text += "\nAgreement on harmful, not harmful or unknown:\n\n\
                     | model | task | injected | seed | variant | method | judges | agreement % | Cohen's kappa | differ |\n\
                     |---|---|--:|--:|---|---|---|--:|--:|--:|\n";
        }
        for Pair { row, judges: (left, right), agreement, .. } in &self.pairs {
            let _ = writeln!(text, "| {} | {left} and {right} | {} |", place(row), figures(agreement));
        }
        for Pooled { judges: (left, right), agreement, models } in self.pooled()? {
            let figures = figures(&agreement);
            let _ = writeln!(text, "| all {models} models |  |  |  |  |  | {left} and {right} | {figures} |");
        }
        if self.missing > 0 {
            let _ = writeln!(text, "\n{} models are left out: not every judge's stage is there.", self.missing);
        }
        Ok(text)
    }

    /// Each two judges over the answers of all models, those that cells share once.
    fn pooled(&self) -> Result<Vec<Pooled<'a>>> {
        let mut pooled = Vec::new();
        let mut seen = BTreeSet::new();
        for judges in self.pairs.iter().map(|pair| pair.judges).filter(|judges| seen.insert(*judges)) {
            let mut stages = BTreeSet::new();
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for pair in self.pairs.iter().filter(|pair| pair.judges == judges) {
                if stages.insert(&pair.row.safety_stage) {
                    left.extend(&pair.verdicts.0);
                    right.extend(&pair.verdicts.1);
                }
            }
            pooled.push(Pooled { judges, agreement: agreement(&left, &right)?, models: stages.len() });
        }
        Ok(pooled)
    }

    /// Writes a line per model and judge as CSV; a rate is empty where the judge can tell nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_rates(&self, path: &Path) -> Result<()> {
        let lines = &self.lines;
        let real = |name: &str, value: fn(&Line<'_>) -> Option<f64>| -> Column {
            Series::new(name.into(), lines.iter().map(value).collect::<Vec<_>>()).into()
        };
        let whole = |name: &str, value: fn(&Line<'_>) -> usize| -> Column {
            Series::new(name.into(), lines.iter().map(|line| value(line) as u64).collect::<Vec<_>>()).into()
        };
        let judges: Vec<&str> = lines.iter().map(|line| line.scores.judge.as_str()).collect();
        let mut columns = places(lines.iter().map(|line| line.row));
        columns.push(Series::new("judge".into(), judges).into());
        columns.extend([
            real("harmful_rate", |line| Some(line.scores.rate.as_ref()?.rate)),
            real("harmful_low", |line| Some(line.scores.rate.as_ref()?.interval.0)),
            real("harmful_high", |line| Some(line.scores.rate.as_ref()?.interval.1)),
            real("over_refusal", |line| line.over_refusal),
            whole("n", |line| line.scores.n),
            whole("unknown", |line| line.scores.unknown),
            whole("failed", |line| line.scores.failed),
        ]);
        write_csv(lines.len(), columns, path)
    }

    /// Writes a line per model and two judges as CSV; kappa is empty where it is undefined.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_agreement(&self, path: &Path) -> Result<()> {
        let pairs = &self.pairs;
        let text = |name: &str, value: fn(&Pair<'a>) -> &'a str| -> Column {
            Series::new(name.into(), pairs.iter().map(value).collect::<Vec<_>>()).into()
        };
        let whole = |name: &str, value: fn(&Agreement) -> usize| -> Column {
            let values: Vec<u64> = pairs.iter().map(|pair| value(&pair.agreement) as u64).collect();
            Series::new(name.into(), values).into()
        };
        let observed: Vec<f64> = pairs.iter().map(|pair| pair.agreement.observed).collect();
        let kappa: Vec<Option<f64>> = pairs.iter().map(|pair| pair.agreement.kappa).collect();
        let mut columns = places(pairs.iter().map(|pair| pair.row));
        columns.extend([
            text("left", |pair| pair.judges.0),
            text("right", |pair| pair.judges.1),
            Series::new("agreement".into(), observed).into(),
            Series::new("kappa".into(), kappa).into(),
            whole("both_harmful", |agreement| agreement.table[1][1]),
            whole("left_only_harmful", |agreement| agreement.table[1][0]),
            whole("right_only_harmful", |agreement| agreement.table[0][1]),
            whole("differ", |agreement| agreement.differ.len()),
        ]);
        write_csv(pairs.len(), columns, path)
    }
}

/// The verdicts of a judge; one that can tell nothing has no rate that would hold them.
fn verdicts(scores: &JudgeScores) -> Vec<Verdict> {
    scores.rate.as_ref().map_or_else(|| vec![Verdict::Unknown; scores.n], |rate| rate.verdicts.clone())
}

fn place(row: &ResultRow) -> String {
    let ResultRow { model, task, harmful_count, seed, variant, method, .. } = row;
    format!("{model} | {task} | {harmful_count} | {seed} | {variant} | {method}")
}

fn figures(agreement: &Agreement) -> String {
    let kappa = agreement.kappa.map_or("undefined (one class)".to_owned(), |kappa| format!("{kappa:.3}"));
    format!("{} | {kappa} | {}", percent(agreement.observed), agreement.differ.len())
}

/// The columns that say which model a line is about.
fn places<'a>(rows: impl Iterator<Item = &'a ResultRow>) -> Vec<Column> {
    let rows: Vec<&ResultRow> = rows.collect();
    let text = |name: &str, value: fn(&ResultRow) -> String| -> Column {
        Series::new(name.into(), rows.iter().map(|row| value(row)).collect::<Vec<_>>()).into()
    };
    let whole = |name: &str, value: fn(&ResultRow) -> u64| -> Column {
        Series::new(name.into(), rows.iter().map(|row| value(row)).collect::<Vec<_>>()).into()
    };
    vec![
        text("model", |row| row.model.clone()),
        text("task", |row| row.task.clone()),
        whole("harmful_count", |row| row.harmful_count as u64),
        whole("seed", |row| row.seed),
        text("variant", |row| row.variant.clone()),
        text("method", |row| row.method.to_string()),
    ]
}
