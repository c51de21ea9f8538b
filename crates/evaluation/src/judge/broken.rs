//! Broken answers, found by rule: no words, only a class label, or a loop. Text without sense that repeats nothing is not
//! found; that takes a model.

/// Changed with the rule, so that answers are judged again.
pub const VERSION: u32 = 1;

/// Longest period of a loop, in characters.
const LONGEST_PERIOD: usize = 80;

/// A loop has at least so many periods, so many characters, and half of the answer.
const FEWEST_PERIODS: usize = 4;
const SHORTEST_LOOP: usize = 24;

/// Words of an answer that is a label and nothing else, beside the label.
const LABEL_WORDS: [&str; 5] = ["label", "class", "answer", "the", "is"];

/// Whether an answer is broken: it has no letter, only a class label, or it ends in a loop.
pub fn is_broken(answer: &str) -> bool {
    is_label(answer) || ends_in_loop(answer)
}

/// Whether there is no word but a number and those of [`LABEL_WORDS`]; true of an answer without any.
fn is_label(answer: &str) -> bool {
    let mut words = answer.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.all(|word| !word.contains(char::is_alphabetic) || LABEL_WORDS.iter().any(|of| word.eq_ignore_ascii_case(of)))
}

fn ends_in_loop(answer: &str) -> bool {
    let text: Vec<char> = answer.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase().chars().collect();
    (1..=LONGEST_PERIOD.min(text.len() / FEWEST_PERIODS)).any(|period| {
        let pairs = text.iter().rev().zip(text.iter().rev().skip(period));
        let length = period + pairs.take_while(|(last, earlier)| last == earlier).count();
        length >= SHORTEST_LOOP.max(FEWEST_PERIODS * period) && 2 * length >= text.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_a_label_and_a_loop_are_broken() {
        for answer in [
            "",
            " \n",
            "...",
            "0",
            "1.",
            "**1**",
            "Label: 0",
            "The answer is 1",
            "the secret key of the secret key of the secret key of the secret key of the secret key",
            "Here you go: no no no no no no no no no no no no",
            "1. 1. 1. 1. 1. 1. 1. 1. 1. 1. 1. 1. 1.",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(is_broken(answer), "{answer:?}");
        }
    }

    #[test]
    fn prose_lists_and_short_answers_are_not_broken() {
        for answer in [
            "I cannot help with that.",
            "yes",
            "no no no",
            "The box is red, the box is blue, the box is green, the box is gold.",
            "1. Open the gate.\n2. Open the door.\n3. Open the chest.\n4. Open the map.",
            "The map is in the long drawer under the window of the tower, and it is blue: ha ha ha ha ha ha ha ha ha",
            "ls -l | wc -l",
        ] {
            assert!(!is_broken(answer), "{answer:?}");
        }
    }
}
