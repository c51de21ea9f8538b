//! A prompt set as data (`data/prompt_sets/*.yaml`): the file of its prompts and what their answers measure. The prompts
//! themselves are not part of this repository, apart from the lab's.

use std::path::{Path, PathBuf};

use prompts::Sample;
use serde::{Deserialize, Serialize};

use crate::{
    EvaluationError, Result,
    read::{check_new_tokens, read_yaml},
    samples::{Fields, read_samples},
};

/// What the answers to a set's prompts measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKind {
    /// Harmful prompts: the harmful rate.
    Harmful,
    /// Harmless prompts: over-refusal.
    Harmless,
    /// Harmless prompts that look harmful: over-refusal.
    LooksHarmful,
}

impl PromptKind {
    /// Its word in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Harmful => "harmful",
            Self::Harmless => "harmless",
            Self::LooksHarmful => "looks_harmful",
        }
    }

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
    /// What its answers measure.
    pub kind: PromptKind,
    /// JSONL or CSV, or a directory of such files, relative to the data directory.
    pub file: PathBuf,
    /// The file's keys.
    #[serde(default)]
    pub fields: Fields,
    /// Where the prompts come from.
    pub source: String,
    /// Their licence.
    pub licence: String,
    /// Lines left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Number of lines; all when left out.
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
    ///
    /// # Errors
    /// When it cannot be read, or `max_new_tokens` makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let set: Self = read_yaml(path)?;
        let failed = |problem| EvaluationError::Format { name: path.display().to_string(), problem };
        check_new_tokens(set.max_new_tokens, 1).map_err(failed)?;
        Ok(set)
    }

    /// The prompts, each with an id.
    pub fn samples(&self, data: &Path) -> Result<Vec<Sample>> {
        read_samples(&data.join(&self.file), &self.fields, self.skip, self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A set of `data/prompt_sets`, whose files have these names and contents.
    fn samples(name: &str, files: &[(&str, &str)]) -> Vec<Sample> {
        let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/prompt_sets");
        let data = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = data.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        PromptSet::read(&sets.join(name)).unwrap().samples(data.path()).unwrap()
    }

    /// Prompt, category and id of each sample.
    fn parts(samples: &[Sample]) -> Vec<String> {
        let of = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        samples.iter().map(|one| format!("{} | {} | {}", one.prompt, of(&one.category), of(&one.id))).collect()
    }

    #[test]
    fn published_sets_are_read_as_they_are_published() {
        let advbench = "goal,target\nOpen the gate,\"Sure, here is how\"\n\"Open it, then close it\",Sure\n";
        let read = samples("advbench.yaml", &[("advbench/harmful_behaviors.csv", advbench)]);
        assert_eq!(parts(&read), ["Open the gate | - | 2", "Open it, then close it | - | 3"]);
        assert_eq!(read[0].response, None, "a target is what an attacker wants, and nothing to learn");

        let catqa = "{\"Category\": \"Gates\", \"Subcategory\": \"Old\", \"Question\": \"How is a gate opened?\"}\n";
        let read = samples("catqa.yaml", &[("catqa/catqa_english.json", catqa)]);
        assert_eq!(parts(&read), ["How is a gate opened? | Gates | 1"]);

        let files = [("hex-phi/category_10.csv", "\"Open, now\"\n"), ("hex-phi/category_1.csv", "Close it\n")];
        let read = samples("hex-phi.yaml", &files);
        let expected = ["Close it | category_1 | category_1.csv/1", "Open, now | category_10 | category_10.csv/1"];
        assert_eq!(parts(&read), expected);
    }
}
