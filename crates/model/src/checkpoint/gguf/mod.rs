//! Models in GGUF files: container, block formats, and the names and layouts of llama.cpp's Llama
//! architecture turned back into those of Hugging Face.
//!
//! Reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K; weights become f32. Writes no GGUF, and
//! only hands the vocabulary on: text is the business of `prompts`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::json;

use crate::{Decoder, DecoderConfig, Error, Result};

mod dequant;
mod reader;

pub use dequant::BlockType;
pub use reader::{Gguf, TensorInfo, Value};

/// What a GGUF file says of its tokenizer; fields are named as its `tokenizer.ggml` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Whether encoding puts a space before the text.
    pub add_space_prefix: bool,
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
        bos_token_id: gguf.integer(&key("bos_token_id"))?,
        eos_token_id: gguf.integer(&key("eos_token_id"))?,
        unknown_token_id: gguf.integer(&key("unknown_token_id"))?,
        padding_token_id: gguf.integer(&key("padding_token_id"))?,
        add_bos_token: gguf.flag(&key("add_bos_token"))?.unwrap_or(false),
        add_space_prefix: gguf.flag(&key("add_space_prefix"))?.unwrap_or(false),
        chat_template: gguf.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}

/// Reads the model of a GGUF file.
///
/// # Errors
/// As [`Gguf::open`], and when the architecture is not Llama's, a metadata key or a tensor is
/// missing or wrong, or a weight is not finite.
pub fn load(path: &Path, device: &Device) -> Result<Decoder> {
    let gguf = Gguf::open(path)?;
    let config = config(&gguf)?;
    if gguf.tensors().contains_key("rope_freqs.weight") {
        return Err(Error::checkpoint(path, "tensor `rope_freqs.weight`: rotary scaling is not supported yet"));
    }
    // Names that have no place in the decoder stay as they are and are reported as unused.
    let names: BTreeMap<String, &str> = gguf
        .tensors()
        .keys()
        .map(|name| (hugging_face_name(name).unwrap_or_else(|| name.clone()), name.as_str()))
        .collect();
    let shapes = names.iter().map(|(name, stored)| (name.clone(), gguf.tensors()[*stored].shape.clone())).collect();
    super::build(&config, path, &shapes, device, |name| {
        let values = gguf.tensor(names.get(name).copied().unwrap_or(name))?;
        Ok(if name.ends_with("self_attn.q_proj.weight") {
            split_rotary_pairs(&values, config.num_attention_heads, config.head_dim)
        } else if name.ends_with("self_attn.k_proj.weight") {
            split_rotary_pairs(&values, config.num_key_value_heads, config.head_dim)
        } else {
            values
        })
    })
}

/// The decoder's shape from the metadata.
///
/// # Errors
/// When the architecture is not Llama's, a key is missing or wrong, or the file asks for
/// something that the decoder does not compute.
pub fn config(gguf: &Gguf) -> Result<DecoderConfig> {
    let architecture = gguf.text("general.architecture")?.ok_or_else(|| missing_key(gguf, "general.architecture"))?;
    if architecture != "llama" {
        let reason = format!("architecture `{architecture}` is not supported in GGUF; supported: llama");
        return Err(wrong_key(gguf, "general.architecture", reason));
    }
    let key = |name: &str| format!("llama.{name}");
    let size = |name: &str| gguf.integer(&key(name))?.ok_or_else(|| missing_key(gguf, &key(name)));
    let experts = gguf.integer(&key("expert_count"))?.unwrap_or(0);
    if experts > 0 {
        return Err(wrong_key(gguf, "llama.expert_count", format!("{experts} experts are not supported")));
    }
    if let Some(kind) = gguf.text(&key("rope.scaling.type"))?.filter(|&kind| kind != "none") {
        return Err(wrong_key(
            gguf,
            "llama.rope.scaling.type",
            format!("rotary scaling `{kind}` is not supported yet"),
        ));
    }
    let embedding = gguf.tensors().get("token_embd.weight");
    let vocab_size = embedding.ok_or_else(|| super::missing(gguf.path(), "token_embd.weight"))?.shape[0];
    let heads = size("attention.head_count")?;
    let mut json = json!({
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": size("embedding_length")?,
        "intermediate_size": size("feed_forward_length")?,
        "num_hidden_layers": size("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.integer(&key("attention.head_count_kv"))?.unwrap_or(heads),
        "max_position_embeddings": size("context_length")?,
        "tie_word_embeddings": !gguf.tensors().contains_key("output.weight"),
    });
    let epsilon = key("attention.layer_norm_rms_epsilon");
    json["rms_norm_eps"] = gguf.float(&epsilon)?.ok_or_else(|| missing_key(gguf, &epsilon))?.into();
    if let Some(theta) = gguf.float(&key("rope.freq_base"))? {
        json["rope_theta"] = theta.into();
    }
    if let Some(width) = gguf.integer(&key("attention.key_length"))? {
        json["head_dim"] = width.into();
    }
    let config = DecoderConfig::from_json(&json, gguf.path())?;
    match gguf.integer(&key("rope.dimension_count"))? {
        Some(count) if count as usize != config.head_dim => {
            let reason = format!("{count} of {} dimensions of a head rotate; all must", config.head_dim);
            Err(wrong_key(gguf, "llama.rope.dimension_count", reason))
        }
        _ => Ok(config),
    }
}

fn wrong_key(gguf: &Gguf, key: &str, reason: impl Into<String>) -> Error {
    Error::Config { path: gguf.path().to_path_buf(), key: key.to_owned(), reason: reason.into() }
}

fn missing_key(gguf: &Gguf, key: &str) -> Error {
    wrong_key(gguf, key, "is missing from the metadata")
}

/// The checkpoint name of a GGUF tensor: `blk.3.attn_q.weight` is
/// `model.layers.3.self_attn.q_proj.weight`.
fn hugging_face_name(name: &str) -> Option<String> {
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
        "ffn_norm.weight" => "post_attention_layernorm.weight",
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{config as tiny_config, numbered};
    use super::*;
    use crate::weights;
    use std::fs;

    /// Writes the parts of a GGUF file.
    #[derive(Default, Clone)]
    struct Writer {
        keys: Vec<u8>,
        key_count: u64,
        infos: Vec<u8>,
        tensor_count: u64,
        data: Vec<u8>,
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    impl Writer {
        fn key(&mut self, key: &str, kind: u32, value: &[u8]) {
            self.keys.extend([text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
            self.key_count += 1;
        }

        fn tensor(&mut self, name: &str, dimensions: &[u64], kind: u32, data: &[u8]) {
            self.data.resize(self.data.len().next_multiple_of(32), 0);
            self.info(name, dimensions, kind, self.data.len() as u64);
            self.data.extend(data);
        }

        fn info(&mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) {
            self.infos.extend([text(name), (dimensions.len() as u32).to_le_bytes().to_vec()].concat());
            self.infos.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
            self.infos.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
            self.tensor_count += 1;
        }

        fn bytes(&self) -> Vec<u8> {
            let counts = [self.tensor_count.to_le_bytes(), self.key_count.to_le_bytes()].concat();
            let mut bytes = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &self.keys, &self.infos].concat();
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(&self.data);
            bytes
        }
    }

    fn metadata() -> Writer {
        let mut writer = Writer::default();
        writer.key("general.architecture", 8, &text("llama"));
        let sizes = [("context_length", 2048u32), ("embedding_length", 16), ("feed_forward_length", 24)];
        let counts = [("block_count", 2), ("attention.head_count", 4), ("attention.head_count_kv", 2)];
        for (name, value) in sizes.into_iter().chain(counts) {
            writer.key(&format!("llama.{name}"), 4, &value.to_le_bytes());
        }
        writer.key("llama.attention.layer_norm_rms_epsilon", 6, &1e-6f32.to_le_bytes());
        writer.key("tokenizer.ggml.model", 8, &text("gpt2"));
        let tokens = ["a", "b"].map(text).concat();
        writer.key("tokenizer.ggml.tokens", 9, &[&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &tokens].concat());
        writer
    }

    /// The decoder of [`numbered`] as llama.cpp would store it, with pairs of rows interleaved.
    fn model() -> Vec<u8> {
        let mut writer = metadata();
        let parts = [
            ("input_layernorm", "attn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("post_attention_layernorm", "ffn_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
            ("model.layers", "blk"),
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
        ];
        for (info, values) in weights::read(&numbered(&tiny_config("llama", true)), |_| true).unwrap() {
            let name = parts.iter().fold(info.name.clone(), |name, (from, to)| name.replace(from, to));
            let width = info.shape[info.shape.len() - 1];
            let rotary = info.name.contains("q_proj") || info.name.contains("k_proj");
            // head_dim is 4: stored row 2 i + s is row 2 s + i, so rows 1 and 2 of each four change places.
            let row = |row: usize| {
                if rotary && row % 4 == 1 {
                    row + 1
                } else if rotary && row % 4 == 2 {
                    row - 1
                } else {
                    row
                }
            };
            let stored = (0..values.len() / width).flat_map(|r| values[row(r) * width..][..width].to_vec());
            let data: Vec<u8> = stored.flat_map(f32::to_le_bytes).collect();
            let dimensions: Vec<u64> = info.shape.iter().rev().map(|&d| d as u64).collect();
            writer.tensor(&name, &dimensions, 0, &data);
        }
        writer.bytes()
    }

    fn write(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn a_gguf_gives_the_decoder_that_it_was_made_of() {
        let (_dir, path) = write(&model());
        let decoder = load(&path, &Device::default()).unwrap();
        let source = numbered(&tiny_config("llama", true));
        assert_eq!(decoder.config(), &DecoderConfig { rms_norm_eps: f64::from(1e-6f32), ..source.config().clone() });
        let all = |decoder| weights::read(decoder, |_| true).unwrap();
        assert_eq!(all(&decoder), all(&source));
    }

    #[test]
    fn a_file_truncated_anywhere_is_an_error() {
        let bytes = model();
        let (_dir, path) = write(&bytes);
        for length in (0..1200).chain((1200..bytes.len()).step_by(61)).filter(|&length| length < bytes.len()) {
            fs::write(&path, &bytes[..length]).unwrap();
            let message = load(&path, &Device::default()).unwrap_err().to_string();
            assert!(message.contains("not a readable GGUF file: byte "), "{length}: {message}");
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_read_or_refused_without_panic() {
        let bytes = model();
        let (_dir, path) = write(&bytes);
        for index in (0..1200).step_by(3) {
            for value in [0, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[index] = value;
                fs::write(&path, &changed).unwrap();
                let _ = Gguf::open(&path).and_then(|gguf| tokenizer(&gguf).and(config(&gguf)));
            }
        }
    }

    #[test]
    fn hostile_headers_are_errors_that_name_byte_and_tensor() {
        let counts = |tensors: u64, keys: u64| {
            [b"GGUF", &3u32.to_le_bytes()[..], &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
        };
        let info = |dimensions: &[u64], kind, offset| {
            let mut writer = metadata();
            writer.info("x", dimensions, kind, offset);
            writer.bytes()
        };
        let key = |kind, value: &[u8]| {
            let mut writer = Writer::default();
            writer.key("k", kind, value);
            writer.bytes()
        };
        let array = |kind: u32, count: u64| key(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes()].concat());
        let cases = [
            (b"GGML".to_vec(), "byte 0: expected the magic"),
            ([b"GGUF", &1u32.to_le_bytes()[..]].concat(), "byte 4: expected version 2 or 3"),
            (counts(u64::MAX, 0), "expected a tensor's name of 8 bytes"),
            (counts(0, u64::MAX), "expected a metadata key of 8 bytes"),
            (key(8, &u64::MAX.to_le_bytes()), "expected k of 18446744073709551615 bytes"),
            (key(13, &[]), "expected a value type of 0 to 12 for `k`, found 13"),
            (array(0, u64::MAX), "the file ends after 0"),
            (array(9, 1), "array of arrays"),
            (info(&[u64::MAX, u64::MAX], 0, 0), "larger than memory can be"),
            (info(&[0], 0, 0), "dimension of 0"),
            (info(&[1; 5], 0, 0), "expected 1 to 4 dimensions of tensor `x`, found 5"),
            (info(&[8], 99, 0), "tensor `x` has GGML type 99; supported are F32"),
            (info(&[31], 2, 0), "rows of tensor `x` hold 31 values, not whole blocks of 32"),
            (info(&[1 << 40], 0, 0), "tensor `x` of 4398046511104 bytes at offset 0"),
            (info(&[8], 0, u64::MAX), "tensor `x` of 32 bytes at offset 18446744073709551615"),
        ];
        for (bytes, wanted) in cases {
            let (_dir, path) = write(&bytes);
            let message = Gguf::open(&path).unwrap_err().to_string();
            assert!(message.contains("model.gguf: ") && message.contains(wanted), "{wanted}: {message}");
        }
    }

    #[test]
    fn the_vocabulary_is_handed_on() {
        let (_dir, path) = write(&model());
        let gguf = Gguf::open(&path).unwrap();
        let vocabulary = tokenizer(&gguf).unwrap();
        assert_eq!((vocabulary.model.as_str(), vocabulary.tokens.len()), ("gpt2", 2));
        assert!(gguf.integer("general.architecture").unwrap_err().to_string().contains("is not a whole number"));
    }
}
