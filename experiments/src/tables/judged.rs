//! What each judge of a sweep says of the same answers to the harmful prompts: rates with intervals, and how far each two
//! agree (paper, "Evaluation metrics", where further judges check the first). Which judge is right is not told here.

use std::collections::BTreeSet;

use anyhow::Result;
use evaluation::statistics::{Agreement, agreement};
use evaluation::{JudgeScores, JudgedRate, Verdict};

use super::Values::{Real, Text, Whole};
use super::{Columns, Line, model_columns, percent, with_interval};
use crate::record::{Judged, Record, groups};

/// One model by two judges.
#[derive(Debug)]
pub struct Pair<'a> {
    left: Side<'a>,
    right: Side<'a>,
    agreement: Agreement,
}

/// A judge and its verdicts.
#[derive(Debug)]
struct Side<'a> {
    judge: &'a str,
    verdicts: Vec<Verdict>,
}

impl<'a> Side<'a> {
    /// A judge that can tell no answer has no rate to hold verdicts.
    fn of(Judged { judge, harmful, .. }: &'a Judged) -> Self {
        let verdicts = harmful.rate.as_ref().map(|rate| rate.verdicts.clone());
        Self { judge, verdicts: verdicts.unwrap_or_else(|| vec![Verdict::Unknown; harmful.n]) }
    }
}

impl Pair<'_> {
    /// Both judges' names.
    fn judges(&self) -> String {
        format!("{} and {}", self.left.judge, self.right.judge)
    }
}

/// A line per model and judge.
pub fn lines(records: &[Record]) -> Vec<Line<'_, &Judged>> {
    records.iter().flat_map(|record| record.judges.iter().map(move |judged| Line::new(record, judged))).collect()
}

/// A line per model and two judges.
pub fn pairs(records: &[Record]) -> Result<Vec<Line<'_, Pair<'_>>>> {
    let mut pairs = Vec::new();
    for record in records {
        for (i, left) in record.judges.iter().enumerate() {
            for right in &record.judges[i + 1..] {
                let (left, right) = (Side::of(left), Side::of(right));
                let agreement = agreement(&left.verdicts, &right.verdicts)?;
                pairs.push(Line::new(record, Pair { left, right, agreement }));
            }
        }
    }
    Ok(pairs)
}

/// The tables as Markdown; shares are in percent.
pub fn markdown(lines: &[Line<'_, &Judged>], pairs: &[Line<'_, Pair<'_>>]) -> Result<String> {
    let mut text = "\
All judges read the same stored answers. A rate is over the answers that the judge can tell, with Wilson's 95 % interval; \
unknown are the answers to harmful prompts that it cannot tell.

| model | task | injected | seed | variant | method | judge | harmful rate % | over-refusal % | prompts | unknown | failed |
|---|---|--:|--:|---|---|---|--:|--:|--:|--:|--:|
"
    .to_owned();
    for Line { record, of, .. } in lines {
        let JudgeScores { n, unknown, failed, rate, .. } = &of.harmful;
        let rate = rate.as_ref().map_or("unknown".to_owned(), |rate| with_interval(rate.rate, rate.interval));
        let (judge, refused) = (&of.judge, percent(real(of.over_refusal.as_ref(), |rate| rate.rate)));
        text += &format!("| {} | {judge} | {rate} | {refused} | {n} | {unknown} | {failed} |\n", words(record));
    }
    text += "\nAgreement on harmful, not harmful or unknown:\n\n\
             | model | task | injected | seed | variant | method | judges | agreement % | Cohen's kappa | differ |\n\
             |---|---|--:|--:|---|---|---|--:|--:|--:|\n";
    for Line { record, of, .. } in pairs {
        text += &format!("| {} | {} | {} |\n", words(record), of.judges(), figures(&of.agreement));
    }
    for (judges, own) in groups(pairs, |pair| pair.of.judges()) {
        text += &pooled(&judges, &own)?;
    }
    Ok(text)
}

/// The line of two judges over the answers of all models; a model that cells share counts once.
fn pooled(judges: &str, pairs: &[&Line<'_, Pair<'_>>]) -> Result<String> {
    let mut models = BTreeSet::new();
    let once = pairs.iter().filter(|pair| models.insert(&pair.record.model_stage));
    let (l, r): (Vec<_>, Vec<_>) = once.map(|pair| (&*pair.of.left.verdicts, &*pair.of.right.verdicts)).unzip();
    let figures = figures(&agreement(&l.concat(), &r.concat())?);
    Ok(format!("| all {} models |  |  |  |  |  | {judges} | {figures} |\n", models.len()))
}

/// A figure of a judge's rate; NaN if it can tell no answer.
fn real(scores: Option<&JudgeScores>, value: fn(&JudgedRate) -> f64) -> f64 {
    scores.and_then(|scores| scores.rate.as_ref()).map_or(f64::NAN, value)
}

fn words(record: &Record) -> String {
    let Record { model, task, harmful_count, seed, variant, method, .. } = record;
    format!("{model} | {task} | {harmful_count} | {seed} | {variant} | {method}")
}

fn figures(agreement: &Agreement) -> String {
    let kappa = agreement.kappa.map_or("undefined (one class)".to_owned(), |kappa| format!("{kappa:.3}"));
    format!("{} | {kappa} | {}", percent(agreement.observed), agreement.differ.len())
}

/// The columns of `judges.csv`; a rate is empty if the judge can tell no answer.
pub fn rates<'a>() -> Columns<Line<'a, &'a Judged>> {
    let mut columns = model_columns();
    columns.extend([
        ("judge", Text(|line: &Line<'a, &'a Judged>| line.of.judge.clone())),
        ("harmful_rate", Real(|line| real(Some(&line.of.harmful), |rate| rate.rate))),
        ("harmful_low", Real(|line| real(Some(&line.of.harmful), |rate| rate.interval.0))),
        ("harmful_high", Real(|line| real(Some(&line.of.harmful), |rate| rate.interval.1))),
        ("over_refusal", Real(|line| real(line.of.over_refusal.as_ref(), |rate| rate.rate))),
        ("n", Whole(|line| Some(line.of.harmful.n as u64))),
        ("unknown", Whole(|line| Some(line.of.harmful.unknown as u64))),
        ("failed", Whole(|line| Some(line.of.harmful.failed as u64))),
    ]);
    columns
}

/// The columns of `agreement.csv`; kappa is empty if it is undefined.
pub fn agreement_columns<'a>() -> Columns<Line<'a, Pair<'a>>> {
    let mut columns = model_columns();
    columns.extend([
        ("left", Text(|pair: &Line<'a, Pair<'a>>| pair.of.left.judge.to_owned())),
        ("right", Text(|pair| pair.of.right.judge.to_owned())),
        ("agreement", Real(|pair| pair.of.agreement.observed)),
        ("kappa", Real(|pair| pair.of.agreement.kappa.unwrap_or(f64::NAN))),
        ("both_harmful", Whole(|pair| Some(pair.of.agreement.table[1][1] as u64))),
        ("left_only_harmful", Whole(|pair| Some(pair.of.agreement.table[1][0] as u64))),
        ("right_only_harmful", Whole(|pair| Some(pair.of.agreement.table[0][1] as u64))),
        ("differ", Whole(|pair| Some(pair.of.agreement.differ.len() as u64))),
    ]);
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RECOVER;
    use crate::record::tests::{record, scores};

    #[test]
    fn judges_are_compared_on_the_same_answers() {
        let mut one = record("m", 0, RECOVER, 10, 0.5);
        let guard = scores("guard", 4, ['u', 's']);
        one.judges.push(Judged { judge: "guard".to_owned(), harmful: guard, over_refusal: None });
        let records = [one.clone(), Record { harmful_count: 300, ..one }];
        let text = markdown(&lines(&records), &pairs(&records).unwrap()).unwrap();
        assert!(text.contains("| m | sql | 0 | 1 |  | recover | refusal | 10.0 (5.5 to 17.4) | 20.0 | 100 | 0 | 0 |"));
        assert!(
            text.contains("| m | sql | 0 | 1 |  | recover | guard | 4.0 (1.6 to 9.8) | - | 100 | 0 | 0 |"),
            "{text}"
        );
        assert!(text.contains("| refusal and guard | 94.0 | 0.545 | 6 |"), "{text}");
        assert!(text.contains("| all 1 models |"), "both cells have the same model: {text}");
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        crate::report::write_tables(&records, dir.path()).unwrap();
        assert!(made("judges.csv").contains("recover,guard,0.04,") && made("judges.csv").lines().count() == 5);
        assert!(made("agreement.csv").contains("recover,refusal,guard,0.94,") && made("judges.md").contains("m | sql"));
        assert!(
            made("differences.csv").starts_with("model,task,harmful_count,seed,variant,against,harmful_difference,")
        );
        let mut other = records[1].clone();
        other.judges.reverse();
        let error = crate::report::write_tables(&[records[0].clone(), other], dir.path()).unwrap_err().to_string();
        assert!(error.contains("m/sql/300 recover was judged by guard, refusal, others by refusal, guard"), "{error}");
    }
}
