//! The models of a sweep: where their weights come from, and how one that refuses too little is aligned.

use std::path::PathBuf;

use finetune::{AlignSettings, TrainSettings};
use serde::{Deserialize, Serialize};

use super::DecoderShape;

/// One model of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Where the weights come from.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub source: Source,
    /// Where its weights before alignment are, for methods that need them; what `align` starts from where it is left out.
    #[serde(default, with = "serde_yaml::with::singleton_map_recursive")]
    pub base: Option<Source>,
    /// Supervised alignment of a model that refuses too little; left out when it is aligned already.
    #[serde(default)]
    pub align: Option<Align>,
}

/// Where a model's weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Trained from nothing.
    Pretrain(Pretrain),
    /// A GGUF file, fetched by a script when it is not there.
    Gguf(Gguf),
    /// A Hugging Face directory, relative to the repository.
    Dir(PathBuf),
    /// A model of the Hugging Face hub, which the user puts into a directory.
    Hub(Hub),
}

/// A small model that is trained from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// Shape of the decoder, with the names of Hugging Face's `config.json`.
    pub config: DecoderShape,
    /// How it is trained; several models share it by a YAML alias.
    pub training: FromNothing,
}

/// The training of a random decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromNothing {
    /// Directory with `tokenizer.json` and the chat template, relative to `data`.
    pub tokenizer: PathBuf,
    /// Samples (`prompt`, `response`) to train on, relative to `data`.
    pub corpus: PathBuf,
    /// Standard deviation of the random start (transformers' `initializer_range`).
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f32,
    /// The training; `lora.rank` must be 0, since a random model is trained whole.
    pub train: TrainSettings,
}

fn default_initializer_range() -> f32 {
    0.02
}

/// A GGUF file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gguf {
    /// Script that fetches the file and verifies its checksum, relative to the repository.
    #[serde(default)]
    pub fetch: Option<PathBuf>,
    /// The file; `~/` is the home directory, anything else is relative to the repository.
    pub file: PathBuf,
}

/// A model of the hub, with the shape by which a plan says what it needs before a byte of it is there. Nothing is
/// downloaded here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// Its id: `owner/name`.
    pub id: String,
    /// The directory that holds its files; `~/` is the home directory, anything else is relative to the repository.
    pub dir: PathBuf,
    /// Its shape, for plans; a run reads the directory's `config.json`.
    pub shape: DecoderShape,
}

impl Hub {
    /// How the directory is filled.
    #[must_use]
    pub fn how_to_get(&self) -> String {
        let (id, dir) = (&self.id, self.dir.display());
        format!("`hf download {id} --local-dir {dir}`, after its licence is accepted on the hub")
    }
}

/// Supervised alignment: refusals on harmful prompts, the model's own answers on harmless ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Align {
    /// Harmful prompts and, where the file has them, the refusals to learn.
    pub refusals: PromptSet,
    /// Refusals given in turn to the prompts that come without a `response`.
    #[serde(default)]
    pub refusal_texts: Vec<String>,
    /// Harmless prompts; one without a `response` gets the model's own greedy answer.
    pub helpful: Vec<PromptSet>,
    /// Length of the model's own answers.
    #[serde(default = "default_helpful_tokens")]
    pub helpful_max_new_tokens: usize,
    /// The keys `train` and `kl`.
    #[serde(flatten)]
    pub settings: AlignSettings,
}

impl Align {
    /// The sets that are trained on, by their keys.
    pub fn sets(&self) -> impl Iterator<Item = (String, &PromptSet)> {
        let helpful = self.helpful.iter().enumerate().map(|(i, set)| (format!("helpful[{i}]"), set));
        std::iter::once(("refusals".to_owned(), &self.refusals)).chain(helpful)
    }
}

fn default_helpful_tokens() -> usize {
    128
}

/// Some lines of a JSONL file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// Script that makes the file when it is not there, relative to the repository. It is given the
    /// file's directory and the sweep's data directory.
    #[serde(default)]
    pub fetch: Option<PathBuf>,
    /// The file, relative to `data`; `~/` is the home directory.
    pub file: PathBuf,
    /// Lines that are left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Lines that are taken.
    pub count: usize,
}
