//! Prompt files: JSONL or CSV ([`mod@crate::rows`]), with file, line and key in every error.
//!
//! One object per line, or one row: `prompt`, and where the data has them `response`, `category`, `id`; these two may be of any type. In
//! place of `prompt` a line may have `messages`, a conversation of one question and at most one answer. Other keys are
//! ignored, as is a byte order mark. Does NOT render templates or count tokens: see [`crate::chat`] and [`crate::tokenizer`].

use std::path::{Path, PathBuf};

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::rows::{Row, rows};

/// One line of a prompt file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// What the user says.
    pub prompt: String,
    /// The system turn before it, where a line's `messages` have one.
    #[serde(skip)]
    pub system: Option<String>,
    /// What the assistant answers; needed for training and exact-match scores.
    #[serde(default)]
    pub response: Option<String>,
    /// The class of the prompt, where the data has classes.
    #[serde(default)]
    pub category: Option<String>,
    /// The sample's name in its data set.
    #[serde(default)]
    pub id: Option<String>,
}

/// As a line that [`read_jsonl`] reads back: with `messages` where there is a system turn.
impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        if let Some(system) = &self.system {
            let turn = |role: &str, content: &String| json!({"role": role, "content": content});
            let mut messages = vec![turn("system", system), turn("user", &self.prompt)];
            messages.extend(self.response.iter().map(|response| turn("assistant", response)));
            line.serialize_entry("messages", &messages)?;
        } else {
            line.serialize_entry("prompt", &self.prompt)?;
            self.response.iter().try_for_each(|response| line.serialize_entry("response", response))?;
        }
        self.category.iter().try_for_each(|category| line.serialize_entry("category", category))?;
        self.id.iter().try_for_each(|id| line.serialize_entry("id", id))?;
        line.end()
    }
}

/// A conversation of one question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// What the system turn says.
    pub system: Option<String>,
    /// What the user says.
    pub prompt: String,
    /// What the assistant answers.
    pub response: Option<String>,
}

impl Turns {
    /// The turns of a list of messages, each with `role` and `content`.
    ///
    /// # Errors
    /// Says what is wrong and what to do, where the list is not one user turn, with or without a system turn before it and an
    /// assistant's turn after it.
    pub fn new(messages: &[Value]) -> std::result::Result<Self, String> {
        const ONE: &str =
            "expected one user turn, with or without a system turn before it and an assistant turn after it";
        let mut turns = Self::default();
        let mut roles = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let number = place + 1;
            let role = message["role"].as_str().ok_or_else(|| format!("turn {number} has no \"role\"; {ONE}"))?;
            let content = message["content"].as_str();
            let content =
                content.ok_or_else(|| format!("turn {number}: \"content\" is no string; write its text there"))?;
            match role {
                "system" => turns.system = Some(content.to_owned()),
                "user" => turns.prompt = content.to_owned(),
                "assistant" => turns.response = Some(content.to_owned()),
                other => return Err(format!("turn {number} has the role {other:?}; {ONE}")),
            }
            roles.push(role);
        }
        match roles.strip_prefix(&["system"]).unwrap_or(&roles) {
            ["user"] | ["user", "assistant"] => Ok(turns),
            _ => Err(format!(
                "has the turns {}; {ONE}: cut a longer conversation into lines of one question each",
                if roles.is_empty() { "none".to_owned() } else { roles.join(", ") }
            )),
        }
    }
}

impl Sample {
    /// The response, or an error that names `source`, the file the sample came from.
    ///
    /// [`read_training_jsonl`] makes the same check while reading and knows the line too.
    pub fn response_or_err(&self, source: &Path) -> Result<&str> {
        self.response.as_deref().ok_or_else(|| Error::NoResponse { path: source.to_path_buf() })
    }
}

/// Reads all samples of a file or directory ([`mod@crate::rows`]). Blank lines are skipped; a file without any sample is an error.
pub fn read_jsonl(path: &Path) -> Result<Vec<Sample>> {
    Ok(read_numbered(path)?.into_iter().map(|(.., sample)| sample).collect())
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

/// As [`read_jsonl`], and checks that each has a response.
pub fn read_training_jsonl(path: &Path) -> Result<Vec<Sample>> {
    read_numbered(path)?
        .into_iter()
        .map(|(path, line, sample)| match sample.response {
            Some(_) => Ok(sample),
            None => {
                Err(Error::Key { path, line, key: "response", problem: "is missing; every line needs one here".into() })
            }
        })
        .collect()
}

/// The samples with their rows' files and lines.
fn read_numbered(path: &Path) -> Result<Vec<(PathBuf, usize, Sample)>> {
    let parsed = |row: Result<Row>| {
        let row = row?;
        Ok((row.file.clone(), row.line, parse(row)?))
    };
    rows(path, None)?.map(parsed).collect()
}

fn parse(Row { file, line, mut object, .. }: Row) -> Result<Sample> {
    let mut take = |key: &'static str| match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::Key {
            path: file.clone(),
            line,
            key,
            problem: format!("is {}, expected a string", kind(&other)),
        }),
    };
    let (prompt, response) = (take("prompt")?, take("response")?);
    let wrong = |key: &'static str, problem: String| Error::Key { path: file.clone(), line, key, problem };
    let turns = match (prompt, object.remove("messages")) {
        (Some(prompt), _) => Turns { prompt, ..Turns::default() },
        (None, Some(Value::Array(messages))) => Turns::new(&messages).map_err(|problem| wrong("messages", problem))?,
        (None, Some(other)) => {
            return Err(wrong("messages", format!("is {}, expected a list of turns", kind(&other))));
        }
        (None, None) => return Err(wrong("prompt", "is missing, expected a string".into())),
    };
    let Turns { system, prompt, response: answer } = turns;
    let mut label = |key| object.remove(key).and_then(|value| label(&value));
    Ok(Sample { prompt, system, response: response.or(answer), category: label("category"), id: label("id") })
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
mod tests {
    use super::*;
    use std::fs;

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
    fn messages_of_one_question_are_a_prompt_and_longer_ones_are_named_by_line() {
        let turn = |role: &str, text: &str| json!({"role": role, "content": text});
        let line = |turns: &[Value]| json!({"messages": turns}).to_string();
        let (system, user, answer) = (turn("system", "s"), turn("user", "q"), turn("assistant", "a"));
        let whole = [system.clone(), user.clone(), answer.clone()];
        let (_dir, path) = file([line(&whole[1..2]), line(&whole[1..]), line(&whole)].join("\n"));
        let samples = read_jsonl(&path).unwrap();
        let of = |index: usize| {
            let one: &Sample = &samples[index];
            (one.prompt.as_str(), one.response.as_deref(), one.system.as_deref())
        };
        assert_eq!([of(0), of(1), of(2)], [("q", None, None), ("q", Some("a"), None), ("q", Some("a"), Some("s"))]);
        files::write_jsonl(&path, &samples).unwrap();
        assert_eq!(read_jsonl(&path).unwrap(), samples, "a system turn is kept when samples are written");
        for (turns, part) in [
            (vec![user.clone(), answer.clone(), user.clone()], "one question each"),
            (vec![user.clone(), system], "user, system"),
            (vec![answer], "assistant"),
            (vec![], "none"),
            (vec![turn("tool", "t")], "\"tool\""),
            (vec![json!({"role": "user", "content": [1]})], "turn 1: \"content\" is no string"),
            (vec![json!("q")], "\"role\""),
        ] {
            let error = failure(format!("{{\"prompt\":\"a\"}}\n{}", line(&turns)));
            assert!(error.contains("line 2: key \"messages\"") && error.contains(part), "{error}");
        }
        assert!(failure("{\"messages\": 3}").contains("is a number, expected a list of turns"));
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
