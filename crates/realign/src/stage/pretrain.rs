//! Training of a small decoder from random weights, as the models of `data/lab` are made.

use std::path::Path;

use ::finetune::{Run, StepReport, TrainSettings};
use model::config::{Activation, LayerType, ModelType};
use model::{DecoderConfig, checkpoint};
use prompts::Tokenizer;
use serde::{Deserialize, Serialize};

use super::{MODEL, Stage, TrainSummary};
use crate::model::encode_samples;
use crate::{Artifact, Job, Result, Samples};

/// The shape of a decoder; the vocabulary's size is the tokenizer's. What is left out and has no other default here is as
/// transformers has it for the architecture.
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

impl DecoderShape {
    /// The decoder's configuration for a vocabulary of this size. Scores are divided by the root of a head's width in
    /// every family.
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

/// Trains a decoder from random weights, every one of them.
#[derive(Debug, Clone, Serialize)]
pub struct Pretrain {
    /// The decoder's shape.
    pub config: DecoderShape,
    /// Directory with `tokenizer.json` and the chat template.
    pub tokenizer: Artifact,
    /// What it is trained on.
    pub corpus: Samples,
    /// Standard deviation of the random start (transformers' `initializer_range`).
    pub initializer_range: f32,
    /// How it is trained.
    pub settings: TrainSettings,
    /// Decides the start and the order of the samples.
    pub seed: u64,
}

/// What the model takes over from the directory of its tokenizer.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

impl Stage for Pretrain {
    type Summary = TrainSummary;

    fn kind(&self) -> &'static str {
        "pretrain"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<TrainSummary> {
        let tokenizer = Tokenizer::from_dir(&self.tokenizer.path)?;
        let examples = encode_samples(&tokenizer, &self.corpus.read()?, &self.corpus.file)?;
        let config = self.config.decoder(tokenizer.vocab_size())?;
        let decoder = ::finetune::init_random(&config, self.initializer_range, self.seed, job.device);
        let checkpoint = out.join("train.checkpoint");
        let mut report = |step: &StepReport| job.report(step.step, step.steps, &format!("loss {:.3}", step.loss));
        let run = Run { seed: self.seed, checkpoint: Some(&checkpoint), report: &mut report };
        let trained = ::finetune::train(decoder, &examples, &self.settings, run)?;
        let model = out.join(MODEL);
        checkpoint::save(&trained.decoder, &model)?;
        for name in TOKENIZER_FILES {
            let (from, to) = (self.tokenizer.path.join(name), model.join(name));
            std::fs::copy(&from, &to).map_err(files::Error::io("copy", &from))?;
        }
        files::remove(&checkpoint)?;
        Ok(TrainSummary::new(examples.len(), trained))
    }
}
