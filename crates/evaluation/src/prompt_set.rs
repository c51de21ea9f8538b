//! A prompt set as data (`data/prompt_sets/*.yaml`): where its prompts stand and what their answers tell. The prompts
//! themselves are no part of this repository, apart from the lab's.

use std::path::{Path, PathBuf};

use prompts::Sample;
use serde::{Deserialize, Serialize};

use crate::{
    EvaluationError,
    samples::{Fields, read_samples},
    yaml::read_yaml,
};

/// What the answers to a set's prompts tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKind {
    /// Prompts to be declined: the harmful rate.
    Harmful,
    /// Prompts to be answered: over-refusal.
    Harmless,
    /// Prompts to be answered that look as if they were not: over-refusal.
    LooksHarmful,
}

impl PromptKind {
    /// What is counted over the set's answers.
    pub fn rate_name(self) -> &'static str {
        match self {
            Self::Harmful => "harmful rate",
            Self::Harmless => "over-refusal",
            Self::LooksHarmful => "over-refusal (look harmful)",
        }
    }
}

/// A set of prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// Name in files and tables.
    pub name: String,
    /// What its answers tell.
    pub kind: PromptKind,
    /// JSONL, relative to the data directory.
    pub file: PathBuf,
    /// The file's keys.
    #[serde(default)]
    pub fields: Fields,
    /// Where the prompts come from.
    pub source: String,
    /// Their licence.
    pub licence: String,
    /// Lines that are left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Lines that are taken; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Length of an answer in tokens.
    #[serde(default = "default_tokens")]
    pub max_new_tokens: usize,
}

/// The paper's length of an answer (section "Evaluation metrics").
fn default_tokens() -> usize {
    128
}

impl PromptSet {
    /// Reads a set's YAML file.
    pub fn read(path: &Path) -> Result<Self, EvaluationError> {
        read_yaml(path)
    }

    /// The prompts, each with an id.
    pub fn samples(&self, data: &Path) -> Result<Vec<Sample>, EvaluationError> {
        read_samples(&data.join(&self.file), &self.fields, self.skip, self.count)
    }
}
