//! The shape of a decoder that is not read from a model directory.

use std::path::Path;

use model::DecoderConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The shape of a decoder, with the names of Hugging Face's `config.json`. What is left out and has no default in
/// [`decoder`](Self::decoder) is as transformers has it for the architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DecoderShape(Map<String, Value>);

/// The keys that a sweep may set.
const SHAPE_KEYS: [&str; 16] = [
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "sliding_window",
    "layer_types",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rms_norm_eps",
    "tie_word_embeddings",
];

impl DecoderShape {
    /// The decoder's configuration; `vocab_size` is the tokenizer's, of a model that is trained from nothing. Scores are
    /// divided by the root of a head's width in every family.
    ///
    /// # Errors
    /// When a value makes no sense, or the architecture has no such key; the error names it.
    pub fn decoder(&self, vocab_size: Option<usize>) -> model::Result<DecoderConfig> {
        let path = Path::new("the sweep's shape");
        let wrong = |key: &str, reason| Err(model::Error::Config { path: path.into(), key: key.into(), reason });
        // A small model has one table for both ends.
        let mut json = json!({"model_type": "llama", "max_position_embeddings": 512, "rope_theta": 10_000.0,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": vocab_size.is_some()});
        for (key, value) in &self.0 {
            if !SHAPE_KEYS.contains(&key.as_str()) {
                let known = SHAPE_KEYS.map(|key| format!("`{key}`")).join(", ");
                return wrong(key, format!("unknown field `{key}`, expected one of {known}"));
            }
            json[key] = value.clone();
        }
        let size = |key: &str| self.0.get(key).and_then(Value::as_u64);
        let head_dim = size("head_dim").or_else(|| size("hidden_size")?.checked_div(size("num_attention_heads")?));
        if let Some(head_dim) = head_dim {
            json["head_dim"] = head_dim.into();
            json["query_pre_attn_scalar"] = head_dim.into();
        }
        if let Some(activation) = self.0.get("hidden_act") {
            json["hidden_activation"] = activation.clone(); // its name in Gemma 2 and 3
        }
        if let Some(vocab_size) = vocab_size {
            json["vocab_size"] = vocab_size.into();
        }
        let config = DecoderConfig::from_json(&json, path)?;
        if self.0.contains_key("sliding_window") && config.sliding_window.is_none() {
            return wrong("sliding_window", format!("{} has none", config.model_type.name()));
        }
        Ok(config)
    }
}
