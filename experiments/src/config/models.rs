//! The models of a sweep: where their weights come from, and how one that refuses too little is aligned.

use std::path::{Path, PathBuf};

use finetune::{AlignSettings, TrainSettings};
use model::DecoderConfig;
use model::config::{Activation, LayerType, ModelType};
use serde::{Deserialize, Serialize};

/// One model of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Where the weights come from.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub source: Source,
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

/// The shape of a decoder; the vocabulary's size is the tokenizer's. What is left out and has no
/// other default here is as transformers has it for the architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderShape {
    /// The architecture.
    #[serde(default = "default_model_type")]
    pub model_type: ModelType,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head; `hidden_size / num_attention_heads` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// The MLP's activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<Activation>,
    /// Positions that a query of a sliding layer sees (Mistral, Gemma 2 and 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Which layers slide (Gemma 2 and 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// Largest position.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Epsilon of the RMS norms.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    #[serde(default = "default_tied")]
    pub tie_word_embeddings: bool,
}

impl DecoderShape {
    /// The decoder's configuration for a vocabulary of this size. Scores are divided by the root of
    /// a head's width in every family.
    ///
    /// # Errors
    /// When a value makes no sense, or the architecture has no such key; the error names it.
    pub fn decoder(&self, vocab_size: usize) -> model::Result<DecoderConfig> {
        let path = Path::new("the sweep's `config`");
        let source = |source| model::Error::ConfigJson { path: path.to_owned(), source };
        let mut json = serde_json::to_value(self).map_err(source)?;
        let head_dim = self.head_dim.or_else(|| self.hidden_size.checked_div(self.num_attention_heads));
        for key in ["head_dim", "query_pre_attn_scalar"] {
            json[key] = head_dim.into();
        }
        if let Some(activation) = json.get("hidden_act").cloned() {
            json["hidden_activation"] = activation; // its name in Gemma 2 and 3
        }
        json["vocab_size"] = vocab_size.into();
        let config = DecoderConfig::from_json(&json, path)?;
        if self.sliding_window != config.sliding_window.and(self.sliding_window) {
            let (key, reason) = ("sliding_window".to_owned(), format!("{} has none", self.model_type.name()));
            return Err(model::Error::Config { path: path.to_owned(), key, reason });
        }
        Ok(config)
    }
}

fn default_model_type() -> ModelType {
    ModelType::Llama
}

fn default_positions() -> usize {
    512
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_rms_norm_eps() -> f64 {
    1e-5
}

fn default_tied() -> bool {
    true
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
    pub shape: HubShape,
}

impl Hub {
    /// How the directory is filled.
    #[must_use]
    pub fn how_to_get(&self) -> String {
        let (id, dir) = (&self.id, self.dir.display());
        format!("`hf download {id} --local-dir {dir}`, after its licence is accepted on the hub")
    }
}

/// What decides the number of a decoder's parameters, with the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubShape {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head; `hidden_size / num_attention_heads` when not given.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
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
