//! The rows of a file of prompts as JSON objects: JSONL, CSV with its columns as keys, or a directory of such files.

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
    /// The line, and of a directory the file's name without its ending before it.
    pub name: String,
    /// The values by their keys. In a directory a row without `category` has the file's name without its ending.
    pub object: Map<String, Value>,
}

/// The rows of a file: of a `.csv` those under its first line, which names the columns unless `columns` does, of any other
/// one JSON object a line; of a directory those of its `.csv`, `.jsonl` and `.json` files, the shorter names first. Blank lines
/// and a byte order mark are left out.
///
/// # Errors
/// When a file cannot be read, a line is no JSON object or not of the columns, or there is no row.
pub fn rows(path: &Path, columns: Option<&[String]>) -> Result<Vec<Row>> {
    let rows = if path.is_dir() { of_dir(path, columns)? } else { of_file(path, columns)? };
    match rows.is_empty() {
        true => Err(Error::EmptyFile { path: path.to_path_buf() }),
        false => Ok(rows),
    }
}

fn of_dir(dir: &Path, columns: Option<&[String]>) -> Result<Vec<Row>> {
    let entries = std::fs::read_dir(dir).map_err(files::Error::io("read", dir))?;
    let mut found: Vec<PathBuf> = entries
        .map(|entry| Ok(entry.map_err(files::Error::io("read", dir))?.path()))
        .filter(|file: &Result<PathBuf>| file.as_ref().map_or(true, |file| has_ending(file, &["csv", "jsonl", "json"])))
        .collect::<Result<_>>()?;
    found.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
    let mut rows = Vec::new();
    for file in found {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for mut row in of_file(&file, columns)? {
            row.name = format!("{stem}/{}", row.line);
            row.object.entry("category").or_insert_with(|| Value::String(stem.clone()));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn of_file(path: &Path, columns: Option<&[String]>) -> Result<Vec<Row>> {
    let bytes = files::read_input(path)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let rows = if has_ending(path, &["csv"]) { of_csv(path, text, columns)? } else { of_jsonl(path, text)? };
    let row = |(line, object): (usize, _)| Row { file: path.to_owned(), line, name: line.to_string(), object };
    Ok(rows.into_iter().map(row).collect())
}

fn has_ending(file: &Path, endings: &[&str]) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.iter().any(|one| ending.eq_ignore_ascii_case(one)))
}

fn of_jsonl(path: &Path, text: &[u8]) -> Result<Vec<(usize, Map<String, Value>)>> {
    let lines = text.split(|&byte| byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    lines.map(|(index, line)| Ok((index + 1, of_line(path, index + 1, line)?))).collect()
}

fn of_line(path: &Path, line: usize, text: &[u8]) -> Result<Map<String, Value>> {
    let object = files::json_value(text).and_then(serde_json::from_value);
    object.map_err(|error| Error::JsonLine { path: path.to_path_buf(), line, reason: error.to_string() })
}

fn of_csv(path: &Path, text: &[u8], columns: Option<&[String]>) -> Result<Vec<(usize, Map<String, Value>)>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(columns.is_none()).flexible(true).from_reader(text);
    let mut lines = Lines { text, at: 0, line: 1 };
    let wrong = |line, reason| Error::CsvLine { path: path.to_path_buf(), line, reason };
    let names: Vec<String> = match columns {
        Some(columns) => columns.to_vec(),
        None => reader.headers().map_err(|error| wrong(1, error.to_string()))?.iter().map(str::to_owned).collect(),
    };
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|error| wrong(lines.line, error.to_string()))?;
        let line = lines.of(record.position().map_or(0, |place| place.byte() as usize));
        let record = csv::StringRecord::from_byte_record(record).map_err(|error| wrong(line, error.to_string()))?;
        if record.len() != names.len() {
            return Err(wrong(line, format!("it has {} columns, and {} are named", record.len(), names.len())));
        }
        let values = record.iter().map(|value| Value::String(value.to_owned()));
        rows.push((line, names.iter().cloned().zip(values).collect()));
    }
    Ok(rows)
}

/// Counts lines, which the reader miscounts where they end by a carriage return and a line feed.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the first text from a byte on, which grows from call to call.
    fn of(&mut self, byte: usize) -> usize {
        let blank = self.text[byte..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += self.text[self.at..byte + blank].iter().filter(|byte| **byte == b'\n').count();
        self.at = byte + blank;
        self.line
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn write(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn texts<'a>(rows: &'a [Row], key: &str) -> Vec<(&'a str, &'a str)> {
        rows.iter().map(|row| (row.name.as_str(), row.object[key].as_str().unwrap())).collect()
    }

    #[test]
    fn columns_are_keys_and_quoted_values_may_have_commas_and_lines() {
        let dir = write(&[("a.csv", "\u{feff}goal,target\r\n\"one, \"\"two\"\"\nthree\",x\r\n\r\nfour,y\n")]);
        let found = rows(&dir.path().join("a.csv"), None).unwrap();
        assert_eq!(texts(&found, "goal"), [("2", "one, \"two\"\nthree"), ("5", "four")]);
        assert_eq!(found[1].object["target"], "y");
    }

    #[test]
    fn a_file_without_names_has_those_that_are_given_and_a_directory_its_files_names_as_categories() {
        let dir = write(&[("kind_10.csv", "\"c, d\"\n"), ("kind_2.csv", "a\nb\n"), ("read.me", "nothing")]);
        let columns = ["prompt".to_owned()];
        let found = rows(dir.path(), Some(&columns)).unwrap();
        assert_eq!(texts(&found, "prompt"), [("kind_2/1", "a"), ("kind_2/2", "b"), ("kind_10/1", "c, d")]);
        assert_eq!(texts(&found, "category")[2].1, "kind_10");
        let two = [columns.clone(), columns].concat();
        let error = rows(&dir.path().join("kind_2.csv"), Some(&two)).unwrap_err().to_string();
        assert!(error.contains("kind_2.csv, line 1") && error.contains("1 columns, and 2"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let dir = write(&[("a.csv", "prompt,kind\na,b\nc\n"), ("b.csv", "prompt\n"), ("c.csv", "")]);
        let error = |name: &str| rows(&dir.path().join(name), None).unwrap_err().to_string();
        assert!(error("a.csv").contains("a.csv, line 3"), "{}", error("a.csv"));
        assert!(error("b.csv").contains("b.csv is empty") && error("c.csv").contains("is empty"));
        fs::write(dir.path().join("d.csv"), b"prompt\n\xff\n").unwrap();
        assert!(error("d.csv").contains("d.csv, line 2"), "{}", error("d.csv"));
        assert!(rows(tempfile::tempdir().unwrap().path(), None).unwrap_err().to_string().contains("empty"));
    }
}
