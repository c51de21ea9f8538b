//! Where stages are kept, and how far each has come; nothing is run or written here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The manifest's file in a stage's directory.
pub(crate) const MANIFEST: &str = "stage.json";

/// The manifest of a finished stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub kind: String,
    pub version: u32,
    /// The stage's value, of which the directory's name is the hash.
    pub value: Value,
    pub revision: String,
    pub device: String,
    /// Of the last attempt; see `resumed`.
    pub seconds: f64,
    /// The largest memory of the process in that time, in bytes; unknown where another stage ran beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Whether an earlier attempt had begun the work.
    pub resumed: bool,
    pub summary: Value,
    pub files: BTreeMap<String, Content>,
    /// The hash of all of the above; without it nothing of them is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Manifest {
    /// With its digest.
    ///
    /// # Errors
    /// When its summary is not JSON.
    pub fn sealed(self) -> Result<Self> {
        Ok(Self { digest: Some(files::hash_json(&Self { digest: None, ..self.clone() })?), ..self })
    }

    /// Whether it is as it was written.
    fn is_intact(&self) -> bool {
        let Some(digest) = &self.digest else { return false };
        files::hash_json(&Self { digest: None, ..self.clone() }).is_ok_and(|hash| hash == *digest)
    }
}

/// What a file of a finished stage holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub bytes: u64,
    pub sha256: String,
}

/// A finished stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Where its files are.
    pub dir: PathBuf,
    /// Seconds it took; only the last attempt's when it was cut off before.
    pub seconds: f64,
    /// The largest memory of the process in that time, in bytes; unknown where another stage ran beside it.
    pub peak_memory: Option<u64>,
    summary: Value,
}

impl Finished {
    /// Its figures.
    ///
    /// # Errors
    /// When they are not of this type.
    pub fn summary<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.summary).with_context(|| format!("{}: unexpected summary", self.dir.display()))
    }
}

/// How far a stage has come.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It is there.
    Done(Finished),
    /// It was begun and cut off; it goes on from its checkpoint.
    Partly,
    /// Its last attempt failed, with this error; it is tried again.
    Failed(String),
    /// It has not been begun.
    Missing,
}

/// The directory that stages are written to, and one of another sweep whose finished stages are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    own: PathBuf,
    base: Option<PathBuf>,
}

impl Roots {
    /// Writes to `own`; what is finished in `base` is read there. Neither needs to exist.
    #[must_use]
    pub fn new(own: &Path, base: Option<&Path>) -> Self {
        Self { own: own.to_owned(), base: base.map(Path::to_owned) }
    }

    /// The directory that new stages are written to.
    #[must_use]
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// The directory of a stage: where it is finished, else where it is to be written.
    #[must_use]
    pub fn dir(&self, kind: &str, key: &str) -> PathBuf {
        let own = self.own.join(kind).join(key);
        let in_base = self.base.as_ref().map(|base| base.join(kind).join(key));
        in_base.filter(|dir| !own.exists() && read_whole(dir, key).is_some()).unwrap_or(own)
    }

    /// How far a stage has come. A finished one is what its name says: the name is the hash of the manifest's value, the
    /// manifest is as it was written, and the files have the sizes that they were written with.
    #[must_use]
    pub fn state(&self, kind: &str, key: &str) -> State {
        let dir = self.dir(kind, key);
        if let Some(finished) = read_whole(&dir, key) {
            let Manifest { seconds, peak_memory, summary, .. } = finished;
            return State::Done(Finished { dir, seconds, peak_memory, summary });
        }
        let dir = self.own.join(kind).join(key);
        match fs::read(sibling(&dir, ".error.json")) {
            Ok(text) => {
                let record: Value = serde_json::from_slice(&text).unwrap_or_default();
                State::Failed(record["error"].as_str().unwrap_or("the record of its error is damaged").to_owned())
            }
            Err(_) if sibling(&dir, ".partial").exists() || dir.exists() => State::Partly,
            Err(_) => State::Missing,
        }
    }

    /// The finished stages of a kind by the key that their value has under `field`.
    pub(crate) fn dependents(&self, kind: &str, field: &str) -> Dependents {
        let roots = [Some(&self.own), self.base.as_ref()].into_iter().flatten();
        let listed = roots.filter_map(|root| fs::read_dir(root.join(kind)).ok()).flatten();
        let mut dirs: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        dirs.sort();
        let mut dependents = Dependents::new();
        for dir in dirs.into_iter().filter(|dir| dir.extension().is_none()) {
            let parent = read_manifest(&dir).and_then(|manifest| Some(manifest.value[field].as_str()?.to_owned()));
            if let Some(parent) = parent {
                dependents.entry(parent).or_default().push(dir);
            }
        }
        dependents
    }
}

/// Directories by the key of a stage that they read.
pub(crate) type Dependents = BTreeMap<String, Vec<PathBuf>>;

pub(crate) fn read_manifest(dir: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()
}

/// The manifest of a directory that holds what its name and the manifest say.
fn read_whole(dir: &Path, key: &str) -> Option<Manifest> {
    let manifest = read_manifest(dir)?;
    let hash = files::hash_json(&(&manifest.kind, manifest.version, &manifest.value)).ok()?;
    let has_size = |(name, content): (&String, &Content)| {
        fs::metadata(dir.join(name)).is_ok_and(|found| found.len() == content.bytes)
    };
    let is_whole = hash.starts_with(key) && manifest.is_intact() && manifest.files.iter().all(has_size);
    is_whole.then_some(manifest)
}

/// `dir` with something after its name.
pub(crate) fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
