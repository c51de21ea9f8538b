//! The rows of a file of prompts as JSON objects: JSONL, CSV with its columns as keys, or a directory of such files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// What names the row where it has no id of its own: the line, and in a directory the file's name before it.
    pub name: String,
    /// The values by their keys. In a directory a row without `category` has the file's name without its ending.
    pub object: Map<String, Value>,
}

/// Rows one by one, each an error where it cannot be read.
pub type Rows = Box<dyn Iterator<Item = Result<Row>>>;

/// The rows of a file: of a `.csv` those under its first line, which names the columns unless `columns` does, of any other
/// one JSON object a line; of a directory those of its [`files_of`]. Blank lines and a byte order mark are left out, and so are
/// empty values of a CSV file, which has no other way to say that there is none. Lines of JSON are read as they are asked for.
///
/// # Errors
/// When a file cannot be read or has no row; a row, when it is no JSON object or not of the columns.
pub fn rows(path: &Path, columns: Option<&[String]>) -> Result<Rows> {
    if !path.is_dir() {
        return of_file(path, columns);
    }
    let mut all: Rows = Box::new(std::iter::empty());
    for file in files_of(path)? {
        let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let (name, category) = (text(file.file_name()), text(file.file_stem()));
        let named = move |mut row: Row| {
            row.name = format!("{name}/{}", row.line);
            row.object.entry("category").or_insert_with(|| Value::String(category.clone()));
            row
        };
        all = Box::new(all.chain(of_file(&file, columns)?.map(move |row| row.map(&named))));
    }
    Ok(all)
}

/// The files that are read of a path: itself, or of a directory those that end in `.csv`, `.jsonl` or `.json`, the shorter
/// names first.
///
/// # Errors
/// When a directory cannot be read or has no such file.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = files::Error::io("read", path);
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(failed)?;
    let mut found: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    found.retain(|file| file.is_file() && is_read(file));
    found.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
    match found.is_empty() {
        true => Err(Error::NoFiles { dir: path.to_path_buf() }),
        false => Ok(found),
    }
}

/// Whether a file is read with the directory that it is in, by its ending.
#[must_use]
pub fn is_read(file: &Path) -> bool {
    ["csv", "jsonl", "json"].iter().any(|ending| has_ending(file, ending))
}

fn of_file(path: &Path, columns: Option<&[String]>) -> Result<Rows> {
    let mut text = files::read_input(path)?;
    if text.starts_with(b"\xef\xbb\xbf") {
        text.drain(..3);
    }
    let is_csv = has_ending(path, "csv");
    if let Some(help) = other_format(path, &text, is_csv) {
        return Err(Error::OtherFormat { path: path.to_path_buf(), help });
    }
    let rows: Rows =
        if is_csv { Box::new(of_csv(path, &text, columns)?.into_iter().map(Ok)) } else { of_jsonl(path, text) };
    let mut rows = rows.peekable();
    match rows.peek() {
        None => Err(Error::EmptyFile { path: path.to_path_buf() }),
        Some(_) => Ok(Box::new(rows)),
    }
}

/// What to do with a file of a format that is not read, told by how it begins.
fn other_format(path: &Path, text: &[u8], is_csv: bool) -> Option<String> {
    let file = files::shell_word(path);
    let lines = files::shell_word(&path.with_extension("lines.jsonl"));
    let is_list = !is_csv && text.trim_ascii_start().starts_with(b"[");
    match text {
        [0x1f, 0x8b, ..] => Some(format!("is compressed: gunzip -c {file} > {lines}")),
        [b'P', b'A', b'R', b'1', ..] => Some(format!(
            "is a Parquet file; make JSONL of it: python -c \"import sys, pandas as p; \
             p.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)\" {file} {lines}"
        )),
        _ if is_list => Some(format!("is one JSON list, and an object a line is read: jq -c '.[]' {file} > {lines}")),
        _ => None,
    }
}

fn has_ending(file: &Path, ending: &str) -> bool {
    file.extension().and_then(OsStr::to_str).is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

fn row(path: &Path, line: usize, object: Map<String, Value>) -> Row {
    Row { file: path.to_owned(), line, name: line.to_string(), object }
}

fn of_jsonl(path: &Path, text: Vec<u8>) -> Rows {
    let (path, mut at, mut line) = (path.to_owned(), 0, 0);
    let next = move || {
        while at < text.len() {
            let end = text[at..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |found| at + found);
            let found = &text[at..end];
            (at, line) = (end + 1, line + 1);
            if !found.trim_ascii().is_empty() {
                let object = files::json_value(found).and_then(serde_json::from_value);
                let wrong =
                    |error: serde_json::Error| Error::JsonLine { path: path.clone(), line, reason: error.to_string() };
                return Some(object.map_err(wrong).map(|object| row(&path, line, object)));
            }
        }
        None
    };
    Box::new(std::iter::from_fn(next))
}

fn of_csv(path: &Path, text: &[u8], columns: Option<&[String]>) -> Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(columns.is_none()).flexible(true).from_reader(text);
    let wrong = |line, reason| Error::CsvLine { path: path.to_path_buf(), line, reason };
    let names: Vec<String> = match columns {
        Some(columns) => columns.to_vec(),
        None => reader.headers().map_err(|error| wrong(1, error.to_string()))?.iter().map(str::to_owned).collect(),
    };
    if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(wrong(1, format!("two columns are named {twice:?}")));
    }
    let (mut lines, mut rows) = (Lines { text, at: 0, line: 1 }, Vec::new());
    let mut record = csv::ByteRecord::new();
    loop {
        let start = lines.skip_blank(reader.position().byte() as usize);
        let line = lines.line;
        if !reader.read_byte_record(&mut record).map_err(|error| wrong(line, error.to_string()))? {
            return Ok(rows);
        }
        let quotes = text[start..reader.position().byte() as usize].iter().filter(|byte| **byte == b'"').count();
        if quotes % 2 == 1 {
            return Err(wrong(line, "a quote is not closed, or stands in a value without quotes around it".to_owned()));
        }
        let values = csv::StringRecord::from_byte_record(record.clone());
        let values = values.map_err(|error| wrong(line, error.to_string()))?;
        if values.len() != names.len() {
            return Err(wrong(line, format!("it has {} columns, and {} are named", values.len(), names.len())));
        }
        let given = names.iter().zip(&values).filter(|(_, value)| !value.is_empty());
        let object = given.map(|(name, value)| (name.clone(), Value::String(value.to_owned()))).collect();
        rows.push(row(path, line, object));
    }
}

/// Counts lines, which end by a line feed, a carriage return, or both; the reader counts line feeds.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// Counts up to the first text from a byte on, which grows from call to call; returns where that is.
    fn skip_blank(&mut self, byte: usize) -> usize {
        let blank = self.text[byte..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let end = byte + blank;
        let is_end = |at: &usize| match self.text[*at] {
            b'\n' => true,
            b'\r' => self.text.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        self.line += (self.at..end).filter(is_end).count();
        self.at = end;
        end
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn read(path: &Path, columns: Option<&[String]>) -> Result<Vec<Row>> {
        rows(path, columns)?.collect()
    }

    fn texts<'a>(rows: &'a [Row], key: &str) -> Vec<(&'a str, &'a str)> {
        rows.iter().map(|row| (row.name.as_str(), row.object[key].as_str().unwrap())).collect()
    }

    #[test]
    fn columns_are_keys_and_quoted_values_may_have_commas_and_lines() {
        let dir = write(&[("a.csv", "\u{feff}goal,target\r\n\"one, \"\"two\"\"\nthree\",x\r\n\r\nfour,\n")]);
        let found = read(&dir.path().join("a.csv"), None).unwrap();
        assert_eq!(texts(&found, "goal"), [("2", "one, \"two\"\nthree"), ("5", "four")]);
        assert_eq!(found[1].object.get("target"), None, "an empty value is none");
        fs::write(dir.path().join("a.csv"), "goal\rone\rtwo\r").unwrap();
        assert_eq!(texts(&read(&dir.path().join("a.csv"), None).unwrap(), "goal"), [("2", "one"), ("3", "two")]);
    }

    #[test]
    fn a_file_without_names_has_those_that_are_given_and_a_directory_its_files_names_as_categories() {
        let dir = write(&[("kind_10.csv", "\"c, d\"\n"), ("kind_2.csv", "a\nb\n"), ("read.me", "nothing")]);
        let columns = ["prompt".to_owned()];
        let found = read(dir.path(), Some(&columns)).unwrap();
        assert_eq!(texts(&found, "prompt"), [("kind_2.csv/1", "a"), ("kind_2.csv/2", "b"), ("kind_10.csv/1", "c, d")]);
        assert_eq!(texts(&found, "category")[2].1, "kind_10");
        let two = ["a".to_owned(), "b".to_owned()];
        let error = read(&dir.path().join("kind_2.csv"), Some(&two)).unwrap_err().to_string();
        assert!(error.contains("kind_2.csv, line 1") && error.contains("1 columns, and 2"), "{error}");
        fs::write(dir.path().join("kind_3.csv"), "").unwrap();
        let error = read(dir.path(), Some(&columns)).unwrap_err().to_string();
        assert!(error.contains("kind_3.csv is empty"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let dir = write(&[
            ("short.csv", "prompt,kind\na,b\nc\n"),
            ("twice.csv", "prompt,prompt\na,b\n"),
            ("open.csv", "prompt\na\n\"b\nc\nd\n"),
            ("names.csv", "prompt\n"),
        ]);
        let error = |name: &str| read(&dir.path().join(name), None).unwrap_err().to_string();
        for (name, part) in [
            ("short.csv", "short.csv, line 3"),
            ("twice.csv", "two columns are named \"prompt\""),
            ("open.csv", "open.csv, line 3: not a row of the file's columns (a quote is not closed"),
            ("names.csv", "names.csv is empty"),
        ] {
            assert!(error(name).contains(part), "{}", error(name));
        }
        fs::write(dir.path().join("bytes.csv"), b"prompt\n\xff\n").unwrap();
        assert!(error("bytes.csv").contains("bytes.csv, line 2"), "{}", error("bytes.csv"));
        let none = read(tempfile::tempdir().unwrap().path(), None).unwrap_err().to_string();
        assert!(none.contains("no file that ends in .csv, .jsonl or .json"), "{none}");
    }

    #[test]
    fn another_format_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let with = |name: &str, bytes: &[u8]| {
            fs::write(dir.path().join(name), bytes).unwrap();
            read(&dir.path().join(name), None).map_err(|error| error.to_string())
        };
        for (name, bytes, wanted) in [
            ("a.jsonl.gz", &b"\x1f\x8b\x08\0"[..], "a.jsonl.gz is compressed: gunzip -c"),
            ("a.parquet", b"PAR1\0", "read_parquet"),
            ("a.json", b"\xef\xbb\xbf\n [{\"prompt\": \"a\"}]", "a.lines.jsonl"),
        ] {
            let error = with(name, bytes).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        assert_eq!(with("a.csv", b"[prompt]\nPAR1\n").unwrap().len(), 1);
    }

    #[test]
    fn lines_after_those_that_are_asked_for_are_not_read() {
        let dir = write(&[("a.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\":")]);
        let mut found = rows(&dir.path().join("a.jsonl"), None).unwrap();
        assert_eq!(found.next().unwrap().unwrap().object["prompt"], "a");
        assert!(found.next().unwrap().unwrap_err().to_string().contains("line 2"));
    }
}
