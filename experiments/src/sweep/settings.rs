//! The parts of a sweep: models, tasks, and how each stage is run (sections 1 to 4 of the method).
//!
//! The grid itself is in the parent module. Every path is relative to the sweep's data directory
//! unless it says otherwise.

use std::path::{Path, PathBuf};

use model::DecoderConfig;
use model::config::{Activation, LayerType, ModelType};
use serde::{Deserialize, Serialize};

use super::hub::Hub;
use super::variant::{Layer, Rollback};

/// One model of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Where the weights come from.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub source: Source,
    /// Supervised alignment of a model that refuses too little; none when it is aligned already.
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

/// Training of a small model from nothing.
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
    /// Passes over the corpus.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    #[serde(default)]
    pub warmup_steps: usize,
    /// AdamW's decay rates of the two moments.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Standard deviation of the random start (transformers' `initializer_range`).
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f32,
    /// Longer sequences are left out.
    pub max_len: usize,
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
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
    /// Adapter that is trained; `null` trains every weight.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight of the divergence from the model before alignment on its own answers; 0 is off.
    #[serde(default)]
    pub kl: f64,
    /// Passes over the samples.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Longer sequences are left out.
    #[serde(default = "default_max_len")]
    pub max_len: usize,
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

fn default_max_len() -> usize {
    512
}

/// Some lines of a JSONL file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// Script that makes the file when it is not there, relative to the repository. It is given the
    /// file's directory and the sweep's data directory.
    #[serde(default, skip_serializing)]
    pub fetch: Option<PathBuf>,
    /// The file, relative to `data`; `~/` is the home directory.
    pub file: PathBuf,
    /// Lines that are left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Lines that are taken.
    pub count: usize,
}

/// A task: what is trained, what is asked, and how it is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name in tables and figures.
    pub name: String,
    /// Training samples (`prompt`, `response`), relative to `data`.
    pub train: PathBuf,
    /// Test samples, which decide nothing and are only reported, relative to `data`.
    pub test: PathBuf,
    /// How an answer is scored.
    pub metric: evaluation::Metric,
    /// Length of an answer.
    pub max_new_tokens: usize,
    /// Share of the training file that is kept from training and decides the recovery.
    #[serde(default = "default_validation")]
    pub validation: f64,
}

fn default_validation() -> f64 {
    0.1
}

/// A low-rank adapter on the seven projections of every block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by alpha over rank.
    pub alpha: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
}

impl Default for Lora {
    /// The paper's adapter (section 1).
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, dropout: 0.05 }
    }
}

/// Fine-tuning on a task with injected samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    /// Adapter that is trained; `null` trains every weight.
    pub lora: Option<Lora>,
    /// Learning rate of AdamW, constant.
    pub learning_rate: f64,
    /// Passes over the samples.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Longer sequences are left out.
    pub max_len: usize,
}

impl Default for Finetune {
    /// The paper's fine-tuning (section 1).
    fn default() -> Self {
        Self { lora: Some(Lora::default()), learning_rate: 1e-4, epochs: 1, batch: 8, max_len: 512 }
    }
}

/// Recovery (section 3 of the method).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recovery {
    /// Recovery prompts, relative to `data`; a sweep must name them.
    pub prompts: PathBuf,
    /// How many of them; fewer in the file is an error.
    pub count: usize,
    /// Training prompts of the task for its direction and for rollback, at most; a rollback takes as
    /// long as these are many.
    pub task_prompts: usize,
    /// Share of the hidden layers' weights restored in a step.
    pub rate: f64,
    /// Steps in all.
    pub steps: usize,
    /// Steps before the task is scored for the first time.
    pub warmup: usize,
    /// A checkpoint every so many steps.
    pub save_every: usize,
    /// Share of the task score that may be lost.
    pub metric_drop: f64,
    /// Share of a step's restored weights that a rollback takes back.
    pub rollback_rate: f64,
    /// Prompts of a batch, over which the mean hidden state is taken.
    pub batch: usize,
    /// The direction layer as a share of the blocks; 4/6 when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
    /// Whether rollback is decided by the task's score, on, or off.
    #[serde(skip_serializing_if = "Rollback::is_auto")]
    pub rollback: Rollback,
}

impl Default for Recovery {
    /// The paper's recovery (section 3).
    fn default() -> Self {
        Self {
            prompts: PathBuf::new(),
            count: 256,
            task_prompts: 256,
            rate: 0.002,
            steps: 20,
            warmup: 5,
            save_every: 5,
            metric_drop: 0.05,
            rollback_rate: 0.2,
            batch: 8,
            layer: None,
            rollback: Rollback::Auto,
        }
    }
}

/// RESTA, a baseline (section 5 of the method).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resta {
    /// How much of the safety vector (aligned - unaligned) is added.
    pub gamma: f64,
    /// Probability with which DARE drops an element of what fine-tuning changed; 0 is off.
    pub dare: f64,
    /// Harmful samples that the unaligned model is fine-tuned on: who repairs a model does not have those that are
    /// injected, so they are the ones that follow the largest count in the injection's order.
    pub samples: usize,
    /// Passes over them; batch, length and adapter are as in `finetune`.
    pub epochs: usize,
    /// Its learning rate [default: that of `finetune`].
    pub learning_rate: Option<f64>,
}

impl Default for Resta {
    /// The paper's RESTA.
    fn default() -> Self {
        Self { gamma: 1.0, dare: 0.0, samples: 100, epochs: 10, learning_rate: None }
    }
}

/// What is asked of every model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Harmful prompts, for the harmful rate.
    pub harmful: AnswerSet,
    /// Harmless prompts, for over-refusal.
    pub harmless: AnswerSet,
    /// Prompts answered at a time; it changes the speed only.
    #[serde(default = "default_answer_batch")]
    pub batch: usize,
}

impl Evaluation {
    /// The sets that are asked, by their keys.
    #[must_use]
    pub fn sets(&self) -> [(&'static str, &AnswerSet); 2] {
        [("harmful", &self.harmful), ("harmless", &self.harmless)]
    }
}

fn default_answer_batch() -> usize {
    32
}

/// Some lines of a JSONL file, and the length of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSet {
    /// As [`PromptSet::fetch`].
    #[serde(default, skip_serializing)]
    pub fetch: Option<PathBuf>,
    /// The file, relative to `data`; `~/` is the home directory.
    pub file: PathBuf,
    /// Lines that are left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Lines that are taken.
    pub count: usize,
    /// Length of an answer.
    pub max_new_tokens: usize,
}
