//! Ctrl-C: the stages in hand go on to their next checkpoint, or to their end where they keep none, and no other is
//! begun. A second Ctrl-C ends the process at once; nothing that is finished is lost by that either.
//!
//! A trainer cannot be stopped from its report by a return value. It is left by unwinding, which is to the store what a
//! kill is, and safe for the same reason: the checkpoint is on the disk.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit status of a process that Ctrl-C ended.
pub const EXIT_STATUS: u8 = 130;

/// When the user asked to stop.
static ASKED: OnceLock<SystemTime> = OnceLock::new();

thread_local! {
    /// The directory of the stage that this thread works on.
    static DIRECTORY: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The user asked to stop; nothing has failed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("stopped by Ctrl-C")]
pub struct Stopped;

/// Listens to Ctrl-C, and to SIGTERM, which is taken for the same, from here on.
///
/// # Errors
/// When the system does not let it.
pub fn listen() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to Ctrl-C")?;
    let wait = move || {
        for _ in signals.forever() {
            if ASKED.set(SystemTime::now()).is_err() {
                std::process::exit(i32::from(EXIT_STATUS));
            }
            eprintln!("stopping after the next checkpoint; Ctrl-C again stops at once");
        }
    };
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(wait).context("cannot listen to Ctrl-C")?;
    Ok(())
}

/// An error when the user asked to stop: nothing else is begun.
///
/// # Errors
/// [`Stopped`].
pub fn check() -> Result<(), Stopped> {
    if ASKED.get().is_some() { Err(Stopped) } else { Ok(()) }
}

/// Does work that may panic: a panic is an error of this work alone.
///
/// # Errors
/// That of the work, its panic, or [`Stopped`] where it [left](leave_after_checkpoint).
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(caught) if caught.is::<Stopped>() => Err(Stopped.into()),
        Err(caught) => Err(anyhow!("panicked: {}", words(caught.as_ref()))),
    }
}

/// What a panic says.
fn words(caught: &(dyn Any + Send)) -> &str {
    let text = caught.downcast_ref::<&str>().copied();
    text.or_else(|| caught.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason was given")
}

/// Tells this thread that it works in a stage's directory, until the value is dropped.
#[derive(Debug)]
pub struct Working(());

impl Working {
    /// From now on, in `dir`.
    #[must_use]
    pub fn on(dir: &Path) -> Self {
        DIRECTORY.replace(Some(dir.to_owned()));
        Self(())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        DIRECTORY.replace(None);
    }
}

/// Leaves the stage in hand when the user asked to stop and it has written a checkpoint since.
pub fn leave_after_checkpoint() {
    let Some(&asked) = ASKED.get() else { return };
    let written = DIRECTORY.with_borrow(|dir| dir.as_deref().is_some_and(|dir| has_checkpoint_since(dir, asked)));
    if written {
        resume_unwind(Box::new(Stopped));
    }
}

/// Whether a file `*.checkpoint` of the directory was written after a time.
fn has_checkpoint_since(dir: &Path, time: SystemTime) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let is_checkpoint = entry.path().extension() == Some(OsStr::new("checkpoint"));
        is_checkpoint && entry.metadata().and_then(|data| data.modified()).is_ok_and(|written| written >= time)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_panic_is_an_error_of_its_own_work() {
        let error = guarded(|| -> Result<()> { panic!("no {}", "space") }).unwrap_err();
        assert_eq!(error.to_string(), "panicked: no space");
        let stopped = guarded(|| -> Result<()> { resume_unwind(Box::new(Stopped)) }).unwrap_err();
        assert!(stopped.is::<Stopped>());
    }

    #[test]
    fn a_checkpoint_written_since_is_told_from_an_older_one_and_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        fs::write(dir.path().join("model"), "").unwrap();
        assert!(!has_checkpoint_since(dir.path(), now - Duration::from_secs(60)));
        fs::write(dir.path().join("train.checkpoint"), "").unwrap();
        assert!(has_checkpoint_since(dir.path(), now - Duration::from_secs(60)));
        assert!(!has_checkpoint_since(dir.path(), now + Duration::from_secs(60)));
        assert!(!has_checkpoint_since(&dir.path().join("none"), now));
    }
}
