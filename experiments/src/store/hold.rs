//! A stage held by one of several processes, on any machines that share the folder.
//!
//! The holder creates `<key>.lock` and writes it again every few seconds. A process that waits watches it by its own clock, so that
//! no two clocks need to agree: one that has not changed for a minute is of a process or machine that is gone, and is taken over.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use files::Error;
use serde::{Deserialize, Serialize};

use crate::roots::sibling;

/// How often a lock is written, and for how long it is not before its holder is taken for dead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub beat: Duration,
    pub dead: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { beat: Duration::from_secs(5), dead: Duration::from_secs(60) }
    }
}

/// What a lock says of its holder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    host: String,
    process: u32,
    /// When it was taken, by the holder's clock: tells two of one process apart.
    taken: u64,
    beats: u64,
}

impl Holder {
    fn new() -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.is_empty() { "an unknown host".to_owned() } else { host.trim().to_owned() };
        let taken = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        Self { host, process: std::process::id(), taken, beats: 0 }
    }

    fn is(&self, other: &Self) -> bool {
        (&self.host, self.process, self.taken) == (&other.host, other.process, other.taken)
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A stage that no other process works on, until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    path: PathBuf,
    holder: Holder,
    lost: Arc<AtomicBool>,
    /// Dropped to end the thread that writes the lock.
    end: Option<Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl Hold {
    /// Waits until the stage of this directory is held; `wait` is told who holds it, and may end the wait.
    ///
    /// # Errors
    /// When the lock cannot be written, or the wait was ended.
    pub fn take(dir: &Path, pace: Pace, mut wait: impl FnMut(&str) -> ControlFlow<()>) -> Result<Self> {
        let (path, holder) = (sibling(dir, ".lock"), Holder::new());
        let mut seen: Option<(Vec<u8>, Instant)> = None;
        let mut door = None;
        while !create(&path, &holder)? {
            let Some(text) = read(&path)? else { continue };
            match &seen {
                Some((before, since)) if *before == text && since.elapsed() >= pace.dead => {
                    if take_over(&path, &text, &holder, &mut door, pace)? {
                        break;
                    }
                    seen = None;
                }
                Some((before, _)) if *before == text => {}
                _ => seen = Some((text.clone(), Instant::now())),
            }
            let by = serde_json::from_slice::<Holder>(&text);
            let by = by.map_or("another process".to_owned(), |by| format!("{} (process {})", by.host, by.process));
            if wait(&by).is_break() {
                return Err(realign::Error::Stopped.into());
            }
            thread::sleep(pace.beat / 5);
        }
        Ok(Self::beating(path, holder, pace))
    }

    fn beating(path: PathBuf, holder: Holder, pace: Pace) -> Self {
        let ((end, ended), lost) = (channel::<()>(), Arc::new(AtomicBool::new(false)));
        let (is_lost, own, mut now) = (Arc::clone(&lost), path.clone(), holder.clone());
        let beat = move || {
            let mut last = Instant::now();
            while ended.recv_timeout(pace.beat) == Err(RecvTimeoutError::Timeout) {
                now.beats += 1;
                // A server that does not answer for a while is no loss yet; others wait twice as long.
                let written = is_own(&own, &now).and_then(|is_own| if is_own { write(&own, &now) } else { Ok(false) });
                match written {
                    Ok(true) => last = Instant::now(),
                    Err(_) if last.elapsed() < pace.dead / 2 => {}
                    _ => return is_lost.store(true, Ordering::Relaxed),
                }
            }
        };
        Self { path, holder, lost, end: Some(end), beating: Some(thread::spawn(beat)) }
    }

    /// Whether another process has taken the stage over, since this one did not renew its lock: its work is no longer wanted.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When another process holds the stage by now, or the lock cannot be read.
    pub fn check(&self) -> Result<()> {
        if self.is_lost() || !is_own(&self.path, &self.holder)? {
            bail!(
                "{}: another process has taken this stage over, since this one did not renew its lock",
                self.path.display()
            );
        }
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end = None;
        if let Some(beating) = self.beating.take() {
            let _ = beating.join();
        }
        // One that cannot be removed is not renewed, and is taken over.
        if is_own(&self.path, &self.holder).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the lock was free and is now this holder's.
fn create(path: &Path, holder: &Holder) -> files::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            let written = file.write_all(holder.text().as_bytes());
            if written.is_err() {
                files::remove(path)?;
            }
            written.map(|()| true).map_err(Error::io("write", path))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// What keeps others out while one takes a lock over, and since when it was seen.
type Door = Option<(Vec<u8>, Instant)>;

/// Replaces a lock that is no longer renewed. Of those that try, one at a time does, and only while the lock is as it was seen;
/// `door` is what kept an earlier try out.
fn take_over(path: &Path, seen: &[u8], holder: &Holder, door: &mut Door, pace: Pace) -> Result<bool> {
    let place = sibling(path, ".over");
    let is_in = create(&place, holder)? || (is_gone(&place, holder, door, pace)? && create(&place, holder)?);
    if !is_in {
        return Ok(false);
    }
    let taken = read(path).and_then(|text| {
        let is_dead = text.is_some_and(|text| text == seen);
        if is_dead {
            files::write_whole(path, holder.text().as_bytes())?;
        }
        Ok(is_dead)
    });
    files::remove(&place)?;
    Ok(taken?)
}

/// Whether nothing keeps others out any more: what a process that ended inside left there for long enough is removed.
fn is_gone(place: &Path, holder: &Holder, door: &mut Door, pace: Pace) -> files::Result<bool> {
    let Some(text) = read(place)? else { return Ok(true) };
    match door {
        Some((before, since)) if *before == text => {
            let is_left = since.elapsed() >= pace.dead;
            if is_left {
                remove_left(place, &text, holder)?;
            }
            Ok(is_left)
        }
        _ => {
            *door = Some((text, Instant::now()));
            Ok(false)
        }
    }
}

/// Removes a file that is as it was seen. It is moved first, which one process alone can do; that of another is put back.
fn remove_left(place: &Path, seen: &[u8], holder: &Holder) -> files::Result<()> {
    let aside = sibling(place, &format!(".{}-{}", holder.process, holder.taken));
    match fs::rename(place, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        moved => moved.map_err(Error::io("rename", place))?,
    }
    if read(&aside)?.is_some_and(|text| text != seen) {
        let _ = fs::hard_link(&aside, place); // unless there is one again
    }
    files::remove(&aside)
}

fn is_own(path: &Path, holder: &Holder) -> files::Result<bool> {
    let text = read(path)?;
    Ok(text.and_then(|text| serde_json::from_slice::<Holder>(&text).ok()).is_some_and(|found| found.is(holder)))
}

/// Writes the lock in place, so that a process that is killed leaves nothing beside it.
fn write(path: &Path, holder: &Holder) -> files::Result<bool> {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| file.write_all(holder.text().as_bytes()));
    written.map(|()| true).map_err(Error::io("write", path))
}

fn read(path: &Path) -> files::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    // A write that reaches the disk can take half a second on a busy machine, and must not look like death.
    const PACE: Pace = Pace { beat: Duration::from_millis(20), dead: Duration::from_secs(2) };

    fn stage() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("stage");
        (dir, stage)
    }

    fn take(stage: &Path) -> Hold {
        Hold::take(stage, PACE, |_| ControlFlow::Continue(())).unwrap()
    }

    /// The lock of a process that is gone.
    fn leave(stage: &Path) {
        fs::write(sibling(stage, ".lock"), Holder { host: "gone".into(), ..Holder::new() }.text()).unwrap();
    }

    #[test]
    fn a_holder_is_waited_for_however_long_it_takes_and_by_its_name() {
        let (_dir, stage) = stage();
        let first = take(&stage);
        let mut names = Vec::new();
        let start = Instant::now();
        let wait = |by: &str| {
            names.push(by.to_owned());
            if start.elapsed() > 2 * PACE.dead { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = Hold::take(&stage, PACE, wait).unwrap_err();
        assert!(crate::store::is_stopped(&stopped), "{stopped}");
        assert!(names[0].contains(&format!("process {}", std::process::id())), "{}", names[0]);
        first.check().unwrap();
        drop(first);
        assert!(!sibling(&stage, ".lock").exists());
        take(&stage).check().unwrap();
    }

    #[test]
    fn a_lock_that_stands_still_is_taken_over_by_one_at_a_time() {
        for text in [Holder::new().text(), String::new(), "{".to_owned()] {
            let (dir, stage) = stage();
            fs::write(sibling(&stage, ".lock"), text).unwrap();
            let (inside, start) = (AtomicUsize::new(0), Instant::now());
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let hold = take(&stage);
                        assert!(start.elapsed() >= PACE.dead);
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::sleep(PACE.beat);
                        hold.check().unwrap();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        }
    }

    #[test]
    fn a_holder_that_was_taken_for_dead_is_told_and_leaves_the_lock() {
        let (_dir, stage) = stage();
        let hold = take(&stage);
        leave(&stage);
        assert!(hold.check().unwrap_err().to_string().contains("taken this stage over"));
        thread::sleep(4 * PACE.beat);
        assert!(hold.is_lost());
        drop(hold);
        assert!(fs::read_to_string(sibling(&stage, ".lock")).unwrap().contains("gone"));
    }

    #[test]
    fn what_an_ended_taking_over_left_is_taken_over_as_well() {
        let (dir, stage) = stage();
        leave(&stage);
        let over = sibling(&stage, ".lock.over");
        fs::write(&over, "").unwrap();
        let start = Instant::now();
        let hold = take(&stage);
        hold.check().unwrap();
        assert!(start.elapsed() >= PACE.dead, "one that is only slow is waited for");
        drop(hold);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        fs::write(&over, "another's").unwrap();
        remove_left(&over, b"left", &Holder::new()).unwrap();
        assert_eq!(fs::read(&over).unwrap(), b"another's", "a live one is put back");
    }
}
