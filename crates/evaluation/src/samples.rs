//! Samples of a JSONL or CSV file whose keys are named by settings. Every sample gets an id: its own, or its line's number.
//! Files with the usual keys (`prompt`, `response`) that train a model are read by `prompts`.

use std::{collections::HashSet, path::Path};

use prompts::{Row, Sample, Turns, rows};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{EvaluationError, Result};

/// The keys of a JSONL file, or the columns of a CSV file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// What the user says: a text, or a list of messages with one question. A line without the key may have `messages`.
    pub prompt: String,
    /// The right answer; a task needs it. Without the key it is the answer of the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The prompt's category; one that is not text is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The prompt's id; without it the line's number, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Names of the columns of a CSV file whose first line does not name them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

impl Default for Fields {
    fn default() -> Self {
        Self { prompt: "prompt".into(), response: None, category: None, id: None, columns: None }
    }
}

/// Reads samples: `skip` are left out at the start and `count` taken, all that follow without it.
///
/// # Errors
/// When the file cannot be read, a line lacks a named key, two share an id, or there are fewer than `count`.
pub fn read_samples(path: &Path, fields: &Fields, skip: usize, count: Option<usize>) -> Result<Vec<Sample>> {
    let mut ids = HashSet::new();
    let mut samples = Vec::new();
    for row in rows(path, fields.columns.as_deref())?.skip(skip).take(count.unwrap_or(usize::MAX)) {
        let row = row?;
        let failed = |problem| EvaluationError::Sample { path: row.file.clone(), line: row.line, problem };
        let sample = sample(&row, fields).map_err(failed)?;
        if let Some(id) = sample.id.as_ref().filter(|id| !ids.insert((*id).clone())) {
            return Err(failed(format!("an earlier line has the id {id:?} too; every prompt needs its own")));
        }
        samples.push(sample);
    }
    let found = samples.len();
    match count {
        _ if found == 0 => Err(too_few(path, "no line", skip)),
        Some(count) if found < count => Err(too_few(path, &format!("{found} of {count} lines"), skip)),
        _ => Ok(samples),
    }
}

fn too_few(path: &Path, what: &str, skip: usize) -> EvaluationError {
    let problem = format!("holds {what} after the first {skip}; correct `skip` and `count`");
    EvaluationError::Format { name: path.display().to_string(), problem }
}

fn sample(Row { object, name, .. }: &Row, fields: &Fields) -> Result<Sample, String> {
    let text = |key: &String| match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("{key:?} is neither text nor a number")),
        None => Err(format!("{key:?} is missing; correct the file or `fields`")),
    };
    let optional = |key: &Option<String>| key.as_ref().map(text).transpose();
    let key = if object.contains_key(&fields.prompt) { fields.prompt.as_str() } else { "messages" };
    let turns = match object.get(key) {
        Some(Value::Array(messages)) => Turns::new(messages).map_err(|problem| format!("{key:?} {problem}"))?,
        _ => Turns { prompt: text(&fields.prompt)?, ..Turns::default() },
    };
    let is_missing = fields.response.as_ref().is_some_and(|key| !object.contains_key(key));
    Ok(Sample {
        prompt: turns.prompt,
        system: turns.system,
        response: if is_missing && turns.response.is_some() { turns.response } else { optional(&fields.response)? },
        category: match fields.category.as_ref() {
            Some(key) if object.get(key).is_some_and(|value| !value.is_string()) => None,
            key => key.map(text).transpose()?,
        },
        id: Some(optional(&fields.id)?.unwrap_or_else(|| name.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "{\"q\": \"one\", \"n\": 7, \"kind\": \"map\"}\n\n{\"q\": \"two\", \"n\": 8, \"kind\": \"gate\"}\n\
                        {\"q\": \"three\", \"n\": 7, \"kind\": \"gate\"}\n";

    fn read(fields: &Fields, skip: usize, count: Option<usize>) -> Result<Vec<Sample>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, FILE).unwrap();
        read_samples(&path, fields, skip, count).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_named_and_an_id_is_the_line_number_where_there_is_none() {
        let fields = Fields { prompt: "q".into(), category: Some("kind".into()), ..Fields::default() };
        let samples = read(&fields, 1, Some(2)).unwrap();
        assert_eq!((samples[0].prompt.as_str(), samples[0].id.as_deref()), ("two", Some("3")));
        assert_eq!((samples[1].category.as_deref(), samples[1].id.as_deref()), (Some("gate"), Some("4")));
        let other = Fields { category: Some("n".into()), ..fields.clone() };
        assert_eq!(read(&other, 0, Some(1)).unwrap()[0].category, None);
        let numbered = Fields { id: Some("n".into()), ..fields };
        assert_eq!(read(&numbered, 0, Some(2)).unwrap()[1].id.as_deref(), Some("8"));
    }

    #[test]
    fn messages_are_read_where_there_is_no_prompt_and_under_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        let turns = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
        std::fs::write(&path, format!("{{\"messages\": {turns}}}\n{{\"talk\": {turns}}}\n")).unwrap();
        let with = |prompt: &str, response: Option<&str>| Fields {
            prompt: prompt.into(),
            response: response.map(str::to_owned),
            ..Fields::default()
        };
        let samples = read_samples(&path, &with("talk", Some("response")), 0, None).unwrap();
        assert!(samples.iter().all(|one| one.prompt == "q" && one.response.as_deref() == Some("a")), "{samples:?}");
        assert_eq!(read_samples(&path, &with("talk", None), 0, None).unwrap()[0].response, None);
        let error = read_samples(&path, &with("prompt", None), 0, None).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("\"prompt\""), "{error}");
    }

    #[test]
    fn what_is_missing_or_twice_is_named_with_file_line_and_key() {
        let fields = Fields { prompt: "q".into(), ..Fields::default() };
        for (fields, skip, count, parts) in [
            (Fields::default(), 0, None, ["set.jsonl, line 1", "\"prompt\""]),
            (Fields { id: Some("n".into()), ..fields.clone() }, 0, None, ["line 4", "\"7\""]),
            (Fields { category: Some("sort".into()), ..fields.clone() }, 0, None, ["line 1", "\"sort\""]),
            (fields.clone(), 1, Some(5), ["2 of 5", "count"]),
            (fields, 3, None, ["set.jsonl", "skip"]),
        ] {
            let error = read(&fields, skip, count).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
