//! Models on disk: Hugging Face directories ([`load`], [`save()`]), GGUF files ([`gguf`]) and peft's
//! adapters ([`peft`]).
//!
//! Files come from anywhere, so every length, offset and shape is checked before memory is taken
//! for it, and a configuration that the tensors do not bear out is refused before a decoder of
//! that size is made. Weights are f32 in memory whatever the file holds: what is 16 bits wide is widened exactly, and
//! [`weights::round`] takes it back. Nothing here downloads.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};

use crate::{Decoder, DecoderConfig, Dtype, Error, Result, weights};

pub mod gguf;
pub mod peft;
mod safetensors;
mod save;

pub use save::{copy_companions, save, save_as};

/// Reads a Hugging Face directory: `config.json` with `model.safetensors`, or with the shards of
/// `model.safetensors.index.json`.
///
/// # Errors
/// When a file is missing, damaged or hostile, the configuration is not supported, a tensor is
/// missing, has another shape or a type other than F32, F16 and BF16, or holds a value that is
/// not finite.
pub fn load(dir: &Path, device: &Device) -> Result<Decoder> {
    let config = DecoderConfig::from_dir(dir)?;
    let files = safetensors::Files::open(dir)?;
    build(&config, files.path(), &files.shapes(), device, |name| files.read(name))
}

/// The precision of the weights in a Hugging Face directory, as its files have it and whatever its `config.json` says:
/// the one of all tensors that the decoder reads, [`Dtype::F32`] where they are mixed.
///
/// # Errors
/// When a file is missing, damaged or hostile, or a tensor is missing or has another type.
pub fn stored_dtype(dir: &Path) -> Result<Dtype> {
    let config = DecoderConfig::from_dir(dir)?;
    let files = safetensors::Files::open(dir)?;
    let mut common = None;
    for (name, _) in expected(&config) {
        let dtype = files.dtype(&name)?;
        if *common.get_or_insert(dtype) != dtype {
            return Ok(Dtype::F32);
        }
    }
    Ok(common.unwrap_or(Dtype::F32))
}

/// Makes a decoder of the tensors that `read` returns (row-major); `shapes` are all there are.
fn build(
    config: &DecoderConfig,
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    device: &Device,
    mut read: impl FnMut(&str) -> Result<Vec<f32>>,
) -> Result<Decoder> {
    let mut used = 0;
    for (name, expected) in expected(config) {
        let found = shapes.get(&name).ok_or_else(|| missing(path, &name))?;
        if *found != expected {
            return Err(Error::Shape { path: path.to_path_buf(), name, expected, found: found.clone() });
        }
        used += 1;
    }
    if used < shapes.len() {
        warn_of_unused(config, path, shapes);
    }
    let mut failed = None;
    let decoder = weights::replace(Decoder::zeros(config, device), |info| {
        if failed.is_some() {
            return None;
        }
        let values = read(&info.name).and_then(|values| check_finite(path, &info.name, values));
        values.map_err(|error| failed = Some(error)).ok().map(|values| TensorData::new(values, info.shape.clone()))
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(decoder),
    }
}

fn missing(path: &Path, name: &str) -> Error {
    Error::MissingTensor { path: path.to_path_buf(), name: name.to_owned() }
}

fn check_finite(path: &Path, name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => {
            let reason = format!("tensor `{name}` holds {} at element {index}; weights must be finite", values[index]);
            Err(Error::checkpoint(path, reason))
        }
    }
}

fn warn_of_unused(config: &DecoderConfig, path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let known: Vec<String> = expected(config).map(|(name, _)| name).collect();
    let harmless =
        |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
    let unused: Vec<&String> = shapes.keys().filter(|name| !known.contains(name) && !harmless(name)).collect();
    if !unused.is_empty() {
        tracing::warn!(path = %path.display(), ?unused, "tensors of the checkpoint that the decoder does not use");
    }
}

/// Names and shapes of the tensors that the configuration asks for, block by block and without
/// taking memory for them: a hostile configuration fails at the first tensor that is not there.
fn expected(config: &DecoderConfig) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
    let (vocab, d) = (config.vocab_size, config.hidden_size);
    let embedding = [("model.embed_tokens.weight".to_owned(), vec![vocab, d])];
    let norm = [("model.norm.weight".to_owned(), vec![d])];
    let head = (!config.tie_word_embeddings).then(|| ("lm_head.weight".to_owned(), vec![vocab, d]));
    let blocks = (0..config.num_hidden_layers).flat_map(|layer| expected_of_block(config, layer));
    embedding.into_iter().chain(blocks).chain(norm).chain(head)
}

fn expected_of_block(config: &DecoderConfig, layer: usize) -> Vec<(String, Vec<usize>)> {
    let shapes = config.block_shapes();
    shapes.into_iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A tiny configuration.
    pub(crate) fn config(model_type: &str, tied: bool) -> DecoderConfig {
        let json = json!({"model_type": model_type, "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "tie_word_embeddings": tied});
        DecoderConfig::from_json(&json, Path::new("config.json")).unwrap()
    }

    /// A tiny decoder whose weights are all different.
    pub(crate) fn numbered(config: &DecoderConfig) -> Decoder {
        let mut next = 0u32;
        let mut value = || {
            next += 1;
            (next as f32 * 0.37).sin() * 0.1
        };
        weights::replace(Decoder::zeros(config, &Device::default()), |info| {
            let values: Vec<f32> = (0..info.len()).map(|_| value()).collect();
            Some(TensorData::new(values, info.shape.clone()))
        })
    }

    #[test]
    fn the_expected_tensors_are_the_decoders_parameters() {
        for config in crate::config::ModelType::ALL
            .into_iter()
            .flat_map(|family| [true, false].map(|tied| config(family.name(), tied)))
        {
            let mut wanted: Vec<_> = expected(&config).collect();
            let decoder = Decoder::zeros(&config, &Device::default());
            let mut found: Vec<_> = weights::infos(&decoder).into_iter().map(|info| (info.name, info.shape)).collect();
            wanted.sort();
            found.sort();
            assert_eq!(wanted, found);
            let infos = weights::infos(&decoder);
            let hidden = infos.iter().filter(|info| info.layer.is_some());
            assert_eq!(hidden.map(weights::WeightInfo::len).sum::<usize>(), config.hidden_parameters());
            let norms = infos.iter().filter(|info| info.is_norm);
            assert!(norms.clone().all(|info| info.shape.len() == 1 && info.name.ends_with("norm.weight")));
            let per_block = 2 + if config.qk_norm { 2 } else { 0 } + if config.output_norms { 2 } else { 0 };
            assert_eq!(norms.count(), 1 + per_block * config.num_hidden_layers);
        }
    }

    #[test]
    fn a_configuration_larger_than_the_file_is_refused_before_memory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        save(&numbered(&config("llama", true)), dir.path()).unwrap();
        let path = dir.path().join("config.json");
        let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (key, wanted) in [("num_hidden_layers", "`model.layers.2."), ("intermediate_size", "[16777216, 16]")] {
            let old = json[key].clone();
            json[key] = json!(1 << 24);
            std::fs::write(&path, json.to_string()).unwrap();
            let message = load(dir.path(), &Device::default()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
            json[key] = old;
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let decoder = weights::replace(numbered(&config("llama", true)), |info| {
            (info.name == "model.norm.weight").then(|| TensorData::new(vec![f32::NAN; 16], [16]))
        });
        save(&decoder, dir.path()).unwrap();
        let message = load(dir.path(), &Device::default()).unwrap_err().to_string();
        assert!(message.contains("tensor `model.norm.weight` holds NaN at element 0"), "{message}");
    }
}
