//! Answers that are kept as they come, so that a stopped run goes on from the sample it was at.
//!
//! Beside the answer file stands `<name>.partial`, to which each answer is appended as it ends; both
//! hold each answer's key: a hash of everything that decides it. What has a known key is not
//! generated again, whatever else has changed. It does NOT know how answers are made.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use evaluation::Answer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Endings of the files of a model directory that decide how its text is read and written.
const READ_WHOLE: [&str; 4] = ["json", "jinja", "model", "txt"];

/// What decides the answers of a model, but for the prompts: its directory and `settings`.
///
/// Small files count with their content, weights with name, size and time of last change.
///
/// # Errors
/// When the directory or a file of it cannot be read.
pub fn model_key(dir: &Path, settings: &str) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("model directory {}", dir.display()))?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let (Some(name), Some(ending)) = (file.file_name(), file.extension().and_then(|ending| ending.to_str())) else {
            continue;
        };
        let identity = if READ_WHOLE.contains(&ending) {
            format!("{:x}", Sha256::digest(fs::read(&file).with_context(|| file.display().to_string())?))
        } else if ending == "safetensors" {
            let metadata = fs::metadata(&file).with_context(|| file.display().to_string())?;
            let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
            format!("{} bytes of {changed}", metadata.len())
        } else {
            continue;
        };
        hash.update(format!("{}: {identity}\n", name.display()));
    }
    hash.update(settings);
    Ok(format!("{:x}", hash.finalize()))
}

/// What decides one answer: the model's key and the prompt.
pub fn answer_key(model_key: &str, prompt: &str) -> String {
    let hash = format!("{:x}", Sha256::digest(format!("{model_key}\n{prompt}")));
    hash[..16].to_owned()
}

/// A line of either file, as far as it is read.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    key: String,
    response: String,
}

/// A line of the answer file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    key: &'a str,
}

/// An answer file and the partial one beside it.
#[derive(Debug)]
pub struct AnswerStore {
    path: PathBuf,
    partial: PathBuf,
    known: HashMap<String, String>,
}

impl AnswerStore {
    /// Reads what is kept at `path` and beside it; a line that is torn or has no key is no answer.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let (path, partial) = (path.to_path_buf(), PathBuf::from(partial));
        let mut known = HashMap::new();
        for file in [&path, &partial] {
            let bytes =
                if file.exists() { fs::read(file).with_context(|| file.display().to_string())? } else { vec![] };
            for line in bytes.split(|&byte| byte == b'\n') {
                if let Ok(Kept { key, response }) = serde_json::from_slice(line) {
                    known.insert(key, response);
                }
            }
        }
        Ok(Self { path, partial, known })
    }

    /// The answer of this key, if it is kept.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.known.get(key).map(String::as_str)
    }

    /// Opens the partial file, to append to it; a torn last line is cut off.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self) -> Result<Appender> {
        let failed = || self.partial.display().to_string();
        if let Some(dir) = self.partial.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let open = || -> std::io::Result<File> {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&self.partial)?;
            let whole = fs::read(&self.partial)?.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Ok(Appender { file: open().with_context(failed)?, path: self.partial.clone() })
    }

    /// Writes the answer file whole, unless it is that already, and removes the partial one.
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub fn finish(&self, answers: &[Answer], keys: &[String]) -> Result<()> {
        let mut text = Vec::new();
        for (answer, key) in answers.iter().zip(keys) {
            serde_json::to_writer(&mut text, &Line { answer, key })?;
            text.push(b'\n');
        }
        if fs::read(&self.path).ok().as_ref() != Some(&text) {
            prompts::sample::write_whole(&self.path, &text)?;
        }
        match fs::remove_file(&self.partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| self.partial.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

/// The partial file, open at its end.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Adds an answer.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, key: &str, response: &str) -> Result<()> {
        let mut line = serde_json::to_vec(&Kept { key: key.to_owned(), response: response.to_owned() })?;
        line.push(b'\n');
        self.file.write_all(&line).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answers.jsonl");
        let store = AnswerStore::open(&path).unwrap();
        let mut appender = store.append().unwrap();
        appender.add("a", "one").unwrap();
        appender.add("b", "two\nlines").unwrap();
        let partial = dir.path().join("answers.jsonl.partial");
        let bytes = fs::read(&partial).unwrap();
        for cut in 1..bytes.len() {
            fs::write(&partial, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let store = AnswerStore::open(&path).unwrap();
            assert!(store.get("a").is_some() || whole == 0, "cut after {cut} bytes");
            store.append().unwrap().add("c", "three").unwrap();
            let store = AnswerStore::open(&path).unwrap();
            assert_eq!(store.get("c"), Some("three"), "cut after {cut} bytes");
            assert_eq!(store.known.len(), 1 + whole, "cut after {cut} bytes");
        }
    }

    #[test]
    fn a_key_depends_on_weights_tokenizer_settings_and_prompt_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let key = || model_key(dir.path(), "8 tokens").unwrap();
        let first = key();
        write("notes.md", "unrelated");
        assert_eq!(key(), first);
        assert_ne!(model_key(dir.path(), "9 tokens").unwrap(), first);
        write("tokenizer.json", "{}");
        let second = key();
        assert_ne!(second, first);
        write("model.safetensors", "longer weights");
        assert_ne!(key(), second);
        assert_ne!(answer_key(&first, "a"), answer_key(&first, "b"));
        assert_ne!(answer_key(&first, "a"), answer_key(&second, "a"));
        assert!(model_key(&dir.path().join("none"), "").unwrap_err().to_string().contains("none"));
    }
}
