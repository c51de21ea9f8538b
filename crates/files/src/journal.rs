//! A file of records that grows line by line, so that stopped work goes on from the record it was at.
//!
//! Each record has a key, a hash of everything that decides it. A record whose key is known need not be made again,
//! whatever else has changed. Records are appended to `<name>.partial`, each with a checksum after a tab; the file itself is
//! written whole, and without them, when all are there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::read::open_if_there;
use crate::write::json;
use crate::{Error, Result, create_dir, hash_bytes, remove, write_lines};

/// A record with the key of what decides it.
pub trait Keyed: Serialize + DeserializeOwned {
    /// The key.
    fn key(&self) -> &str;

    /// Whether the record need not be made again.
    fn is_final(&self) -> bool {
        true
    }
}

/// Records by key, and the JSONL file that they end up in. In memory is where each record lies, not the record.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    partial: PathBuf,
    known: HashMap<[u8; 16], Place>,
    /// The files that the records are in.
    files: Vec<File>,
    /// Length of the partial file up to its last whole line.
    whole: u64,
    /// Which of the files is the partial one, once it is written to.
    written: Option<usize>,
    of: PhantomData<T>,
}

/// The line of a record.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    at: u64,
    length: u32,
    is_final: bool,
}

impl<T: Keyed> Journal<T> {
    /// Reads the records of a file and of the partial one beside it, if they are there. A last line without an end, as a
    /// kill leaves it, is dropped, and so are damaged lines of the partial file.
    ///
    /// # Errors
    /// When a file cannot be read, or a line of the file itself is not a record.
    pub fn open(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let (known, files) = (HashMap::new(), Vec::new());
        let (own, partial) = (path.to_owned(), PathBuf::from(partial));
        let mut journal = Self { path: own, partial, known, files, whole: 0, written: None, of: PhantomData };
        journal.add_file(path, false)?;
        journal.whole = journal.add_file(&journal.partial.clone(), true)?;
        Ok(journal)
    }

    /// Adds the records of a file; gives back its length up to the last whole line.
    fn add_file(&mut self, path: &Path, is_partial: bool) -> Result<u64> {
        let Some(file) = open_if_there(path)? else { return Ok(0) };
        let mut lines = BufReader::new(&file);
        let (mut at, mut line, mut damaged) = (0, Vec::new(), 0);
        for number in 1.. {
            line.clear();
            lines.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            let Some(text) = line.strip_suffix(b"\n") else { break };
            if !text.is_empty() {
                let text = if is_partial { checked(text) } else { text };
                match serde_json::from_slice(text) {
                    Ok(record) => self.insert(&record, self.files.len(), at, text.len())?,
                    Err(_) if is_partial => damaged += 1,
                    Err(source) => return Err(json(path, Some(number), source)),
                }
            }
            at += line.len() as u64;
        }
        if damaged > 0 {
            tracing::warn!("{}: {damaged} damaged lines; what they held is made again", path.display());
        }
        self.files.push(file);
        Ok(at)
    }

    /// Notes where in a file a record lies.
    fn insert(&mut self, record: &T, file: usize, at: u64, length: usize) -> Result<()> {
        let reason = || Error::Damaged { path: self.path.clone(), reason: "a record has more than 4 GiB".into() };
        let length = u32::try_from(length).map_err(|_| reason())?;
        self.known.insert(id(record.key()), Place { file, at, length, is_final: record.is_final() });
        Ok(())
    }

    /// Takes over the records that another file has and this one lacks; they are written by [`finish`](Self::finish).
    /// A file that is not there or is damaged has none.
    pub fn take_over(&mut self, path: &Path) {
        let Ok(other) = Self::open(path) else { return };
        let first = self.files.len();
        for (key, place) in other.known {
            self.known.entry(key).or_insert(Place { file: first + place.file, ..place });
        }
        self.files.extend(other.files);
    }

    /// Whether the record of a key need not be made again.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.known.get(&id(key)).is_some_and(|place| place.is_final)
    }

    /// The record of a key, also one that is not final.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read any more.
    pub fn record(&self, key: &str) -> Result<T> {
        let failed = |reason: String| Error::Damaged { path: self.path.clone(), reason };
        let place = self.known.get(&id(key)).ok_or_else(|| failed(format!("the record of {key} is missing")))?;
        let mut line = vec![0; place.length as usize];
        let mut file = &self.files[place.file];
        let read = file.seek(SeekFrom::Start(place.at)).and_then(|_| file.read_exact(&mut line));
        read.map_err(Error::io("read", &self.path))?;
        serde_json::from_slice(&line).map_err(|error| failed(format!("the record of {key} has changed: {error}")))
    }

    /// Adds a record at the end of the partial file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, record: &T) -> Result<()> {
        let failed = |source| Error::io("write", &self.partial)(source);
        let mut line = serde_json::to_vec(record).map_err(|source| json(&self.partial, None, source))?;
        let length = line.len();
        line.extend([b"\t", checksum(&line).as_bytes(), b"\n"].concat());
        let file = match self.written {
            Some(file) => file,
            None => {
                if let Some(dir) = self.partial.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                    create_dir(dir)?;
                }
                let file = File::options().create(true).append(true).read(true).open(&self.partial).map_err(failed)?;
                file.set_len(self.whole).map_err(failed)?;
                self.files.push(file);
                *self.written.insert(self.files.len() - 1)
            }
        };
        (&self.files[file]).write_all(&line).map_err(failed)?;
        self.insert(record, file, self.whole, length)?;
        self.whole += line.len() as u64;
        Ok(())
    }

    /// Writes the file, of records as [`record`](Self::record) gives them; the first that fails leaves it as it was. The
    /// partial file goes.
    ///
    /// # Errors
    /// When the file cannot be written, or that of the record.
    pub fn finish<E: From<Error>>(
        &self,
        records: impl Iterator<Item = std::result::Result<T, E>>,
    ) -> std::result::Result<(), E> {
        write_lines(&self.path, records)?;
        Ok(remove(&self.partial)?)
    }
}

/// The record of a line of a partial file, nothing where its checksum does not fit; earlier versions wrote none.
fn checked(line: &[u8]) -> &[u8] {
    let Some(tab) = line.iter().rposition(|&byte| byte == b'\t') else { return line };
    let record = &line[..tab];
    if checksum(record).as_bytes() == &line[tab + 1..] { record } else { &[] }
}

fn checksum(record: &[u8]) -> String {
    hash_bytes(record)[..16].to_owned()
}

/// What a key is known by: 16 bytes of its hash.
fn id(key: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(key)[..16]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_jsonl;
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
        journal.add(&note("a", "one")).unwrap();
        journal.add(&note("b", "two\nlines")).unwrap();
        let partial = dir.path().join("notes.jsonl.partial");
        let bytes = fs::read(&partial).unwrap();
        for cut in 1..bytes.len() {
            fs::write(&partial, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let mut journal = Journal::<Note>::open(&path).unwrap();
            assert_eq!(journal.has("a"), whole > 0, "cut after {cut} bytes");
            journal.add(&note("c", "three")).unwrap();
            assert_eq!(journal.record("c").unwrap(), note("c", "three"));
            let journal = Journal::<Note>::open(&path).unwrap();
            assert_eq!((journal.record("c").unwrap(), journal.known.len()), (note("c", "three"), 1 + whole));
            assert_eq!(journal.record("a").is_ok_and(|found| found == note("a", "one")), whole > 0);
        }
    }

    #[test]
    fn a_damaged_line_of_a_partial_file_is_not_there_and_those_of_earlier_versions_are() {
        let dir = tempfile::tempdir().unwrap();
        let (path, partial) = (dir.path().join("notes.jsonl"), dir.path().join("notes.jsonl.partial"));
        let mut journal = Journal::open(&path).unwrap();
        let notes = [note("a", "one"), note("b", "tab\there"), note("c", "three")];
        notes.iter().for_each(|note| journal.add(note).unwrap());
        let whole = fs::read(&partial).unwrap();
        let second = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let end = second + whole[second..].iter().position(|&byte| byte == b'\n').unwrap();
        for at in second..end {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                fs::write(&partial, damaged).unwrap();
                let mut journal = Journal::<Note>::open(&path).unwrap();
                assert!(journal.has("a") && journal.has("c") && !journal.has("b"), "bit {bit} of byte {at}");
                journal.add(&notes[1]).unwrap();
                assert_eq!(Journal::open(&path).unwrap().record("b").ok().as_ref(), Some(&notes[1]));
            }
        }
        fs::write(&partial, whole).unwrap();
        let journal = Journal::<Note>::open(&path).unwrap();
        journal.finish(notes.iter().map(|note| journal.record(&note.key))).unwrap();
        let finished = fs::read_to_string(&path).unwrap();
        assert!(finished.lines().all(|line| serde_json::from_str::<Note>(line).is_ok()), "others read it");
        fs::rename(&path, &partial).unwrap();
        assert!(notes.iter().all(|note| Journal::<Note>::open(&path).unwrap().has(&note.key)));
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
        journal.add(&note("a", "new")).unwrap();
        assert!(dir.path().join("notes.jsonl.partial").exists() && !path.exists());
        journal.finish(["b", "a", "b"].iter().map(|key| journal.record(key))).unwrap();
        assert!(!dir.path().join("notes.jsonl.partial").exists() && path.exists());
        let written = fs::read_to_string(&path).unwrap();
        let found: Vec<Note> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found, [note("b", "kept"), note("a", "new"), note("b", "kept")]);
        let journal = Journal::<Note>::open(&path).unwrap();
        let missing = journal.finish(["a", "z"].iter().map(|key| journal.record(key))).unwrap_err();
        assert!(missing.to_string().contains("the record of z is missing"));
        assert_eq!(fs::read_to_string(&path).unwrap(), written, "what fails leaves the file as it was");
        fs::write(&path, "{\"key\": 1}\n").unwrap();
        assert!(Journal::<Note>::open(&path).unwrap_err().to_string().contains("notes.jsonl, line 1"));
    }
}
