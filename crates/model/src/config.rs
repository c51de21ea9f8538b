//! The decoder's shape, read from a Hugging Face `config.json`.
//!
//! Family differences are named fields here, decided once from the file alone; the decoder never
//! asks for a family. `family.rs` states what a family computes where its file is silent, `read.rs`
//! reads the file, `keys.rs` is typed access to it. A key that would change the computation and is
//! not implemented is an error, never ignored.

mod family;
mod keys;
mod read;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use crate::ops::Activation;
use crate::ops::Scores;
use crate::{Error, Result};

/// A `config.json` may have this many bytes.
const LARGEST: u64 = 16 << 20;

/// The architectures that this decoder computes, by their `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelType {
    /// Llama 1 to 3, and what shares its shape, such as SmolLM2.
    Llama,
    /// Mistral 7B: Llama with a sliding window in every block.
    Mistral,
    /// Gemma 1: scaled embeddings, norms with 1 added, GeLU.
    Gemma,
    /// Gemma 2: Gemma 1 with norms after attention and MLP, soft caps and a window in every other
    /// block.
    Gemma2,
    /// Gemma 3, text alone: norms on queries and keys, five of six blocks with a window and a
    /// rotary base of their own.
    Gemma3Text,
    /// Qwen 1.5, 2 and 2.5: biases on q, k and v.
    Qwen2,
    /// Qwen 3: norms on queries and keys.
    Qwen3,
}

/// What a block's queries see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// Every position up to their own.
    FullAttention,
    /// Their own position and the ones before it, `sliding_window` in all.
    SlidingAttention,
}

/// How the rotary frequencies are changed for texts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by `factor` (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies are divided by `factor`, high ones stay, those between are interpolated
    /// (Llama 3.1).
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are high.
        high_freq_factor: f64,
        /// Length of the texts of the first training.
        original_max_position_embeddings: usize,
    },
}

/// The shape of a decoder. Field names are those of Hugging Face's `config.json` where it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The architecture; it decides nothing but what [`to_json`](Self::to_json) writes.
    pub model_type: ModelType,
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
    /// Number of key and value heads; it divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Largest position.
    pub max_position_embeddings: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Change of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Base of the rotary frequencies of sliding layers, where they have their own (Gemma 3); those
    /// are not scaled.
    pub rope_local_base_freq: Option<f64>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether o has a bias (`attention_bias`; q, k and v have one then, too).
    pub o_bias: bool,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Whether each head's queries and keys are normalised before the rotation (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// Whether the outputs of attention and MLP are normalised, too (Gemma 2 and 3). The norm
    /// before the MLP is called `pre_feedforward_layernorm` then.
    pub output_norms: bool,
    /// Added to the norm weights: 0 for Llama, 1 for Gemma.
    pub norm_offset: f64,
    /// Factor on the embeddings: 1 for Llama, the root of the width for Gemma, rounded to f32.
    pub embedding_scale: f64,
    /// Scores are divided by its root; none is the width of a head.
    pub query_pre_attn_scalar: Option<usize>,
    /// Bound that scores approach: `cap * tanh(score / cap)`.
    pub attn_logit_softcapping: Option<f64>,
    /// Bound that logits approach.
    pub final_logit_softcapping: Option<f64>,
    /// Positions that a query of a sliding layer sees, its own included.
    pub sliding_window: Option<usize>,
    /// What the queries of each block see.
    pub layer_types: Vec<LayerType>,
}

impl DecoderConfig {
    /// Reads `dir/config.json`.
    ///
    /// # Errors
    /// When the file is missing or is not JSON, a key is missing or of the wrong type, or the
    /// configuration asks for something that this decoder does not compute.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let bytes = files::read_inside(dir, "config.json", LARGEST)?;
        let json = files::json_value(&bytes).map_err(|source| Error::ConfigJson { path: path.clone(), source })?;
        Self::from_json(&json, &path)
    }

    /// Reads a parsed `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn from_json(json: &Value, path: &Path) -> Result<Self> {
        read::config(json, path)
    }

    /// Parameters of all hidden layers, norms included, embeddings and head excluded: the base of
    /// the recovery rate (METHOD.md section 3).
    pub fn hidden_parameters(&self) -> usize {
        let of_block = self.block_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        self.num_hidden_layers * of_block
    }

    /// Positions of a pack where gradients or divergences are taken; two packs are in work at a time
    /// ([`in_lanes`](crate::in_lanes)). What is kept of a position grows with the width, and products of a few hundred rows are as fast as
    /// larger ones. Changes results by rounding alone.
    pub fn positions_at_once(&self) -> usize {
        (768 * 576 / self.hidden_size.max(1)).clamp(512, 3072)
    }

    /// Positions of a pack where distributions over the vocabulary are taken, each of which is kept several times: as many as
    /// bound their memory. A row goes through whole, however many it has.
    pub fn answers_at_once(&self) -> usize {
        (384 * 49152 / self.vocab_size.max(1)).max(64)
    }

    /// Names within a block and shapes of its parameters.
    pub(crate) fn block_shapes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut shapes = vec![
            ("input_layernorm.weight", vec![d]),
            ("self_attn.q_proj.weight", vec![q, d]),
            ("self_attn.k_proj.weight", vec![kv, d]),
            ("self_attn.v_proj.weight", vec![kv, d]),
            ("self_attn.o_proj.weight", vec![d, q]),
            ("post_attention_layernorm.weight", vec![d]),
            ("mlp.gate_proj.weight", vec![f, d]),
            ("mlp.up_proj.weight", vec![f, d]),
            ("mlp.down_proj.weight", vec![d, f]),
        ];
        if self.qkv_bias {
            shapes.extend([
                ("self_attn.q_proj.bias", vec![q]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.bias", vec![kv]),
            ]);
        }
        if self.o_bias {
            shapes.push(("self_attn.o_proj.bias", vec![d]));
        }
        if self.qk_norm {
            let width = vec![self.head_dim];
            shapes.extend([("self_attn.q_norm.weight", width.clone()), ("self_attn.k_norm.weight", width)]);
        }
        if self.output_norms {
            shapes.extend([
                ("pre_feedforward_layernorm.weight", vec![d]),
                ("post_feedforward_layernorm.weight", vec![d]),
            ]);
        }
        shapes
    }

    /// How the attention's scores become weights.
    pub fn scores(&self) -> Scores {
        let scalar = self.query_pre_attn_scalar.unwrap_or(self.head_dim);
        Scores { scale: 1.0 / (scalar as f64).sqrt(), softcap: self.attn_logit_softcapping }
    }

    /// The window of a type of layer.
    pub fn window(&self, layer_type: LayerType) -> Option<usize> {
        match layer_type {
            LayerType::FullAttention => None,
            LayerType::SlidingAttention => self.sliding_window,
        }
    }

    /// The keys of `config.json` that [`from_json`](Self::from_json) reads back to the same value,
    /// in the layout of transformers 4, which transformers 5 reads too. The type of the weights is not among them.
    pub fn to_json(&self) -> Value {
        let family = self.model_type.family();
        let mut json = json!({
            "architectures": [family.architecture],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
        });
        json[family.activation_key] = json!(self.hidden_act);
        if let Some(scaling) = self.rope_scaling.to_json() {
            json["rope_scaling"] = scaling;
        }
        match family.bias {
            family::Bias::AsConfigured => json["attention_bias"] = self.qkv_bias.into(),
            family::Bias::Qkv | family::Bias::None => {}
        }
        match family.windows {
            family::Windows::Never => {}
            family::Windows::EveryLayer => json["sliding_window"] = json!(self.sliding_window),
            family::Windows::FromLayer => {
                json["use_sliding_window"] = self.sliding_window.is_some().into();
                json["sliding_window"] = json!(self.sliding_window);
                json["layer_types"] = json!(self.layer_types);
            }
            family::Windows::Periodic(_) => {
                json["sliding_window"] = json!(self.sliding_window);
                json["layer_types"] = json!(self.layer_types);
            }
        }
        if family.soft_caps.is_some() {
            json["query_pre_attn_scalar"] = json!(self.query_pre_attn_scalar);
            json["attn_logit_softcapping"] = json!(self.attn_logit_softcapping);
            json["final_logit_softcapping"] = json!(self.final_logit_softcapping);
        }
        if let Some(theta) = self.rope_local_base_freq {
            json["rope_local_base_freq"] = theta.into();
        }
        json
    }
}

impl RopeScaling {
    fn to_json(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Linear { factor } => Some(json!({"rope_type": "linear", "factor": factor})),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                Some(json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                }))
            }
        }
    }
}
