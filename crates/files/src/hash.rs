//! Content hashes: SHA-256 in lower-case hexadecimal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Result, check_sized, list};

/// A running SHA-256. Parts are framed by their lengths, so that no two lists of parts are alike.
#[derive(Debug, Clone, Default)]
pub struct Sha(Sha256);

impl Sha {
    /// Takes in one part.
    pub fn part(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Takes in numbers as one part, in little-endian bytes.
    pub fn numbers<const N: usize>(&mut self, numbers: impl ExactSizeIterator<Item = [u8; N]>) -> &mut Self {
        self.0.update(((numbers.len() * N) as u64).to_le_bytes());
        let mut buffer = Vec::with_capacity(N << 12);
        for number in numbers {
            buffer.extend_from_slice(&number);
            if buffer.len() >= N << 12 {
                self.0.update(&buffer);
                buffer.clear();
            }
        }
        self.0.update(&buffer);
        self
    }

    /// The hash, 64 digits.
    #[must_use]
    pub fn finish(&self) -> String {
        format!("{:x}", self.0.clone().finalize())
    }
}

/// The hash of some bytes.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The hash of a value as JSON, whatever the order of its keys.
///
/// # Errors
/// When the value is not JSON.
pub fn hash_json(value: &impl Serialize) -> std::result::Result<String, serde_json::Error> {
    let mut json = serde_json::to_value(value)?;
    json.sort_all_objects();
    Ok(hash_bytes(json.to_string().as_bytes()))
}

/// The hash of a file's content; of a directory, that of its files' names and hashes.
///
/// # Errors
/// When it cannot be read, is an empty directory, or a device or pipe, which might never end.
pub fn hash_path(path: &Path) -> Result<String> {
    if !path.is_dir() {
        check_sized(path, u64::MAX)?;
        let mut hash = Sha256::new();
        File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash)).map_err(Error::io("read", path))?;
        return Ok(format!("{:x}", hash.finalize()));
    }
    let files = list(path)?;
    if files.is_empty() {
        return Err(Error::Damaged { path: path.to_owned(), reason: "the directory is empty".into() });
    }
    let mut hash = Sha::default();
    for name in files.keys() {
        hash.part(name).part(hash_path(&path.join(name))?);
    }
    Ok(hash.finish())
}

/// Content hashes of files that are read once in the life of this value, and are not to change in it.
#[derive(Debug, Default)]
pub struct Hashes(Mutex<BTreeMap<PathBuf, String>>);

impl Hashes {
    /// As [`hash_path`], read once.
    ///
    /// # Errors
    /// As [`hash_path`].
    pub fn of(&self, path: &Path) -> Result<String> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = known().get(path) {
            return Ok(hash.clone());
        }
        let hash = hash_path(path)?;
        known().insert(path.to_owned(), hash.clone());
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_whole;

    #[test]
    fn a_hash_is_of_the_content_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model/weights");
        write_whole(&path, b"abc").unwrap();
        assert_eq!(hash_path(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let whole = hash_path(dir.path()).unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        write_whole(&path, b"abd").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(hash_path(dir.path()).unwrap(), whole, "same size and time, other content");
        assert!(hash_path(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
        assert!(hash_path(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn parts_do_not_run_together() {
        let hash = |parts: &[&str]| {
            let mut hash = Sha::default();
            parts.iter().for_each(|part| drop(hash.part(part).clone()));
            hash.finish()
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        let numbers: Vec<f32> = (0..10_000).map(|x| x as f32).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let by_number = Sha::default().numbers(numbers.iter().map(|x| x.to_le_bytes())).finish();
        assert_eq!(by_number, Sha::default().part(bytes).finish());
    }

    #[test]
    fn the_order_of_keys_does_not_count() {
        let hash = |text: &str| hash_json(&serde_json::from_str::<serde_json::Value>(text).unwrap()).unwrap();
        assert_eq!(hash(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#), hash(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#));
        assert_ne!(hash(r#"{"a": 1}"#), hash(r#"{"a": 2}"#));
    }
}
