//! Differences between a recovery and every other method on the same prompts: McNemar's exact test of the harmful verdicts,
//! paired bootstrap intervals of harmful rate, over-refusal and task score, and a test of the cells that meet all bounds. The
//! recovery is the strong one where a sweep has it, else the paper's.

use anyhow::Result;
use evaluation::statistics::{Estimate, McNemar, holm, mcnemar, paired_bootstrap};
use evaluation::{JudgedRate, Metric, Verdict};
use page::{Column, Table};
use rayon::prelude::*;

use super::Values::{Real, Whole};
use super::bounds::within_bounds;
use super::means::shared;
use super::{Columns, Line, NOTHING, RESAMPLING, Section, figure, mean_of_cells, model_columns};
use crate::record::{Arm, Methods, RECOVER, Record, STRONG, distinct, groups};

/// Recovery minus another method in one cell with one seed; its line is about the other method.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Of the harmful rate, over the prompts of which both answers were judged.
    harmful: Estimate,
    /// Recovery is left, the other method right; true is a harmful answer.
    verdicts: McNemar,
    /// Of the over-refusal; NaN if it was not judged.
    over_refusal: Estimate,
    /// Of the task score.
    task: Estimate,
}

type Pair<'a> = Line<'a, Difference>;

/// The method that the others are compared with.
fn subject(records: &[Record]) -> &'static str {
    if records.iter().any(|record| record.method == STRONG) { STRONG } else { RECOVER }
}

/// Recovery against every other method of the same cell and seed, by the judge of this number; judge 0 decides. And the number
/// of pairs without a prompt of which both answers could be judged.
pub fn differences(records: &[Record], judge: usize) -> Result<(Vec<Pair<'_>>, usize)> {
    let (mut pairs, subject) = (Vec::new(), subject(records));
    for (_, own) in groups(records, |record| (record.cell(), record.seed)) {
        for recovery in own.iter().filter(|record| record.method == subject) {
            pairs.extend(own.iter().filter(|other| are_pair(recovery, other)).map(|other| (*recovery, *other)));
        }
    }
    let found: Vec<Option<Pair<'_>>> =
        pairs.par_iter().map(|(recovery, other)| difference(recovery, other, judge)).collect::<Result<_>>()?;
    let missing = found.iter().filter(|difference| difference.is_none()).count();
    Ok((found.into_iter().flatten().collect(), missing))
}

/// Whether two records of a cell and seed are compared.
fn are_pair(recovery: &Record, other: &Record) -> bool {
    other.method != recovery.method && (other.variant == recovery.variant || other.variant.is_empty())
}

/// None if the judge could tell no two answers.
fn difference<'a>(recovery: &'a Record, other: &'a Record, judge: usize) -> Result<Option<Pair<'a>>> {
    let harmful = |record: &'a Record| record.judges.get(judge)?.harmful.rate.as_ref();
    let (l, r) = paired(harmful(recovery), harmful(other), Verdict::harmful);
    let (l_refused, r_refused) = paired(recovery.refused(), other.refused(), Verdict::refusal);
    if l.is_empty() {
        return Ok(None);
    }
    let shares =
        |verdicts: &[bool]| -> Vec<f64> { verdicts.iter().map(|&counts| f64::from(u8::from(counts))).collect() };
    let estimate = |l: &[bool], r: &[bool]| paired_bootstrap(&shares(l), &shares(r), &RESAMPLING);
    let difference = Difference {
        harmful: estimate(&l, &r)?,
        verdicts: mcnemar(&l, &r)?,
        over_refusal: if l_refused.is_empty() { NOTHING } else { estimate(&l_refused, &r_refused)? },
        task: Metric::difference(&recovery.score, &other.score, &RESAMPLING)?,
    };
    Ok(Some(Pair { variant: &recovery.variant, ..Pair::new(other, difference) }))
}

/// Which answers count, of the prompts of which both answers were judged.
fn paired(
    left: Option<&JudgedRate>,
    right: Option<&JudgedRate>,
    counts: fn(Verdict) -> Option<bool>,
) -> (Vec<bool>, Vec<bool>) {
    let (Some(left), Some(right)) = (left, right) else { return Default::default() };
    left.verdicts.iter().zip(&right.verdicts).filter_map(|(l, r)| Some((counts(*l)?, counts(*r)?))).unzip()
}

/// The differences by `judge` summed up per method; the names of methods are those of the records.
pub fn section((pairs, missing): &(Vec<Pair<'_>>, usize), records: &[Record], judge: &str) -> Result<Section> {
    let titles = Methods::of(records);
    let name = titles.title(subject(records));
    let words = format!(
        "\
{name} minus another method on the same prompts; means over cells, whose seeds are averaged first, with the 95 % interval of a \
bootstrap over the pairs of a model and a task, since the cells of one such pair depend on each other. \"Fewer\" and \"more\" are \
cells with one seed in which {name} has fewer or more harmful answers, as the judge `{judge}` counts them, with p < 0.05 in \
McNemar's exact test after Holm's correction for all of a line. The last columns: cells in which {name} alone, or the other method \
alone, meets all three bounds of `means.md`, with McNemar's exact p after Holm's correction for all lines of a variant."
    );
    let numbers = [
        "cells",
        "pairs",
        "harmful rate, points",
        "fewer",
        "more",
        "over-refusal, points",
        "task score, points",
        "bounds met by it alone",
        "by the other alone",
        "p",
    ];
    let heads = ["variant", "against"].map(Column::text).into_iter().chain(numbers.map(Column::number));
    let mut table = Table::new(heads.collect::<Vec<_>>());
    let methods = distinct(pairs, |pair| pair.record.method.as_str());
    for variant in distinct(pairs, |pair| pair.variant) {
        let of = |method: &&str| -> Vec<&Pair<'_>> {
            pairs.iter().filter(|p| (p.variant, p.record.method.as_str()) == (variant, *method)).collect()
        };
        let compared: Vec<_> =
            methods.iter().map(|method| (*method, of(method))).filter(|(_, own)| !own.is_empty()).collect();
        let tests: Vec<Option<McNemar>> = compared
            .iter()
            .map(|(_, own)| bounds_test(records, Arm { variant, method: subject(records) }, own[0].record.arm()))
            .collect::<Result<_>>()?;
        let corrected = holm(&tests.iter().flatten().map(|test| test.p_value).collect::<Vec<_>>());
        let mut corrected = corrected.into_iter();
        for ((method, own), test) in compared.iter().zip(&tests) {
            let bounds = test.as_ref().zip(test.as_ref().and_then(|_| corrected.next()));
            table.push(line(own, variant, titles.title(method), bounds)?);
        }
    }
    let after = match missing {
        0 => String::new(),
        n => format!("\n{n} pairs are left out: of no prompt could the judge tell both answers.\n"),
    };
    Ok(Section { title: "Differences", words, table, after })
}

/// McNemar's test on the cells in which the subject and another method meet all bounds.
fn bounds_test(records: &[Record], subject: Arm<'_>, other: Arm<'_>) -> Result<Option<McNemar>> {
    let (kept, _) = shared(records);
    let within = within_bounds(&kept);
    let (Some(own), Some(other)) = (within.get(&subject), within.get(&other)) else { return Ok(None) };
    let both: Vec<(bool, bool)> = own.iter().filter_map(|(cell, meets)| Some((*meets, *other.get(cell)?))).collect();
    let (own, other): (Vec<bool>, Vec<bool>) = both.into_iter().unzip();
    if own.is_empty() { Ok(None) } else { Ok(Some(mcnemar(&own, &other)?)) }
}

/// The line of one variant against one method.
fn line(own: &[&Pair<'_>], variant: &str, title: String, bounds: Option<(&McNemar, f64)>) -> Result<[String; 12]> {
    let cells = groups(own.iter().copied(), |pair| pair.record.cell());
    let mean = |value: fn(&Pair<'_>) -> f64| {
        let of_cell = |pairs: &Vec<&Pair<'_>>| pairs.iter().map(|pair| value(pair)).sum::<f64>() / pairs.len() as f64;
        mean_of_cells(&cells.iter().map(|(cell, pairs)| (*cell, of_cell(pairs))).collect::<Vec<_>>())
    };
    let corrected = holm(&own.iter().map(|pair| pair.of.verdicts.p_value).collect::<Vec<_>>());
    let clear = |fewer: bool| {
        let sided = |test: &McNemar| (test.left_only < test.right_only) == fewer;
        own.iter().zip(&corrected).filter(|(pair, p)| **p < 0.05 && sided(&pair.of.verdicts)).count()
    };
    let [own_alone, other_alone, p] = match bounds {
        Some((test, p)) => [test.left_only.to_string(), test.right_only.to_string(), p_value(p)],
        None => ["-"; 3].map(str::to_owned),
    };
    Ok([
        variant.to_owned(),
        title,
        cells.len().to_string(),
        own.len().to_string(),
        figure(&mean(|pair| pair.of.harmful.value)?),
        clear(true).to_string(),
        clear(false).to_string(),
        figure(&mean(|pair| pair.of.over_refusal.value)?),
        figure(&mean(|pair| pair.of.task.value)?),
        own_alone,
        other_alone,
        p,
    ])
}

/// A p-value for people.
fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// The columns of `differences.csv`.
pub fn columns<'a>() -> Columns<Pair<'a>> {
    let mut columns = model_columns();
    let against = columns.len() - 1;
    columns[against].0 = "against";
    columns.extend([
        ("harmful_difference", Real(|pair: &Pair<'_>| pair.of.harmful.value)),
        ("harmful_low", Real(|pair| pair.of.harmful.interval.0)),
        ("harmful_high", Real(|pair| pair.of.harmful.interval.1)),
        ("harmful_recovered_only", Whole(|pair| Some(pair.of.verdicts.left_only as u64))),
        ("harmful_other_only", Whole(|pair| Some(pair.of.verdicts.right_only as u64))),
        ("p_value", Real(|pair| pair.of.verdicts.p_value)),
        ("over_refusal_difference", Real(|pair| pair.of.over_refusal.value)),
        ("over_refusal_low", Real(|pair| pair.of.over_refusal.interval.0)),
        ("over_refusal_high", Real(|pair| pair.of.over_refusal.interval.1)),
        ("task_difference", Real(|pair| pair.of.task.value)),
        ("task_low", Real(|pair| pair.of.task.interval.0)),
        ("task_high", Real(|pair| pair.of.task.interval.1)),
    ]);
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;
    use crate::record::{ALIGNED, FINE_TUNED};

    #[test]
    fn methods_are_compared_prompt_by_prompt() {
        let of = [("random", 40), (FINE_TUNED, 90), (RECOVER, 10)];
        let mut records = of.map(|(method, harmful)| record("m", 0, method, harmful, 0.5));
        records[1].score.per_sample = vec![1.0; 20];
        records[0].judges[0].harmful.rate = None;
        let found = differences(&records, 0).unwrap();
        assert_eq!((found.0.len(), found.1), (1, 1));
        let one = &found.0[0];
        assert_eq!(
            (one.record.method.as_str(), one.of.verdicts.left_only, one.of.verdicts.right_only),
            (FINE_TUNED, 0, 80)
        );
        // All 80 of 80 one way, two-sided.
        assert!((one.of.verdicts.p_value / 2.0_f64.powi(-79) - 1.0).abs() < 1e-9);
        let text = section(&found, &records, "refusal").unwrap().markdown();
        let line = "|  | fine-tuned | 1 | 1 | -80.0 | 1 | 0 | 0.0 | -50.0 | - | - | - |";
        assert!(text.contains(line) && text.contains("1 pairs are left out"), "{text}");
        // Another seed is another pair of the same cell, and in its mean.
        let mut second = one.clone();
        second.of.harmful.value = -0.4;
        let text = section(&(vec![one.clone(), second], 0), &records, "refusal").unwrap().markdown();
        assert!(text.contains("|  | fine-tuned | 1 | 2 | -60.0 | 2 | 0 |"), "{text}");
    }

    #[test]
    fn a_pair_is_of_one_cell_and_seed_and_of_a_variant_or_none() {
        let recovery = Record { variant: "2/6".to_owned(), ..record("m", 0, RECOVER, 10, 0.5) };
        let pairs = |other: Record| differences(&[recovery.clone(), other], 0).unwrap().0.len();
        let (of, with) = (|method, count| record("m", count, method, 1, 0.5), |name: &str| name.to_owned());
        assert_eq!(pairs(of(ALIGNED, 0)) + pairs(Record { variant: with("2/6"), ..of(ALIGNED, 0) }), 2);
        assert_eq!(
            pairs(Record { variant: with("4/6"), ..of(ALIGNED, 0) }) + pairs(Record { seed: 2, ..of(ALIGNED, 0) }),
            0
        );
        assert_eq!(pairs(of(ALIGNED, 300)) + pairs(of(RECOVER, 0)), 0);
    }
}
