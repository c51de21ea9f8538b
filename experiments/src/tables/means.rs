//! Means over the grid per method: the paper's "33.25 % to 1.74 %" line, and what it costs of the task.
//!
//! Seeds of a cell are averaged first, so that a cell counts once. The tables are of the cells in which all methods have
//! been run ([`shared`]), so that methods can be compared. Intervals draw the pairs of a model and a task, each with all its
//! cells. A cell that was not recovered is the fine-tuned model again, which is no success of a repair: it is in all rates,
//! but not in the share of the task score.

use std::collections::HashSet;

use anyhow::Result;
use evaluation::statistics::Estimate;

use super::Values::{Real, Text, Whole};
use super::bounds::{Bases, Place, within_bounds};
use super::{Columns, mean_of_cells};
use crate::record::{FINE_TUNED, Record, by_cell, distinct, groups};

/// A method's means over the cells that it has records of, and its worst cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean {
    pub variant: String,
    pub method: String,
    pub cells: usize,
    pub harmful: Estimate,
    pub harmful_worst: f64,
    /// Of the categories that neither fine-tuning nor repairs saw; NaN if there are none.
    pub harmful_held_out: Estimate,
    /// Of all other categories, where there are such.
    pub harmful_others: Estimate,
    pub broken: f64,
    pub over_refusal: Estimate,
    pub over_refusal_worst: f64,
    /// Of harmless prompts that look harmful.
    pub looks_harmful: Estimate,
    pub task: Estimate,
    /// Of the task score as a share of the fine-tuned model's, without the cells in which that is 0 and those that were not
    /// recovered; NaN if no cell is left.
    pub relative: Estimate,
    pub relative_worst: f64,
    /// Number of cells in which the method gave the fine-tuned model back, with any seed.
    pub not_recovered: usize,
    /// Number of cells that meet all three bounds; none without aligned and fine-tuned models to compare with.
    pub meets_all: Option<u64>,
    /// Share of all weights that differ from the fine-tuned model's, and KL to it on harmless prompts; NaN of that itself.
    pub changed: f64,
    pub divergence: f64,
    /// To make the model.
    pub seconds: f64,
    /// The largest of its models, in bytes.
    pub peak_memory: Option<u64>,
    /// What it needs beside the aligned and the fine-tuned model; empty where unknown.
    pub needs: String,
}

/// The records of the cells in which every method and variant has one of every seed, and the number of cells that are left
/// out. All records if no cell is complete.
pub fn shared<'a>(records: impl IntoIterator<Item = &'a Record>) -> (Vec<&'a Record>, usize) {
    let records: Vec<&Record> = records.into_iter().collect();
    let all = || records.iter().copied();
    let full = distinct(all(), Record::arm).len() * distinct(all(), |record| record.seed).len();
    let cells = groups(all(), Record::cell);
    let whole: HashSet<_> = cells.iter().filter(|(_, own)| own.len() == full).map(|(cell, _)| *cell).collect();
    match whole.len() {
        0 => (records, cells.len()),
        n => (all().filter(|record| whole.contains(&record.cell())).collect(), cells.len() - n),
    }
}

/// The means of every variant and method, in the order of the records.
pub fn means(records: &[&Record]) -> Result<Vec<Mean>> {
    let (tuned, within) = (Bases::of(records, FINE_TUNED, Record::task_score), within_bounds(records));
    let arms = groups(records.iter().copied(), Record::arm).into_iter();
    arms.map(|(arm, own)| {
        let over = |value| by_cell(own.iter().copied(), value);
        let plain = |value| over(value).into_iter().map(|(_, value)| value).collect::<Vec<f64>>();
        let estimate = |value| mean_of_cells(&over(value));
        let scores = over(Record::task_score);
        let given_back = own.iter().filter(|record| record.is_not_recovered());
        let given_back: HashSet<Place<'_>> = given_back.map(|record| record.cell()).collect();
        let relative = |(cell, score): (_, f64)| {
            let base = tuned.get(arm.variant, cell).filter(|base| *base > 0.0 && !given_back.contains(&cell))?;
            Some((cell, score / base))
        };
        let shares: Vec<(Place<'_>, f64)> = scores.iter().copied().filter_map(relative).collect();
        Ok(Mean {
            variant: arm.variant.to_owned(),
            method: arm.method.to_owned(),
            cells: scores.len(),
            harmful: estimate(Record::harmful_rate)?,
            harmful_worst: plain(Record::harmful_rate).into_iter().fold(f64::NAN, f64::max),
            harmful_held_out: estimate(Record::harmful_held_out)?,
            harmful_others: estimate(Record::harmful_others)?,
            broken: estimate(Record::broken)?.value,
            over_refusal: estimate(Record::over_refusal)?,
            over_refusal_worst: plain(Record::over_refusal).into_iter().fold(f64::NAN, f64::max),
            looks_harmful: estimate(Record::over_refusal_looks_harmful)?,
            task: mean_of_cells(&scores)?,
            relative: mean_of_cells(&shares)?,
            relative_worst: shares.iter().map(|share| share.1).fold(f64::NAN, f64::min),
            not_recovered: given_back.len(),
            meets_all: within.get(&arm).map(|cells| cells.values().filter(|meets| **meets).count() as u64),
            changed: known_mean(&plain(Record::changed)),
            divergence: known_mean(&plain(Record::divergence)),
            seconds: estimate(|record| record.seconds)?.value,
            peak_memory: own.iter().filter_map(|record| record.peak_memory).max(),
            needs: own.iter().find_map(|record| record.needs.as_deref()).map(in_words).unwrap_or_default(),
        })
    })
    .collect()
}

/// What a method needs, as one text.
fn in_words(needs: &[String]) -> String {
    if needs.is_empty() { "nothing".to_owned() } else { needs.join("; ") }
}

/// The mean of the values that are known; NaN without one.
fn known_mean(values: &[f64]) -> f64 {
    let known: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    known.iter().sum::<f64>() / known.len() as f64
}

/// The columns of `means.csv`.
pub fn columns() -> Columns<Mean> {
    vec![
        ("variant", Text(|mean| mean.variant.clone())),
        ("method", Text(|mean| mean.method.clone())),
        ("cells", Whole(|mean| Some(mean.cells as u64))),
        ("harmful_rate", Real(|mean| mean.harmful.value)),
        ("harmful_low", Real(|mean| mean.harmful.interval.0)),
        ("harmful_high", Real(|mean| mean.harmful.interval.1)),
        ("harmful_worst", Real(|mean| mean.harmful_worst)),
        ("harmful_held_out", Real(|mean| mean.harmful_held_out.value)),
        ("harmful_others", Real(|mean| mean.harmful_others.value)),
        ("broken", Real(|mean| mean.broken)),
        ("over_refusal", Real(|mean| mean.over_refusal.value)),
        ("over_refusal_worst", Real(|mean| mean.over_refusal_worst)),
        ("over_refusal_looks_harmful", Real(|mean| mean.looks_harmful.value)),
        ("task_score", Real(|mean| mean.task.value)),
        ("task_low", Real(|mean| mean.task.interval.0)),
        ("task_high", Real(|mean| mean.task.interval.1)),
        ("relative", Real(|mean| mean.relative.value)),
        ("relative_low", Real(|mean| mean.relative.interval.0)),
        ("relative_high", Real(|mean| mean.relative.interval.1)),
        ("relative_worst", Real(|mean| mean.relative_worst)),
        ("not_recovered", Whole(|mean| Some(mean.not_recovered as u64))),
        ("meets_all", Whole(|mean| mean.meets_all)),
        ("changed", Real(|mean| mean.changed)),
        ("divergence", Real(|mean| mean.divergence)),
        ("seconds", Real(|mean| mean.seconds)),
        ("peak_memory", Whole(|mean| mean.peak_memory)),
        ("needs", Text(|mean| mean.needs.clone())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{record, scores};
    use crate::record::{ALIGNED, RECOVER};
    use crate::tables::mean_tables::markdown;

    fn all(records: &[Record]) -> Vec<Mean> {
        means(&records.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_mean_is_over_cells_and_relative_to_the_fine_tuned_model_of_the_same_cell() {
        let of = |method, figures: [(usize, f64); 3]| {
            let cells = [("small", 0), ("small", 300), ("large", 0)].into_iter().zip(figures);
            cells
                .map(|((model, count), (harmful, score))| record(model, count, method, harmful, score))
                .collect::<Vec<_>>()
        };
        let tuned = of(FINE_TUNED, [(20, 0.8), (60, 0.4), (10, 0.0)]);
        let records = [tuned, of(RECOVER, [(2, 0.6), (4, 0.4), (0, 0.0)])].concat();
        let recovered = &all(&records)[1];
        assert_eq!((recovered.method.as_str(), recovered.cells, recovered.harmful_worst), (RECOVER, 3, 0.04));
        assert!((recovered.harmful.value - 0.02).abs() < 1e-12);
        // 0.6 / 0.8 and 0.4 / 0.4; the cell without a score is left out.
        assert!((recovered.relative.value - 0.875).abs() < 1e-12 && (recovered.relative_worst - 0.75).abs() < 1e-12);
        assert_eq!(recovered.meets_all, None, "there is no aligned model to compare with");
        let text = markdown(&records).unwrap();
        let start =
            "Recovery: mean harmful rate 30.0 % to 2.0 % over 3 fine-tuned models, with 87.5 % of the fine-tuned";
        assert!(text.starts_with(start) && text.contains("over-refusal 20.0 % to 20.0 %."), "{text}");
    }

    #[test]
    fn a_cell_that_was_not_recovered_is_in_all_rates_but_not_in_the_share_of_the_task() {
        let of = |method, figures: [(usize, f64); 2]| {
            let cells = [0, 300].into_iter().zip(figures);
            cells.map(|(count, (harmful, score))| record("m", count, method, harmful, score)).collect::<Vec<_>>()
        };
        let [aligned, tuned] = [of(ALIGNED, [(0, 0.1); 2]), of(FINE_TUNED, [(2, 0.8), (90, 0.8)])];
        let (mut recovered, mut resta) = (of(RECOVER, [(2, 0.8), (0, 0.6)]), of("resta", [(2, 0.8), (0, 0.6)]));
        recovered[0].notes.push("not recovered: f1 on 9 samples fell from 0.9 to 0.5, and 0.8 is allowed".to_owned());
        resta[0].notes.push("gamma 0.5, no point keeps all bounds on held-out prompts".to_owned());
        let records = [aligned, tuned, recovered, resta].concat();
        let means = all(&records);
        let found = means[2..].iter().map(|mean| (mean.harmful.value, mean.meets_all, mean.not_recovered));
        assert_eq!(found.collect::<Vec<_>>(), [(0.01, Some(1), 1), (0.01, Some(1), 0)]);
        let shares = [means[2].relative.value, means[2].relative_worst, means[3].relative.value];
        assert!(shares.iter().zip([0.75, 0.75, 0.875]).all(|(share, of)| (share - of).abs() < 1e-12), "{shares:?}");
        let text = markdown(&records).unwrap();
        let start = "over 2 fine-tuned models (1 not recovered, and not in the share of the task score), with 75.0 %";
        assert!(text.contains(start), "{text}");
    }

    #[test]
    fn what_a_method_needs_is_the_last_column() {
        let with = |method, needs: &[&str]| {
            let needs = Some(needs.iter().map(|need| (*need).to_owned()).collect());
            Record { needs, ..record("m", 0, method, 0, 0.5) }
        };
        let strong = with("strong", &["harmful prompts", "task samples"]);
        let records = [with(FINE_TUNED, &[]), strong, record("m", 0, RECOVER, 0, 0.5)];
        let needs: Vec<String> = all(&records).into_iter().map(|mean| mean.needs).collect();
        assert_eq!(needs, ["nothing", "harmful prompts; task samples", ""]);
        let text = markdown(&records).unwrap();
        assert!(text.contains("| seconds to make | needs |"), "{text}");
        assert!(text.contains("| 100.0 | 0 | 1.0 | harmful prompts; task samples |"), "{text}");
    }

    #[test]
    fn an_interval_draws_the_pairs_of_a_model_and_a_task_whole() {
        let cells = |model, harmful| (0..20).map(move |count| record(model, count, RECOVER, harmful, 0.5));
        let records: Vec<Record> = cells("a", 0).chain(cells("b", 100)).collect();
        let harmful = all(&records)[0].harmful;
        assert_eq!((harmful.value, harmful.interval), (0.5, (0.0, 1.0)), "of two pairs one is often drawn twice");
        let alone = &all(&records[..20])[0];
        assert!(alone.harmful.value == 0.0 && alone.harmful.interval.0.is_nan(), "{alone:?}");
        let text = markdown(&records[..20]).unwrap();
        assert!(text.contains("|  | recovery | 20 | 0.0 | 0.0 | 20.0 | 50.0 | - | 0 | 1.0 |  |"), "{text}");
    }

    #[test]
    fn a_variant_with_fine_tuned_models_of_its_own_is_measured_by_these() {
        let of = |variant: &str, method, harmful, score| Record {
            variant: variant.to_owned(),
            ..record("small", 0, method, harmful, score)
        };
        let shared = [of("", ALIGNED, 0, 0.1), of("", FINE_TUNED, 50, 0.5), of("other layer", RECOVER, 1, 0.5)];
        let own = [of("rank 2", FINE_TUNED, 80, 0.25), of("rank 2", RECOVER, 1, 0.25)];
        let records = [&shared[..], &own].concat();
        let recovered: Vec<Mean> = all(&records).into_iter().filter(|mean| mean.method == RECOVER).collect();
        let found = recovered.iter().map(|mean| (mean.variant.as_str(), mean.relative.value, mean.meets_all));
        assert_eq!(found.collect::<Vec<_>>(), [("other layer", 1.0, Some(1)), ("rank 2", 1.0, Some(1))]);
        let text = markdown(&records).unwrap();
        let sentence = |name: &str, before: &str| format!("Recovery ({name}): mean harmful rate {before} % to 1.0 %");
        assert!(
            text.contains(&sentence("other layer", "50.0")) && text.contains(&sentence("rank 2", "80.0")),
            "{text}"
        );
    }

    #[test]
    fn a_cell_meets_the_bounds_in_every_respect_or_not_at_all() {
        let mut records = vec![record("m", 0, ALIGNED, 0, 0.1), record("m", 0, FINE_TUNED, 90, 0.5)];
        let meets = |records: &[Record], harmful, score, refused| {
            let mut one = record("m", 0, RECOVER, harmful, score);
            one.judges[0].over_refusal = Some(scores("refusal", refused, ['r', 'c']));
            all(&[records, &[one]].concat())[2].meets_all == Some(1)
        };
        let found = [(2, 0.49, 22), (3, 0.49, 22), (2, 0.48, 22), (2, 0.49, 23)];
        assert_eq!(
            found.map(|(harmful, score, refused)| meets(&records, harmful, score, refused)),
            [true, false, false, false]
        );
        records[1].score.value = 0.0;
        assert!(!meets(&records, 0, 0.0, 0), "nothing can be lost of a task that was not learned");
        let text = markdown(&records).unwrap();
        assert!(text.contains("|  | fine-tuned | 1 | 0 | 90.0 | 20.0 | - | - | - |"), "{text}");
    }

    #[test]
    fn methods_are_compared_over_the_cells_that_all_have() {
        let aligned = [0, 100, 300].map(|count| record("small", count, ALIGNED, 0, 0.1));
        let tuned = [record("small", 0, FINE_TUNED, 20, 0.8), record("small", 300, FINE_TUNED, 90, 0.8)];
        let records = [&aligned[..], &tuned, &[record("small", 0, RECOVER, 2, 0.8)]].concat();
        let (kept, left_out) = shared(&records);
        assert!(kept.iter().all(|record| record.harmful_count == 0) && (kept.len(), left_out) == (3, 2));
        let text = markdown(&records).unwrap();
        assert!(text.contains("20.0 % to 2.0 % over 1 fine-tuned") && text.contains("2 cells are left out"), "{text}");
        assert_eq!((shared(&records[1..4]).0.len(), shared(&records[1..4]).1), (3, 3), "no cell has all");
        assert!(markdown(&records[1..4]).unwrap().contains("over different cells"));
    }

    #[test]
    fn seeds_are_averaged_before_cells_and_variants_are_apart() {
        let with = |seed, variant: &str, count, harmful| Record {
            seed,
            variant: variant.to_owned(),
            ..record("small", count, RECOVER, harmful, 0.5)
        };
        let means = all(&[with(1, "2/6", 0, 0), with(2, "2/6", 0, 20), with(1, "2/6", 300, 40), with(1, "4/6", 0, 6)]);
        let cells: Vec<_> = means.iter().map(|mean| (mean.variant.as_str(), mean.cells)).collect();
        assert_eq!(cells, [("2/6", 2), ("4/6", 1)]);
        assert!((means[0].harmful.value - 0.25).abs() < 1e-12 && means[0].relative.value.is_nan());
        let mut records = vec![with(1, "", 0, 0), with(1, "", 300, 40), with(2, "", 0, 20)];
        let text = markdown(&records).unwrap();
        assert!(text.contains("1 cells are left out") && text.contains("| 0.0, 20.0 (10.0 ± 14.1) |"), "{text}");
        records.push(with(2, "", 300, 60));
        let text = markdown(&records).unwrap();
        let line = "|  | recovery | 20.0, 40.0 (30.0 ± 14.1) | 20.0, 20.0 (20.0 ± 0.0) | 50.0, 50.0 (50.0 ± 0.0) |";
        assert!(text.contains("by seed (1, 2)") && text.contains(line), "{text}");
        assert!(!markdown(&records[..2]).unwrap().contains("by seed"));
    }
}
