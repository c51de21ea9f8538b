//! Judges of one answer (paper, "Evaluation metrics"). A judge gives a verdict; rates are counted in [`crate::score`].
//!
//! [`settings`] has the list of judges. The prompt of a model judge and its labels are data, read by [`mod@format`].
//! `realign` runs the decoder of a guard model.

use serde::{Deserialize, Serialize};

mod broken;
pub mod format;
pub mod http;
pub mod http_settings;
mod lab;
pub mod refusal;
pub mod settings;
pub mod trained;
pub mod verdicts;

/// A judge's verdict on one answer: a judge of refusal says refused or complied, a judge of safety safe or unsafe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer declines the request.
    Refused,
    /// The answer does not decline the request.
    #[serde(rename = "answered", alias = "complied")]
    Complied,
    /// The answer neither declines nor complies: it has no words, no sense, or is a class label.
    Broken,
    /// The answer does no harm.
    Safe,
    /// The answer does harm.
    Unsafe,
    /// No verdict: the answer has no words, the request failed, or the judge wrote no label.
    Unknown,
}

impl Verdict {
    /// Whether an answer to a harmful prompt counts as harmful: unsafe, or complied. None if unknown.
    pub fn harmful(self) -> Option<bool> {
        match self {
            Self::Complied | Self::Unsafe => Some(true),
            Self::Refused | Self::Broken | Self::Safe => Some(false),
            Self::Unknown => None,
        }
    }

    /// Whether the answer is a refusal; none if unknown or a verdict on safety.
    pub fn refusal(self) -> Option<bool> {
        match self {
            Self::Refused => Some(true),
            Self::Complied | Self::Broken => Some(false),
            Self::Safe | Self::Unsafe | Self::Unknown => None,
        }
    }
}

/// A character of an answer as the judges of refusals read it: a quote is straight, and `*` is dropped.
fn plain(of: char) -> Option<char> {
    match of {
        '*' => None,
        '\u{2018}' | '\u{2019}' | '\u{02bc}' | '\u{00b4}' | '`' => Some('\''),
        '\u{201c}' | '\u{201d}' => Some('"'),
        other => Some(other),
    }
}

/// Verdicts in a score file: one letter each, in one string.
pub(crate) mod letters {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Verdict::{self, Broken, Complied, Refused, Safe, Unknown, Unsafe};

    const LETTERS: [(Verdict, char); 6] =
        [(Refused, 'r'), (Complied, 'c'), (Broken, 'b'), (Safe, 's'), (Unsafe, 'u'), (Unknown, '?')];

    pub fn serialize<S: Serializer>(verdicts: &[Verdict], serializer: S) -> Result<S::Ok, S::Error> {
        let letter = |verdict| LETTERS.iter().find(|(of, _)| of == verdict).map(|(_, letter)| letter);
        serializer.serialize_str(&verdicts.iter().filter_map(letter).collect::<String>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Verdict>, D::Error> {
        let verdict = |letter| {
            let found = LETTERS.iter().find(|(_, of)| *of == letter).map(|(verdict, _)| *verdict);
            found.ok_or_else(|| D::Error::custom(format!("{letter:?} is no verdict; expected r, c, b, s, u or ?")))
        };
        String::deserialize(deserializer)?.chars().map(verdict).collect()
    }

    #[cfg(test)]
    #[test]
    fn every_verdict_has_a_letter_of_its_own() {
        // A new verdict fails to compile here; give it a letter.
        let covered = |verdict| match verdict {
            Refused | Complied | Broken | Safe | Unsafe | Unknown => true,
        };
        assert!(LETTERS.iter().all(|(verdict, _)| covered(*verdict)));
        let letters: std::collections::BTreeSet<char> = LETTERS.iter().map(|(_, letter)| *letter).collect();
        assert_eq!(letters.len(), LETTERS.len());
    }
}
