//! Whether something can be written to a place, known before hours of work.

use std::fs;
use std::path::Path;

use crate::error::invalid;
use crate::{Error, Result};

/// Checks that a directory that `flag` names is new or empty, and can be made: what another model left there would be taken for
/// the new one's.
///
/// # Errors
/// When it is not.
pub fn check_new(flag: &str, dir: &Path) -> Result<()> {
    let is_new = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !dir.exists(),
    };
    if !is_new {
        return invalid(format!("{flag} {} is there already: name a new directory, or remove it first", dir.display()));
    }
    check_room(dir).map_err(|error| Error::In { what: format!("{flag} {}", dir.display()), source: Box::new(error) })
}

/// Checks that a file or directory can be made at a place.
///
/// # Errors
/// Names the directory that cannot be written into.
pub fn check_room(place: &Path) -> Result<()> {
    let place = files::followed(place);
    let dirs = place.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let dir = dirs.into_iter().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(dir).map_err(files::Error::io("write into", dir))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_full_or_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::write(place("file"), "").unwrap();
        fs::create_dir(place("empty")).unwrap();
        for new in ["new", "empty", "deep/er/new"] {
            check_new("--out", &place(new)).unwrap();
        }
        for (wrong, part) in [("file", "is there already"), ("file/new", "write into"), ("file/deep/er", "write into")]
        {
            let error = check_new("--out", &place(wrong)).unwrap_err().to_string();
            assert!(error.contains("--out") && error.contains(part), "{error}");
        }
        assert!(!place("deep").exists(), "nothing is made");
    }
}
