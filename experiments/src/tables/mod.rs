//! The results as tables: here the rows as they are, `results.csv` and `results.parquet`, for programs; a line per cell
//! and method in `cells.rs`, the means over the grid in `means.rs`, differences between methods in `differences.rs`, and what
//! each of several judges says in `judged.rs`.
//!
//! What the figures in them mean is said at [`ResultRow`].

pub mod cells;
pub mod differences;
pub mod judged;
pub mod means;

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
            whole("seed", |row| Some(row.seed)),
            text("variant", |row| row.variant.clone()),
            text("method", |row| row.method.to_string()),
            real("harmful_rate", |row| row.harmful_rate),
            real("harmful_low", |row| row.harmful_low),
            real("harmful_high", |row| row.harmful_high),
            real("over_refusal", |row| row.over_refusal),
            real("task_score", |row| row.task_score),
            real("task_low", |row| row.task_low),
            real("task_high", |row| row.task_high),
            whole("restored", |row| row.restored),
            real("seconds", |row| row.seconds),
            real("evaluation_seconds", |row| row.evaluation_seconds),
            whole("n", |row| Some(row.n as u64)),
            text("safety_stage", |row| row.safety_stage.clone()),
            text("task_stage", |row| row.task_stage.clone()),
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
                seed: table.whole("seed", i)?.context("column seed has a hole")?,
                variant: table.text("variant", i)?,
                method: Method::from_str(&table.text("method", i)?)?,
                harmful_rate: table.real("harmful_rate", i)?,
                harmful_low: table.real("harmful_low", i)?,
                harmful_high: table.real("harmful_high", i)?,
                over_refusal: table.real("over_refusal", i)?,
                task_score: table.real("task_score", i)?,
                task_low: table.real("task_low", i)?,
                task_high: table.real("task_high", i)?,
                restored: table.whole("restored", i)?,
                seconds: table.real("seconds", i)?,
                evaluation_seconds: table.real("evaluation_seconds", i)?,
                n: table.count("n", i)?,
                safety_stage: table.text("safety_stage", i)?,
                task_stage: table.text("task_stage", i)?,
                note: table.text("note", i)?,
            })
        })
        .collect()
}

/// Writes a table for programs, whole or not at all.
///
/// # Errors
/// When the columns differ in length or the file cannot be written.
pub fn write_csv(height: usize, columns: Vec<Column>, path: &Path) -> Result<()> {
    let mut frame = DataFrame::new(height, columns).with_context(|| format!("{} makes no table", path.display()))?;
    write_whole(path, |file| Ok(CsvWriter::new(file).finish(&mut frame)?))
}

/// The distinct values of a column, in the order of the rows.
pub fn distinct<'a, T: PartialEq>(
    rows: impl IntoIterator<Item = &'a ResultRow>,
    value: impl Fn(&'a ResultRow) -> T,
) -> Vec<T> {
    let mut values = Vec::new();
    for row in rows {
        let value = value(row);
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
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
    use crate::row::tests::row;

    fn rows() -> Vec<ResultRow> {
        let aligned = ResultRow {
            over_refusal: 1.0 / 3.0,
            seconds: 12.5,
            seed: u64::MAX,
            safety_stage: "0a".to_owned(),
            ..row("lab, llama", 300, Method::Aligned, 4, 0.0)
        };
        let recovered = ResultRow {
            method: Method::Recovered,
            variant: "2/6".to_owned(),
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
            "model,task,harmful_count,seed,variant,method,harmful_rate,harmful_low,harmful_high,over_refusal,task_score,\
             task_low,task_high,restored,seconds,evaluation_seconds,n,safety_stage,task_stage,note"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("\"lab, llama\",sql,300,18446744073709551615,\"\",aligned,0.04,"), "{}", lines[1]);
        assert!(lines[2].contains(",2/6,recovered,0.04,") && lines[2].contains(",1234567,12.5,2.0,100,0a,"));
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
}
