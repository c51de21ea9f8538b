//! Task scores (paper, "Evaluation metrics"). A metric is a file here with a function `score`, and one line of the table.

use std::{iter, str::FromStr};

use serde::{
    Deserialize, Serialize,
    de::{self, IntoDeserializer as _},
};

use crate::{
    Answer, EvaluationError, Result,
    statistics::{BootstrapSettings, Drawn, Estimate, bootstrap, bootstrap_mean, check_paired, paired_bootstrap},
};

mod exact_match;
mod f1;
mod nl2bash;
mod nl2bash_parse;
mod rouge;
mod rouge_porter;
mod sql_normalized;
mod task_score;

pub use f1::F1Details;
pub use nl2bash::nl2bash_pair;
pub use rouge::{Overlap, RougeScores, rouge_pair};
pub use sql_normalized::normalize_sql;
pub use task_score::TaskScore;

/// Declares the metrics: variant and file, whose name is the metric's word in files and tables.
macro_rules! metrics {
    ($($(#[$attribute:meta])* $variant:ident => $file:ident,)+) => {
        /// How a task's answers are scored; larger is better.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Metric {
            $($(#[$attribute])* $variant,)+
        }

        impl Metric {
            /// Every metric.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in task files and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($file),)+
                }
            }

            /// Scores answers that carry a reference, one by one as they are read.
            ///
            /// # Errors
            /// When there is no answer, or one cannot be read or scored.
            pub fn score_each(self, mut answers: impl Iterator<Item = Result<Answer>>) -> Result<Score> {
                let first = answers.next().ok_or(EvaluationError::NoAnswers)?;
                let mut answers = iter::once(first).chain(answers);
                match self {
                    $(Self::$variant => $file::score(&mut answers),)+
                }
            }
        }
    };
}

metrics! {
    /// Stripped strings equal (SQL).
    #[serde(alias = "sql")]
    ExactMatch => exact_match,
    /// The same SQL, however it is formatted.
    SqlNormalized => sql_normalized,
    /// F1 of class 1 (CHEAT, toxicity).
    F1 => f1,
    /// Utilities and flags of the commands (NL2Bash).
    Nl2bash => nl2bash,
    /// ROUGE-1 F (SAMSum).
    Rouge => rouge,
}

/// A sample's true class, and the class that the answer gives, if any.
pub type Classes = (u8, Option<u8>);

/// A task score with the score of every sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The metric's figure, 0 to 1: the mean over the samples, or F1 if there are classes.
    pub value: f64,
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
    /// The classes of each sample, if the value is an F1 score.
    pub classes: Option<Vec<Classes>>,
    /// The metric's further figures, by name.
    pub details: Option<serde_json::Value>,
}

impl Score {
    /// The mean of `per_sample`, which is not empty.
    fn mean_of(per_sample: Vec<f64>) -> Self {
        let value = per_sample.iter().sum::<f64>() / per_sample.len() as f64;
        Self { value, per_sample, classes: None, details: None }
    }
}

/// Answers that are scored one by one.
type Answers<'a> = &'a mut dyn Iterator<Item = Result<Answer>>;

/// What `score` gives for the reference and the response of each answer; unfinished thinking is an empty response.
fn each<T>(answers: Answers<'_>, score: impl Fn(&str, &str) -> T) -> Result<Vec<T>> {
    let score = |answer: Result<Answer>| {
        let answer = answer?;
        Ok(score(reference(&answer)?, response(&answer)))
    };
    answers.map(score).collect()
}

fn response(answer: &Answer) -> &str {
    answer.final_text().unwrap_or_default()
}

fn reference(answer: &Answer) -> Result<&str> {
    answer.reference.as_deref().ok_or_else(|| EvaluationError::NoReference { id: answer.id.clone() })
}

impl Metric {
    /// As [`score_each`](Self::score_each), of answers in memory.
    ///
    /// # Errors
    /// As [`score_each`](Self::score_each).
    pub fn score(self, answers: &[Answer]) -> Result<Score> {
        self.score_each(answers.iter().cloned().map(Ok))
    }

    /// A score with its bootstrap interval over the samples.
    ///
    /// # Errors
    /// When there is no sample.
    pub fn interval(score: &TaskScore, settings: &BootstrapSettings) -> Result<Estimate> {
        match counts(score)? {
            Some(counts) => bootstrap(counts.len(), settings, |drawn| f1::of_drawn(&counts, drawn)),
            None => bootstrap_mean(&score.per_sample, settings),
        }
    }

    /// The score of one model minus that of another on the same samples, in one order, with its bootstrap interval.
    /// Each draw takes both models' scores of a sample.
    ///
    /// # Errors
    /// When there is no sample, or the models have different numbers of them or different metrics.
    pub fn difference(left: &TaskScore, right: &TaskScore, settings: &BootstrapSettings) -> Result<Estimate> {
        if left.metric != right.metric {
            return Err(EvaluationError::Unlike { left: left.metric.name(), right: right.metric.name() });
        }
        match (counts(left)?, counts(right)?) {
            (Some(left), Some(right)) => {
                check_paired(left.len(), right.len())?;
                let figure = |drawn: &Drawn| f1::of_drawn(&left, drawn) - f1::of_drawn(&right, drawn);
                bootstrap(left.len(), settings, figure)
            }
            _ => paired_bootstrap(&left.per_sample, &right.per_sample, settings),
        }
    }

    /// The least and the largest difference as in [`difference`](Self::difference) where a share `unseen` of all samples that there
    /// could be is not among these: one model is right on all of them, and the other on none.
    ///
    /// # Errors
    /// As [`difference`](Self::difference).
    pub fn difference_with_unseen(left: &TaskScore, right: &TaskScore, unseen: f64) -> Result<(f64, f64)> {
        let ends = |score: &TaskScore| -> Result<[f64; 2]> {
            Ok(match counts(score)? {
                Some(counts) => [(0, 1), (2, 0)].map(|others| f1::with_unseen(&counts, unseen, others)),
                None => [0.0, 1.0].map(|others| (1.0 - unseen) * score.value + unseen * others),
            })
        };
        let ([left_least, left_most], [right_least, right_most]) = (ends(left)?, ends(right)?);
        Ok((left_least - right_most, left_most - right_least))
    }
}

/// What each sample adds to F1; none if the score is a mean.
fn counts(score: &TaskScore) -> Result<Option<Vec<f1::Counts>>> {
    match &score.classes {
        None if score.metric == Metric::F1 => Err(EvaluationError::NoClasses),
        classes => Ok(classes.as_ref().map(|classes| classes.iter().map(f1::counts).collect())),
    }
}

impl FromStr for Metric {
    type Err = de::value::Error;

    /// A metric by its name in a task file.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::deserialize(name.into_deserializer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_the_names_of_a_task_file() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse::<Metric>().unwrap(), *metric);
            assert_eq!(serde_json::json!(metric), metric.name());
        }
        assert_eq!("sql".parse::<Metric>().unwrap(), Metric::ExactMatch);
        let error = "f2".parse::<Metric>().unwrap_err().to_string();
        assert!(error.contains("f2") && error.contains("sql_normalized"), "{error}");
    }

    #[test]
    fn every_metric_needs_answers_and_references_and_names_what_has_none() {
        for metric in Metric::ALL {
            assert!(matches!(metric.score(&[]), Err(EvaluationError::NoAnswers)));
            let error = metric.score(&[Answer { id: "7".into(), ..Answer::default() }]).unwrap_err();
            assert!(matches!(&error, EvaluationError::NoReference { id } if id == "7"), "{error}");
        }
    }

    #[test]
    fn every_metric_scores_what_follows_the_thinking() {
        for (metric, right) in Metric::ALL.iter().zip(["select 1", "select 1", "1", "ls -l", "a map"]) {
            let answer = |response: String| Answer { response, reference: Some(right.into()), ..Answer::default() };
            let answers = [answer(format!("<think>0 or 1?</think>\n\n{right}")), answer(format!("<think>{right}"))];
            assert_eq!(metric.score(&answers).unwrap().per_sample, [1.0, 0.0], "{}", metric.name());
        }
    }

    #[test]
    fn samples_that_are_not_there_may_make_a_difference() {
        let score = |metric, right: usize, of: usize| {
            let answer = |at| Answer {
                response: if at < right { "1" } else { "0" }.into(),
                reference: Some("1".into()),
                ..Answer::default()
            };
            TaskScore::new(metric, (0..of).map(answer).map(Ok)).unwrap()
        };
        let near = |got: (f64, f64), low: f64, high: f64| {
            assert!((got.0 - low).abs() < 1e-12 && (got.1 - high).abs() < 1e-12, "{got:?}");
        };
        let (three, two) = (score(Metric::ExactMatch, 3, 4), score(Metric::ExactMatch, 2, 4));
        near(Metric::difference_with_unseen(&three, &two, 0.0).unwrap(), 0.25, 0.25);
        near(Metric::difference_with_unseen(&three, &two, 0.2).unwrap(), 0.8 * 0.25 - 0.2, 0.8 * 0.25 + 0.2);
        // F1 of 1 right answer of 4: seen are 2 hits and 3 faults, unseen 1 sample of 5, as 0.2 / 0.8 · 4 = 1 more.
        let one = score(Metric::F1, 1, 4);
        let (least, most) = (2.0 / (2.0 + 3.0 + 1.0), 4.0 / (4.0 + 3.0));
        near(Metric::difference_with_unseen(&one, &one, 0.2).unwrap(), least - most, most - least);
    }

    #[test]
    fn scores_of_different_metrics_or_without_classes_are_not_compared() {
        let answer = Answer { response: "1".into(), reference: Some("1".into()), ..Answer::default() };
        let of = |metric| TaskScore::new(metric, iter::once(Ok(answer.clone()))).unwrap();
        let settings = BootstrapSettings::default();
        let error = Metric::difference(&of(Metric::F1), &of(Metric::Rouge), &settings).unwrap_err().to_string();
        assert!(error.contains("f1") && error.contains("rouge"), "{error}");
        let old = TaskScore { classes: None, ..of(Metric::F1) };
        assert!(matches!(Metric::interval(&old, &settings), Err(EvaluationError::NoClasses)));
    }
}
