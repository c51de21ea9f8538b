//! What stages read: artifacts of other stages or of the user, and samples. Both serialise as their content, never as
//! their place, so that a stage's key is a hash of what runs.

use std::path::{Path, PathBuf};

use evaluation::Fields;
use files::Hashes;
use prompts::Sample;
use prompts::sample::{read_jsonl, read_training_jsonl};
use serde::{Serialize, Serializer};

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
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(files::Error::io("read", path))? {
            let entry = entry.map_err(files::Error::io("read", path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if Self::is_read(Path::new(&name)) && !entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut hash = files::Sha::default();
        for name in names {
            hash.part(&name).part(hashes.of(&path.join(&name))?);
        }
        Ok(Self { key: hash.finish(), path: path.to_owned() })
    }

    /// Whether a file in a model's directory is read with it, by its ending.
    #[must_use]
    pub fn is_read(file: &Path) -> bool {
        file.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| READ.contains(&ending))
    }
}

impl Serialize for Artifact {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.key)
    }
}

/// Samples of a file, or of a directory of files. They serialise as the file's content and which of its lines are picked.
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

/// Which samples of a file: those of a part, from one on, so many.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pick {
    /// The keys of the file, when they are not `prompt` and `response`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// The part of the file; all of it when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Samples of the part that are left out at the start.
    pub skip: usize,
    /// How many follow; fewer are an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// How many follow at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<usize>,
    /// Whether each must have a response.
    pub responses: bool,
}

/// A side of a file's random division in two; its samples keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Split {
    /// Whether it is the side that is held out.
    pub held_out: bool,
    /// The share of the file that is held out.
    pub share: f64,
    /// Decides the division.
    pub seed: u64,
}

impl Pick {
    /// All samples, each with a response.
    #[must_use]
    pub fn answered() -> Self {
        Self { responses: true, ..Self::default() }
    }

    /// As a command line names them: the prompt under a key, so many of the file, each with a response or not.
    #[must_use]
    pub fn by(key: &str, count: Option<usize>, responses: bool) -> Self {
        let response = responses.then(|| "response".to_owned());
        let fields = (key != "prompt").then(|| Fields { prompt: key.to_owned(), response, ..Fields::default() });
        Self { fields, count, responses, ..Self::default() }
    }

    /// `count` samples after the first `skip`.
    #[must_use]
    pub fn lines(skip: usize, count: usize) -> Self {
        Self { skip, count: Some(count), ..Self::default() }
    }

    /// The samples of a file.
    ///
    /// # Errors
    /// When the file cannot be read, a line is not a sample, or there are too few.
    pub fn read(&self, file: &Path) -> Result<Vec<Sample>> {
        let mut samples = match &self.fields {
            Some(fields) => evaluation::read_samples(file, fields, 0, None)?,
            None if self.responses => read_training_jsonl(file)?,
            None => read_jsonl(file)?,
        };
        if let Some(Split { held_out, share, seed }) = self.split {
            let held = ((samples.len() as f64 * share).ceil() as usize).min(samples.len());
            let order = prompts::shuffled_order(samples.len(), seed);
            let mut chosen = if held_out { order[..held].to_vec() } else { order[held..].to_vec() };
            chosen.sort_unstable();
            samples = chosen.into_iter().map(|index| samples[index].clone()).collect();
        }
        let after = samples.get(self.skip..).unwrap_or_default();
        let taken = self.count.or(self.at_most).unwrap_or(after.len());
        if taken > after.len() && self.count.is_some() {
            let skipped = if self.skip > 0 { format!(" after the first {}", self.skip) } else { String::new() };
            let (place, found) = (file.display(), samples.len());
            return invalid(format!("{place}: {taken} samples{skipped} are needed, and there are {found}"));
        }
        Ok(after[..taken.min(after.len())].to_vec())
    }
}

impl Samples {
    /// Some samples of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of(file: &Path, pick: Pick, hashes: &Hashes) -> Result<Self> {
        let content = if file.is_dir() {
            let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_owned();
            let hashed = |file: &PathBuf| Ok(format!("{}  {}\n", hashes.of(file)?, name(file).display()));
            let list: String = prompts::rows::files_of(file)?.iter().map(hashed).collect::<Result<_>>()?;
            files::hash_bytes(list.as_bytes())
        } else {
            hashes.of(file)?
        };
        Ok(Self { file: file.to_owned(), content, pick })
    }

    /// Reads them.
    ///
    /// # Errors
    /// As [`Pick::read`].
    pub fn read(&self) -> Result<Vec<Sample>> {
        self.pick.read(&self.file)
    }
}

#[cfg(test)]
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
        let part = |held_out| {
            let split = Some(Split { held_out, share: 0.25, seed: 3 });
            read(&file, Pick { split, ..Pick::default() }).unwrap()
        };
        let (train, held_out) = (part(false), part(true));
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
            assert!(error.contains("samples.jsonl") && error.contains("there are 5"), "{error}");
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
        let dir = first.parent().unwrap();
        let before = json(dir, 0);
        files::write_whole(&dir.join("notes.md"), b"nothing that is read").unwrap();
        assert_eq!(json(dir, 0), before);
        files::write_whole(&dir.join("more.jsonl"), b"{\"prompt\": \"a\"}\n").unwrap();
        assert_ne!(json(dir, 0), before);
    }
}
