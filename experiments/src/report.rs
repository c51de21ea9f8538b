//! What a sweep comes to, from its rows: the tables and figures of a results directory.
//!
//! Nothing here needs a model; `tables` and `figures` make it again from the stored rows.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::figures;
use crate::row::ResultRow;
use crate::stages::SweepJudge;
use crate::store::{Roots, remove_if_there, write_whole};
use crate::tables::{cells, differences, judged, means};

/// With more lines than this the table of all cells is not printed.
const PRINTED: usize = 40;

/// Writes tables and figures of the rows into `results`; per-prompt verdicts are those of the `stages`.
///
/// # Errors
/// When there are no rows, or a file cannot be written.
pub fn write(rows: &[ResultRow], judges: &[SweepJudge], stages: &Roots, results: &Path) -> Result<()> {
    write_tables(rows, judges, stages, results)?;
    figures::write(rows, &results.join("figures"))
}

/// Writes `results.md`, `means.{md,csv}`, `differences.{md,csv}` and, where the sweep names judges, `judges.{md,csv}` and
/// `agreement.csv`.
///
/// # Errors
/// As [`write()`].
pub fn write_tables(rows: &[ResultRow], judges: &[SweepJudge], stages: &Roots, results: &Path) -> Result<()> {
    let text = |name: &str, text: String| write_whole(&results.join(name), |file| Ok(file.write_all(text.as_bytes())?));
    text("results.md", cells::markdown(rows))?;
    text("means.md", means::markdown(rows)?)?;
    means::write(&means::means(&means::shared(rows).0)?, &results.join("means.csv"))?;
    let (differences, missing) = differences::differences(rows, judges.first(), stages)?;
    let of_before = results.join("differences.csv");
    if differences.is_empty() && missing > 0 && of_before.exists() {
        tracing::warn!(
            "the evaluation stages of all {missing} pairs, or the first judge's verdicts on them, are not there: {} and \
             differences.md stay as they were",
            of_before.display()
        );
    } else {
        let judge = differences::name(judges.first());
        text("differences.md", differences::markdown(&differences, missing, &judge)?)?;
        differences::write(&differences, &of_before)?;
    }
    if judges.is_empty() {
        return ["judges.md", "judges.csv", "agreement.csv"]
            .iter()
            .try_for_each(|name| remove_if_there(&results.join(name)));
    }
    let judged = judged::Judged::of(rows, judges, stages)?;
    let mut tables = judged.markdown()?;
    for judge in judges {
        let (differences, missing) = differences::differences(rows, Some(judge), stages)?;
        if !differences.is_empty() {
            tables += &format!("\n## Recovery by {}\n\n", judge.name());
            tables += &differences::markdown(&differences, missing, judge.name())?;
        }
    }
    text("judges.md", tables)?;
    judged.write_rates(&results.join("judges.csv"))?;
    judged.write_agreement(&results.join("agreement.csv"))
}

/// Prints the means, and all cells where they are few.
///
/// # Errors
/// When there are no rows.
pub fn print(rows: &[ResultRow], results: &Path) -> Result<()> {
    let cells = cells::markdown(rows);
    if cells.lines().count() <= PRINTED {
        println!("{cells}");
    }
    println!("{}", means::markdown(rows)?);
    println!("results, tables and figures: {}", results.display());
    Ok(())
}
