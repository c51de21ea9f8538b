//! Prompts of one kind in three disjoint parts: for the gradients, for the choice, and for what is measured.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use files::Hashes;
use prompts::{Sample, shuffled_order};

use super::settings::PartSizes;
use crate::error::invalid;
use crate::{Parts, Pick, Result, Samples};

/// The three parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Divided {
    pub recover: Vec<Sample>,
    pub choose: Vec<Sample>,
    pub test: Vec<Sample>,
}

/// Shares of all prompts that are held out at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub choose: f64,
    pub test: f64,
}

impl Held {
    /// Of prompts that are few.
    pub const PROMPTS: Self = Self { choose: 0.2, test: 0.3 };
    /// Of a task's samples.
    pub const TASK: Self = Self { choose: 0.2, test: 0.2 };
}

impl Divided {
    /// The fewest prompts that can be divided.
    pub const FEWEST: usize = 8;

    /// Divides samples by a seed. Of equal prompts the first is taken, and each part has of every category its share.
    ///
    /// # Errors
    /// When there are too few; `name` is what they are.
    pub fn new(name: &str, samples: Vec<Sample>, sizes: PartSizes, held: Held, seed: u64) -> Result<Self> {
        let samples = distinct(samples);
        let all = samples.len();
        if all < Self::FEWEST {
            return invalid(format!(
                "{name}: {all} different prompts are too few for three parts; {} at least",
                Self::FEWEST
            ));
        }
        let count = |share: f64, most: usize| ((all as f64 * share).round() as usize).clamp(1, most);
        let (test, choose) = (count(held.test, sizes.test), count(held.choose, sizes.choose));
        let mut ordered = mixed(samples, seed).into_iter();
        let mut take = |count: usize| ordered.by_ref().take(count).collect::<Vec<_>>();
        Ok(Self { test: take(test), choose: take(choose), recover: take(sizes.recover) })
    }

    /// All prompts, without space around them.
    pub fn prompts(&self) -> impl Iterator<Item = &str> {
        [&self.recover, &self.choose, &self.test].into_iter().flatten().map(|sample| sample.prompt.trim())
    }

    /// These and others, part by part.
    pub fn with(mut self, other: Self) -> Self {
        self.recover.extend(other.recover);
        self.choose.extend(other.choose);
        self.test.extend(other.test);
        self
    }

    /// Writes the parts that the method reads into `dir`, where nothing takes them for answers.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path, name: &str, pick: &Pick, hashes: &Hashes) -> Result<Parts> {
        let part = |part: &str, samples: &[Sample]| -> Result<Samples> {
            let path: PathBuf = dir.join(format!("{name}-{part}.prompts"));
            files::write_jsonl(&path, samples)?;
            Samples::of(&path, pick.clone(), hashes)
        };
        Ok(Parts { train: part("recover", &self.recover)?, held_out: part("choose", &self.choose)? })
    }
}

/// The samples with a name each, the first of those with one prompt.
fn distinct(samples: Vec<Sample>) -> Vec<Sample> {
    let mut seen = HashSet::new();
    let named = samples.into_iter().enumerate().map(|(index, mut sample)| {
        sample.id.get_or_insert_with(|| (index + 1).to_string());
        sample
    });
    named.filter(|sample| seen.insert(sample.prompt.trim().to_owned())).collect()
}

/// The samples in a random order in which the categories alternate by their shares.
fn mixed(samples: Vec<Sample>, seed: u64) -> Vec<Sample> {
    let order = shuffled_order(samples.len(), seed);
    let mut sizes: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    samples.iter().for_each(|sample| *sizes.entry(&sample.category).or_default() += 1);
    let mut seen: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    let mut placed: Vec<(f64, usize)> = order
        .iter()
        .map(|&at| {
            let category = &samples[at].category;
            let rank = seen.entry(category).or_default();
            *rank += 1;
            ((*rank as f64 - 0.5) / sizes[category] as f64, at)
        })
        .collect();
    placed.sort_by(|a, b| a.0.total_cmp(&b.0));
    placed.into_iter().map(|(_, at)| samples[at].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: usize) -> Vec<Sample> {
        let sample = |i: usize| Sample {
            prompt: format!("prompt {i}"),
            category: Some(["map", "gate"][i % 2].to_owned()),
            ..Sample::default()
        };
        (0..count).map(sample).collect()
    }

    fn divide(samples: Vec<Sample>, seed: u64) -> Divided {
        Divided::new("p", samples, PartSizes::default(), Held::PROMPTS, seed).unwrap()
    }

    #[test]
    fn parts_are_disjoint_hold_all_and_follow_the_seed() {
        let parts = divide(samples(100), 3);
        assert_eq!((parts.recover.len(), parts.choose.len(), parts.test.len()), (50, 20, 30));
        let all: HashSet<&str> =
            [&parts.recover, &parts.choose, &parts.test].into_iter().flatten().map(|one| one.prompt.as_str()).collect();
        assert_eq!(all.len(), 100);
        assert_eq!(parts, divide(samples(100), 3));
        assert_ne!(parts, divide(samples(100), 4));
    }

    #[test]
    fn every_part_has_each_category_and_equal_prompts_are_one() {
        let twice = [samples(40), samples(40)].concat();
        let parts = divide(twice, 1);
        let maps = |part: &[Sample]| part.iter().filter(|one| one.category.as_deref() == Some("map")).count();
        assert_eq!((maps(&parts.test), maps(&parts.choose), maps(&parts.recover)), (6, 4, 10));
    }

    #[test]
    fn sizes_are_limits_and_too_few_prompts_are_an_error() {
        let sizes = PartSizes { recover: 5, choose: 3, test: 4 };
        let parts = Divided::new("p", samples(100), sizes, Held::TASK, 1).unwrap();
        assert_eq!((parts.recover.len(), parts.choose.len(), parts.test.len()), (5, 3, 4));
        let error = Divided::new("p.jsonl", samples(7), sizes, Held::TASK, 1).unwrap_err().to_string();
        assert!(error.contains("p.jsonl: 7 different prompts"), "{error}");
    }
}
