//! The results as tables: `results.csv` and `results.parquet` for programs, Markdown for people.
//!
//! What the figures in them mean is said at [`ResultRow`]; nothing is computed here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use polars::prelude::{
    Column, CsvWriter, DataFrame, NamedFrom, ParquetReader, ParquetWriter, PolarsError, SerReader, SerWriter, Series,
};

use crate::row::ResultRow;
use crate::store::write_whole;
use crate::sweep::Method;

/// Name of the table that [`read`] reads.
const PARQUET: &str = "results.parquet";

/// Writes `results.csv` and `results.parquet` into a directory, each whole or not at all.
///
/// # Errors
/// When a file cannot be written.
pub fn write(rows: &[ResultRow], dir: &Path) -> Result<()> {
    let mut frame = to_frame(rows).context("the rows make no table")?;
    write_whole(&dir.join("results.csv"), |file| Ok(CsvWriter::new(file).finish(&mut frame)?))?;
    write_whole(&dir.join(PARQUET), |file| {
        ParquetWriter::new(file).finish(&mut frame)?;
        Ok(())
    })
}

/// Reads the rows back from `results.parquet`.
///
/// # Errors
/// When the file is missing, is not Parquet, or lacks a column.
pub fn read(dir: &Path) -> Result<Vec<ResultRow>> {
    let path = dir.join(PARQUET);
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read the results {}", path.display()))?;
    let frame = ParquetReader::new(file).finish().with_context(|| format!("{} is not Parquet", path.display()))?;
    from_frame(&frame).with_context(|| format!("{} is not a table of results", path.display()))
}

/// Writes the rows as a Markdown table; shares are in percent.
///
/// # Errors
/// When the file cannot be written.
pub fn write_markdown(rows: &[ResultRow], path: &Path) -> Result<()> {
    write_whole(path, |file| Ok(file.write_all(markdown(rows).as_bytes())?))
}

/// The rows as a Markdown table; shares are in percent.
#[must_use]
pub fn markdown(rows: &[ResultRow]) -> String {
    let mut text = "\
| model | task | injected | method | harmful rate % (95 % interval) | over-refusal % | task score % | weights restored | n | note |
|---|---|--:|---|--:|--:|--:|--:|--:|---|
"
    .to_owned();
    for row in rows {
        let [rate, low, high, over_refusal, task_score] =
            [row.harmful_rate, row.harmful_low, row.harmful_high, row.over_refusal, row.task_score]
                .map(|share| format!("{:.1}", 100.0 * share));
        let restored = row.restored.map_or("-".to_owned(), |count| count.to_string());
        let ResultRow { model, task, harmful_count, method, n, note, .. } = row;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {model} | {task} | {harmful_count} | {method} | {rate} ({low} to {high}) \
             | {over_refusal} | {task_score} | {restored} | {n} | {note} |"
        );
    }
    text
}

fn to_frame(rows: &[ResultRow]) -> Result<DataFrame, PolarsError> {
    let text = |name: &str, value: fn(&ResultRow) -> String| -> Column {
        Series::new(name.into(), rows.iter().map(value).collect::<Vec<_>>()).into()
    };
    let whole = |name: &str, value: fn(&ResultRow) -> Option<u64>| -> Column {
        Series::new(name.into(), rows.iter().map(value).collect::<Vec<_>>()).into()
    };
    let real = |name: &str, value: fn(&ResultRow) -> f64| -> Column {
        Series::new(name.into(), rows.iter().map(value).collect::<Vec<_>>()).into()
    };
    DataFrame::new(
        rows.len(),
        vec![
            text("model", |row| row.model.clone()),
            text("task", |row| row.task.clone()),
            whole("harmful_count", |row| Some(row.harmful_count as u64)),
            text("method", |row| row.method.to_string()),
            real("harmful_rate", |row| row.harmful_rate),
            real("over_refusal", |row| row.over_refusal),
            real("task_score", |row| row.task_score),
            whole("restored", |row| row.restored),
            real("seconds", |row| row.seconds),
            whole("seed", |row| Some(row.seed)),
            whole("n", |row| Some(row.n as u64)),
            real("harmful_low", |row| row.harmful_low),
            real("harmful_high", |row| row.harmful_high),
            text("note", |row| row.note.clone()),
        ],
    )
}

fn from_frame(frame: &DataFrame) -> Result<Vec<ResultRow>> {
    let table = Table(frame);
    (0..frame.height())
        .map(|i| {
            Ok(ResultRow {
                model: table.text("model", i)?,
                task: table.text("task", i)?,
                harmful_count: table.count("harmful_count", i)?,
                method: Method::from_str(&table.text("method", i)?)?,
                harmful_rate: table.real("harmful_rate", i)?,
                harmful_low: table.real("harmful_low", i)?,
                harmful_high: table.real("harmful_high", i)?,
                over_refusal: table.real("over_refusal", i)?,
                task_score: table.real("task_score", i)?,
                restored: table.whole("restored", i)?,
                seconds: table.real("seconds", i)?,
                seed: table.whole("seed", i)?.context("column seed has a hole")?,
                n: table.count("n", i)?,
                note: table.text("note", i)?,
            })
        })
        .collect()
}

/// Typed access to a frame's values.
struct Table<'a>(&'a DataFrame);

impl Table<'_> {
    fn text(&self, name: &str, row: usize) -> Result<String> {
        let value = self.0.column(name)?.str()?.get(row);
        Ok(value.with_context(|| format!("column {name} has a hole in row {row}"))?.to_owned())
    }

    fn real(&self, name: &str, row: usize) -> Result<f64> {
        let value = self.0.column(name)?.f64()?.get(row);
        value.with_context(|| format!("column {name} has a hole in row {row}"))
    }

    fn whole(&self, name: &str, row: usize) -> Result<Option<u64>> {
        Ok(self.0.column(name)?.u64()?.get(row))
    }

    fn count(&self, name: &str, row: usize) -> Result<usize> {
        let value = self.whole(name, row)?;
        let value = value.with_context(|| format!("column {name} has a hole in row {row}"))?;
        usize::try_from(value).with_context(|| format!("column {name}: {value} is too large"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn rows() -> Vec<ResultRow> {
        let aligned = ResultRow {
            model: "lab, llama".to_owned(),
            task: "sql".to_owned(),
            harmful_count: 300,
            method: Method::Aligned,
            harmful_rate: 0.04,
            harmful_low: 0.0156,
            harmful_high: 0.0984,
            over_refusal: 1.0 / 3.0,
            task_score: 0.0,
            restored: None,
            seconds: 12.5,
            seed: u64::MAX,
            n: 100,
            note: String::new(),
        };
        let recovered = ResultRow {
            method: Method::Recovered,
            restored: Some(1_234_567),
            note: "not recovered: \"below the floor\"".to_owned(),
            ..aligned.clone()
        };
        vec![aligned, recovered]
    }

    #[test]
    fn rows_come_back_from_parquet_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        write(&rows(), dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), rows());
    }

    #[test]
    fn the_csv_has_the_named_columns_and_a_line_per_row() {
        let dir = tempfile::tempdir().unwrap();
        write(&rows(), dir.path()).unwrap();
        let csv = std::fs::read_to_string(dir.path().join("results.csv")).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "model,task,harmful_count,method,harmful_rate,over_refusal,task_score,restored,\
             seconds,seed,n,harmful_low,harmful_high,note"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("\"lab, llama\",sql,300,aligned,0.04,0.3333333333333333,0.0,,"));
        assert!(lines[2].contains(",1234567,12.5,18446744073709551615,100,"));
    }

    #[test]
    fn a_table_without_a_row_can_be_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        write(&[], dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_no_table_of_results_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains(PARQUET));
        std::fs::write(dir.path().join(PARQUET), "no table").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains(PARQUET));
    }

    #[test]
    fn the_markdown_has_percents_and_a_line_per_row() {
        let text = markdown(&rows());
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.contains("| lab, llama | sql | 300 | recovered | 4.0 (1.6 to 9.8) | 33.3 | 0.0 | 1234567 | 100 |")
        );
    }
}
