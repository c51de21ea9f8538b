//! What is known of a stage without running it: done, partly done, failed or missing.

use std::fs;

use super::{Stage, sibling};

/// How far a stage has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Done,
    /// It was begun and cut off; it goes on from its checkpoint.
    Partly,
    /// Its last attempt failed, with this error; it is tried again.
    Failed(String),
    /// It has not been begun.
    Missing,
}

/// A stage that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// How far it has come.
    pub state: State,
    /// Whether it was run just now.
    pub fresh: bool,
    /// Seconds it took, of a finished one.
    pub seconds: f64,
}

impl Seen {
    /// Its name among the stages of all kinds.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.kind, self.key)
    }

    pub(super) fn new(kind: &'static str, stage: &Stage) -> Self {
        let state = if stage.finished { State::Done } else { unfinished(stage) };
        Self { kind, key: stage.key.clone(), state, fresh: stage.fresh, seconds: stage.seconds }
    }
}

fn unfinished(stage: &Stage) -> State {
    if let Ok(text) = fs::read_to_string(sibling(&stage.dir, ".error.json")) {
        let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        return State::Failed(record["error"].as_str().unwrap_or("the record of its error is damaged").to_owned());
    }
    if sibling(&stage.dir, ".partial").exists() { State::Partly } else { State::Missing }
}
