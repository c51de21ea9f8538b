//! ROUGE as py-rouge computes it (paper, SAMSum task; C.-Y. Lin, "ROUGE: a package for automatic evaluation of
//! summaries", 2004): stemmed words, the first 100 words of each text. One reference a sample, no resampling, no
//! ROUGE-W; lines are the sentences, as in the released code.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Answers, Score, each, rouge_porter::stem};
use crate::Result;

/// Words of a text that count (paper's code: `length_limit=100`).
const WORD_LIMIT: usize = 100;

/// py-rouge applies its weight factor (paper's code: 1.2) to ROUGE-L, too, as an exponent of precision and recall.
const LCS_WEIGHT: f64 = 1.2;

/// Precision, recall and their harmonic mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Share of the answer that is in the reference.
    pub precision: f64,
    /// Share of the reference that is in the answer.
    pub recall: f64,
    /// Harmonic mean of both, 0 when either is 0.
    pub f: f64,
}

/// The three scores of one pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RougeScores {
    /// Words.
    pub rouge_1: Overlap,
    /// Pairs of neighbouring words.
    pub rouge_2: Overlap,
    /// Longest common subsequences of the sentences.
    pub rouge_l: Overlap,
}

/// ROUGE-1 F, the task's score; `details` holds the mean of each figure as [`RougeScores`].
pub(super) fn score(answers: Answers<'_>) -> Result<Score> {
    let scores: Vec<RougeScores> = each(answers, rouge_pair)?;
    let mean_of = |part: fn(&RougeScores) -> Overlap| {
        let mean = |figure: fn(&Overlap) -> f64| {
            scores.iter().map(|score| figure(&part(score))).sum::<f64>() / scores.len() as f64
        };
        Overlap { precision: mean(|o| o.precision), recall: mean(|o| o.recall), f: mean(|o| o.f) }
    };
    let means = RougeScores {
        rouge_1: mean_of(|score| score.rouge_1),
        rouge_2: mean_of(|score| score.rouge_2),
        rouge_l: mean_of(|score| score.rouge_l),
    };
    let score = Score::mean_of(scores.iter().map(|score| score.rouge_1.f).collect());
    Ok(Score { details: Some(serde_json::json!(means)), ..score })
}

/// The scores of one answer against its reference.
pub fn rouge_pair(reference: &str, response: &str) -> RougeScores {
    let (reference, response) = (sentences(reference), sentences(response));
    let (all_reference, all_response) = (reference.concat(), response.concat());
    let common = union_lcs(&reference, &response, &all_response) as f64;
    let weighted = |total: usize| share(common, total).powf(1.0 / LCS_WEIGHT);
    RougeScores {
        rouge_1: ngrams(1, &all_reference, &all_response),
        rouge_2: ngrams(2, &all_reference, &all_response),
        rouge_l: overlap(weighted(all_response.len()), weighted(all_reference.len())),
    }
}

fn share(part: f64, total: usize) -> f64 {
    if total == 0 { 0.0 } else { part / total as f64 }
}

fn overlap(precision: f64, recall: f64) -> Overlap {
    let f = if precision * recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
    Overlap { precision, recall, f }
}

/// The stems of each line, of the first [`WORD_LIMIT`] words. A word is counted before punctuation splits it.
fn sentences(text: &str) -> Vec<Vec<String>> {
    let mut left = WORD_LIMIT;
    let sentence = |line: &str| {
        let words: Vec<&str> = line.split(white_space).filter(|word| !word.is_empty()).take(left).collect();
        left -= words.len();
        let lower = words.join(" ").to_lowercase();
        lower.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(contraction).map(stem).collect()
    };
    text.split('\n').map(sentence).collect()
}

/// What Python's `str.split` splits at.
fn white_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words that the treebank tokenizer makes of a word without punctuation; empty ones fall out. ("cannot" stays.)
fn contraction(word: &str) -> impl Iterator<Item = &str> {
    let at = match word {
        "gimme" | "gonna" | "gotta" | "lemme" | "wanna" => 3,
        _ => word.len(),
    };
    let (first, second) = word.split_at(at);
    [first, second].into_iter().filter(|part| !part.is_empty())
}

/// ROUGE-N: how many n-grams both texts hold, each as often as in the text that has fewer of it.
fn ngrams(n: usize, reference: &[String], response: &[String]) -> Overlap {
    let mut in_reference = HashMap::<&[String], usize>::new();
    for ngram in reference.windows(n) {
        *in_reference.entry(ngram).or_default() += 1;
    }
    let mut common = 0.0;
    for ngram in response.windows(n) {
        if let Some(left) = in_reference.get_mut(ngram).filter(|left| **left > 0) {
            *left -= 1;
            common += 1.0;
        }
    }
    let count = |text: &[String]| (text.len() + 1).saturating_sub(n);
    overlap(share(common, count(response)), share(common, count(reference)))
}

/// The words of the reference that are in a longest common subsequence of their sentence and one of the response's,
/// none more often than the response holds it.
fn union_lcs(reference: &[Vec<String>], response: &[Vec<String>], all_response: &[String]) -> usize {
    let mut left = HashMap::<&str, usize>::new();
    for word in all_response {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for sentence in reference {
        let mut hit = vec![false; sentence.len()];
        for other in response {
            mark_lcs(sentence, other, &mut hit);
        }
        for (word, _) in sentence.iter().zip(hit).filter(|(_, hit)| *hit) {
            if let Some(left) = left.get_mut(word.as_str()).filter(|left| **left > 0) {
                *left -= 1;
                common += 1;
            }
        }
    }
    common
}

/// Marks one longest common subsequence in `sentence`. Among several, the way back from the ends leaves out a word of
/// `sentence` before one of `other`: which words are marked decides the union.
fn mark_lcs(sentence: &[String], other: &[String], hit: &mut [bool]) {
    let width = other.len() + 1;
    let mut length = vec![0_usize; (sentence.len() + 1) * width]; // by prefix of `sentence`, then of `other`
    for (i, word) in sentence.iter().enumerate() {
        for (j, second) in other.iter().enumerate() {
            length[(i + 1) * width + j + 1] = if word == second {
                length[i * width + j] + 1
            } else {
                length[i * width + j + 1].max(length[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (sentence.len(), other.len());
    while i > 0 && j > 0 {
        if sentence[i - 1] == other[j - 1] {
            (i, j) = (i - 1, j - 1);
            hit[i] = true;
        } else if length[(i - 1) * width + j] >= length[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    #[test]
    fn the_same_text_has_every_score_1_and_a_stranger_0() {
        let text = "The lamp is on the table.\nNobody turned it off.";
        let one = Overlap { precision: 1.0, recall: 1.0, f: 1.0 };
        assert_eq!(rouge_pair(text, text), RougeScores { rouge_1: one, rouge_2: one, rouge_l: one });
        assert_eq!(rouge_pair(text, "seven blue boats"), RougeScores::default());
        assert_eq!(rouge_pair(text, ""), RougeScores::default());
    }

    #[test]
    fn precision_is_of_the_answer_and_recall_of_the_reference() {
        let scores = rouge_pair("four small green boats", "green boats");
        assert_eq!((scores.rouge_1.precision, scores.rouge_1.recall), (1.0, 0.5));
        assert_eq!((scores.rouge_2.precision, scores.rouge_2.recall), (1.0, 1.0 / 3.0));
        assert!((scores.rouge_l.recall - 0.5_f64.powf(1.0 / 1.2)).abs() < 1e-12);
    }

    #[test]
    fn words_after_the_hundredth_do_not_count() {
        let filler = "word ".repeat(99);
        let scores = |tail: &str| rouge_pair("lamp", &format!("{filler}{tail}")).rouge_1.recall;
        assert_eq!((scores("lamp"), scores("first\nlamp")), (1.0, 0.0));
    }

    #[test]
    fn the_score_is_rouge_1_f_with_the_means_beside_it() {
        let answer = |response: &str| Answer {
            response: response.into(),
            reference: Some("a lamp".into()),
            ..Answer::default()
        };
        let score = score(&mut [answer("lamps"), answer("boat")].into_iter().map(Ok)).unwrap();
        assert!((score.value - 1.0 / 3.0).abs() < 1e-12, "{}", score.value);
        let means: RougeScores = serde_json::from_value(score.details.unwrap()).unwrap();
        assert_eq!((means.rouge_1.precision, means.rouge_1.recall), (0.5, 0.25));
    }
}
