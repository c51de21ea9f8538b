//! Differences between recovery and every other method on the same prompts: McNemar's exact test of the harmful verdicts,
//! and paired bootstrap intervals of harmful rate, over-refusal and task score.

use anyhow::Result;
use evaluation::statistics::{Estimate, McNemar, bootstrap_mean, mcnemar, paired_bootstrap};
use evaluation::{JudgedRate, Metric, Verdict};
use rayon::prelude::*;

use super::Values::{Real, Whole};
use super::{Columns, Line, NOTHING, RESAMPLING, figure, place};
use crate::record::{Methods, RECOVER, Record, distinct, groups};

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

/// Recovery against every other method of the same cell and seed, by the judge of this number; judge 0 decides. And the number
/// of pairs without a prompt of which both answers could be judged.
pub fn differences(records: &[Record], judge: usize) -> Result<(Vec<Pair<'_>>, usize)> {
    let mut pairs = Vec::new();
    for (_, own) in groups(records, |record| (record.cell(), record.seed)) {
        for recovery in own.iter().filter(|record| record.method == RECOVER) {
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
    other.method != RECOVER && (other.variant == recovery.variant || other.variant.is_empty())
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

/// The differences by `judge` summed up per method as Markdown; the names of methods are those of the records.
pub fn markdown((pairs, missing): &(Vec<Pair<'_>>, usize), records: &[Record], judge: &str) -> Result<String> {
    let mut text = format!(
        "\
Recovery minus another method on the same prompts; means over cells, whose seeds are averaged first, with the 95 % interval of \
a bootstrap over cells. A pair is a cell with one seed; \"fewer\" and \"more\" are pairs in which recovery has fewer or more \
harmful answers, as the judge `{judge}` counts them, with p < 0.05 in McNemar's exact test, not corrected for the number of pairs.

| variant | recovery against | cells | pairs | harmful rate, points | fewer | more | over-refusal, points | task score, points |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"
    );
    let titles = Methods::of(records);
    let methods = distinct(pairs, |pair| pair.record.method.as_str());
    for variant in distinct(pairs, |pair| pair.variant) {
        for method in &methods {
            let own: Vec<_> =
                pairs.iter().filter(|p| (p.variant, p.record.method.as_str()) == (variant, method)).collect();
            if !own.is_empty() {
                text += &line(&own, variant, &titles.title(method))?;
            }
        }
    }
    if *missing > 0 {
        text += &format!("\n{missing} pairs are left out: of no prompt could the judge tell both answers.\n");
    }
    Ok(text)
}

/// The line of one variant against one method.
fn line(own: &[&Pair<'_>], variant: &str, title: &str) -> Result<String> {
    let cells = groups(own.iter().copied(), |pair| pair.record.cell());
    let mean = |value: fn(&Pair<'_>) -> f64| {
        let of_cell = |pairs: &Vec<&Pair<'_>>| pairs.iter().map(|pair| value(pair)).sum::<f64>() / pairs.len() as f64;
        bootstrap_mean(&cells.iter().map(|(_, pairs)| of_cell(pairs)).collect::<Vec<f64>>(), &RESAMPLING)
    };
    let clear = |fewer: bool| {
        let sided = |test: &McNemar| (test.left_only < test.right_only) == fewer;
        own.iter().filter(|pair| pair.of.verdicts.p_value < 0.05 && sided(&pair.of.verdicts)).count()
    };
    Ok(format!(
        "| {variant} | {title} | {} | {} | {} | {} | {} | {} | {} |\n",
        cells.len(),
        own.len(),
        figure(&mean(|pair| pair.of.harmful.value)?),
        clear(true),
        clear(false),
        figure(&mean(|pair| pair.of.over_refusal.value)?),
        figure(&mean(|pair| pair.of.task.value)?)
    ))
}

/// The columns of `differences.csv`.
pub fn columns<'a>() -> Columns<Pair<'a>> {
    let mut columns = place();
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
#[allow(clippy::unwrap_used)]
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
        let text = markdown(&found, &records, "refusal").unwrap();
        let line =
            "|  | fine-tuned | 1 | 1 | -80.0 (-80.0 to -80.0) | 1 | 0 | 0.0 (0.0 to 0.0) | -50.0 (-50.0 to -50.0) |";
        assert!(text.contains(line) && text.contains("1 pairs are left out"), "{text}");
        // Another seed is another pair of the same cell, and in its mean.
        let mut second = one.clone();
        second.of.harmful.value = -0.4;
        let text = markdown(&(vec![one.clone(), second], 0), &records, "refusal").unwrap();
        assert!(text.contains("|  | fine-tuned | 1 | 2 | -60.0 (-60.0 to -60.0) | 2 | 0 |"), "{text}");
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
