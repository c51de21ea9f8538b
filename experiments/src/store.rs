//! The results of stages, kept by content: a stage whose settings, inputs, parents and seed are
//! unchanged is never run twice, and one that was cut off goes on where it was.
//!
//! ```text
//! results/runs/<name>/<kind>/<key>/            finished; stage.json is its manifest
//!                            <key>.partial/    in hand, or cut off: handed to the stage again
//!                            <key>.error.json  why the last attempt failed; it is tried again
//! ```
//!
//! A finished directory appears in one rename, with its manifest inside. This file knows nothing
//! of what a stage computes, nor which stages there are.

mod files;
pub mod look;
mod readers;
mod roots;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use files::{hash_file, remove_if_there, write_json, write_whole};
use files::{list_files, remove_unfinished};
use look::Seen;
use readers::Readers;
pub use roots::Roots;

use crate::interrupt::{self, Stopped, Working, guarded};

const MANIFEST: &str = "stage.json";

/// Everything that decides a stage's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageKey {
    stage: &'static str,
    version: u32,
    seed: u64,
    settings: Value,
    parents: BTreeMap<String, String>,
    inputs: BTreeMap<String, String>,
}

impl StageKey {
    /// A key for one kind of stage. Raise `version` when the code changes what it computes.
    ///
    /// # Errors
    /// When the settings cannot be written as JSON.
    pub fn new(stage: &'static str, version: u32, seed: u64, settings: &impl Serialize) -> Result<Self> {
        let settings = serde_json::to_value(settings)
            .with_context(|| format!("the settings of stage {stage} cannot be written as JSON"))?;
        let (parents, inputs) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { stage, version, seed, settings, parents, inputs })
    }

    /// Adds a stage whose result is read.
    #[must_use]
    pub fn parent(self, role: &str, parent: &Stage) -> Self {
        self.parent_key(role, &parent.key)
    }

    /// Adds a stage whose result is read, by its key.
    #[must_use]
    pub fn parent_key(mut self, role: &str, key: &str) -> Self {
        self.parents.insert(role.to_owned(), key.to_owned());
        self
    }

    /// Adds a file whose content is read.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn input(mut self, role: &str, path: &Path) -> Result<Self> {
        self.inputs.insert(role.to_owned(), hash_file(path)?);
        Ok(self)
    }

    /// The name of the result: the start of the SHA-256 of all of it, as JSON with sorted keys.
    ///
    /// # Errors
    /// When the key cannot be written as JSON.
    pub fn digest(&self) -> Result<String> {
        let mut json = serde_json::to_value(self).context("a stage's key is no JSON")?;
        json.sort_all_objects();
        Ok(format!("{:x}", Sha256::digest(json.to_string()))[..16].to_owned())
    }
}

/// What a stage hands back, besides the files it wrote into its directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its figures, for later stages and tables.
    pub summary: Value,
    /// How many samples it worked on.
    pub samples: usize,
}

impl Output {
    /// Figures and the number of samples that they come from.
    ///
    /// # Errors
    /// When the figures cannot be written as JSON.
    pub fn new(summary: &impl Serialize, samples: usize) -> Result<Self> {
        let summary = serde_json::to_value(summary).context("a stage's summary is no JSON")?;
        Ok(Self { summary, samples })
    }
}

/// The manifest of a finished stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    stage: String,
    version: u32,
    seed: u64,
    settings: Value,
    parents: BTreeMap<String, String>,
    inputs: BTreeMap<String, String>,
    revision: String,
    device: String,
    /// Of the last attempt; see `resumed`.
    seconds: f64,
    /// Whether an earlier attempt had begun the work.
    resumed: bool,
    samples: usize,
    summary: Value,
    /// Sizes of the files, so that a directory that lost one is not taken for finished.
    files: BTreeMap<String, u64>,
}

/// A finished stage, or, of a store that only looks, one that is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its key, the name of its directory.
    pub key: String,
    /// Where its files are.
    pub dir: PathBuf,
    /// Seconds it took; only the last attempt's when it was cut off before.
    pub seconds: f64,
    /// How many samples it worked on.
    pub samples: usize,
    /// Whether it was run just now, rather than found.
    pub fresh: bool,
    /// Whether it is there; one that is not has a key alone.
    pub finished: bool,
    summary: Value,
}

impl Stage {
    /// Its figures.
    ///
    /// # Errors
    /// When they are not of this type.
    pub fn summary<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.summary.clone())
            .with_context(|| format!("{}: unexpected summary", self.dir.join(MANIFEST).display()))
    }
}

/// The results of one sweep. Threads may share it: two that ask for one stage get it one after the other.
#[derive(Debug)]
pub struct Store {
    roots: Roots,
    device: String,
    revision: String,
    /// Held while the store is open; the system lets go of it when the process ends. None of a store
    /// that only looks.
    lock: Option<File>,
    /// What was asked for since the last [`take_seen`](Self::take_seen).
    seen: Mutex<Vec<Seen>>,
    /// By key: held by the thread that works on a stage.
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// By kind, as they were when it was first asked for.
    readers: Mutex<BTreeMap<&'static str, Readers>>,
}

impl Store {
    /// Opens the results under the own root for this process alone.
    ///
    /// # Errors
    /// When the directory cannot be made or another process has it open.
    pub fn open(roots: impl Into<Roots>, device: &str) -> Result<Self> {
        let roots = roots.into();
        let root = roots.own();
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let path = root.join(".lock");
        let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => anyhow!(
                "another process is running this sweep in {}: wait for it, or give another --out",
                root.display()
            ),
            fs::TryLockError::Error(error) => anyhow!(error).context(format!("cannot lock {}", path.display())),
        })?;
        Ok(Self { lock: Some(lock), device: device.to_owned(), revision: revision(), ..Self::look(roots) })
    }

    /// A store that runs nothing and writes nothing: a stage that is not there is handed out with its
    /// key alone, so that the stages after it have their keys too.
    #[must_use]
    pub fn look(roots: impl Into<Roots>) -> Self {
        Self {
            roots: roots.into(),
            device: String::new(),
            revision: String::new(),
            lock: None,
            seen: Mutex::default(),
            turns: Mutex::default(),
            readers: Mutex::default(),
        }
    }

    /// Whether stages are run, rather than looked for.
    #[must_use]
    pub fn works(&self) -> bool {
        self.lock.is_some()
    }

    /// The stages that were asked for since the last call, in order.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.seen))
    }

    /// Where the results are.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The finished stage of this key, if there is one.
    ///
    /// # Errors
    /// When the key cannot be written as JSON.
    pub fn find(&self, key: &StageKey) -> Result<Option<Stage>> {
        let digest = key.digest()?;
        Ok(self.roots.places(key.stage, &digest).find_map(|dir| finished(dir, &digest)))
    }

    /// The directories of finished stages of a kind that read the stage `parent`, as they were when the kind was first asked
    /// for: what is made in this run has this run's settings.
    pub fn readers(&self, kind: &'static str, parent: &str) -> Vec<PathBuf> {
        let mut readers = lock(&self.readers);
        let of_kind = readers.entry(kind).or_insert_with(|| readers::of_kind(&self.roots, kind));
        of_kind.get(parent).cloned().unwrap_or_default()
    }

    /// Returns the finished stage of this key, or does the work.
    ///
    /// `work` writes its files into the directory that it is given. What an attempt that was cut
    /// off left there is still there, so a stage that keeps checkpoints goes on from the last one.
    ///
    /// # Errors
    /// When the work fails or panics: its error is also kept beside the directory, and the next run tries
    /// again. When the result cannot be written. [`Stopped`] when the user asked to stop.
    pub fn run(&self, key: &StageKey, work: impl FnOnce(&Path) -> Result<Output>) -> Result<Stage> {
        let digest = key.digest()?;
        let turn = Arc::clone(lock(&self.turns).entry(digest.clone()).or_default());
        let _turn = lock(&turn);
        if let Some(stage) = self.find(key)? {
            self.note(key, &stage);
            return Ok(stage);
        }
        let dir = self.roots.own().join(key.stage).join(&digest);
        if !self.works() {
            let stage = Stage {
                key: digest,
                dir,
                seconds: 0.0,
                samples: 0,
                fresh: false,
                finished: false,
                summary: Value::Null,
            };
            self.note(key, &stage);
            return Ok(stage);
        }
        interrupt::check()?;
        let error_file = sibling(&dir, ".error.json");
        match self.attempt(key, &dir, work) {
            Ok(()) => {
                remove_if_there(&error_file)?;
                let mut stage = self
                    .find(key)?
                    .with_context(|| format!("{} is not there right after it was finished", dir.display()))?;
                stage.fresh = true;
                self.note(key, &stage);
                Ok(stage)
            }
            Err(error) if error.is::<Stopped>() => Err(error),
            Err(error) => {
                record_error(&error_file, key, &error);
                Err(error.context(format!("stage {} ({digest})", key.stage)))
            }
        }
    }

    fn note(&self, key: &StageKey, stage: &Stage) {
        lock(&self.seen).push(Seen::new(key.stage, stage));
    }

    fn attempt(&self, key: &StageKey, dir: &Path, work: impl FnOnce(&Path) -> Result<Output>) -> Result<()> {
        let partial = sibling(dir, ".partial");
        if dir.exists() && !partial.exists() {
            // A finished directory that lost its manifest or a file: what is left may still help.
            fs::rename(dir, &partial).with_context(|| format!("cannot rename {}", dir.display()))?;
        }
        let resumed = partial.exists();
        fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        remove_if_there(&partial.join(MANIFEST))?;
        remove_unfinished(&partial)?;
        let start = Instant::now();
        let output = {
            let _working = Working::on(&partial);
            guarded(|| work(&partial))?
        };
        let mut files = BTreeMap::new();
        list_files(&partial, &partial, &mut files).with_context(|| format!("cannot list {}", partial.display()))?;
        let manifest = Manifest {
            stage: key.stage.to_owned(),
            version: key.version,
            seed: key.seed,
            settings: key.settings.clone(),
            parents: key.parents.clone(),
            inputs: key.inputs.clone(),
            revision: self.revision.clone(),
            device: self.device.clone(),
            seconds: start.elapsed().as_secs_f64(),
            resumed,
            samples: output.samples,
            summary: output.summary,
            files,
        };
        write_json(&partial.join(MANIFEST), &manifest)?;
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        fs::rename(&partial, dir).with_context(|| format!("cannot rename {}", partial.display()))
    }
}

/// The stage in a directory, if it is finished and whole.
fn finished(dir: PathBuf, key: &str) -> Option<Stage> {
    let text = fs::read_to_string(dir.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_str(&text).ok()?;
    let is_whole =
        |(name, &bytes): (&String, &u64)| fs::metadata(dir.join(name)).is_ok_and(|found| found.len() == bytes);
    manifest.files.iter().all(is_whole).then_some(Stage {
        key: key.to_owned(),
        seconds: manifest.seconds,
        samples: manifest.samples,
        fresh: false,
        finished: true,
        summary: manifest.summary,
        dir,
    })
}

/// A mutex's value; a thread that panicked leaves nothing half done behind these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the reason of a failure; where even that cannot be written, the log has it.
fn record_error(path: &Path, key: &StageKey, error: &anyhow::Error) {
    let record = serde_json::json!({ "error": format!("{error:#}"), "key": key });
    if let Err(second) = write_json(path, &record) {
        tracing::warn!("the error of stage {} is not recorded: {second:#}", key.stage);
    }
}

/// `dir` with something after its name.
fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The git revision of the working tree, `-dirty` when files differ from it.
fn revision() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
