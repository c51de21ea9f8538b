//! Writing: a file appears under its name when all of it is on the disk, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::read::{read_if_there, read_regular};
use crate::{Error, Result};

/// Name prefix of files that are being written.
pub(crate) const UNFINISHED: &str = ".writing-";

/// Writes a file, its directory created if need be: to a temporary file beside it, which is synced and renamed. A link is
/// followed; what is no regular file, such as a pipe, is written into, and a reader of it that is gone is no error.
///
/// # Errors
/// When the directory cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write_whole`], for a writer that is handed the file.
///
/// # Errors
/// When the directory cannot be written to, or `write` fails.
pub fn write_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let failed = |source| Error::io("write", path)(source);
    if is_stream(path) {
        return match File::options().write(true).open(path).and_then(|mut file| write(&mut file)) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
            _ => Ok(()),
        };
    }
    let place = followed(path);
    let (dir, path) = (parent(&place), &place);
    create_dir(dir)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)] // the usual rights of a new file, not the private ones of a temporary one
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(dir).map_err(failed)?;
    write(file.as_file_mut()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_dir(dir)
}

/// As [`write_whole`], for a writer that wants a path, and may leave files beside it when its process ends: they are in a
/// directory that [`list`] removes. The file is there already, with the usual rights of a new one. A link is replaced.
///
/// # Errors
/// When the directory cannot be written to, or `write` fails.
pub fn write_at<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let failed = |source| Error::io("write", path)(source);
    let dir = parent(path);
    create_dir(dir)?;
    let scratch = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(dir).map_err(failed)?;
    let file = scratch.path().join(path.file_name().unwrap_or_default());
    File::create(&file).map_err(failed)?;
    write(&file)?;
    File::open(&file).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&file, path).map_err(failed)?;
    Ok(sync_dir(dir)?)
}

/// Whether something is there that is neither a regular file nor a directory: a pipe, a terminal, a device.
pub fn is_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}

/// The place that a path leads to through links, also one where nothing is yet.
pub fn followed(path: &Path) -> PathBuf {
    let mut place = path.to_owned();
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&place) else { break };
        place = parent(&place).join(target);
    }
    fs::canonicalize(&place).unwrap_or_else(|_| without_parents(&place))
}

/// Whether two places are one, or one lies in the other, through links.
pub fn overlap(one: &Path, other: &Path) -> bool {
    let (one, other) = (followed(one), followed(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// A path that is not there without its `..`, each of which leaves the directory that is there or would be made.
fn without_parents(path: &Path) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path.components().collect(); // without a `.` at the end
    }
    let mut place = std::env::current_dir().unwrap_or_default();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        place = fs::canonicalize(&place).unwrap_or(place);
    }
    place
}

/// Writes a value as indented JSON.
///
/// # Errors
/// When the value is not JSON, or as [`write_whole`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| json(path, None, source))?;
    write_whole(path, &[text, b"\n".to_vec()].concat())
}

/// Writes values as JSON, one a line.
///
/// # Errors
/// As [`write_json`].
pub fn write_jsonl<T: Serialize>(path: &Path, items: impl IntoIterator<Item = T>) -> Result<()> {
    write_lines(path, items.into_iter().map(Ok::<T, Error>))
}

/// As [`write_jsonl`], for values that are made while they are written.
///
/// # Errors
/// As [`write_parts`].
pub fn write_lines<T: Serialize, E: From<Error>>(
    path: &Path,
    items: impl Iterator<Item = std::result::Result<T, E>>,
) -> std::result::Result<(), E> {
    let lines = items.enumerate().map(|(index, item)| {
        let mut line = serde_json::to_vec(&item?).map_err(|source| json(path, Some(index + 1), source))?;
        line.push(b'\n');
        Ok(line)
    });
    write_parts(path, lines)
}

/// As [`write_whole`], for parts that are made while they are written.
///
/// # Errors
/// As [`write_whole`]; that of the first part that fails, which leaves the file as it was.
pub fn write_parts<E: From<Error>>(
    path: &Path,
    parts: impl Iterator<Item = std::result::Result<Vec<u8>, E>>,
) -> std::result::Result<(), E> {
    let mut failed = None;
    let written = write_with(path, |file| {
        let mut file = io::BufWriter::new(file);
        for part in parts {
            match part {
                Ok(part) => file.write_all(&part)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("a part failed")); // its own error is given below
                }
            }
        }
        file.flush()
    });
    failed.map_or(Ok(()), Err)?;
    Ok(written?)
}

/// A JSON file of a known form may have this many bytes.
const LARGEST_JSON: u64 = 1 << 30;

/// Reads a JSON file of a known form; one of any form is for [`read_json_value`](crate::read_json_value), which bounds what it
/// becomes in memory.
///
/// # Errors
/// When it cannot be read, is not a regular file or is not of this form.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_regular(path, LARGEST_JSON)?;
    serde_json::from_slice(&bytes).map_err(|source| json(path, None, source))
}

/// Writes bytes with their SHA-256 behind them, for [`read_sealed`]: a flipped bit is found.
///
/// # Errors
/// As [`write_whole`].
pub fn write_sealed(path: &Path, bytes: &[u8]) -> Result<()> {
    let seal = Sha256::digest(bytes);
    write_with(path, |file| {
        file.write_all(bytes)?;
        file.write_all(&seal)
    })
}

/// Reads what [`write_sealed`] wrote; nothing when there is no file.
///
/// # Errors
/// When the file cannot be read, or is not as it was written.
pub fn read_sealed(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(mut bytes) = read_if_there(path)? else { return Ok(None) };
    let damaged = || Error::Damaged { path: path.to_owned(), reason: "its checksum does not fit its content".into() };
    let content = bytes.len().checked_sub(32).ok_or_else(damaged)?;
    if Sha256::digest(&bytes[..content])[..] != bytes[content..] {
        return Err(damaged());
    }
    bytes.truncate(content);
    Ok(Some(bytes))
}

/// Creates a directory and those above it.
///
/// # Errors
/// When it cannot be created.
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))
}

/// Renames a file or directory, and syncs the directory that holds it.
///
/// # Errors
/// When it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename", from))?;
    sync_dir(parent(to))
}

/// Moves a directory to a place where nothing or an empty directory is, on another disk, too.
///
/// # Errors
/// When something is there, or it cannot be written to.
pub fn move_dir(from: &Path, to: &Path) -> Result<()> {
    if to.is_dir() {
        fs::remove_dir(to).map_err(Error::io("replace", to))?; // which fails unless it is empty
    }
    create_dir(parent(to))?;
    if fs::rename(from, to).is_ok() {
        return sync_dir(parent(to));
    }
    for name in list(from)?.keys() {
        let (from, to) = (from.join(name), to.join(name));
        write_with(&to, |file| io::copy(&mut File::open(&from)?, file).map(drop))?;
    }
    remove(from)
}

/// Makes sure that the names in a directory survive a power cut.
///
/// # Errors
/// When the system refuses.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

/// Removes a file or directory, if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    match if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Every file below a directory by its path from there, with its size; what was still being written when its process ended is
/// removed.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> Result<std::collections::BTreeMap<String, u64>> {
    let (mut files, mut open) = (std::collections::BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(current) = open.pop() {
        for entry in fs::read_dir(&current).map_err(Error::io("list", &current))? {
            let path = entry.map_err(Error::io("list", &current))?.path();
            let data = fs::metadata(&path).map_err(Error::io("read", &path))?;
            let is_unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
            if is_unfinished {
                remove(&path)?;
            } else if data.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, data.len());
            }
        }
    }
    Ok(files)
}

/// Whether a name can be a part of a file's name: letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn json(path: &Path, line: Option<usize>, source: serde_json::Error) -> Error {
    Error::Json { path: path.to_owned(), line, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a.json");
        write_whole(&path, b"old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("a.json: disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_writer_leaves_beside_its_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/weights");
        let write = |path: &Path| {
            fs::write(path.with_extension("tmp"), b"half").map_err(Error::io("write", path))?;
            fs::write(path, b"whole").map_err(Error::io("write", path))
        };
        write_at(&path, write).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let failed =
            write_at(&path, |file| write(file).and(Err(Error::io("write", file)(io::Error::other("disk full")))));
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // Killed in between.
        let left = dir.path().join(format!("deep/{UNFINISHED}a"));
        fs::create_dir(&left).unwrap();
        write(&left.join("weights")).unwrap();
        assert_eq!(list(dir.path()).unwrap().into_keys().collect::<Vec<_>>(), ["deep/weights"]);
        assert!(!left.exists());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_streams_are_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink("target", &link).unwrap();
        for text in ["first", "second"] {
            write_whole(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        assert!(is_stream(Path::new("/dev/null")) && !is_stream(&target) && !is_stream(dir.path()));
        write_whole(Path::new("/dev/null"), b"text").unwrap();
        assert!(is_stream(Path::new("/dev/null")));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_sealed(&path).unwrap(), None);
        write_sealed(&path, b"state").unwrap();
        assert_eq!(read_sealed(&path).unwrap().unwrap(), b"state");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(read_sealed(&path), Err(Error::Damaged { .. })), "byte {at}");
        }
        fs::write(&path, &whole[..20]).unwrap();
        assert!(read_sealed(&path).is_err());
    }

    #[test]
    fn a_directory_is_moved_to_an_empty_place_on_any_disk() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), Path::new("/dev/shm"));
        let other = if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() };
        let (from, empty, far) = (dir.path().join("from"), dir.path().join("empty"), other.path().join("new/far"));
        write_whole(&from.join("a/b"), b"123").unwrap();
        create_dir(&empty).unwrap();
        for (from, to) in [(&from, &empty), (&empty, &far)] {
            move_dir(from, to).unwrap();
            assert!(!from.exists() && fs::read(to.join("a/b")).unwrap() == b"123");
        }
        write_whole(&from.join("c"), b"4").unwrap();
        let error = move_dir(&from, &far).unwrap_err().to_string();
        assert!(error.contains("far") && from.join("c").exists() && far.join("a/b").exists(), "{error}");
    }

    #[test]
    fn a_name_leads_to_no_other_directory() {
        assert!(["a", "llama-3.2_1B", ".."].map(is_name).iter().all(|is_name| *is_name));
        assert!(["", "a/b", "a b", "ä", "a\\b"].map(is_name).iter().all(|is_name| !is_name));
    }

    #[test]
    fn a_list_has_all_files_and_drops_what_a_kill_left() {
        let dir = tempfile::tempdir().unwrap();
        write_whole(&dir.path().join("a/b"), b"123").unwrap();
        fs::write(dir.path().join(".writing-x"), "half").unwrap();
        let files: Vec<_> = list(dir.path()).unwrap().into_iter().collect();
        assert_eq!(files, [("a/b".to_owned(), 3)]);
        assert!(!dir.path().join(".writing-x").exists());
        remove(&dir.path().join("a")).unwrap();
        remove(&dir.path().join("a")).unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
    }
}
