//! The tables and figures of a results directory, made from records.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::figures::{self, Figure};
use crate::html;
use crate::record::Record;
use crate::tables::mean_tables::Summary;
use crate::tables::{self, attacks, cells, differences, judged, knobs, mean_tables, means};

/// With more lines than this the table of all cells is not printed.
const PRINTED: usize = 40;

/// Writes all tables and figures of some records into `results`.
///
/// # Errors
/// When there are no records, their judges differ, or a file cannot be written.
pub fn write(records: &[Record], results: &Path) -> Result<()> {
    figures::write(&write_all(records, results)?, &results.join("figures"))
}

/// Draws all figures of some records into `dir`.
///
/// # Errors
/// When there are no records, or a file cannot be written.
pub fn write_figures(records: &[Record], dir: &Path) -> Result<()> {
    figures::write(&figures::figures(records)?, dir)
}

/// Writes `results.{csv,parquet,md}`, `means.{md,csv}`, `differences.{md,csv}`, `report.html`, if there are attacks
/// `attacks.{md,csv}`, if methods were chosen by a knob `knobs.csv`, and, if there are several judges, `judges.{md,csv}` and `agreement.csv`.
///
/// # Errors
/// As [`write()`].
pub fn write_tables(records: &[Record], results: &Path) -> Result<()> {
    write_all(records, results).map(drop)
}

/// Writes all but the figures, which it gives back: the page has them.
fn write_all(records: &[Record], results: &Path) -> Result<Vec<Figure>> {
    let text = |name: &str, text: String| files::write_whole(&results.join(name), text.as_bytes());
    let judges = judges(records)?;
    tables::write(records, results)?;
    let cells = cells::section(records);
    text("results.md", cells.markdown())?;
    let summary = Summary::of(records)?;
    text("means.md", summary.markdown())?;
    tables::write_csv(&summary.means, &means::columns(), &results.join("means.csv"))?;
    let found = differences::differences(records, 0)?;
    let summed_up = differences::section(&found, records, judges[0])?;
    text("differences.md", summed_up.markdown())?;
    tables::write_csv(&found.0, &differences::columns(), &results.join("differences.csv"))?;
    let under_attack = attacks::sections(records)?;
    if !under_attack.is_empty() {
        text("attacks.md", attacks::markdown(&under_attack))?;
        tables::write_csv(&attacks::lines(records), &attacks::columns(), &results.join("attacks.csv"))?;
    }
    let points = knobs::points(records);
    if !points.is_empty() {
        tables::write_csv(&points, &knobs::columns(), &results.join("knobs.csv"))?;
    }
    let name = results.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let figures = figures::figures(records)?;
    let made = [vec![summed_up], under_attack, vec![cells]].concat();
    text("report.html", html::page(&name, records, summary, &figures, made)?)?;
    if judges.len() == 1 {
        for name in ["judges.md", "judges.csv", "agreement.csv"] {
            files::remove(&results.join(name))?;
        }
        return Ok(figures);
    }
    let (lines, pairs) = (judged::lines(records), judged::pairs(records)?);
    let mut tables = judged::markdown(&lines, &pairs)?;
    for (i, judge) in judges.iter().enumerate() {
        let found = differences::differences(records, i)?;
        if !found.0.is_empty() {
            tables +=
                &format!("\n## Recovery by {judge}\n\n{}", differences::section(&found, records, judge)?.markdown());
        }
    }
    text("judges.md", tables)?;
    tables::write_csv(&lines, &judged::rates(), &results.join("judges.csv"))?;
    tables::write_csv(&pairs, &judged::agreement_columns(), &results.join("agreement.csv"))?;
    Ok(figures)
}

/// The names of the judges, the deciding one first, which all records share.
fn judges(records: &[Record]) -> Result<Vec<&str>> {
    let names = |record: &'_ Record| record.judges.iter().map(|judged| judged.judge.clone()).collect::<Vec<_>>();
    let first = records.first().context("there are no results yet; run the sweep")?;
    ensure!(!first.judges.is_empty(), "the records name no judge; run the sweep again");
    if let Some(other) = records.iter().find(|record| names(record) != names(first)) {
        let (model, task, count) = other.cell();
        anyhow::bail!(
            "{model}/{task}/{count} {} was judged by {}, others by {}: the sweep's judges have changed. Run it again; \
             stored answers are kept",
            other.method,
            names(other).join(", "),
            names(first).join(", ")
        );
    }
    Ok(first.judges.iter().map(|judged| judged.judge.as_str()).collect())
}

/// The means, and all cells if they are few, for people.
///
/// # Errors
/// When there are no records.
pub fn text(records: &[Record], results: &Path) -> Result<String> {
    let cells = cells::section(records).markdown();
    let cells = if cells.lines().count() <= PRINTED { cells + "\n" } else { String::new() };
    let place = results.display();
    Ok(format!("{cells}{}\nresults, tables and figures: {place}\n", mean_tables::markdown(records)?))
}
