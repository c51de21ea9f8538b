//! F1 of class 1 (paper, CHEAT and toxicity), and what the released code computes in its place. The two classes are the
//! labels 1 and 0; their meaning is the task's.

use serde::{Deserialize, Serialize};

use super::{Answers, Classes, Score, reference, response};
use crate::statistics::Drawn;
use crate::{Answer, EvaluationError, Result};

/// A label counts only within this many characters at the answer's beginning.
const BEGINNING: usize = 10;

/// Figures beside F1, all of class 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct F1Details {
    /// Share of the answers 1 that are right; 0 when there is none.
    pub precision: f64,
    /// Share of the samples of class 1 that are found; 0 when there is none.
    pub recall: f64,
    /// Share of all answers that are right; an answer without a label is wrong.
    pub accuracy: f64,
    /// Class 1, answered 1.
    pub true_positives: usize,
    /// Class 0, answered 1.
    pub false_positives: usize,
    /// Class 0, answered 0.
    pub true_negatives: usize,
    /// Class 1, answered 0.
    pub false_negatives: usize,
    /// Class 1, no label in the answer: a miss, as a false negative is.
    pub unparsable_1: usize,
    /// Class 0, no label in the answer: wrong, but no answer 1.
    pub unparsable_0: usize,
    /// F1 as the released code computes it (see `score`); none if it divides by zero.
    pub f1_released: Option<f64>,
}

/// F1 of class 1; `per_sample` is 1 where the class is right, and `details` holds [`F1Details`].
///
/// An answer's class is its first token that is a label, the token being a run of letters and digits that ends within
/// the first 10 characters: `10` is no label. An answer without one is wrong: of class 1 it is a miss and lowers the
/// recall; of class 0 it is no answer 1, so that it leaves F1 alone and lowers the accuracy.
///
/// # Mathematical Definition
///
/// With tp, fp, fn the true positives, the false positives and all misses: P = tp / (tp + fp), R = tp / (tp + fn),
/// F1 = 2 P R / (P + R) = 2 tp / (2 tp + fp + fn); each is 0 when undefined.
///
/// `f1_released` (METHOD.md section 7): an answer is right if the true label's character is anywhere in its first
/// 10 characters, so that `10` is right whatever the truth. A right answer of class 1 is a true positive, a wrong one a
/// miss; every wrong answer of class 0, one without a label too, is a false positive. (Were the two exchanged, F1 would
/// be the same, for it is symmetric in them.) P, R and F1 are divided without a check: without a true positive
/// the divisor of F1 at least is 0 and there is no figure.
pub(super) fn score(answers: Answers<'_>) -> Result<Score> {
    let read = answers.map(|answer| answer.and_then(|answer| Ok((classes(&answer)?, found_released(&answer)))));
    let (classes, found): (Vec<Classes>, Vec<[bool; 2]>) = read.collect::<Result<_>>()?;
    let count = |truth: u8, answered: Option<u8>| classes.iter().filter(|of| **of == (truth, answered)).count();
    let (true_positives, false_negatives) = (count(1, Some(1)), count(1, Some(0)));
    let (true_negatives, false_positives) = (count(0, Some(0)), count(0, Some(1)));
    let (unparsable_1, unparsable_0) = (count(1, None), count(0, None));
    let misses = false_negatives + unparsable_1;
    let details = F1Details {
        precision: share(true_positives, true_positives + false_positives),
        recall: share(true_positives, true_positives + misses),
        accuracy: share(true_positives + true_negatives, classes.len()),
        true_positives,
        false_positives,
        true_negatives,
        false_negatives,
        unparsable_1,
        unparsable_0,
        f1_released: f1_released(&classes, &found),
    };
    Ok(Score {
        value: share(2 * true_positives, 2 * true_positives + false_positives + misses),
        per_sample: classes.iter().map(|(truth, answered)| f64::from(Some(*truth) == *answered)).collect(),
        classes: Some(classes),
        details: Some(serde_json::json!(details)),
    })
}

/// What a sample adds to F1: 2 for a true positive, or 1 for everything else in F1's divisor.
pub(super) type Counts = (usize, usize);

/// What a sample of these classes adds.
pub(super) fn counts(classes: &Classes) -> Counts {
    match classes {
        (1, Some(1)) => (2, 0),
        (1, _) | (_, Some(1)) => (0, 1),
        _ => (0, 0),
    }
}

/// F1 of the drawn samples. It is not a mean over samples: its counts are drawn.
pub(super) fn of_drawn(counts: &[Counts], drawn: &Drawn) -> f64 {
    let weighted = counts.iter().zip(drawn).map(|(of, times)| (of.0 * usize::from(*times), of.1 * usize::from(*times)));
    let (hits, faults) = weighted.fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1));
    share(hits, hits + faults)
}

/// F1 where the samples are all but a share `unseen` of those that there could be, and the others add this, each.
pub(super) fn with_unseen(counts: &[Counts], unseen: f64, others: Counts) -> f64 {
    let (hits, faults) = counts.iter().fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1));
    let all = |seen: usize, other: usize| (1.0 - unseen) * seen as f64 + unseen * (counts.len() * other) as f64;
    let (hits, faults) = (all(hits, others.0), all(faults, others.1));
    if hits > 0.0 { hits / (hits + faults) } else { 0.0 }
}

/// A share, 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The true class and the answered one.
fn classes(answer: &Answer) -> Result<Classes> {
    let reference = reference(answer)?;
    let no_class = || EvaluationError::NoClass { id: answer.id.clone(), reference: reference.to_owned() };
    Ok((class(reference).ok_or_else(no_class)?, class(response(answer))))
}

/// The first label whose token ends within the first [`BEGINNING`] characters.
fn class(text: &str) -> Option<u8> {
    let end = text.char_indices().nth(BEGINNING).map_or(text.len(), |(at, _)| at);
    let mut at = 0;
    for token in text.split(|c: char| !c.is_alphanumeric()) {
        match token {
            _ if at + token.len() > end => return None,
            "1" => return Some(1),
            "0" => return Some(0),
            _ => {}
        }
        let next = text[at + token.len()..].chars().next();
        at += token.len() + next.map_or(0, char::len_utf8);
    }
    None
}

/// Whether the characters `0` and `1` are in an answer's beginning.
fn found_released(answer: &Answer) -> [bool; 2] {
    ['0', '1'].map(|label| response(answer).chars().take(BEGINNING).any(|c| c == label))
}

fn f1_released(classes: &[Classes], found: &[[bool; 2]]) -> Option<f64> {
    let (mut hits, mut misses, mut false_positives) = (0_u32, 0_u32, 0_u32);
    for ((truth, _), found) in classes.iter().zip(found) {
        match (found[usize::from(*truth)], truth) {
            (true, 1) => hits += 1,
            (false, 1) => misses += 1,
            (false, _) => false_positives += 1,
            (true, _) => {}
        }
    }
    if hits == 0 {
        return None;
    }
    let precision = f64::from(hits) / f64::from(hits + false_positives);
    let recall = f64::from(hits) / f64::from(hits + misses);
    Some(2.0 * precision * recall / (precision + recall))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::{
        Metric, TaskScore,
        statistics::{BootstrapSettings, Estimate, bootstrap},
    };

    fn scored(pairs: &[(&str, &str)]) -> (Score, F1Details) {
        let answer = |(response, reference): &(&str, &str)| Answer {
            response: (*response).into(),
            reference: Some((*reference).into()),
            ..Answer::default()
        };
        let score = score(&mut pairs.iter().map(answer).map(Ok)).unwrap();
        let details = serde_json::from_value(score.details.clone().unwrap()).unwrap();
        (score, details)
    }

    #[test]
    fn the_class_is_the_first_token_that_is_a_label_within_ten_characters() {
        for (text, expected) in [
            ("1", Some(1)),
            (" 0.\n", Some(0)),
            ("Label: 1", Some(1)),
            ("<0> or 1", Some(0)),
            ("**1**", Some(1)),
            ("10", None),
            ("10 0", Some(0)),
            ("a1", None),
            ("\u{e9}\u{e9} it is 1", Some(1)), // the label is the tenth character
            ("the label 1", None),
            ("label is 10", None), // cut at ten characters its last token would be 1
            ("label is 1.", Some(1)),
            ("", None),
        ] {
            assert_eq!(class(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_answer_is_in_one_cell_of_the_confusion_table() {
        let (score, details) = scored(&[
            ("1", "1"),
            ("1", "1"),
            ("0", "1"),
            ("yes", "1"),
            ("1", "0"),
            ("0", "0"),
            ("0", "0"),
            ("no", "0"),
        ]);
        assert_eq!(score.per_sample, [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(score.value, 4.0 / 7.0);
        let d = details;
        assert_eq!((d.true_positives, d.false_positives, d.true_negatives, d.false_negatives), (2, 1, 2, 1));
        assert_eq!((d.unparsable_1, d.unparsable_0), (1, 1));
        assert_eq!((d.precision, d.recall, d.accuracy), (2.0 / 3.0, 0.5, 0.5));
        // released: two false positives, for `no` is one
        assert!((d.f1_released.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn ten_is_wrong_here_and_right_in_the_released_code() {
        let (score, details) = scored(&[("10", "1"), ("10", "0"), ("1", "1")]);
        assert_eq!(score.per_sample, [0.0, 0.0, 1.0]);
        assert!((score.value - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(details.f1_released, Some(1.0));
    }

    #[test]
    fn f1_is_zero_when_undefined_and_the_released_one_is_none() {
        for pairs in [&[("0", "0")][..], &[("0", "1"), ("1", "0")], &[("none", "1")]] {
            let (score, details) = scored(pairs);
            assert_eq!((score.value, details.f1_released), (0.0, None));
            assert_eq!((details.precision, details.recall), (0.0, 0.0));
        }
    }

    #[test]
    fn a_reference_without_a_label_is_an_error_that_names_it() {
        let answer = Answer { id: "7".into(), reference: Some("maybe".into()), ..Answer::default() };
        let error = score(&mut iter::once(Ok(answer))).unwrap_err().to_string();
        assert!(error.contains("\"7\"") && error.contains("maybe"), "{error}");
    }

    #[test]
    fn the_interval_is_that_of_f1_and_not_of_the_share_of_right_answers() {
        let answer = |i: usize| Answer {
            id: i.to_string(),
            response: if i < 6 { "1" } else { "0" }.into(),
            reference: Some(if i < 3 { "1" } else { "0" }.into()),
            ..Answer::default()
        };
        let answers: Vec<Answer> = (0..40).map(answer).collect();
        let of = TaskScore::new(Metric::F1, answers.iter().cloned().map(Ok)).unwrap();
        let Estimate { value, interval: (low, high) } = Metric::interval(&of, &BootstrapSettings::default()).unwrap();
        assert_eq!((value, (low, high)), (of.value, of.interval));
        assert!(low < value && value < high, "{low} {high}");
        assert!(low < 0.4, "F1 of so few positives is uncertain, the share of right answers is not: {low}");
    }

    #[test]
    fn a_difference_is_that_of_f1_on_the_same_samples_in_every_draw() {
        // The second model finds one more of class 1 at the cost of four more false alarms: less right, and less F1.
        let answers = |positives: std::ops::Range<usize>| -> Vec<Answer> {
            let answer = |i: usize| Answer {
                id: i.to_string(),
                response: if positives.contains(&i) { "1" } else { "0" }.into(),
                reference: Some(if i < 4 { "1" } else { "0" }.into()),
                ..Answer::default()
            };
            (0..30).map(answer).collect()
        };
        let (left, right) = (answers(1..5), answers(0..9));
        let settings = BootstrapSettings { resamples: 300, ..BootstrapSettings::default() };
        let difference = |left: &[Answer], right: &[Answer]| {
            let of = |answers: &[Answer]| TaskScore::new(Metric::F1, answers.iter().cloned().map(Ok)).unwrap();
            Metric::difference(&of(left), &of(right), &settings)
        };
        let found = difference(&left, &right).unwrap();
        let drawn = |answers: &[Answer], times: &[u16]| {
            let all = answers.iter().zip(times).flat_map(|(answer, times)| vec![answer.clone(); usize::from(*times)]);
            score(&mut all.map(Ok)).unwrap().value
        };
        let expected = bootstrap(30, &settings, |times| drawn(&left, times) - drawn(&right, times)).unwrap();
        assert_eq!(found, expected);
        assert!((found.value - (0.75 - 8.0 / 13.0)).abs() < 1e-12, "{found:?}");
        let same = difference(&left, &left).unwrap();
        assert_eq!((same.value, same.interval), (0.0, (0.0, 0.0)));
        assert!(matches!(difference(&left, &right[1..]), Err(EvaluationError::Unpaired { .. })));
    }
}
