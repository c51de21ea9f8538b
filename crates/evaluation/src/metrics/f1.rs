//! F1 of class 1 (paper, CHEAT and toxicity), and what the released code computes in its place. The two classes are the
//! labels 1 and 0; nothing here knows what they stand for.

use serde::{Deserialize, Serialize};

use super::Score;
use crate::{
    Answer, EvaluationError,
    statistics::{BootstrapSettings, Estimate, bootstrap, check_paired},
};

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
    /// F1 as the released code computes it (see [`f1`]); none where it divides by zero.
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
/// `f1_released` (METHOD.md section 7): an answer is right if the true label's character stands anywhere in its first
/// 10 characters, so that `10` is right whatever the truth. A right answer of class 1 is a true positive, a wrong one a
/// miss; every wrong answer of class 0, one without a label too, is a false positive. (Were the two exchanged, F1 would
/// be the same, for it is symmetric in them.) P, R and F1 are divided without a check: without a true positive
/// the divisor of F1 at least is 0 and there is no figure.
pub fn f1(answers: &[Answer]) -> Result<Score, EvaluationError> {
    if answers.is_empty() {
        return Err(EvaluationError::NoAnswers);
    }
    let truths: Vec<bool> = answers.iter().map(truth).collect::<Result<_, _>>()?;
    let classes: Vec<Option<bool>> = answers.iter().map(|answer| class(&answer.response)).collect();
    let count = |truth: bool, answered: Option<bool>| {
        truths.iter().zip(&classes).filter(|(t, c)| **t == truth && **c == answered).count()
    };
    let (true_positives, false_negatives) = (count(true, Some(true)), count(true, Some(false)));
    let (true_negatives, false_positives) = (count(false, Some(false)), count(false, Some(true)));
    let (unparsable_1, unparsable_0) = (count(true, None), count(false, None));
    let misses = false_negatives + unparsable_1;
    let details = F1Details {
        precision: share(true_positives, true_positives + false_positives),
        recall: share(true_positives, true_positives + misses),
        accuracy: share(true_positives + true_negatives, answers.len()),
        true_positives,
        false_positives,
        true_negatives,
        false_negatives,
        unparsable_1,
        unparsable_0,
        f1_released: f1_released(answers, &truths),
    };
    Ok(Score {
        value: share(2 * true_positives, 2 * true_positives + false_positives + misses),
        per_sample: truths.iter().zip(&classes).map(|(t, c)| f64::from(Some(*t) == *c)).collect(),
        n: answers.len(),
        details: Some(serde_json::json!(details)),
    })
}

/// F1 with its bootstrap interval. It is no mean over samples: its counts are drawn anew.
///
/// # Errors
/// As [`f1`].
pub fn f1_interval(answers: &[Answer], settings: &BootstrapSettings) -> Result<Estimate, EvaluationError> {
    let counts = counts(answers)?;
    bootstrap(counts.len(), settings, |drawn| f1_of(&counts, drawn))
}

/// The F1 of `left` minus that of `right`, two models' answers to the same samples in one order, with its bootstrap interval;
/// each draw takes both answers to a sample.
///
/// # Errors
/// As [`f1`], or when the lists differ in length.
pub fn f1_difference(
    left: &[Answer],
    right: &[Answer],
    settings: &BootstrapSettings,
) -> Result<Estimate, EvaluationError> {
    check_paired(left.len(), right.len())?;
    let (left, right) = (counts(left)?, counts(right)?);
    bootstrap(left.len(), settings, |drawn| f1_of(&left, drawn) - f1_of(&right, drawn))
}

/// Of each answer: 2 for a true positive, and 1 for everything else that stands in F1's divisor.
fn counts(answers: &[Answer]) -> Result<Vec<(usize, usize)>, EvaluationError> {
    let count = |answer: &Answer| {
        Ok(match (truth(answer)?, class(&answer.response)) {
            (true, Some(true)) => (2, 0),
            (true, Some(false) | None) | (false, Some(true)) => (0, 1),
            (false, Some(false) | None) => (0, 0),
        })
    };
    answers.iter().map(count).collect()
}

/// F1 of the samples that were drawn.
fn f1_of(counts: &[(usize, usize)], drawn: &[usize]) -> f64 {
    let sum = |all: (usize, usize), at: &usize| (all.0 + counts[*at].0, all.1 + counts[*at].1);
    let (hits, faults) = drawn.iter().fold((0, 0), sum);
    share(hits, hits + faults)
}

/// A share, 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Whether the sample is of class 1.
fn truth(answer: &Answer) -> Result<bool, EvaluationError> {
    let id = || answer.id.clone();
    let reference = answer.reference.as_ref().ok_or_else(|| EvaluationError::NoReference { id: id() })?;
    class(reference).ok_or_else(|| EvaluationError::NoClass { id: id(), reference: reference.clone() })
}

/// The first label whose token ends within the first [`BEGINNING`] characters.
fn class(text: &str) -> Option<bool> {
    let end = text.char_indices().nth(BEGINNING).map_or(text.len(), |(at, _)| at);
    let mut at = 0;
    for token in text.split(|c: char| !c.is_alphanumeric()) {
        match token {
            _ if at + token.len() > end => return None,
            "1" => return Some(true),
            "0" => return Some(false),
            _ => {}
        }
        let next = text[at + token.len()..].chars().next();
        at += token.len() + next.map_or(0, char::len_utf8);
    }
    None
}

fn f1_released(answers: &[Answer], truths: &[bool]) -> Option<f64> {
    let (mut hits, mut misses, mut false_positives) = (0_u32, 0_u32, 0_u32);
    for (answer, truth) in answers.iter().zip(truths) {
        let label = if *truth { '1' } else { '0' };
        match (answer.response.chars().take(BEGINNING).any(|c| c == label), truth) {
            (true, true) => hits += 1,
            (false, true) => misses += 1,
            (false, false) => false_positives += 1,
            (true, false) => {}
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn score(pairs: &[(&str, &str)]) -> (Score, F1Details) {
        let answer = |(response, reference): &(&str, &str)| Answer {
            id: "7".into(),
            response: (*response).into(),
            reference: Some((*reference).into()),
            ..Answer::default()
        };
        let answers: Vec<Answer> = pairs.iter().map(answer).collect();
        let score = f1(&answers).unwrap();
        let details = serde_json::from_value(score.details.clone().unwrap()).unwrap();
        (score, details)
    }

    #[test]
    fn the_class_is_the_first_token_that_is_a_label_within_ten_characters() {
        for (text, expected) in [
            ("1", Some(true)),
            (" 0.\n", Some(false)),
            ("Label: 1", Some(true)),
            ("<0> or 1", Some(false)),
            ("**1**", Some(true)),
            ("10", None),
            ("10 0", Some(false)),
            ("a1", None),
            ("\u{e9}\u{e9} it is 1", Some(true)), // the label is the tenth character
            ("the label 1", None),
            ("label is 10", None), // cut at ten characters its last token would be 1
            ("label is 1.", Some(true)),
            ("", None),
        ] {
            assert_eq!(class(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_answer_is_in_one_cell_of_the_confusion_table() {
        let (score, details) =
            score(&[("1", "1"), ("1", "1"), ("0", "1"), ("yes", "1"), ("1", "0"), ("0", "0"), ("0", "0"), ("no", "0")]);
        assert_eq!(score.per_sample, [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!((score.n, score.value), (8, 4.0 / 7.0));
        let d = details;
        assert_eq!((d.true_positives, d.false_positives, d.true_negatives, d.false_negatives), (2, 1, 2, 1));
        assert_eq!((d.unparsable_1, d.unparsable_0), (1, 1));
        assert_eq!((d.precision, d.recall, d.accuracy), (2.0 / 3.0, 0.5, 0.5));
        // released: two false positives, for `no` is one
        assert!((d.f1_released.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn ten_is_wrong_here_and_right_in_the_released_code() {
        let (score, details) = score(&[("10", "1"), ("10", "0"), ("1", "1")]);
        assert_eq!(score.per_sample, [0.0, 0.0, 1.0]);
        assert!((score.value - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(details.f1_released, Some(1.0));
    }

    #[test]
    fn f1_is_zero_when_undefined_and_the_released_one_is_none() {
        for pairs in [&[("0", "0")][..], &[("0", "1"), ("1", "0")], &[("none", "1")]] {
            let (score, details) = score(pairs);
            assert_eq!((score.value, details.f1_released), (0.0, None));
            assert_eq!((details.precision, details.recall), (0.0, 0.0));
        }
    }

    #[test]
    fn a_reference_without_a_label_is_an_error_that_names_it() {
        let answer = Answer { id: "7".into(), reference: Some("maybe".into()), ..Answer::default() };
        let error = f1(&[answer]).unwrap_err().to_string();
        assert!(error.contains("\"7\"") && error.contains("maybe"), "{error}");
        assert!(matches!(f1(&[Answer::default()]), Err(EvaluationError::NoReference { .. })));
        assert!(matches!(f1(&[]), Err(EvaluationError::NoAnswers)));
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
        let Estimate { value, interval: (low, high) } = f1_interval(&answers, &BootstrapSettings::default()).unwrap();
        assert_eq!(value, f1(&answers).unwrap().value);
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
        let found = f1_difference(&left, &right, &settings).unwrap();
        let drawn = |answers: &[Answer], at: &[usize]| {
            f1(&at.iter().map(|i| answers[*i].clone()).collect::<Vec<_>>()).unwrap().value
        };
        let expected = bootstrap(30, &settings, |at| drawn(&left, at) - drawn(&right, at)).unwrap();
        assert_eq!(found, expected);
        assert!((found.value - (0.75 - 8.0 / 13.0)).abs() < 1e-12, "{found:?}");
        let same = f1_difference(&left, &left, &settings).unwrap();
        assert_eq!((same.value, same.interval), (0.0, (0.0, 0.0)));
        assert!(matches!(f1_difference(&left, &right[1..], &settings), Err(EvaluationError::Unpaired { .. })));
    }
}
