//! Finished stages, kept by content: a stage whose value is unchanged is never run twice, and one that was cut off goes on
//! where it was.
//!
//! ```text
//! DIR/<kind>/<key>/            finished; stage.json is its manifest
//!            <key>.partial/    in progress, or cut off: handed to the stage again
//!            <key>.error.json  why the last attempt failed; it is tried again
//!            <key>.lock        who works on it, where several processes share the folder
//! ```
//!
//! A finished directory appears in one rename, with its manifest inside. This file knows nothing of what a stage computes.

mod hold;
mod peak;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use realign::{Job, Progress, Report};
use serde::{Deserialize, Serialize};

use crate::error::{panic_as_error, with_causes};
use crate::graph::Node;
use crate::roots::{Content, Dependents, Finished, MANIFEST, Manifest, Roots, State, read_manifest, sibling};
use crate::store::hold::{Hold, Pace};
use crate::store::peak::Gauge;

/// The stages of one sweep, open for writing by this process alone, or by those of one submission. Threads share it: two
/// that want one stage get it one after the other.
#[derive(Debug)]
pub struct Store {
    roots: Roots,
    device: String,
    revision: String,
    /// Held while the store is open; the system lets go of it when the process ends.
    _lock: File,
    /// Of the processes that share it.
    submission: Option<String>,
    pace: Pace,
    gauge: Gauge,
    /// By key.
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Directories whose content was compared with their manifest.
    verified: Mutex<BTreeSet<PathBuf>>,
    /// Evaluations by model, and judgements by evaluation, as they were when the first one was needed.
    earlier: Mutex<Option<(Dependents, Dependents)>>,
}

impl Store {
    /// Opens the stages under the own root for this process alone.
    ///
    /// # Errors
    /// When the directory cannot be created or another process has it open.
    pub fn open(roots: &Roots, device: &str) -> Result<Self> {
        Self::with(roots, device, None)
    }

    /// Opens them together with other processes of a submission: stages are held one by one, and one that failed in the same
    /// submission is not tried again.
    ///
    /// # Errors
    /// When the directory cannot be created, or a process has it open for itself alone.
    pub fn open_shared(roots: &Roots, device: &str, submission: &str) -> Result<Self> {
        Self::with(roots, device, Some(submission.to_owned()))
    }

    fn with(roots: &Roots, device: &str, submission: Option<String>) -> Result<Self> {
        files::create_dir(roots.own())?;
        let path = roots.own().join(".lock");
        let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        files::try_lock(&lock, submission.is_some()).map_err(|error| match error {
            fs::TryLockError::WouldBlock => anyhow!(
                "another process is running this sweep in {}: wait for it, or give another --out",
                roots.own().display()
            ),
            fs::TryLockError::Error(error) => anyhow!(error).context(format!("cannot lock {}", path.display())),
        })?;
        Ok(Self {
            roots: roots.clone(),
            device: device.to_owned(),
            revision: revision(),
            _lock: lock,
            submission,
            pace: Pace::default(),
            gauge: Gauge::default(),
            turns: Mutex::default(),
            verified: Mutex::default(),
            earlier: Mutex::default(),
        })
    }

    /// Where its stages are.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// How far a stage has come.
    #[must_use]
    pub fn state(&self, node: &Node) -> State {
        self.roots.state(node.kind, &node.key)
    }

    /// The finished stage of a node, and whether it was run just now. What it reads must be finished.
    ///
    /// # Errors
    /// When the work fails or panics: the error is also kept beside the directory, and the next run tries again. When the
    /// result cannot be written.
    pub fn run(&self, node: &Node, job: &mut Job<'_>) -> Result<(Finished, bool)> {
        let turn = self.turn(node);
        let _turn = lock(&turn);
        if let State::Done(finished) = self.roots.state(node.kind, &node.key) {
            return Ok((finished, false));
        }
        let dir = self.roots.own().join(node.kind).join(&node.key);
        let error_file = sibling(&dir, ".error.json");
        let hold = self.hold(&dir, &mut *job.report)?;
        if hold.is_some() {
            if let State::Done(finished) = self.roots.state(node.kind, &node.key) {
                return Ok((finished, false));
            }
            if let Some(error) = self.failed_before(&error_file) {
                bail!("{} ({}/{}): {error}", node.name, node.kind, node.key);
            }
        }
        job.earlier = self.earlier(node);
        match self.attempt(node, &dir, job, hold.as_ref()) {
            Ok(()) => {
                files::remove(&error_file)?;
                match self.roots.state(node.kind, &node.key) {
                    State::Done(finished) => Ok((finished, true)),
                    _ => bail!("{} is not whole right after it was finished", dir.display()),
                }
            }
            Err(error) if is_stopped(&error) => Err(error),
            Err(error) => {
                if hold.is_none_or(|hold| hold.check().is_ok()) {
                    let failure = Failure {
                        error: with_causes(&error),
                        stage: node.kind.to_owned(),
                        name: node.name.clone(),
                        submission: self.submission.clone(),
                    };
                    files::write_json(&error_file, &failure)?;
                }
                Err(error.context(format!("{} ({}/{})", node.name, node.kind, node.key)))
            }
        }
    }

    /// Holds a stage against other processes, where there may be some.
    fn hold(&self, dir: &Path, report: &mut Report<'_>) -> Result<Option<Hold>> {
        if self.submission.is_none() {
            return Ok(None);
        }
        dir.parent().map_or(Ok(()), files::create_dir)?;
        let wait = |by: &str| report(Progress { done: 0, all: 0, word: &format!("waits for {by}") });
        Hold::take(dir, self.pace, wait).map(Some)
    }

    /// The error of a stage that another process of the submission has tried.
    fn failed_before(&self, error_file: &Path) -> Option<String> {
        let failure = files::read_json::<Failure>(error_file).ok()?;
        (failure.submission == self.submission).then_some(failure.error)
    }

    /// Held by the thread that works on a stage.
    fn turn(&self, node: &Node) -> Arc<Mutex<()>> {
        Arc::clone(lock(&self.turns).entry(node.key.clone()).or_default())
    }

    fn attempt(&self, node: &Node, dir: &Path, job: &mut Job<'_>, hold: Option<&Hold>) -> Result<()> {
        let partial = sibling(dir, ".partial");
        if dir.exists() {
            // A finished directory that is not as it was written: nothing in it can be relied on.
            files::remove(dir)?;
        }
        let resumed = partial.exists();
        files::create_dir(&partial)?;
        files::remove(&partial.join(MANIFEST))?;
        let (start, peak) = (Instant::now(), self.gauge.begin());
        let is_lost = || hold.is_some_and(Hold::is_lost);
        let mut report = |step: Progress<'_>| if is_lost() { ControlFlow::Break(()) } else { (job.report)(step) };
        let (device, batch, max_shard) = (job.device, job.batch, job.max_shard);
        let earlier = std::mem::take(&mut job.earlier);
        let summary = panic_as_error(|| {
            Ok(node.run(&partial, &mut Job { device, batch, max_shard, earlier, report: &mut report })?)
        });
        if let Some(hold) = hold {
            hold.check()?;
        }
        let summary = summary?;
        let (seconds, peak_memory) = (start.elapsed().as_secs_f64(), peak.memory());
        drop(peak);
        let mut contents = BTreeMap::new();
        for (name, bytes) in files::list(&partial)? {
            let sha256 = files::hash_path(&partial.join(&name))?;
            contents.insert(name, Content { bytes, sha256 });
        }
        let manifest = Manifest {
            kind: node.kind.to_owned(),
            version: node.version,
            value: node.value()?,
            revision: self.revision.clone(),
            device: self.device.clone(),
            seconds,
            peak_memory,
            resumed,
            summary,
            files: contents,
            digest: None,
        };
        files::write_json(&partial.join(MANIFEST), &manifest.sealed()?)?;
        hold.map_or(Ok(()), Hold::check)?;
        Ok(files::rename(&partial, dir)?)
    }

    /// Whether the files of a finished stage are, bit for bit, those that were written; each directory is read once. One
    /// that is not is removed, so that the stage can be run again.
    ///
    /// # Errors
    /// When it cannot be read or removed, or is another sweep's, which is only read.
    pub fn is_sound(&self, node: &Node) -> Result<bool> {
        let turn = self.turn(node);
        let _turn = lock(&turn);
        let dir = self.roots.dir(node.kind, &node.key);
        let State::Done(_) = self.state(node) else { return Ok(false) };
        if lock(&self.verified).contains(&dir) {
            return Ok(true);
        }
        let Some(name) = changed_file(&dir)? else {
            lock(&self.verified).insert(dir);
            return Ok(true);
        };
        if !dir.starts_with(self.roots.own()) {
            bail!("{}: {name} is not as it was written: remove this directory and run again", dir.display());
        }
        // Another process may have made it again since.
        let _hold = self.hold(&dir, &mut |_| ControlFlow::Continue(()))?;
        let State::Done(_) = self.state(node) else { return Ok(false) };
        if changed_file(&dir)?.is_some() {
            tracing::warn!("{}: {name} is not as it was written; {} is made again", dir.display(), node.name);
            files::remove(&dir)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// The directories that may hold some of a stage's answers or verdicts: where a changed setting makes another stage,
    /// an old one has what has not changed.
    fn earlier(&self, node: &Node) -> Vec<PathBuf> {
        let Some(model) = &node.evaluated else { return Vec::new() };
        let mut earlier = lock(&self.earlier);
        let read = || (self.roots.dependents("evaluate", "model"), self.roots.dependents("judge", "answers"));
        let (evaluations, judgements) = earlier.get_or_insert_with(read);
        let of_model = evaluations.get(model).cloned().unwrap_or_default();
        if node.kind == "evaluate" {
            return self.unchanged(of_model);
        }
        let keys = of_model.iter().filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
        self.unchanged(keys.filter_map(|key| judgements.get(&key)).flatten().cloned().collect())
    }

    /// Those of some finished stages whose files are as they were written.
    fn unchanged(&self, mut dirs: Vec<PathBuf>) -> Vec<PathBuf> {
        dirs.retain(|dir| {
            let is_sound = lock(&self.verified).contains(dir) || changed_file(dir).is_ok_and(|name| name.is_none());
            if is_sound {
                lock(&self.verified).insert(dir.clone());
            } else {
                tracing::warn!("{}: a file is not as it was written; nothing is taken over from there", dir.display());
            }
            is_sound
        });
        dirs
    }
}

/// The record of a stage that failed.
#[derive(Serialize, Deserialize)]
struct Failure {
    error: String,
    stage: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submission: Option<String>,
}

/// A file of a finished stage that is not, bit for bit, as it was written.
fn changed_file(dir: &Path) -> Result<Option<String>> {
    let manifest = read_manifest(dir).with_context(|| format!("{} has no manifest", dir.display()))?;
    for (name, content) in manifest.files {
        if files::hash_path(&dir.join(&name))? != content.sha256 {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether the user asked to stop, and nothing failed.
#[must_use]
pub fn is_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<realign::Error>().is_some_and(realign::Error::is_stopped))
}

/// A mutex's value; a thread that panicked leaves nothing half done behind these.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The git revision of the working tree, `-dirty` when files differ from it.
fn revision() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
