//! What a file is that a command writes: one of another kind at its place is the user's, and is not written over.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use realign::{Error, Result};
use serde_json::Value;

/// The kind of a file that a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers, which the same command goes on from.
    Answers,
    /// A direction.
    Direction,
    /// A score of answers.
    Score,
    /// What a gate decided, as JSON.
    Decision,
    /// The same as JUnit's XML.
    Junit,
    /// A recovery patch.
    Patch,
    /// What the steps of a method did.
    Trace,
    /// The report of a repair, or its plan.
    Report,
}

/// A file that is looked into may have this many bytes.
const LARGEST: u64 = 256 << 20;

impl Kind {
    /// Its name in words.
    fn name(self) -> &'static str {
        match self {
            Self::Answers => "file of answers that this program wrote",
            Self::Direction => "direction that this program wrote",
            Self::Score => "score that this program wrote",
            Self::Decision => "decision of a gate",
            Self::Junit => "JUnit file of a gate",
            Self::Patch => "recovery patch",
            Self::Trace => "trace of a method",
            Self::Report => "report or plan of a repair",
        }
    }

    /// Whether a file is of this kind.
    fn is_of(self, path: &Path) -> bool {
        let text = || {
            let bytes = files::read_regular(path, LARGEST).ok()?;
            String::from_utf8(bytes).ok()
        };
        let json = || files::json_value(text()?.as_bytes()).ok();
        let has = |keys: &[&str]| json().is_some_and(|json| keys.iter().all(|key| json.get(key).is_some()));
        match self {
            Self::Answers => {
                text().is_some_and(|text| text.lines().filter(|line| !line.trim().is_empty()).all(is_answer))
            }
            Self::Direction => header(path).is_some_and(|header| header.get("direction").is_some()),
            Self::Score => has(&["metric", "value", "per_sample"]),
            Self::Decision => has(&["decision", "checks"]),
            Self::Junit => text().is_some_and(|text| text.contains("<testsuite name=\"realign gate\"")),
            Self::Patch => header(path).is_some_and(|header| {
                let about = header["__metadata__"]["realign"].as_str().unwrap_or_default();
                let about = files::json_value(about.as_bytes()).unwrap_or_default();
                about.get("version").is_some() && about.get("tensors").is_some()
            }),
            Self::Trace => text().is_some_and(|text| serde_json::from_str::<recovery::Trace>(&text).is_ok()),
            Self::Report => has(&["verdict", "plan"]) || has(&["kinds", "needs"]),
        }
    }

    /// Checks that what is at a place, if something is, may be written over.
    ///
    /// # Errors
    /// When it is a file of another kind.
    pub fn check(self, path: &Path) -> Result<()> {
        let is_empty = || fs::metadata(path).is_ok_and(|data| data.len() == 0);
        if !path.is_file() || is_empty() || self.is_of(path) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{} is there and is no {}, which would be written over it: name another file, or remove this one",
            path.display(),
            self.name()
        )))
    }
}

/// Whether a line is an answer with the key that says what decided it.
fn is_answer(line: &str) -> bool {
    let json = files::json_value(line.as_bytes()).unwrap_or_default();
    json["response"].is_string() && json["key"].as_str().is_some_and(|key| !key.is_empty())
}

/// The header of a safetensors file.
fn header(path: &Path) -> Option<Value> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    file.take(length.min(LARGEST)).read_to_end(&mut bytes).ok()?;
    files::json_value(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_kind_is_named_and_none_or_an_empty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let framed = |header: &str| format!("{}\0\0\0\0\0\0\0{header}", char::from(header.len() as u8));
        let all = [
            (Kind::Answers, "{\"prompt\": \"p\", \"response\": \"r\", \"key\": \"0a\"}\n\n"),
            (Kind::Score, "{\"metric\": \"rouge\", \"value\": 1, \"per_sample\": []}"),
            (Kind::Decision, "{\"decision\": \"holds\", \"checks\": []}"),
            (Kind::Junit, "<?xml?><testsuites><testsuite name=\"realign gate\">"),
            (Kind::Report, "{\"verdict\": {}, \"plan\": {}}"),
            (Kind::Report, "{\"kinds\": [], \"needs\": {}}"),
            (Kind::Trace, "{\"threshold\": null, \"modules\": []}"),
            (Kind::Patch, &framed(r#"{"__metadata__": {"realign": "{\"version\": 1, \"tensors\": {}}"}}"#)),
            (Kind::Direction, &framed(r#"{"__metadata__": {"realign": "{\"layer\": 2}"}, "direction": {}}"#)),
        ];
        for (kind, _) in all {
            assert!(kind.check(&path).is_ok(), "{kind:?}: nothing is there");
        }
        for (kind, text) in all {
            fs::write(&path, text).unwrap();
            for (other, _) in all {
                assert_eq!(other.check(&path).is_ok(), other == kind, "{other:?} over {text}");
            }
            fs::write(&path, "{\"prompt\": \"p\", \"response\": \"r\"}\n").unwrap();
            let error = kind.check(&path).unwrap_err().to_string();
            assert!(error.contains("is there and is no") && error.contains("name another file"), "{error}");
            fs::write(&path, "").unwrap();
            assert!(kind.check(&path).is_ok(), "{kind:?}: an empty file holds nothing");
        }
    }
}
