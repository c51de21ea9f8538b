//! What stages read: artifacts of other stages or of the user, and samples. Both serialise as their content, never as
//! their place, so that a stage's key is a hash of what runs.

use std::path::{Path, PathBuf};

use files::Hashes;
use prompts::Sample;
use prompts::sample::{read_jsonl, read_training_jsonl};
use serde::{Deserialize, Serialize, Serializer};

use crate::Result;
use crate::error::invalid;

/// A file or directory that a stage reads. It serialises as its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The key of the stage that makes it, or the hash of its content.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Endings of the files of a model directory that are read; a download leaves notes of its own there, too.
const READ: [&str; 5] = ["json", "jinja", "model", "txt", "safetensors"];

impl Artifact {
    /// A file of the user, or a directory with all that is in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(path: &Path, hashes: &Hashes) -> Result<Self> {
        Ok(Self { key: hashes.of(path)?, path: path.to_owned() })
    }

    /// A model of the user: a file, or a directory with the files that are read of a model.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn model(path: &Path, hashes: &Hashes) -> Result<Self> {
        if !path.is_dir() {
            return Self::file(path, hashes);
        }
        let is_read = |name: &str| {
            let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
            !name.contains('/') && ending.is_some_and(|ending| READ.contains(&ending))
        };
        let mut hash = files::Sha::default();
        for name in files::list(path)?.keys().filter(|name| is_read(name)) {
            hash.part(name).part(hashes.of(&path.join(name))?);
        }
        Ok(Self { key: hash.finish(), path: path.to_owned() })
    }
}

impl Serialize for Artifact {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.key)
    }
}

/// Samples of a JSONL file. They serialise as the file's content and which of its lines are picked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Samples {
    /// The file.
    #[serde(skip)]
    pub file: PathBuf,
    /// SHA-256 of its content.
    pub content: String,
    /// Which of its samples.
    pub pick: Pick,
}

/// Which samples of a file: those of a split, from one on, so many.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pick {
    /// The part of a seeded division of the file; all of it where there is none.
    pub split: Option<Split>,
    /// Samples that are left out at the start.
    pub skip: usize,
    /// How many are taken; fewer in the file is an error. All where it is none.
    pub count: Option<usize>,
    /// How many are taken at most.
    pub at_most: Option<usize>,
    /// Whether each must have a response.
    pub responses: bool,
}

/// One part of a training file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Split {
    /// Which part.
    pub part: Part,
    /// Share of the file that is held out of training.
    pub held_out: f64,
    /// Decides which samples.
    pub seed: u64,
}

/// A part of a training file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What is trained on.
    Train,
    /// What decides, and is not trained on.
    HeldOut,
}

impl Samples {
    /// Some samples of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(file: &Path, pick: Pick, hashes: &Hashes) -> Result<Self> {
        Ok(Self { file: file.to_owned(), content: hashes.of(file)?, pick })
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the file cannot be read, a line is not a sample, or there are too few.
    pub fn read(&self) -> Result<Vec<Sample>> {
        let Pick { split, skip, count, at_most, responses } = self.pick.clone();
        let mut samples = if responses { read_training_jsonl(&self.file)? } else { read_jsonl(&self.file)? };
        if let Some(split) = split {
            let mut chosen = split.indices(samples.len());
            chosen.sort_unstable();
            samples = chosen.into_iter().map(|index| samples[index].clone()).collect();
        }
        let found = samples.len();
        let wanted = skip.saturating_add(count.unwrap_or(0));
        if found < wanted {
            let after = if skip > 0 { format!(" after the first {skip}") } else { String::new() };
            let count = count.unwrap_or(0);
            return invalid(format!("{}: {count} samples{after} are needed, the file has {found}", self.file.display()));
        }
        let taken = count.or(at_most).unwrap_or(usize::MAX);
        Ok(samples.into_iter().skip(skip).take(taken).collect())
    }
}

impl Split {
    fn indices(&self, all: usize) -> Vec<usize> {
        let held = ((all as f64 * self.held_out).ceil() as usize).min(all);
        let order = prompts::shuffled_order(all, self.seed);
        let (held_out, train) = order.split_at(held);
        if self.part == Part::Train { train.to_vec() } else { held_out.to_vec() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn write(lines: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("samples.jsonl");
        let line = |i: usize| format!("{{\"prompt\": \"{i}\", \"response\": \"r\"}}\n");
        files::write_whole(&file, (0..lines).map(line).collect::<String>().as_bytes()).unwrap();
        (dir, file)
    }

    fn read(file: &Path, pick: Pick) -> Result<Vec<String>> {
        let samples = Samples::of(file, pick, &Hashes::default())?.read()?;
        Ok(samples.into_iter().map(|sample| sample.prompt).collect())
    }

    #[test]
    fn parts_share_no_sample_and_keep_the_order_of_the_file() {
        let (_dir, file) = write(20);
        let part = |part| {
            let split = Some(Split { part, held_out: 0.25, seed: 3 });
            read(&file, Pick { split, ..Pick::default() }).unwrap()
        };
        let (train, held_out) = (part(Part::Train), part(Part::HeldOut));
        assert_eq!((train.len(), held_out.len()), (15, 5));
        assert!(held_out.iter().all(|one| !train.contains(one)));
        let numbers: Vec<usize> = train.iter().map(|one| one.parse().unwrap()).collect();
        assert!(numbers.is_sorted());
    }

    #[test]
    fn too_few_samples_are_an_error_and_sums_do_not_wrap() {
        let (_dir, file) = write(5);
        assert_eq!(read(&file, Pick { skip: 1, count: Some(2), ..Pick::default() }).unwrap(), ["1", "2"]);
        assert_eq!(read(&file, Pick { at_most: Some(9), ..Pick::default() }).unwrap().len(), 5);
        for (skip, count) in [(4, 2), (0, 6), (usize::MAX, 2)] {
            let error = read(&file, Pick { skip, count: Some(count), ..Pick::default() }).unwrap_err().to_string();
            assert!(error.contains("samples.jsonl") && error.contains("the file has 5"), "{error}");
        }
    }

    #[test]
    fn samples_serialise_as_content_and_pick() {
        let ((_one, first), (_two, second)) = (write(3), write(3));
        let json = |file: &Path, skip| {
            let pick = Pick { skip, ..Pick::default() };
            serde_json::to_string(&Samples::of(file, pick, &Hashes::default()).unwrap()).unwrap()
        };
        assert_eq!(json(&first, 0), json(&second, 0), "the place does not count");
        assert_ne!(json(&first, 0), json(&first, 1));
    }
}
