//! Checksums of the files of records: tables are made of nothing that was changed by hand or by a disk.
//!
//! `<cell>.sha256` beside `<cell>.jsonl` holds the SHA-256 of what was written last, and of what was there before, so that a
//! process that is killed between the two files leaves a pair that fits. Records of earlier versions have none and are read.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// Writes records, one a line, with their checksum.
pub(super) fn write(path: &Path, records: &[impl Serialize]) -> Result<()> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record).with_context(|| format!("cannot write {}", path.display()))?;
        bytes.push(b'\n');
    }
    let sum = files::hash_bytes(&bytes);
    let before = read(path).ok().map(|text| files::hash_bytes(text.as_bytes())); // not that of a changed file
    let sums: Vec<String> = before.filter(|before| *before != sum).into_iter().chain([sum]).collect();
    files::write_whole(&place(path), (sums.join("\n") + "\n").as_bytes())?;
    Ok(files::write_whole(path, &bytes)?)
}

/// Reads a file of records as it was written.
///
/// # Errors
/// When it cannot be read, or is not as it was written.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = files::read_regular(path, u64::MAX)?;
    if let Some(sums) = files::read_if_there(&place(path))? {
        let (sums, sum) = (String::from_utf8_lossy(&sums).into_owned(), files::hash_bytes(&bytes));
        ensure!(
            sums.lines().any(|line| line == sum),
            "{} is not as it was written: `experiments run` writes the records again from the stages",
            path.display()
        );
    }
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text; run the sweep again", path.display()))
}

fn place(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_is_named_and_a_kill_between_the_files_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.b~c~1.jsonl");
        write(&path, &["one"]).unwrap();
        let first = fs::read(&path).unwrap();
        assert_eq!(read(&path).unwrap(), "\"one\"\n");
        write(&path, &["two"]).unwrap();
        fs::write(&path, &first).unwrap(); // the checksum is there, the records are not yet
        assert_eq!(read(&path).unwrap(), "\"one\"\n");
        fs::write(&path, "changed").unwrap();
        write(&path, &["two"]).unwrap();
        assert_eq!(read(&path).unwrap(), "\"two\"\n");
        for changed in ["changed", "\"tvo\"\n", "", "\"two\"\n\"two\"\n"] {
            fs::write(&path, changed).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("a.b~c~1.jsonl is not as it was written"), "{error}");
        }
        fs::remove_file(place(&path)).unwrap();
        assert_eq!(read(&path).unwrap().lines().count(), 2, "records of earlier versions have no checksum");
    }
}
