//! The prompts that are used where the user has none: self-written requests, without an answer.

use prompts::Sample;

use crate::Result;

/// Harmful requests in 14 categories.
const HARMFUL: &str = include_str!("../../data/harmful.jsonl");
/// Everyday requests.
const HARMLESS: &str = include_str!("../../data/harmless.jsonl");
/// Harmless requests that look harmful.
const LOOKS_HARMFUL: &str = include_str!("../../data/looks-harmful.jsonl");

/// A packaged set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packaged {
    /// Its name for people.
    pub name: &'static str,
    /// Hash of its content.
    pub hash: String,
    /// Its prompts.
    pub samples: Vec<Sample>,
}

impl Packaged {
    /// The harmful requests.
    pub fn harmful() -> Result<Self> {
        Self::new("packaged harmful requests", HARMFUL)
    }

    /// The everyday requests.
    pub fn harmless() -> Result<Self> {
        Self::new("packaged everyday requests", HARMLESS)
    }

    /// The requests that look harmful.
    pub fn looks_harmful() -> Result<Self> {
        Self::new("packaged requests that look harmful", LOOKS_HARMFUL)
    }

    fn new(name: &'static str, text: &str) -> Result<Self> {
        let samples = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { name, hash: files::hash_bytes(text.as_bytes()), samples })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn the_sets_share_no_prompt_and_have_no_answers() {
        let sets = [Packaged::harmful(), Packaged::harmless(), Packaged::looks_harmful()].map(Result::unwrap);
        let (mut prompts, mut ids) = (HashSet::new(), HashSet::new());
        for sample in sets.iter().flat_map(|set| &set.samples) {
            assert!(prompts.insert(sample.prompt.trim().to_lowercase()), "twice: {}", sample.prompt);
            assert!(ids.insert(sample.id.clone().unwrap()), "{:?}", sample.id);
            assert_eq!(sample.response, None);
            let ends = sample.prompt.chars().filter(|c| ".?!".contains(*c)).count();
            assert!(sample.prompt.len() < 160 && ends >= 1, "{}", sample.prompt);
        }
        assert_eq!(sets[1].samples.len(), 128);
    }

    #[test]
    fn harmful_requests_are_of_14_categories_of_one_size() {
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        let harmful = Packaged::harmful().unwrap().samples;
        harmful.iter().for_each(|one| *sizes.entry(one.category.clone().unwrap()).or_default() += 1);
        assert_eq!(sizes.len(), 14);
        assert!(harmful.len() >= 128 && sizes.values().all(|&size| size == 12), "{sizes:?}");
    }
}
