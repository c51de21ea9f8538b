//! GGUF files that are written here, sound and hostile.

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
fn a_part_of_a_model_says_how_to_join_the_parts() {
    for (count, is_part) in [(0u16, false), (1, false), (3, true)] {
        let mut writer = metadata();
        writer.key("split.count", 2, &count.to_le_bytes());
        let (_dir, path) = write(&writer.bytes());
        match Gguf::open(&path).map_err(|error| error.to_string()) {
            Ok(_) => assert!(!is_part, "{count}"),
            Err(error) => assert!(
                is_part && error.contains("llama-gguf-split --merge") && error.contains("-00001-of-00003.gguf"),
                "{error}"
            ),
        }
    }
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let mut writer = metadata();
    writer.tensor("a", &[64], 0, &[0; 256]);
    writer.tensor("b", &[64], 0, &[0; 256]);
    let (_dir, path) = write(&writer.bytes());
    assert!(Gguf::open(&path).is_ok());
    for (offset, over) in [(0, "`a`"), (4, "`a`"), (252, "`a`"), (256, "`b`"), (500, "`b`")] {
        let mut writer = writer.clone();
        writer.info("c", &[3], 0, offset);
        fs::write(&path, writer.bytes()).unwrap();
        let message = Gguf::open(&path).unwrap_err().to_string();
        assert!(message.contains("lies over") && message.contains(over) && message.contains("`c`"), "{message}");
    }
}

#[test]
fn sizes_that_make_no_model_are_errors_that_name_the_key() {
    for (model_type, layers, heads) in
        [("gemma2", 46u32, 0u32), ("gemma3", 62, 0), ("llama", 2, 0), ("llama", 1 << 24, 1 << 24)]
    {
        let mut writer = Writer::default();
        writer.key("general.architecture", 8, &text(model_type));
        let sizes = [("context_length", 2048u32), ("embedding_length", 1 << 24), ("feed_forward_length", 1 << 24)];
        for (name, value) in sizes.into_iter().chain([("block_count", layers), ("attention.head_count", heads)]) {
            writer.key(&format!("{model_type}.{name}"), 4, &value.to_le_bytes());
        }
        writer.key(&format!("{model_type}.attention.layer_norm_rms_epsilon"), 6, &1e-6f32.to_le_bytes());
        writer.tensor("token_embd.weight", &[16, 32], 0, &[0; 16 * 32 * 4]);
        let (_dir, path) = write(&writer.bytes());
        let message = config(&Gguf::open(&path).unwrap()).unwrap_err().to_string();
        let wanted = if heads == 0 { "`num_attention_heads`" } else { "more than any model has" };
        assert!(message.contains(wanted), "{model_type}: {message}");
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

/// The metadata of [`metadata`] and the divisors of the rotary frequencies.
fn divided(factors: &[f32]) -> Result<DecoderConfig> {
    let mut writer = metadata();
    writer.tensor("token_embd.weight", &[16, 32], 0, &[0; 16 * 32 * 4]);
    let data: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
    writer.tensor(ROPE_FACTORS, &[factors.len() as u64], 0, &data);
    let (_dir, path) = write(&writer.bytes());
    config(&Gguf::open(&path)?)
}

#[test]
fn divisors_of_the_rotary_frequencies_become_a_rule() {
    use crate::config::RopeScaling;
    assert_eq!(divided(&[1.0, 1.0]).unwrap().rope_scaling, RopeScaling::None);
    assert_eq!(divided(&[2.0, 2.0]).unwrap().rope_scaling, RopeScaling::Linear { factor: 2.0 });
    let found = divided(&[1.0, 8.0]).unwrap().rope_scaling;
    assert!(matches!(found, RopeScaling::Llama3 { factor: 8.0, .. }), "{found:?}");
    assert!(divided(&[1.0, 0.3]).unwrap_err().to_string().contains("rope_freqs.weight"));
}
