//! Models in GGUF files: container, block formats, and llama.cpp's names and layouts turned back into those of Hugging
//! Face.
//!
//! Reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K; weights become f32. Writes no GGUF, and
//! only hands the vocabulary on: text is the business of `prompts`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::json;

use crate::config::ModelType;
use crate::{Decoder, DecoderConfig, Error, Result};

mod dequant;
mod reader;

pub use dequant::BlockType;
pub use reader::{Gguf, TensorInfo, Value};

/// What a GGUF file says of its tokenizer; fields are named as its `tokenizer.ggml` keys.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// The kind of tokenizer: `gpt2` is byte-level BPE, `llama` is SentencePiece.
    pub model: String,
    /// The name of the pre-tokenizer, such as `smollm`.
    pub pre: Option<String>,
    /// The tokens by id.
    pub tokens: Vec<String>,
    /// The kind of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte.
    pub token_type: Vec<i64>,
    /// BPE merges, both sides divided by a space.
    pub merges: Vec<String>,
    /// The score of each token of a SentencePiece vocabulary.
    pub scores: Vec<f32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Token that ends a text or a turn.
    pub eos_token_id: Option<u32>,
    /// Token for what is not in the vocabulary.
    pub unknown_token_id: Option<u32>,
    /// Token that fills rows.
    pub padding_token_id: Option<u32>,
    /// Whether encoding begins with the token that begins a text.
    pub add_bos_token: bool,
    /// Whether encoding puts a space before the text, where the file says so.
    pub add_space_prefix: Option<bool>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
}

/// The tokenizer of a GGUF file.
///
/// # Errors
/// When `tokenizer.ggml.model` or `tokenizer.ggml.tokens` is missing or a key has the wrong type.
pub fn tokenizer(gguf: &Gguf) -> Result<GgufTokenizer> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let absent = |name: &str| missing_key(gguf, &key(name));
    Ok(GgufTokenizer {
        model: gguf.text(&key("model"))?.ok_or_else(|| absent("model"))?.to_owned(),
        pre: gguf.text(&key("pre"))?.map(str::to_owned),
        tokens: gguf.texts(&key("tokens"))?.ok_or_else(|| absent("tokens"))?,
        token_type: gguf.integers(&key("token_type"))?.unwrap_or_default(),
        merges: gguf.texts(&key("merges"))?.unwrap_or_default(),
        scores: gguf.floats(&key("scores"))?.unwrap_or_default(),
        bos_token_id: gguf.integer(&key("bos_token_id"))?,
        eos_token_id: gguf.integer(&key("eos_token_id"))?,
        unknown_token_id: gguf.integer(&key("unknown_token_id"))?,
        padding_token_id: gguf.integer(&key("padding_token_id"))?,
        add_bos_token: gguf.flag(&key("add_bos_token"))?.unwrap_or(false),
        add_space_prefix: gguf.flag(&key("add_space_prefix"))?,
        chat_template: gguf.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}

/// Reads the model of a GGUF file.
///
/// # Errors
/// As [`Gguf::open`], and when the architecture is not of this decoder's, a metadata key or a tensor is
/// missing or wrong, or a weight is not finite.
pub fn load(path: &Path, device: &Device) -> Result<Decoder> {
    let gguf = Gguf::open(path)?;
    let config = config(&gguf)?;
    // Names that have no place in the decoder stay as they are and are reported as unused.
    let stored = gguf.tensors().keys().filter(|name| *name != ROPE_FACTORS);
    let names: BTreeMap<String, &str> =
        stored.map(|name| (hugging_face_name(name, &config).unwrap_or_else(|| name.clone()), name.as_str())).collect();
    let shapes = names.iter().map(|(name, stored)| (name.clone(), gguf.tensors()[*stored].shape.clone())).collect();
    let rotary_pairs = matches!(config.model_type, ModelType::Llama);
    super::build(&config, path, &shapes, device, |info| {
        let name = info.name.as_str();
        let values = gguf.tensor(names.get(name).copied().unwrap_or(name))?;
        let values: Vec<f32> = if name.ends_with("norm.weight") && config.norm_offset != 0.0 {
            values.into_iter().map(|value| value - config.norm_offset as f32).collect() // llama.cpp stores the sum
        } else if rotary_pairs && name.ends_with("self_attn.q_proj.weight") {
            split_rotary_pairs(&values, config.num_attention_heads, config.head_dim)
        } else if rotary_pairs && name.ends_with("self_attn.k_proj.weight") {
            split_rotary_pairs(&values, config.num_key_value_heads, config.head_dim)
        } else {
            values
        };
        super::data(path, info, values)
    })
}

/// The tensor of divisors of the rotary frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The architectures under llama.cpp's names; Mistral's is Llama's there.
pub const ARCHITECTURES: [(&str, ModelType); 6] = [
    ("llama", ModelType::Llama),
    ("gemma", ModelType::Gemma),
    ("gemma2", ModelType::Gemma2),
    ("gemma3", ModelType::Gemma3Text),
    ("qwen2", ModelType::Qwen2),
    ("qwen3", ModelType::Qwen3),
];

/// The decoder's shape from the metadata.
///
/// # Errors
/// When the architecture is not of this decoder's, a key is missing or wrong, or the file asks for
/// something that the decoder does not compute.
pub fn config(gguf: &Gguf) -> Result<DecoderConfig> {
    let architecture = gguf.text("general.architecture")?.ok_or_else(|| missing_key(gguf, "general.architecture"))?;
    let Some((_, model_type)) = ARCHITECTURES.into_iter().find(|(name, _)| *name == architecture) else {
        let known = ARCHITECTURES.map(|(name, _)| name).join(", ");
        let reason = format!("architecture `{architecture}` is not supported in GGUF; supported: {known}");
        return Err(wrong_key(gguf, "general.architecture", reason));
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| gguf.integer(&key(name))?.ok_or_else(|| missing_key(gguf, &key(name)));
    let experts = gguf.integer(&key("expert_count"))?.unwrap_or(0);
    if experts > 0 {
        return Err(wrong_key(gguf, &key("expert_count"), format!("{experts} experts are not supported")));
    }
    let embedding = gguf.tensors().get("token_embd.weight");
    let vocab_size = embedding.ok_or_else(|| super::missing(gguf.path(), "token_embd.weight"))?.shape[0];
    let (heads, width, layers) = (size("attention.head_count")?, size("embedding_length")?, size("block_count")?);
    let head_dim = gguf.integer(&key("attention.key_length"))?.unwrap_or(width / heads.max(1));
    let mut json = json!({
        "model_type": model_type.name(),
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": size("feed_forward_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.integer(&key("attention.head_count_kv"))?.unwrap_or(heads),
        "max_position_embeddings": size("context_length")?,
        "tie_word_embeddings": !gguf.tensors().contains_key("output.weight"),
        "head_dim": head_dim,
    });
    if model_type != ModelType::Qwen2 && gguf.tensors().contains_key("blk.0.attn_q.bias") {
        json["attention_bias"] = true.into();
    }
    let epsilon = key("attention.layer_norm_rms_epsilon");
    json["rms_norm_eps"] = gguf.float(&epsilon)?.ok_or_else(|| missing_key(gguf, &epsilon))?.into();
    let mut float = |name: &str, to: &str| -> Result<()> {
        if let Some(value) = gguf.float(&key(name))? {
            json[to] = value.into();
        }
        Ok(())
    };
    float("rope.freq_base", "rope_theta")?;
    float("attn_logit_softcapping", "attn_logit_softcapping")?;
    float("final_logit_softcapping", "final_logit_softcapping")?;
    if let Some(window) = gguf.integer(&key("attention.sliding_window"))? {
        json["sliding_window"] = window.into();
    }
    // The largest Gemma 2 and 3 scale by the width over the heads; the file does not say so.
    let scalar =
        if matches!((architecture, layers), ("gemma2", 46) | ("gemma3", 62)) { width / heads.max(1) } else { head_dim };
    json["query_pre_attn_scalar"] = scalar.into();
    if let Some(scaling) = rope_scaling(gguf, &key, f64::from(head_dim))? {
        json["rope_scaling"] = scaling;
    }
    let config = DecoderConfig::from_json(&json, gguf.path())?;
    match gguf.integer(&key("rope.dimension_count"))? {
        Some(count) if count as usize != config.head_dim => {
            let reason = format!("{count} of {} dimensions of a head rotate; all must", config.head_dim);
            Err(wrong_key(gguf, &key("rope.dimension_count"), reason))
        }
        _ => Ok(config),
    }
}

/// How the rotary frequencies are scaled: by a key, or by a tensor with the divisor of each.
fn rope_scaling(gguf: &Gguf, key: &dyn Fn(&str) -> String, head_dim: f64) -> Result<Option<serde_json::Value>> {
    let linear = |factor: f64| (factor != 1.0).then(|| json!({"rope_type": "linear", "factor": factor}));
    let kind = key("rope.scaling.type");
    match gguf.text(&kind)? {
        None | Some("none") => {}
        Some("linear") => return Ok(linear(gguf.float(&key("rope.scaling.factor"))?.unwrap_or(1.0))),
        Some(other) => return Err(wrong_key(gguf, &kind, format!("rotary scaling `{other}` is not supported"))),
    }
    if !gguf.tensors().contains_key(ROPE_FACTORS) {
        return Ok(None);
    }
    let found = gguf.tensor(ROPE_FACTORS)?;
    let factor = f64::from(found.iter().copied().fold(1.0, f32::max));
    if found.iter().all(|&other| f64::from(other) == factor) {
        return Ok(linear(factor));
    }
    // Llama 3.1's rule; which length it was made for is tried.
    let theta = gguf.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    let fits = |length: f64| {
        found.iter().enumerate().all(|(i, &found)| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim);
            let smooth = ((length / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            let wanted = 1.0 / ((1.0 - smooth) / factor + smooth);
            (f64::from(found) / wanted - 1.0).abs() < 1e-3
        })
    };
    let length = (5..24).map(|power| 1u32 << power).find(|&length| fits(f64::from(length)));
    let reason = "the divisors are neither equal nor those of Llama 3.1";
    let length = length.ok_or_else(|| Error::checkpoint(gguf.path(), format!("tensor `{ROPE_FACTORS}`: {reason}")))?;
    Ok(Some(json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": length})))
}

fn wrong_key(gguf: &Gguf, key: &str, reason: impl Into<String>) -> Error {
    Error::Config { path: gguf.path().to_path_buf(), key: key.to_owned(), reason: reason.into() }
}

fn missing_key(gguf: &Gguf, key: &str) -> Error {
    wrong_key(gguf, key, "is missing from the metadata")
}

/// The checkpoint name of a GGUF tensor: `blk.3.attn_q.weight` is
/// `model.layers.3.self_attn.q_proj.weight`.
fn hugging_face_name(name: &str, config: &DecoderConfig) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = match part {
        "attn_norm.weight" => "input_layernorm.weight",
        "attn_q.weight" => "self_attn.q_proj.weight",
        "attn_k.weight" => "self_attn.k_proj.weight",
        "attn_v.weight" => "self_attn.v_proj.weight",
        "attn_output.weight" => "self_attn.o_proj.weight",
        "attn_q.bias" => "self_attn.q_proj.bias",
        "attn_k.bias" => "self_attn.k_proj.bias",
        "attn_v.bias" => "self_attn.v_proj.bias",
        "attn_output.bias" => "self_attn.o_proj.bias",
        "attn_q_norm.weight" => "self_attn.q_norm.weight",
        "attn_k_norm.weight" => "self_attn.k_norm.weight",
        "ffn_norm.weight" if config.output_norms => "pre_feedforward_layernorm.weight",
        "ffn_norm.weight" => "post_attention_layernorm.weight",
        "post_attention_norm.weight" => "post_attention_layernorm.weight",
        "post_ffw_norm.weight" => "post_feedforward_layernorm.weight",
        "ffn_gate.weight" => "mlp.gate_proj.weight",
        "ffn_up.weight" => "mlp.up_proj.weight",
        "ffn_down.weight" => "mlp.down_proj.weight",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}"))
}

/// The rows of a q or k projection as Hugging Face orders them. llama.cpp rotates neighbouring
/// rows of a head, Hugging Face the first half against the second: row `2 i + s` of a head goes
/// to row `s * head_dim / 2 + i`.
fn split_rotary_pairs(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * width) {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + half;
                out.extend_from_slice(&head[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
