//! Files of the store: written whole or not at all, listed, and hashed.
//!
//! Which files a stage has, and when it is finished, is decided in the parent module.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// When the directory cannot be written to.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .with_context(|| format!("cannot write into {}", dir.display()))?;
    write(file.as_file_mut()).with_context(|| format!("cannot write {}", path.display()))?;
    file.as_file().sync_all().with_context(|| format!("cannot write {}", path.display()))?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Writes a value as JSON, whole or not at all.
///
/// # Errors
/// When it is no JSON or the directory cannot be written to.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("a manifest is no JSON")?;
    write_whole(path, |file| Ok(file.write_all(text.as_bytes())?))
}

/// Hashes by path, size and time of the last change.
type Hashes = BTreeMap<(PathBuf, u64, SystemTime), String>;

/// Hashes of files that this process has read before.
static KNOWN: Mutex<Hashes> = Mutex::new(Hashes::new());

/// A file changed more recently than this may change again without a new time.
const SETTLED: Duration = Duration::from_secs(2);

/// SHA-256 of a file, in hexadecimal; of a directory, that of its files' names and hashes. A file
/// that has not changed is read once.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let data = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let settled = data.modified().ok().filter(|time| time.elapsed().is_ok_and(|age| age > SETTLED));
    let Some(time) = settled.filter(|_| data.is_file()) else { return read_hash(path) };
    let entry = (path.to_owned(), data.len(), time);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hash) = known().get(&entry) {
        return Ok(hash.clone());
    }
    let hash = read_hash(path)?;
    known().insert(entry, hash.clone());
    Ok(hash)
}

fn read_hash(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    if path.is_dir() {
        let mut files = BTreeMap::new();
        list_files(path, path, &mut files).with_context(|| format!("cannot list {}", path.display()))?;
        if files.is_empty() {
            bail!("{} is an empty directory", path.display());
        }
        for name in files.keys() {
            hasher.update(format!("{name}\0{}\n", hash_file(&path.join(name))?));
        }
    } else {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        io::copy(&mut file, &mut hasher).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// Removes what a killed process had begun to write below `dir`: files that are written whole have another name until then.
pub(super) fn remove_unfinished(dir: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    list_files(dir, dir, &mut files).with_context(|| format!("cannot list {}", dir.display()))?;
    for path in files.keys().map(|name| dir.join(name)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let begun = name.starts_with(".writing-") || name.starts_with(".tmp");
        if begun || name.ends_with(".tmp") || name.ends_with(".part") {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Every file below `dir`, by its path from `base`, with its size.
pub(super) fn list_files(base: &Path, dir: &Path, files: &mut BTreeMap<String, u64>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(base, &path, files)?;
        } else {
            let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            files.insert(name, fs::metadata(&path)?.len());
        }
    }
    Ok(())
}

/// Removes a file, unless it is not there.
///
/// # Errors
/// When it is there and stays.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
