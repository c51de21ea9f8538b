//! Means over the grid per method: the paper's "33.25 % to 1.74 %" line, and what it costs of the task.
//!
//! Seeds of a cell are averaged first, so that a cell counts once. The tables are of the cells that all methods have been run
//! in ([`shared`]), so that methods can be compared. Intervals draw cells anew, as if they were independent; cells of one
//! model or task are not quite, so with another model or task the mean may move further.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use evaluation::statistics::{Estimate, bootstrap_mean, spread};
use polars::prelude::{Column, NamedFrom, Series};

use super::{distinct, percent, write_csv};
use crate::row::{RESAMPLING, ResultRow};
use crate::sweep::Method;

/// A method's means over the cells that it has rows of.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean {
    /// Name of the variant; empty where the method does not depend on it.
    pub variant: String,
    /// The method.
    pub method: Method,
    /// Number of cells.
    pub cells: usize,
    /// Mean harmful rate.
    pub harmful: Estimate,
    /// Mean share of harmless prompts that were refused.
    pub over_refusal: Estimate,
    /// Mean task score.
    pub task: Estimate,
    /// Mean over the cells of the task score as a share of the fine-tuned model's; cells in which that
    /// is 0 are left out, and there is none without another.
    pub relative: Option<Estimate>,
    /// Mean seconds to make the model.
    pub seconds: f64,
}

/// The rows of the cells in which every method and variant has one of every seed, and the number of cells that are left out:
/// of one that has not been run the aligned model's row is there all the same. All rows where no cell is whole.
#[must_use]
pub fn shared(rows: &[ResultRow]) -> (Vec<ResultRow>, usize) {
    let methods = distinct(rows, |row| (row.variant.as_str(), row.method)).len();
    let seeds = distinct(rows, |row| row.seed).len();
    let cells = distinct(rows, ResultRow::cell);
    let whole = |cell: &&(&str, &str, usize)| rows.iter().filter(|row| row.cell() == **cell).count() == methods * seeds;
    let kept: Vec<(&str, &str, usize)> = cells.iter().filter(whole).copied().collect();
    match kept.len() {
        0 => (rows.to_vec(), cells.len()),
        n => (rows.iter().filter(|row| kept.contains(&row.cell())).cloned().collect(), cells.len() - n),
    }
}

/// The means of every variant and method, in the order of the rows.
///
/// # Errors
/// When there are no rows.
pub fn means(rows: &[ResultRow]) -> Result<Vec<Mean>> {
    distinct(rows, |row| (row.variant.as_str(), row.method))
        .into_iter()
        .map(|(variant, method)| {
            let own: Vec<&ResultRow> =
                rows.iter().filter(|row| row.variant == variant && row.method == method).collect();
            let cells = distinct(own.iter().copied(), ResultRow::cell);
            let over = |value: fn(&ResultRow) -> f64| -> Vec<f64> {
                cells.iter().map(|&cell| mean_of(&own, cell, value).unwrap_or(f64::NAN)).collect()
            };
            let tuned: Vec<&ResultRow> = rows.iter().filter(|row| row.method == Method::FineTuned).collect();
            let shares: Vec<f64> = cells
                .iter()
                .filter_map(|&cell| {
                    let base = mean_of(&tuned, cell, |row| row.task_score).filter(|base| *base > 0.0)?;
                    Some(mean_of(&own, cell, |row| row.task_score)? / base)
                })
                .collect();
            let estimate = |values: &[f64]| bootstrap_mean(values, &RESAMPLING);
            Ok(Mean {
                variant: variant.to_owned(),
                method,
                cells: cells.len(),
                harmful: estimate(&over(|row| row.harmful_rate))?,
                over_refusal: estimate(&over(|row| row.over_refusal))?,
                task: estimate(&over(|row| row.task_score))?,
                relative: if shares.is_empty() { None } else { Some(estimate(&shares)?) },
                seconds: estimate(&over(|row| row.seconds))?.value,
            })
        })
        .collect()
}

/// The mean of a cell's rows, none without one.
fn mean_of(rows: &[&ResultRow], cell: (&str, &str, usize), value: impl Fn(&ResultRow) -> f64) -> Option<f64> {
    let values: Vec<f64> = rows.iter().filter(|row| row.cell() == cell).map(|row| value(row)).collect();
    spread(&values).map(|spread| spread.mean)
}

/// The means as a Markdown table with a sentence per recovery.
///
/// # Errors
/// When there are no rows.
pub fn markdown(rows: &[ResultRow]) -> Result<String> {
    let mut text = sentences(rows)?;
    let (kept, left_out) = shared(rows);
    let means = means(&kept)?;
    if left_out > 0 && kept.len() == rows.len() {
        text += "\nNo cell has been run with all methods yet, so the means are over different cells.\n";
    } else if left_out > 0 {
        text += &format!("\n{left_out} cells are left out of the table: not all methods have been run in them.\n");
    }
    text += "
Means over the cells of the grid; in brackets the 95 % interval of a bootstrap over cells. The seconds are those of the model
itself, without what the cells share (RESTA's unaligned model, the references of SoftSFT) and what it starts from.

| variant | method | cells | harmful rate % | over-refusal % | task score % | of the fine-tuned task score % | seconds to make |
|---|---|--:|--:|--:|--:|--:|--:|
";
    for mean in &means {
        let figure = |estimate: &Estimate| {
            let (low, high) = estimate.interval;
            match mean.cells {
                1 => percent(estimate.value),
                _ => format!("{} ({} to {})", percent(estimate.value), percent(low), percent(high)),
            }
        };
        let relative = mean.relative.as_ref().map_or("-".to_owned(), figure);
        let Mean { variant, method, cells, harmful, over_refusal, task, seconds, .. } = mean;
        let (harmful, over_refusal, task) = (figure(harmful), figure(over_refusal), figure(task));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {variant} | {} | {cells} | {harmful} | {over_refusal} | {task} | {relative} | {seconds:.1} |",
            method.title()
        );
    }
    Ok(text + &by_seed(&kept))
}

/// The means over the grid of each seed, where there are several: what a bootstrap over the cells of one draw cannot tell,
/// as all cells of a model that share its aligned model.
fn by_seed(rows: &[ResultRow]) -> String {
    let seeds = distinct(rows, |row| row.seed);
    if seeds.len() < 2 {
        return String::new();
    }
    let numbers = seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "
The means over the grid by seed ({numbers}), and in brackets their mean ± standard deviation.

| variant | method | harmful rate % | over-refusal % | task score % |
|---|---|--:|--:|--:|
"
    );
    for (variant, method) in distinct(rows, |row| (row.variant.as_str(), row.method)) {
        let figure = |value: fn(&ResultRow) -> f64| {
            let of_seed = |&seed: &u64| {
                let own =
                    |row: &&ResultRow| row.seed == seed && (row.variant.as_str(), row.method) == (variant, method);
                spread(&rows.iter().filter(own).map(value).collect::<Vec<_>>()).map(|of_grid| of_grid.mean)
            };
            let values: Vec<Option<f64>> = seeds.iter().map(of_seed).collect();
            let each = values.iter().map(|value| value.map_or("-".to_owned(), percent)).collect::<Vec<_>>().join(", ");
            let values: Vec<f64> = values.into_iter().flatten().collect();
            let over =
                spread(&values).and_then(|over| Some(format!(" ({} ± {})", percent(over.mean), percent(over.sd?))));
            each + &over.unwrap_or_default()
        };
        let (harmful, refused) = (figure(|row| row.harmful_rate), figure(|row| row.over_refusal));
        let (title, score) = (method.title(), figure(|row| row.task_score));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {variant} | {title} | {harmful} | {refused} | {score} |");
    }
    text
}

/// What each recovery did, in words, over the cells that have its row and the fine-tuned model's.
fn sentences(rows: &[ResultRow]) -> Result<String> {
    let mut text = String::new();
    for variant in distinct(rows.iter().filter(|row| row.method == Method::Recovered), |row| row.variant.as_str()) {
        let own = |row: &&ResultRow| {
            row.method == Method::FineTuned || (row.method == Method::Recovered && row.variant == variant)
        };
        let (kept, _) = shared(&rows.iter().filter(own).cloned().collect::<Vec<_>>());
        let means = means(&kept)?;
        let of = |method| means.iter().find(|mean| mean.method == method);
        let (Some(tuned), Some(mean)) = (of(Method::FineTuned), of(Method::Recovered)) else { continue };
        let name = if variant.is_empty() { String::new() } else { format!(" ({variant})") };
        let (before, after) = (percent(tuned.harmful.value), percent(mean.harmful.value));
        let cost = mean.relative.map_or("an unknown part".to_owned(), |share| format!("{} %", percent(share.value)));
        let _ = writeln!(
            text,
            "Recovery{name}: mean harmful rate {before} % to {after} % over {} fine-tuned models, with {cost} of the \
             fine-tuned models' task score.",
            mean.cells
        );
    }
    Ok(text)
}

/// Writes the means as CSV.
///
/// # Errors
/// When the file cannot be written.
pub fn write(means: &[Mean], path: &Path) -> Result<()> {
    let text = |name: &str, value: fn(&Mean) -> String| -> Column {
        Series::new(name.into(), means.iter().map(value).collect::<Vec<_>>()).into()
    };
    let real = |name: &str, value: fn(&Mean) -> Option<f64>| -> Column {
        Series::new(name.into(), means.iter().map(value).collect::<Vec<_>>()).into()
    };
    let columns = vec![
        text("variant", |mean| mean.variant.clone()),
        text("method", |mean| mean.method.to_string()),
        Series::new("cells".into(), means.iter().map(|mean| mean.cells as u64).collect::<Vec<_>>()).into(),
        real("harmful_rate", |mean| Some(mean.harmful.value)),
        real("harmful_low", |mean| Some(mean.harmful.interval.0)),
        real("harmful_high", |mean| Some(mean.harmful.interval.1)),
        real("over_refusal", |mean| Some(mean.over_refusal.value)),
        real("task_score", |mean| Some(mean.task.value)),
        real("task_low", |mean| Some(mean.task.interval.0)),
        real("task_high", |mean| Some(mean.task.interval.1)),
        real("relative", |mean| mean.relative.map(|share| share.value)),
        real("relative_low", |mean| mean.relative.map(|share| share.interval.0)),
        real("relative_high", |mean| mean.relative.map(|share| share.interval.1)),
        real("seconds", |mean| Some(mean.seconds)),
    ];
    write_csv(means.len(), columns, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn a_mean_is_over_cells_and_relative_to_the_fine_tuned_model_of_the_same_cell() {
        let rows = [
            row("small", 0, Method::FineTuned, 20, 0.8),
            row("small", 300, Method::FineTuned, 60, 0.4),
            row("large", 0, Method::FineTuned, 10, 0.0),
            row("small", 0, Method::Recovered, 2, 0.6),
            row("small", 300, Method::Recovered, 4, 0.4),
            row("large", 0, Method::Recovered, 0, 0.0),
        ];
        let means = means(&rows).unwrap();
        assert_eq!(means.len(), 2);
        let recovered = &means[1];
        assert_eq!((recovered.method, recovered.cells), (Method::Recovered, 3));
        assert!((recovered.harmful.value - 0.02).abs() < 1e-12);
        // 0.6 / 0.8 and 0.4 / 0.4; the cell without a score is left out.
        assert!((recovered.relative.unwrap().value - 0.875).abs() < 1e-12);
        let text = markdown(&rows).unwrap();
        assert!(text.starts_with(
            "Recovery: mean harmful rate 30.0 % to 2.0 % over 3 fine-tuned models, with 87.5 % of the fine-tuned"
        ));
    }

    #[test]
    fn methods_are_compared_over_the_cells_that_all_have() {
        let rows = [
            row("small", 0, Method::Aligned, 0, 0.1),
            row("small", 100, Method::Aligned, 0, 0.1),
            row("small", 0, Method::FineTuned, 20, 0.8),
            row("small", 300, Method::Aligned, 0, 0.1),
            row("small", 300, Method::FineTuned, 90, 0.8),
            row("small", 0, Method::Recovered, 2, 0.8),
        ];
        let (kept, left_out) = shared(&rows);
        assert_eq!((kept.iter().map(|row| row.harmful_count).max(), kept.len(), left_out), (Some(0), 3, 2));
        let text = markdown(&rows).unwrap();
        assert!(text.contains("20.0 % to 2.0 % over 1 fine-tuned") && text.contains("2 cells are left out"), "{text}");
        // Without one that has all, what there is.
        assert_eq!((shared(&rows[1..3]).0.len(), shared(&rows[1..3]).1), (2, 2));
        assert!(markdown(&rows[1..3]).unwrap().contains("over different cells"));
        // A seed without a method is no whole cell either.
        let other = [row("small", 300, Method::Recovered, 4, 0.8), ResultRow { seed: 2, ..rows[4].clone() }];
        let two: Vec<ResultRow> = rows[3..5].iter().chain(&other).cloned().collect();
        assert_eq!(shared(&two).1, 1);
    }

    #[test]
    fn seeds_are_averaged_before_cells_and_variants_stand_apart() {
        let with = |seed, variant: &str, count, harmful| ResultRow {
            seed,
            variant: variant.to_owned(),
            ..row("small", count, Method::Recovered, harmful, 0.5)
        };
        let rows = [with(1, "2/6", 0, 0), with(2, "2/6", 0, 20), with(1, "2/6", 300, 40), with(1, "4/6", 0, 6)];
        let means = means(&rows).unwrap();
        assert_eq!(
            means.iter().map(|mean| (mean.variant.as_str(), mean.cells)).collect::<Vec<_>>(),
            [("2/6", 2), ("4/6", 1)]
        );
        assert!((means[0].harmful.value - 0.25).abs() < 1e-12);
        assert_eq!(means[0].relative, None);
        assert!(!markdown(&[with(1, "", 0, 0), with(1, "", 300, 40)]).unwrap().contains("by seed"));
        let text =
            markdown(&[with(1, "", 0, 0), with(2, "", 0, 20), with(1, "", 300, 40), with(2, "", 300, 60)]).unwrap();
        let line = "|  | recovered | 20.0, 40.0 (30.0 ± 14.1) | 20.0, 20.0 (20.0 ± 0.0) | 50.0, 50.0 (50.0 ± 0.0) |";
        assert!(text.contains("by seed (1, 2)") && text.contains(line), "{text}");
        // A cell without one of the seeds would set a mean over other cells beside the rest.
        let text = markdown(&[with(1, "", 0, 0), with(2, "", 0, 20), with(1, "", 300, 40)]).unwrap();
        assert!(text.contains("1 cells are left out") && text.contains("| 0.0, 20.0 (10.0 ± 14.1) |"), "{text}");
        let text = markdown(&[with(1, "", 0, 0), with(2, "2/6", 300, 40)]).unwrap();
        assert!(text.contains("|  | recovered | 0.0, - |") && text.contains("| 2/6 | recovered | -, 40.0 |"), "{text}");
    }

    #[test]
    fn the_csv_has_a_line_per_method() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("means.csv");
        write(&means(&[row("small", 0, Method::FineTuned, 20, 0.8)]).unwrap(), &path).unwrap();
        let csv = std::fs::read_to_string(path).unwrap();
        assert!(csv.lines().nth(1).unwrap().starts_with("\"\",fine_tuned,1,0.2,0.2,0.2,"), "{csv}");
    }
}
