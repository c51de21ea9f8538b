//! A file of records that grows line by line, so that stopped work goes on from the record it was at.
//!
//! Each record has a key, a hash of everything that decides it. A record whose key is known need not be made again,
//! whatever else has changed. Records are appended to `<name>.partial`; the file itself is written whole when all are there.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::read::read_if_there;
use crate::write::json;
use crate::{Error, Result, create_dir, remove, write_jsonl};

/// A record with the key of what decides it.
pub trait Keyed: Serialize + DeserializeOwned + Clone {
    /// The key.
    fn key(&self) -> &str;

    /// Whether the record need not be made again.
    fn is_final(&self) -> bool {
        true
    }
}

/// Records by key, and the JSONL file that they end up in.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    partial: PathBuf,
    known: HashMap<String, T>,
    /// Length of the partial file up to its last whole line.
    whole: u64,
    file: Option<File>,
}

impl<T: Keyed> Journal<T> {
    /// Reads the records of a file and of the partial one beside it, if they are there. A last line without an end, as a
    /// kill leaves it, is dropped.
    ///
    /// # Errors
    /// When a file cannot be read, or a whole line is not a record.
    pub fn open(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let mut journal =
            Self { path: path.to_owned(), partial: partial.into(), known: HashMap::new(), whole: 0, file: None };
        journal.read(path)?;
        journal.whole = journal.read(&journal.partial.clone())?;
        Ok(journal)
    }

    /// Adds the records of a file; gives back its length up to the last whole line.
    fn read(&mut self, path: &Path) -> Result<u64> {
        let Some(bytes) = read_if_there(path)? else { return Ok(0) };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..whole].split(|&byte| byte == b'\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let record: T = serde_json::from_slice(line).map_err(|source| json(path, Some(index + 1), source))?;
            self.known.insert(record.key().to_owned(), record);
        }
        Ok(whole as u64)
    }

    /// Takes over the records that another file has and this one lacks; they are written by [`finish`](Self::finish).
    /// A file that is not there or is damaged has none.
    pub fn take_over(&mut self, path: &Path) {
        if let Ok(other) = Self::open(path) {
            for (key, record) in other.known {
                self.known.entry(key).or_insert(record);
            }
        }
    }

    /// The final record of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&T> {
        self.known.get(key).filter(|record| record.is_final())
    }

    /// Adds a record at the end of the partial file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, record: T) -> Result<()> {
        let failed = |source| Error::io("write", &self.partial)(source);
        let mut line = serde_json::to_vec(&record).map_err(|source| json(&self.partial, None, source))?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                if let Some(dir) = self.partial.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                    create_dir(dir)?;
                }
                let file = File::options().create(true).append(true).open(&self.partial).map_err(failed)?;
                file.set_len(self.whole).map_err(failed)?;
                none.insert(file)
            }
        };
        file.write_all(&line).map_err(failed)?;
        self.known.insert(record.key().to_owned(), record);
        Ok(())
    }

    /// Writes the file: the records of these keys alone, in their order, after `adapt` has had the place and the record; equal
    /// keys share a record. The partial file goes.
    ///
    /// # Errors
    /// When a key has no record, or the file cannot be written.
    pub fn finish<'a>(self, keys: impl IntoIterator<Item = &'a str>, adapt: impl Fn(usize, T) -> T) -> Result<Vec<T>> {
        let record = |(place, key): (usize, &str)| match self.known.get(key) {
            Some(record) => Ok(adapt(place, record.clone())),
            None => Err(Error::Damaged { path: self.path.clone(), reason: format!("record {} is missing", place + 1) }),
        };
        let records = keys.into_iter().enumerate().map(record).collect::<Result<Vec<T>>>()?;
        write_jsonl(&self.path, &records)?;
        remove(&self.partial)?;
        Ok(records)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::fs;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        key: String,
        text: String,
    }

    impl Keyed for Note {
        fn key(&self) -> &str {
            &self.key
        }
    }

    fn note(key: &str, text: &str) -> Note {
        Note { key: key.into(), text: text.into() }
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(note("a", "one")).unwrap();
        journal.add(note("b", "two\nlines")).unwrap();
        let partial = dir.path().join("notes.jsonl.partial");
        let bytes = fs::read(&partial).unwrap();
        for cut in 1..bytes.len() {
            fs::write(&partial, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let mut journal = Journal::<Note>::open(&path).unwrap();
            assert_eq!(journal.get("a").is_some(), whole > 0, "cut after {cut} bytes");
            journal.add(note("c", "three")).unwrap();
            let journal = Journal::<Note>::open(&path).unwrap();
            assert_eq!((journal.get("c").unwrap().text.as_str(), journal.known.len()), ("three", 1 + whole));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_place_of_a_file_is_an_error_and_no_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.jsonl");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = |result: Result<()>| result.unwrap_err().to_string();
        assert!(error(Journal::<Note>::open(&path).map(drop)).contains("notes.jsonl: it is not a regular file"));
        assert!(error(crate::read_json::<Note>(&path).map(drop)).contains("not a regular file"));
        assert!(error(crate::read_sealed(&path).map(drop)).contains("not a regular file"));
    }

    #[test]
    fn finish_keeps_the_wanted_records_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("notes.jsonl"), dir.path().join("old.jsonl"));
        write_jsonl(&old, [note("b", "kept"), note("x", "dropped")]).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.take_over(&old);
        journal.take_over(&dir.path().join("none"));
        journal.add(note("a", "new")).unwrap();
        assert!(dir.path().join("notes.jsonl.partial").exists() && !path.exists());
        let found = journal.finish(["b", "a", "b"], |_, note| note).unwrap();
        assert!(!dir.path().join("notes.jsonl.partial").exists() && path.exists());
        assert_eq!(found, [note("b", "kept"), note("a", "new"), note("b", "kept")]);
        let missing = Journal::<Note>::open(&path).unwrap().finish(["z"], |_, note| note).unwrap_err();
        assert!(missing.to_string().contains("record 1 is missing"));
        fs::write(&path, "{\"key\": 1}\n").unwrap();
        assert!(Journal::<Note>::open(&path).unwrap_err().to_string().contains("notes.jsonl, line 1"));
    }
}
