//! Answer files (paper, "Evaluation": answers first, scores afterwards): one JSON object a line, read and written
//! whole. It neither generates answers nor scores them.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::EvaluationError;

/// One answer of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The sample's name; a line without one gets its line number.
    #[serde(default)]
    pub id: String,
    /// The prompt as the user wrote it, without a template; empty where the file has none.
    #[serde(default)]
    pub prompt: String,
    /// The model's answer, without special tokens.
    pub response: String,
    /// The right answer, where the task has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The prompt's category, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// Reads answers; blank lines are skipped and other keys are ignored. An error names file, line and key.
pub fn read_answers(path: &Path) -> Result<Vec<Answer>, EvaluationError> {
    let text = fs::read_to_string(path).map_err(|source| EvaluationError::Read { path: path.to_owned(), source })?;
    let mut answers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let mut answer: Answer = serde_json::from_str(line).map_err(|source| EvaluationError::Line {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        if answer.id.is_empty() {
            answer.id = (index + 1).to_string();
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Writes answers, to a temporary file first.
pub fn write_answers(path: &Path, answers: &[Answer]) -> Result<(), EvaluationError> {
    Ok(prompts::write_jsonl(path, answers)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
        write_answers(&path, &answers).unwrap();
        assert_eq!(read_answers(&path).unwrap(), answers);
    }

    #[test]
    fn a_line_without_an_id_gets_its_line_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        fs::write(&path, "\n{\"prompt\": \"p\", \"response\": \"r\", \"extra\": 1}\n").unwrap();
        assert_eq!(read_answers(&path).unwrap()[0].id, "2");
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
