//! Prompt files: JSONL, with file, line and key in every error.
//!
//! One object per line: `prompt`, and where the data has them `response`, `category`, `id`; these two may be of any type.
//! Other keys are ignored, as is a byte order mark. Does NOT render templates or count tokens: see [`crate::chat`] and [`crate::tokenizer`].

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One line of a prompt file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What the user says.
    pub prompt: String,
    /// What the assistant answers; needed for training and exact-match scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The class of the prompt, where the data has classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The sample's name in its data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Sample {
    /// The response, or an error that names `source`, the file the sample came from.
    ///
    /// [`read_training_jsonl`] makes the same check while reading and knows the line too.
    pub fn response_or_err(&self, source: &Path) -> Result<&str> {
        self.response.as_deref().ok_or_else(|| Error::NoResponse { path: source.to_path_buf() })
    }
}

/// Reads all samples of a JSONL file. Blank lines are skipped; a file without any sample is an error.
pub fn read_jsonl(path: &Path) -> Result<Vec<Sample>> {
    Ok(read_numbered(path)?.into_iter().map(|(_, sample)| sample).collect())
}

/// Reads the first `count` samples; an error if the file has fewer.
pub fn read_jsonl_first(path: &Path, count: usize) -> Result<Vec<Sample>> {
    let mut samples = read_jsonl(path)?;
    if samples.len() < count {
        return Err(Error::TooFew { asked: count, found: samples.len(), path: path.to_path_buf() });
    }
    samples.truncate(count);
    Ok(samples)
}

/// Reads all samples of a JSONL file and checks that each has a response.
pub fn read_training_jsonl(path: &Path) -> Result<Vec<Sample>> {
    read_numbered(path)?
        .into_iter()
        .map(|(line, sample)| match sample.response {
            Some(_) => Ok(sample),
            None => Err(Error::Key {
                path: path.to_path_buf(),
                line,
                key: "response",
                problem: "is missing; every line needs one here".into(),
            }),
        })
        .collect()
}

/// The samples with their line numbers, from 1.
fn read_numbered(path: &Path) -> Result<Vec<(usize, Sample)>> {
    let bytes = fs::read(path).map_err(Error::reading(path))?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let samples: Vec<_> = text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| Ok((index + 1, parse_line(path, index + 1, line)?)))
        .collect::<Result<_>>()?;
    match samples.is_empty() {
        true => Err(Error::EmptyFile { path: path.to_path_buf() }),
        false => Ok(samples),
    }
}

fn parse_line(path: &Path, line: usize, text: &[u8]) -> Result<Sample> {
    let mut object: Map<String, Value> = serde_json::from_slice(text).map_err(|error| Error::JsonLine {
        path: path.to_path_buf(),
        line,
        reason: error.to_string(),
    })?;
    let mut take = |key: &'static str| match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::Key {
            path: path.to_path_buf(),
            line,
            key,
            problem: format!("is {}, expected a string", kind(&other)),
        }),
    };
    let prompt = take("prompt")?.ok_or_else(|| Error::Key {
        path: path.to_path_buf(),
        line,
        key: "prompt",
        problem: "is missing, expected a string".into(),
    })?;
    let response = take("response")?;
    let mut label = |key| object.remove(key).and_then(|value| label(&value));
    Ok(Sample { prompt, response, category: label("category"), id: label("id") })
}

/// A value as the text of an optional column: of an object of flags the names of those that are true.
fn label(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(flags) if flags.values().all(Value::is_boolean) => {
            let names: Vec<&str> =
                flags.iter().filter(|(_, flag)| **flag == true).map(|(name, _)| name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(label).collect();
            (!items.is_empty()).then(|| items.join(", "))
        }
        other => Some(other.to_string()),
    }
}

/// What a JSON value is, for an error message; never its content.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts.jsonl");
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn failure(content: impl AsRef<[u8]>) -> String {
        let (_dir, path) = file(content);
        read_jsonl(&path).unwrap_err().to_string()
    }

    #[test]
    fn blank_lines_carriage_returns_and_unknown_keys_are_ignored() {
        let (_dir, path) =
            file("\n{\"prompt\":\"a\",\"level\":3}\r\n  \n{\"prompt\":\"b\",\"response\":\"c\",\"id\":null}");
        let samples = read_jsonl(&path).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].prompt.as_str(), &samples[0].response), ("a", &None));
        assert_eq!((samples[1].prompt.as_str(), samples[1].response.as_deref()), ("b", Some("c")));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let missing = failure("\n{\"response\":\"a\"}");
        assert!(missing.contains("prompts.jsonl, line 2") && missing.contains("\"prompt\" is missing"), "{missing}");
        let wrong = failure("{\"prompt\":\"a\"}\n{\"prompt\":\"a\",\"response\":[1]}");
        assert!(wrong.contains("line 2") && wrong.contains("\"response\" is a list"), "{wrong}");
        let broken = failure("{\"prompt\":\"a\"}\n\n{\"prompt\":");
        assert!(broken.contains("line 3") && broken.contains("not a JSON object"), "{broken}");
        let bytes = failure(b"{\"prompt\":\"\xff\"}");
        assert!(bytes.contains("line 1"), "{bytes}");
    }

    #[test]
    fn optional_columns_may_be_of_any_type_and_a_byte_order_mark_is_ignored() {
        let (_dir, path) = file(
            "\u{feff}{\"prompt\":\"a\",\"id\":7,\"category\":{\"theft\":true,\"other\":false,\"fraud\":true}}\r\n\
             {\"prompt\":\"b\",\"id\":null,\"category\":[\"x\",2]}\n{\"prompt\":\"c\",\"category\":{\"x\":false}}\n",
        );
        let samples = read_jsonl(&path).unwrap();
        let of = |index: usize| (samples[index].id.as_deref(), samples[index].category.as_deref());
        assert_eq!(of(0), (Some("7"), Some("theft, fraud")));
        assert_eq!(of(1), (None, Some("x, 2")));
        assert_eq!(of(2), (None, None));
    }

    #[test]
    fn a_file_without_samples_is_an_error_that_says_so() {
        assert!(failure("").contains("prompts.jsonl is empty"));
        assert!(failure("\n \n").contains("prompts.jsonl is empty"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_jsonl(Path::new("no/such/file.jsonl")).unwrap_err().to_string();
        assert!(error.contains("cannot read no/such/file.jsonl"), "{error}");
    }

    #[test]
    fn asking_for_more_than_there_is_says_both_numbers() {
        let (_dir, path) = file("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n");
        assert_eq!(read_jsonl_first(&path, 1).unwrap()[0].prompt, "a");
        assert_eq!(read_jsonl_first(&path, 2).unwrap().len(), 2);
        let error = read_jsonl_first(&path, 256).unwrap_err().to_string();
        assert!(error.starts_with("asked for 256 prompts, file ") && error.contains(" has 2;"), "{error}");
    }

    #[test]
    fn training_files_need_a_response_in_every_line() {
        let (_dir, path) = file("{\"prompt\":\"a\",\"response\":\"x\"}\n\n{\"prompt\":\"b\"}\n");
        let error = read_training_jsonl(&path).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("\"response\" is missing"), "{error}");
        let samples = read_jsonl(&path).unwrap();
        assert_eq!(samples[0].response_or_err(&path).unwrap(), "x");
        assert!(samples[1].response_or_err(&path).unwrap_err().to_string().contains("prompts.jsonl"));
    }

    #[test]
    fn what_is_written_is_read_back_and_absent_keys_stay_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/answers.jsonl");
        let samples = [
            Sample { prompt: "a \"quoted\"\nline".into(), response: Some("é".into()), ..Sample::default() },
            Sample { prompt: "b".into(), category: Some("k".into()), id: Some("7".into()), ..Sample::default() },
        ];
        files::write_jsonl(&path, &samples).unwrap();
        assert_eq!(read_jsonl(&path).unwrap(), samples);
        assert!(!fs::read_to_string(&path).unwrap().contains("null"));
    }
}
