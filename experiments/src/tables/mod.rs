//! The results as tables, made from records.
//!
//! Here are the records as they are, `results.csv` and `results.parquet`, for programs. A line per cell and method is in
//! `cells.rs`, means over the grid in `means.rs` and, for people, `mean_tables.rs` and `held_out.rs`, differences between
//! methods in `differences.rs`, what each of several judges says in `judged.rs`, attacks in
//! `attacks.rs`, and each method over its knob in `knobs.rs`.

pub mod attacks;
mod bounds;
pub mod cells;
pub mod differences;
mod held_out;
pub mod judged;
pub mod knobs;
pub mod mean_tables;
pub mod means;

#[cfg(test)]
pub(crate) mod golden;

use std::path::Path;

use anyhow::{Context, Result};
use evaluation::Metric;
use evaluation::statistics::{BootstrapSettings, Estimate, bootstrap_groups};
use page::Table;
use polars::prelude::{CsvWriter, DataFrame, NamedFrom, ParquetWriter, SerWriter, Series};
use serde::Serialize;

use crate::record::{Record, further_metrics, groups};
use bounds::Place;

/// How intervals of means and differences are drawn: 2,000 resamples for each of a sweep's thousand pairs.
pub const RESAMPLING: BootstrapSettings = BootstrapSettings { resamples: 2_000, level: 0.95, seed: 1 };

/// The estimate of nothing.
const NOTHING: Estimate = Estimate { value: f64::NAN, interval: (f64::NAN, f64::NAN) };

/// The mean of values of cells, with the interval of a bootstrap over the pairs of a model and a task: the cells of one pair depend
/// on each other. A single pair has no interval.
fn mean_of_cells(values: &[(Place<'_>, f64)]) -> Result<Estimate> {
    let pairs = groups(values, |((model, task, _), _)| (*model, *task)).into_iter();
    let pairs: Vec<Vec<f64>> = pairs.map(|(_, cells)| cells.into_iter().map(|cell| cell.1).collect()).collect();
    if pairs.is_empty() {
        return Ok(NOTHING);
    }
    let estimate = bootstrap_groups(&pairs, &RESAMPLING)?;
    Ok(if pairs.len() == 1 { Estimate { interval: NOTHING.interval, ..estimate } } else { estimate })
}

/// A table for people with the words around it.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    pub title: &'static str,
    pub words: String,
    pub table: Table,
    /// The words below it; often none.
    pub after: String,
}

impl Section {
    /// As Markdown, without its title.
    pub fn markdown(&self) -> String {
        format!("{}\n\n{}{}", self.words, self.table.markdown(), self.after)
    }
}

/// The values of a column; those that are missing or NaN are empty.
#[derive(Debug, Clone, Copy)]
pub enum Values<T> {
    Text(fn(&T) -> String),
    Whole(fn(&T) -> Option<u64>),
    Real(fn(&T) -> f64),
    /// A figure by a metric, which gives the column its name.
    Score(Metric, fn(&T, Metric) -> f64),
}

use Values::{Real, Score, Text, Whole};

/// The columns of a table with their names.
pub type Columns<T> = Vec<(&'static str, Values<T>)>;

/// A line of a table that is about one record.
#[derive(Debug, Clone)]
pub struct Line<'a, T> {
    pub record: &'a Record,
    pub variant: &'a str,
    /// What it says of the record.
    pub of: T,
}

impl<'a, T> Line<'a, T> {
    pub fn new(record: &'a Record, of: T) -> Self {
        Self { record, variant: &record.variant, of }
    }
}

/// The columns that say which model a line is about.
pub fn model_columns<'a, T>() -> Columns<Line<'a, T>> {
    vec![
        ("model", Text(|line| line.record.model.clone())),
        ("task", Text(|line| line.record.task.clone())),
        ("harmful_count", Whole(|line| Some(line.record.harmful_count as u64))),
        ("seed", Whole(|line| Some(line.record.seed))),
        ("variant", Text(|line| line.variant.to_owned())),
        ("method", Text(|line| line.record.method.clone())),
    ]
}

/// The columns of `results.csv` and `results.parquet`, with one for each of the further metrics.
pub fn columns<'a>(further: &[Metric]) -> Columns<Line<'a, ()>> {
    let by = |line: &Line<'a, ()>, metric| line.record.score_by(metric).map_or(f64::NAN, |score| score.value);
    let mut columns = model_columns();
    columns.extend([
        ("harmful_rate", Real(|line: &Line<'a, ()>| line.record.harmful_rate())),
        ("harmful_low", Real(|line| line.record.harmful_interval().0)),
        ("harmful_high", Real(|line| line.record.harmful_interval().1)),
        ("harmful_held_out", Real(|line| line.record.harmful_held_out())),
        ("harmful_others", Real(|line| line.record.harmful_others())),
        ("broken", Real(|line| line.record.broken())),
        ("over_refusal", Real(|line| line.record.over_refusal())),
        ("over_refusal_looks_harmful", Real(|line| line.record.over_refusal_looks_harmful())),
        ("task_score", Real(|line| line.record.task_score())),
        ("task_low", Real(|line| line.record.score.interval.0)),
        ("task_high", Real(|line| line.record.score.interval.1)),
    ]);
    columns.extend(further.iter().map(|&metric| (metric.name(), Score(metric, by))));
    columns.extend([
        ("restored", Whole(|line: &Line<'a, ()>| line.record.restored)),
        ("changed", Real(|line| line.record.changed())),
        ("divergence", Real(|line| line.record.divergence())),
        ("seconds", Real(|line| line.record.seconds)),
        ("peak_memory", Whole(|line| line.record.peak_memory)),
        ("evaluation_seconds", Real(|line| line.record.evaluation_seconds)),
        ("n", Whole(|line| Some(line.record.judged() as u64))),
        ("model_stage", Text(|line| line.record.model_stage.clone())),
        ("note", Text(|line| line.record.all_notes().join("; "))),
    ]);
    columns
}

/// Writes `results.csv` and `results.parquet` into a directory.
pub fn write(records: &[Record], dir: &Path) -> Result<()> {
    let lines: Vec<_> = records.iter().map(|record| Line::new(record, ())).collect();
    let columns = columns(&further_metrics(records));
    write_csv(&lines, &columns, &dir.join("results.csv"))?;
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame(&lines, &columns)?)?;
    Ok(files::write_whole(&dir.join("results.parquet"), &bytes)?)
}

/// Writes a table for programs; the file is complete or absent.
pub fn write_csv<T>(lines: &[T], columns: &Columns<T>, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame(lines, columns)?)?;
    Ok(files::write_whole(path, &bytes)?)
}

fn frame<T>(lines: &[T], columns: &Columns<T>) -> Result<DataFrame> {
    let column = |(name, values): &(&'static str, Values<T>)| {
        let name = (*name).into();
        let known = |value: f64| Some(value).filter(|value| !value.is_nan());
        match values {
            Text(value) => Series::new(name, lines.iter().map(value).collect::<Vec<_>>()),
            Whole(value) => Series::new(name, lines.iter().map(value).collect::<Vec<_>>()),
            Real(value) => Series::new(name, lines.iter().map(|line| known(value(line))).collect::<Vec<_>>()),
            Score(metric, value) => {
                Series::new(name, lines.iter().map(|line| known(value(line, *metric))).collect::<Vec<_>>())
            }
        }
        .into()
    };
    DataFrame::new(lines.len(), columns.iter().map(column).collect()).context("the columns are not a table")
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    if share.is_nan() { "-".to_owned() } else { format!("{:.1}", 100.0 * share) }
}

/// A share and its interval in percent.
pub fn with_interval(value: f64, (low, high): (f64, f64)) -> String {
    format!("{} ({} to {})", percent(value), percent(low), percent(high))
}

/// An estimate in percent, with its interval where it has one.
pub fn figure(Estimate { value, interval }: &Estimate) -> String {
    if interval.0.is_nan() { percent(*value) } else { with_interval(*value, *interval) }
}

#[cfg(test)]
mod tests {
    use evaluation::TaskScore;
    use polars::prelude::{ParquetReader, SerReader};

    use super::*;
    use crate::record::tests::record;
    use crate::record::{ALIGNED, RECOVER};

    #[test]
    fn csv_and_parquet_hold_the_same_columns_and_values() {
        let mut aligned = record("lab, llama", 300, ALIGNED, 4, 0.0);
        (aligned.seed, aligned.judges[0].harmful.rate) = (u64::MAX, None);
        let recovered = Record {
            variant: "2/6".to_owned(),
            restored: Some(1_234_567),
            notes: vec!["not recovered".to_owned(), "below \"the floor\"".to_owned()],
            ..record("m", 300, RECOVER, 4, 0.0)
        };
        let records = [aligned, recovered];
        let dir = tempfile::tempdir().unwrap();
        write(&records, dir.path()).unwrap();
        let csv = std::fs::read_to_string(dir.path().join("results.csv")).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "model,task,harmful_count,seed,variant,method,harmful_rate,harmful_low,harmful_high,harmful_held_out,\
             harmful_others,broken,over_refusal,over_refusal_looks_harmful,task_score,task_low,task_high,restored,changed,divergence,seconds,peak_memory,\
             evaluation_seconds,n,model_stage,note"
        );
        let (first, second) =
            ("\"lab, llama\",sql,300,18446744073709551615,\"\",aligned,,,,,,,0.2,,", ",2/6,recover,0.04,");
        assert!(lines[1].starts_with(first) && lines[2].contains(second), "what nobody could judge is empty: {csv}");
        assert!(
            lines[2].ends_with(",1234567,,,1.0,,2.0,100,m-300-recover,\"not recovered; below \"\"the floor\"\"\""),
            "{csv}"
        );
        let parquet = ParquetReader::new(std::fs::File::open(dir.path().join("results.parquet")).unwrap());
        let lines = records.each_ref().map(|record| Line::new(record, ()));
        assert!(parquet.finish().unwrap().equals_missing(&frame(&lines, &columns(&[])).unwrap()));
    }

    #[test]
    fn a_further_metric_is_a_column_by_its_name() {
        let of = |method| record("m", 0, method, 4, 0.5);
        let mut scored = of(RECOVER);
        scored.also = vec![TaskScore { metric: Metric::SqlNormalized, value: 0.75, ..scored.score.clone() }];
        let deciding = |one: Record| Record { score: scored.also[0].clone(), ..one };
        let dir = tempfile::tempdir().unwrap();
        write(&[of(ALIGNED), scored.clone(), deciding(of("resta"))], dir.path()).unwrap();
        let csv = std::fs::read_to_string(dir.path().join("results.csv")).unwrap();
        let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
        let at = head.iter().position(|name| *name == "sql_normalized").unwrap();
        assert_eq!([head[at - 1], head[at + 1]], ["task_high", "restored"]);
        let values: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').nth(at).unwrap()).collect();
        assert_eq!(values, ["", "0.75", "0.75"]);
    }
}
