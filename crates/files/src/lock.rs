//! Advisory locks that a process which has just been started does not seem to hold.

use std::fs::{File, TryLockError};
use std::thread::sleep;
use std::time::Duration;

/// Between a process's start and that of its own program it holds all locks of the process that started it.
const START: Duration = Duration::from_millis(10);

/// As [`File::try_lock`], or [`File::try_lock_shared`], tried for a third of a second.
///
/// # Errors
/// When another holds the lock all the time, or the file system has no locks.
pub fn try_lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    let once = || if shared { file.try_lock_shared() } else { file.try_lock() };
    let mut found = once();
    for _ in 0..32 {
        if !matches!(found, Err(TryLockError::WouldBlock)) {
            break;
        }
        sleep(START);
        found = once();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_back_soon_is_waited_for_and_one_that_is_not_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let (first, second) = (open(), open());
        try_lock(&first, false).unwrap();
        assert!(matches!(try_lock(&second, true), Err(TryLockError::WouldBlock)));
        std::thread::spawn(move || {
            sleep(3 * START);
            drop(first);
        });
        try_lock(&second, false).unwrap();
        drop(second);
        let (first, second) = (open(), open());
        try_lock(&first, true).unwrap();
        try_lock(&second, true).unwrap();
    }
}
