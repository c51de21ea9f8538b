//! Reading files that anybody may have written.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

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

/// The bytes of a regular file of a model's directory.
///
/// # Errors
/// As [`read_regular`], and when it is not [`inside`] the directory.
pub fn read_inside(dir: &Path, file: &str, largest: u64) -> Result<Vec<u8>> {
    let path = dir.join(file);
    check_regular(&path, largest)?;
    inside(dir, file).map_err(|reason| refused(&path, reason))?;
    fs::read(&path).map_err(Error::io("read", &path))
}

/// The path of a file, which must lie in `dir` once links are followed, or among the blobs of a hub's cache that has
/// `dir` as a snapshot.
///
/// # Errors
/// Says that it does not, or that it cannot be opened.
pub fn inside(dir: &Path, file: &str) -> std::result::Result<PathBuf, String> {
    let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    let outside = || "points outside the model's directory: put the file itself there".to_owned();
    if file.is_empty() || !plain {
        return Err(outside());
    }
    let path = dir.join(file);
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("cannot be opened: {error}"));
    let (found, dir) = (real(&path)?, real(dir)?);
    let snapshots = dir.ancestors().filter_map(Path::parent).find(|parent| parent.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|cache| cache.join("blobs"));
    let is_blob = blobs.is_some_and(|blobs| found.parent() == Some(&blobs));
    if is_blob || found.starts_with(dir) { Ok(path) } else { Err(outside()) }
}

/// The bytes of a regular file; nothing when there is no file.
///
/// # Errors
/// As [`read_regular`].
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(mut file) = open_if_there(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// Opens a regular file; nothing when there is no file.
pub(crate) fn open_if_there(path: &Path) -> Result<Option<File>> {
    match check_regular(path, u64::MAX).and_then(|()| File::open(path).map_err(Error::io("read", path))) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// What is piped into the process may have this many bytes.
const LARGEST_PIPED: u64 = 1 << 30;

/// Opens a file of the user's data, or what is piped into the process: `/dev/stdin`, or what a shell makes of `<(command)`. A
/// named pipe is refused, since nobody may ever write into it.
///
/// # Errors
/// When it is something else, or cannot be opened.
pub fn open_input(path: &Path) -> Result<File> {
    let data = fs::metadata(path).map_err(Error::io("read", path))?;
    let is_handed_over =
        path == Path::new("/dev/stdin") || ["/dev/fd", "/proc/self/fd"].iter().any(|fd| path.starts_with(fd));
    if !data.is_file() && !is_handed_over {
        return Err(refused(path, "it is not a regular file; name one, or pipe its content into /dev/stdin".into()));
    }
    check_fetched(path, &data)?;
    File::open(path).map_err(Error::io("read", path))
}

/// The bytes of what [`open_input`] opens.
///
/// # Errors
/// As [`open_input`]; when more than a gigabyte is piped in.
pub fn read_input(path: &Path) -> Result<Vec<u8>> {
    let mut file = open_input(path)?;
    let is_piped = !file.metadata().is_ok_and(|data| data.is_file());
    let mut bytes = Vec::new();
    let read = match is_piped {
        true => file.take(LARGEST_PIPED + 1).read_to_end(&mut bytes),
        false => file.read_to_end(&mut bytes),
    };
    let read = read.map_err(Error::io("read", path))?;
    match is_piped && read as u64 > LARGEST_PIPED {
        true => Err(refused(path, format!("more than {LARGEST_PIPED} bytes are piped into it; name a file"))),
        false => Ok(bytes),
    }
}

/// Checks what [`read_regular`] does, without reading.
///
/// # Errors
/// As [`read_regular`].
pub fn check_regular(path: &Path, largest: u64) -> Result<()> {
    check_sized(path, largest)?;
    check_fetched(path, &fs::metadata(path).map_err(Error::io("read", path))?)
}

/// The same of a file whose content is not read for what it means, so that it may be one that Git LFS did not fetch.
///
/// # Errors
/// When it is no regular file, or has more bytes.
pub fn check_sized(path: &Path, largest: u64) -> Result<()> {
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

/// How the small file begins that Git LFS has in the place of one that it did not fetch.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Such a file has fewer bytes.
const LONGEST_POINTER: u64 = 1024;

/// Checks that a file is itself there.
fn check_fetched(path: &Path, data: &fs::Metadata) -> Result<()> {
    let mut start = [0; POINTER.len()];
    let mut read = || File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    match data.is_file() && data.len() < LONGEST_POINTER && read() && start == *POINTER {
        true => Err(refused(path, "Git LFS has not fetched it: run `git lfs pull` in its directory".into())),
        false => Ok(()),
    }
}

/// A file that is not what it should be.
pub(crate) fn refused(path: &Path, reason: String) -> Error {
    Error::io("read", path)(io::Error::other(reason))
}

#[cfg(test)]
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
        assert_eq!(read_input(&path).unwrap(), b"abc");
        for stream in [dir.path(), Path::new("/dev/zero")] {
            assert!(read_input(stream).unwrap_err().to_string().contains("pipe its content into /dev/stdin"));
        }
    }

    #[test]
    fn a_file_that_git_did_not_fetch_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n").unwrap();
        for error in [read_regular(&path, 1 << 20).unwrap_err(), read_input(&path).unwrap_err()] {
            assert!(error.to_string().contains("model.safetensors: Git LFS has not fetched it: run `git lfs pull`"));
        }
        assert!(crate::hash_path(&path).is_ok(), "nobody may read it");
        fs::write(&path, "version https://git-lfs.github.com").unwrap();
        assert!(read_regular(&path, 1 << 20).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_to_the_blobs_of_its_cache_and_nowhere_else() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let [snapshot, blobs] = ["snapshots/1a", "blobs"].map(|name| root.path().join(name));
        [&snapshot, &blobs].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        fs::write(blobs.join("abc"), "{}").unwrap();
        fs::write(root.path().join("private.json"), "{}").unwrap();
        symlink("../../blobs/abc", snapshot.join("config.json")).unwrap();
        symlink("../../private.json", snapshot.join("other.json")).unwrap();
        assert_eq!(read_inside(&snapshot, "config.json", 9).unwrap(), b"{}");
        let refused = |file: &str| read_inside(&snapshot, file, 9).unwrap_err().to_string();
        assert!(refused("other.json").contains("other.json: points outside the model's directory"));
        assert!(refused("none.json").contains("No such file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_refused_at_once_and_what_is_piped_in_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(read_input(&pipe).unwrap_err().to_string().contains("pipe.jsonl: it is not a regular file"));
        let (ours, mut theirs) = io::pipe().unwrap();
        io::Write::write_all(&mut theirs, b"piped").unwrap();
        drop(theirs);
        let place = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&ours));
        assert_eq!(read_input(Path::new(&place)).unwrap(), b"piped");
    }
}
