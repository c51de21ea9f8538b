//! Reading files that anybody may have written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A path that is relative to `dir`; `~/` is the home directory.
#[must_use]
pub fn under(dir: &Path, file: &Path) -> PathBuf {
    match (file.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => dir.join(file),
    }
}

/// The bytes of a regular file: a device or a pipe might never end.
///
/// # Errors
/// When it is not a regular file, has more than `largest` bytes, or cannot be read.
pub fn read_regular(path: &Path, largest: u64) -> Result<Vec<u8>> {
    check_regular(path, largest)?;
    fs::read(path).map_err(Error::io("read", path))
}

/// Checks what [`read_regular`] does, without reading.
///
/// # Errors
/// As [`read_regular`].
pub fn check_regular(path: &Path, largest: u64) -> Result<()> {
    let data = fs::metadata(path).map_err(Error::io("read", path))?;
    if !data.is_file() {
        return Err(refused(path, "it is not a regular file".into()));
    }
    match data.len() > largest {
        true => {
            let reason = format!("it has {} bytes; at most {largest} are expected of such a file", data.len());
            Err(refused(path, reason))
        }
        false => Ok(()),
    }
}

/// A file that is not what it should be.
pub(crate) fn refused(path: &Path, reason: String) -> Error {
    Error::io("read", path)(io::Error::other(reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_expected_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "abc").unwrap();
        assert_eq!(read_regular(&path, 3).unwrap(), b"abc");
        let refused = |path: &Path| read_regular(path, 2).unwrap_err().to_string();
        assert!(refused(&path).contains("a: it has 3 bytes"));
        assert!(refused(dir.path()).contains("not a regular file"));
        assert!(refused(Path::new("/dev/zero")).contains("/dev/zero: it is not a regular file"));
    }
}
