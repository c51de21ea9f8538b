//! Answer files (paper, "Evaluation": answers first, scores afterwards): one JSON object a line. It neither generates
//! answers nor scores them.

use std::path::Path;

use files::Keyed;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{Result, read::lines};

/// One answer of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The sample's name; a line without one gets its line number.
    #[serde(default, deserialize_with = "name")]
    pub id: String,
    /// The prompt as the user wrote it, without a template; empty if the file has none.
    #[serde(default)]
    pub prompt: String,
    /// The model's answer, without special tokens.
    pub response: String,
    /// The right answer, if the task has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The prompt's category, if it has one.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// A text or a number; nothing of another type.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(name) => name,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// A text; none of another type.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// Which prompt an answer is to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptId {
    /// The sample's name.
    pub id: String,
    /// The prompt's category, if it has one.
    pub category: Option<String>,
}

impl Answer {
    /// What it is an answer to.
    pub fn prompt_id(&self) -> PromptId {
        PromptId { id: self.id.clone(), category: self.category.clone() }
    }

    /// The response without the model's thinking; none if the thinking has no end.
    pub fn final_text(&self) -> Option<&str> {
        final_text(&self.response)
    }
}

/// What follows the last `</think>`, or the whole text without one; none if thinking begins and does not end.
pub(crate) fn final_text(text: &str) -> Option<&str> {
    let text = text.rsplit_once("</think>").map_or(text, |(_, text)| text.trim_start());
    (!text.contains("<think>")).then_some(text)
}

/// An answer in a [`files::Journal`], so that a stopped generation goes on from the sample it was at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
    /// Hash of what decides the answer. A line without a key, written by another program, is no known answer.
    #[serde(default)]
    pub key: String,
}

impl Keyed for AnswerRecord {
    fn key(&self) -> &str {
        &self.key
    }
}

/// The answers of a file, read one by one; blank lines are skipped and other keys are ignored.
///
/// # Errors
/// When the file cannot be opened; an answer, when a line is none: the error names file, line and key.
pub fn answers(path: &Path) -> Result<impl Iterator<Item = Result<Answer>>> {
    let path_of = path.to_owned();
    let answer = move |line: Result<(usize, String)>| {
        let (number, line) = line?;
        let json = |source| files::Error::Json { path: path_of.clone(), line: Some(number), source };
        let mut answer: Answer = serde_json::from_str(&line).map_err(json)?;
        if answer.id.is_empty() {
            answer.id = number.to_string();
        }
        Ok(answer)
    };
    Ok(lines(path)?.map(answer))
}

/// All [`answers`] of a file.
///
/// # Errors
/// As [`answers`].
pub fn read_answers(path: &Path) -> Result<Vec<Answer>> {
    answers(path)?.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use files::Journal;

    use super::*;

    #[test]
    fn answers_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let answers = [
            Answer {
                id: "a".into(),
                prompt: "one\n\"two\"".into(),
                response: "h\u{e9}".into(),
                reference: Some("x".into()),
                category: Some("map".into()),
            },
            Answer { id: "2".into(), ..Answer::default() },
        ];
        files::write_jsonl(&path, &answers).unwrap();
        assert_eq!(read_answers(&path).unwrap(), answers);
    }

    #[test]
    fn a_journal_of_answers_is_a_file_of_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, "{\"response\": \"of another program\"}\n").unwrap();
        let answer = Answer { id: "a".into(), response: "r".into(), ..Answer::default() };
        let mut journal = Journal::<AnswerRecord>::open(&path).unwrap();
        journal.add(&AnswerRecord { answer: answer.clone(), key: "k".into() }).unwrap();
        let journal = Journal::<AnswerRecord>::open(&path).unwrap();
        assert_eq!(journal.record("k").unwrap().answer, answer);
        journal.finish(std::iter::once(journal.record("k"))).unwrap();
        assert_eq!(read_answers(&path).unwrap(), [answer]);
        assert!(fs::read_to_string(&path).unwrap().ends_with("\"key\":\"k\"}\n"));
    }

    #[test]
    fn an_answer_is_what_follows_the_thinking() {
        for (response, text) in [
            (" the map", Some(" the map")),
            ("<think>I cannot, or can I?</think>\n\nthe map", Some("the map")),
            ("I see no problem.</think>the map", Some("the map")),
            ("<think>a</think>b<think>c</think>d", Some("d")),
            ("<think>a</think>b<think>c", None),
            ("<think>the map", None),
        ] {
            assert_eq!(final_text(response), text, "{response:?}");
        }
    }

    #[test]
    fn columns_of_other_types_a_byte_order_mark_and_a_missing_id_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let lines = ["", r#"{"response": "r", "extra": 1, "category": {"a": true}}"#, r#"{"response": "r", "id": 7}"#];
        fs::write(&path, format!("\u{feff}{}\r\n", lines.join("\r\n"))).unwrap();
        let answers = read_answers(&path).unwrap();
        assert_eq!((answers[0].id.as_str(), &answers[0].category, answers[1].id.as_str()), ("2", &None, "7"));
    }

    #[test]
    fn a_bad_line_is_named_with_file_line_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let good = "{\"prompt\": \"p\", \"response\": \"r\"}\n";
        fs::write(&path, format!("{good}{{\"prompt\": \"p\"}}\n")).unwrap();
        let error = read_answers(&path).unwrap_err().to_string();
        for part in ["answers.jsonl", "line 2", "`response`"] {
            assert!(error.contains(part), "{error}");
        }
        let missing = read_answers(&folder.path().join("none.jsonl")).unwrap_err();
        assert!(missing.to_string().contains("none.jsonl"), "{missing}");
    }
}
