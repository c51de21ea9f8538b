//! Exact match of stripped strings (paper, SQL task). Case, quotes and spaces inside the string count.

use super::Score;
use crate::{Answer, EvaluationError};

/// The share of answers equal to their reference once both are stripped of white space at the ends.
pub fn exact_match(answers: &[Answer]) -> Result<Score, EvaluationError> {
    if answers.is_empty() {
        return Err(EvaluationError::NoAnswers);
    }
    let per_sample = answers.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Score::mean_of(per_sample))
}

fn one(answer: &Answer) -> Result<f64, EvaluationError> {
    match &answer.reference {
        Some(reference) => Ok(f64::from(answer.response.trim() == reference.trim())),
        None => Err(EvaluationError::NoReference { id: answer.id.clone() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(response: &str, reference: Option<&str>) -> Answer {
        Answer {
            id: "7".into(),
            response: response.into(),
            reference: reference.map(str::to_owned),
            ..Answer::default()
        }
    }

    #[test]
    fn only_white_space_at_the_ends_is_forgiven() {
        let answers = [
            answer(" select size from store\n", Some("select size from store")),
            answer("select size from  store", Some("select size from store")),
            answer("SELECT size from store", Some("select size from store")),
            answer("", Some(" ")),
        ];
        let score = exact_match(&answers).unwrap();
        assert_eq!(score.per_sample, [1.0, 0.0, 0.0, 1.0]);
        assert_eq!((score.value, score.n), (0.5, 4));
    }

    #[test]
    fn an_answer_without_a_reference_is_an_error_that_names_it() {
        let error = exact_match(&[answer("a", None)]).unwrap_err().to_string();
        assert!(error.contains("\"7\""), "{error}");
        assert!(matches!(exact_match(&[]), Err(EvaluationError::NoAnswers)));
    }
}
