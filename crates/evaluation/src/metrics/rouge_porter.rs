//! Stems as py-rouge makes them (paper, SAMSum task): a table of irregular words, then Porter's published algorithm
//! (M. Porter, "An algorithm for suffix stripping", Program 14(3), 1980) without any later extension. Words are lower
//! case ASCII letters and digits; other languages are not stemmed.

use std::{collections::HashMap, sync::LazyLock};

/// Words of up to this many letters stay as they are.
const LONGEST_UNSTEMMED: usize = 3;

/// Word and stem a line, after the licence; written by `scripts/goldens/rouge_pairs.py`.
static IRREGULAR: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let lines = include_str!("rouge_irregular.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).collect()
});

/// The stem of a word in lower case ASCII.
pub(super) fn stem(word: &str) -> String {
    if word.len() <= LONGEST_UNSTEMMED {
        return word.to_owned();
    }
    match IRREGULAR.get(word) {
        Some(stem) => (*stem).to_owned(),
        None => porter(word),
    }
}

/// A rule: the suffix, and its replacement.
type Rule = (&'static str, &'static str);

/// The first suffix of each list that the word ends in decides; longer ones therefore come first.
const STEP_2: [Rule; 20] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("abli", "able"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
];
const STEP_3: [Rule; 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];
const STEP_4: [Rule; 19] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

fn porter(word: &str) -> String {
    let mut word = plural(word);
    word = past_or_gerund(word);
    if let Some(stem) = word.strip_suffix('y').filter(|stem| has_vowel(stem)) {
        word = format!("{stem}i");
    }
    word = replaced(word, &STEP_2, |stem, _| measure(stem) > 0);
    word = replaced(word, &STEP_3, |stem, _| measure(stem) > 0);
    word = replaced(word, &STEP_4, |stem, suffix| measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't'])));
    if let Some(stem) = word.strip_suffix('e') {
        let m = measure(stem);
        if m > 1 || (m == 1 && !ends_short(stem)) {
            word = stem.to_owned();
        }
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}

/// Step 1a.
fn plural(word: &str) -> String {
    let rules: [Rule; 4] = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];
    replaced(word.to_owned(), &rules, |_, _| true)
}

/// Step 1b.
fn past_or_gerund(word: String) -> String {
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word };
    }
    let Some(stem) = word.strip_suffix("ed").or_else(|| word.strip_suffix("ing")).filter(|stem| has_vowel(stem)) else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        format!("{stem}e")
    } else if ends_double(stem) && !stem.ends_with(['l', 's', 'z']) {
        stem[..stem.len() - 1].to_owned()
    } else if measure(stem) == 1 && ends_short(stem) {
        format!("{stem}e")
    } else {
        stem.to_owned()
    }
}

/// The word after the first rule whose suffix it ends in, if `allowed` takes the stem and the suffix.
fn replaced(word: String, rules: &[Rule], allowed: impl Fn(&str, &str) -> bool) -> String {
    for (suffix, replacement) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return if allowed(stem, suffix) { format!("{stem}{replacement}") } else { word };
        }
    }
    word
}

/// Whether each letter is a vowel; `y` is one after a consonant.
fn vowels(stem: &str) -> Vec<bool> {
    let mut vowels = Vec::with_capacity(stem.len());
    for letter in stem.bytes() {
        let after_consonant = vowels.last() == Some(&false);
        vowels.push(matches!(letter, b'a' | b'e' | b'i' | b'o' | b'u') || (letter == b'y' && after_consonant));
    }
    vowels
}

/// Porter's m: how often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    vowels(stem).windows(2).filter(|pair| pair[0] && !pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    vowels(stem).contains(&true)
}

/// Porter's `*d`: a double consonant at the end.
fn ends_double(stem: &str) -> bool {
    let letters = stem.as_bytes();
    letters.len() > 1 && letters[letters.len() - 1] == letters[letters.len() - 2] && vowels(stem).ends_with(&[false])
}

/// Porter's `*o`: consonant, vowel, consonant at the end, the last one not w, x or y.
fn ends_short(stem: &str) -> bool {
    vowels(stem).ends_with(&[false, true, false]) && !stem.ends_with(['w', 'x', 'y'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn porters_own_examples_come_out() {
        let examples = "caresses caress, ponies poni, cats cat, feed feed, agreed agre, plastered plaster, bled bled, \
            motoring motor, sing sing, conflated conflat, troubled troubl, sized size, hopping hop, falling fall, \
            hissing hiss, failing fail, filing file, happy happi, sky sky, relational relat, conditional condit, \
            rational ration, digitizer digit, conformably conform, radically radic, vileli vile, operator oper, \
            decisiveness decis, hopefulness hope, formality formal, sensibility sensibl, triplicate triplic, \
            electrical electr, goodness good, revival reviv, airliner airlin, adjustable adjust, replacement replac, \
            adoption adopt, communism commun, bowdlerize bowdler, probate probat, rate rate, cease ceas, \
            controlling control, rolling roll";
        for example in examples.split(", ") {
            let (word, stem) = example.trim().split_once(' ').unwrap_or_default();
            assert_eq!(porter(word), stem, "{word}");
        }
    }

    #[test]
    fn irregular_words_come_before_rules_and_short_words_stay() {
        assert_eq!(stem("went"), "go");
        assert_eq!(stem("mice"), "mouse");
        assert_eq!(stem("was"), "was");
        assert_eq!(stem("2010s"), "2010");
    }

    #[test]
    fn the_table_is_whole() {
        assert!(IRREGULAR.len() > 3_000, "{} lines", IRREGULAR.len());
        assert!(IRREGULAR.iter().all(|(word, stem)| word.len() > LONGEST_UNSTEMMED && !stem.is_empty()));
    }
}
