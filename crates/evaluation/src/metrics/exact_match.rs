//! Exact match of stripped strings (paper, SQL task). Case, quotes and spaces inside the string count.

use super::{Answers, Score, each};
use crate::Result;

/// The share of answers equal to their reference once both are stripped of white space at the ends.
pub(super) fn score(answers: Answers<'_>) -> Result<Score> {
    let equal = |reference: &str, response: &str| f64::from(response.trim() == reference.trim());
    Ok(Score::mean_of(each(answers, equal)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    #[test]
    fn only_white_space_at_the_ends_is_ignored() {
        let answer = |(response, reference): (&str, &str)| Answer {
            response: response.into(),
            reference: Some(reference.into()),
            ..Answer::default()
        };
        let answers = [
            (" select size from store\n", "select size from store"),
            ("select size from  store", "select size from store"),
            ("SELECT size from store", "select size from store"),
            ("", " "),
        ];
        let score = score(&mut answers.map(answer).into_iter().map(Ok)).unwrap();
        assert_eq!(score.per_sample, [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(score.value, 0.5);
    }
}
