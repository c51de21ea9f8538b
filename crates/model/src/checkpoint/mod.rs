//! Models on disk: Hugging Face directories ([`load`], [`save()`]), GGUF files ([`gguf`]) and peft's
//! adapters ([`peft`]).
//!
//! Files come from anywhere, so every length, offset and shape is checked before memory is taken
//! for it, and a configuration that the tensors do not bear out is refused before a decoder of
//! that size is made. On the CPU matrices of safetensors in bf16 are kept so; all else is f32 in memory, what is 16 bits wide being widened
//! exactly. Nothing here downloads.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Element, TensorData};

use crate::weights::WeightInfo;
use crate::{Decoder, DecoderConfig, Dtype, Error, Result, weights};

mod companions;
pub mod gguf;
mod layout;
mod outside;
pub mod peft;
mod safetensors;
mod save;

pub use companions::{COMPANIONS, copy_companions, copy_companions_of};
pub use outside::differing_outside_blocks;
pub use safetensors::{INDEX, SINGLE, shards};
pub use save::{MAX_SHARD, save, save_as, save_like};

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Reads a Hugging Face directory: `config.json` with `model.safetensors`, or with the shards of
/// `model.safetensors.index.json`.
///
/// # Errors
/// When a file is missing, damaged or hostile, the configuration is not supported, a tensor is
/// missing, has another shape or a type other than F32, F16 and BF16, or holds a value that is
/// not finite.
pub fn load(dir: &Path, device: &Device) -> Result<Decoder> {
    let Opened { config, files, notes } = open(dir)?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    build(&config, files.path(), &files.shapes(), device, |info| match files.dtype(&info.name)? {
        Dtype::Bf16 if weights::keeps_halves(info, device) => data(files.path(), info, files.read_halves(&info.name)?),
        _ => data(files.path(), info, files.read(&info.name)?),
    })
}

/// What looks wrong in a directory that [`load`] reads all the same: tensors that are not used, or not as its files say.
///
/// # Errors
/// As [`load`], as far as it comes up without most of the weights.
pub fn notes(dir: &Path) -> Result<Vec<String>> {
    let Opened { config, files, mut notes } = open(dir)?;
    notes.extend(unused(&config, files.path(), &files.shapes()));
    Ok(notes)
}

/// A directory whose weights are still on disk.
struct Opened {
    config: DecoderConfig,
    files: safetensors::Files,
    /// What looks wrong in it.
    notes: Vec<String>,
}

/// The configuration and the tensors of a directory. A head of its own is one, whatever the configuration says.
fn open(dir: &Path) -> Result<Opened> {
    let mut config = DecoderConfig::from_dir(dir)?;
    let files = safetensors::Files::open(dir)?;
    let mut notes = files.notes().to_vec();
    let (path, shapes) = (files.path().display(), files.shapes());
    if let (true, Some(head), Some(embedding)) = (config.tie_word_embeddings, shapes.get(HEAD), shapes.get(EMBEDDING)) {
        if head != embedding {
            let reason = format!(
                "tie_word_embeddings is true, but {HEAD} has shape {head:?} and the embedding {embedding:?}: set it to false \
                 in config.json where the model has a head of its own, or take the tensor away"
            );
            return Err(Error::checkpoint(files.path(), reason));
        }
        if files.read(HEAD)? != files.read(EMBEDDING)? {
            notes.push(format!(
                "{path}: tie_word_embeddings is true, but lm_head.weight differs from the embedding; it is used"
            ));
            config.tie_word_embeddings = false;
        }
    }
    notes.extend(other_frequencies(&config, &files)?);
    Ok(Opened { config, files, notes })
}

/// A note on rotary frequencies that some checkpoints hold, where they are not those of the configuration.
fn other_frequencies(config: &DecoderConfig, files: &safetensors::Files) -> Result<Option<String>> {
    for (name, shape) in files.shapes().iter().filter(|(name, _)| name.ends_with(FREQUENCIES)) {
        let found = match files.dtype(name) {
            Ok(_) if *shape == [config.head_dim / 2] => files.read(name)?,
            _ => Vec::new(), // they are none of this model
        };
        let layer = weights::WeightInfo::new(name.clone(), Vec::new()).layer;
        if !crate::rope::are_frequencies(config, layer, &found) {
            return Ok(Some(format!(
                "{}: `{name}` holds other rotary frequencies than those of config.json, which are used, as transformers does: \
                 check rope_theta and rope_scaling there",
                files.path().display()
            )));
        }
    }
    Ok(None)
}

/// The end of the names of rotary frequencies, which older versions of transformers saved.
const FREQUENCIES: &str = "rotary_emb.inv_freq";

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// A whole model; an adapter's configuration without its weights does not count.
    Model,
    /// An adapter alone.
    Adapter,
    /// A whole model and an adapter: which of them is meant is not known.
    Both,
    /// Neither.
    Neither,
}

/// What a directory holds, by its files.
pub fn contents(dir: &Path) -> Contents {
    let model = dir.join("config.json").is_file() && safetensors::Files::is_in(dir);
    match (model, peft::is_adapter(dir)) {
        (true, false) => Contents::Model,
        (false, true) => Contents::Adapter,
        (true, true) => Contents::Both,
        (false, false) => Contents::Neither,
    }
}

/// The precision of the weights in a Hugging Face directory, as its files have it and whatever its `config.json` says:
/// the one of all tensors that the decoder reads, [`Dtype::F32`] where they are mixed.
///
/// # Errors
/// When a file is missing, damaged or hostile, or a tensor is missing or has another type.
pub fn stored_dtype(dir: &Path) -> Result<Dtype> {
    let Opened { config, files, .. } = open(dir)?;
    Ok(common_dtype(&files, &config)?.unwrap_or(Dtype::F32))
}

/// The precision of all tensors of a model; none where they differ.
fn common_dtype(files: &safetensors::Files, config: &DecoderConfig) -> Result<Option<Dtype>> {
    let mut common = None;
    for (name, _) in expected(config) {
        let dtype = files.dtype(&name)?;
        if *common.get_or_insert(dtype) != dtype {
            return Ok(None);
        }
    }
    Ok(common)
}

/// Makes a decoder of the tensors that `read` returns (row-major); `shapes` are all there are.
fn build(
    config: &DecoderConfig,
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    device: &Device,
    mut read: impl FnMut(&WeightInfo) -> Result<TensorData>,
) -> Result<Decoder> {
    let mut used = 0;
    for (name, expected) in expected(config) {
        let found = shapes.get(&name).ok_or_else(|| missing_of(path, &name, shapes))?;
        if *found != expected {
            return Err(Error::Shape { path: path.to_path_buf(), name, expected, found: found.clone() });
        }
        used += 1;
    }
    if used < shapes.len() {
        unused(config, path, shapes).iter().for_each(|note| tracing::warn!("{note}"));
    }
    let mut failed = None;
    let decoder = weights::replace(Decoder::zeros(config, device), |info| {
        if failed.is_some() {
            return None;
        }
        read(info).map_err(|error| failed = Some(error)).ok()
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(decoder),
    }
}

/// As [`missing`], with what to do where all names have a prefix too many or too few.
fn missing_of(path: &Path, name: &str, shapes: &BTreeMap<String, Vec<usize>>) -> Error {
    let wrong = |other: &str, help: String| {
        Error::checkpoint(path, format!("tensor `{name}` is missing, but `{other}` is there: {help}"))
    };
    let longer = shapes.keys().find(|other| other.ends_with(&format!(".{name}")));
    let shorter = name.strip_prefix("model.").filter(|bare| shapes.contains_key(*bare));
    match (longer, shorter) {
        (Some(other), _) => wrong(other, format!("take `{}` off all names", &other[..other.len() - name.len()])),
        (None, Some(other)) => wrong(other, format!("put `model.` before all names but `{HEAD}`")),
        (None, None) if name == HEAD => {
            let reason = format!(
                "tensor `{HEAD}` is missing: where the embedding is the model's head, set tie_word_embeddings to true in config.json"
            );
            Error::checkpoint(path, reason)
        }
        (None, None) => missing(path, name),
    }
}

fn missing(path: &Path, name: &str) -> Error {
    Error::MissingTensor { path: path.to_path_buf(), name: name.to_owned() }
}

/// The values, which must be finite, as data of the parameter `info`.
fn data<T: Element + Into<f32>>(path: &Path, info: &WeightInfo, values: Vec<T>) -> Result<TensorData> {
    Ok(TensorData::new(check_finite(path, &info.name, values)?, info.shape.clone()))
}

fn check_finite<T: Copy + Into<f32>>(path: &Path, name: &str, values: Vec<T>) -> Result<Vec<T>> {
    match values.iter().position(|&value| !value.into().is_finite()) {
        None => Ok(values),
        Some(index) => {
            let value: f32 = values[index].into();
            let reason = format!("tensor `{name}` holds {value} at element {index}; weights must be finite");
            Err(Error::checkpoint(path, reason))
        }
    }
}

/// A note on tensors that the decoder does not read.
fn unused(config: &DecoderConfig, path: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Option<String> {
    let known: Vec<String> = expected(config).map(|(name, _)| name).collect();
    let harmless = |name: &str| name.ends_with(FREQUENCIES) || (config.tie_word_embeddings && name == HEAD);
    let unused: Vec<&str> = shapes
        .keys()
        .map(String::as_str)
        .filter(|name| !known.iter().any(|own| own == name) && !harmless(name))
        .collect();
    (!unused.is_empty()).then(|| {
        format!("{}: tensors that the decoder does not use and leaves out: {}", path.display(), named(&unused))
    })
}

/// Names, the first ones of many.
fn named(names: &[&str]) -> String {
    const MOST: usize = 8;
    let more = names.len().saturating_sub(MOST);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Names and shapes of the tensors that the configuration asks for, block by block and without
/// taking memory for them: a hostile configuration fails at the first tensor that is not there.
fn expected(config: &DecoderConfig) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
    let (vocab, d) = (config.vocab_size, config.hidden_size);
    let embedding = [(EMBEDDING.to_owned(), vec![vocab, d])];
    let norm = [("model.norm.weight".to_owned(), vec![d])];
    let head = (!config.tie_word_embeddings).then(|| (HEAD.to_owned(), vec![vocab, d]));
    let blocks = (0..config.num_hidden_layers).flat_map(|layer| expected_of_block(config, layer));
    embedding.into_iter().chain(blocks).chain(norm).chain(head)
}

fn expected_of_block(config: &DecoderConfig, layer: usize) -> Vec<(String, Vec<usize>)> {
    let shapes = config.block_shapes();
    shapes.into_iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
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
    fn a_head_of_its_own_is_used_though_the_configuration_ties_it() {
        let dir = tempfile::tempdir().unwrap();
        let untied = numbered(&config("llama", false));
        let path = dir.path().join("config.json");
        let tie = || {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"))
                .unwrap();
        };
        save(&untied, dir.path()).unwrap();
        tie();
        let loaded = load(dir.path(), &Device::default()).unwrap();
        assert!(!loaded.config().tie_word_embeddings);
        assert_eq!(weights::read(&loaded, |_| true).unwrap(), weights::read(&untied, |_| true).unwrap());
        let embedding = weights::read(&untied, |info| info.name == EMBEDDING).unwrap().remove(0).1;
        assert!(notes(dir.path()).unwrap()[0].contains("lm_head.weight differs"));
        let equal = weights::replace(untied, |info| {
            (info.name == HEAD).then(|| TensorData::new(embedding.clone(), info.shape.clone()))
        });
        save(&equal, dir.path()).unwrap();
        tie();
        assert!(load(dir.path(), &Device::default()).unwrap().config().tie_word_embeddings);
        assert!(notes(dir.path()).unwrap().is_empty());
    }

    /// Writes a model with one more tensor.
    fn save_with(decoder: &Decoder, dir: &Path, name: &str, values: &[f32], shape: &[usize]) {
        use ::safetensors::tensor::TensorView;
        let mut tensors: Vec<(String, Vec<f32>, Vec<usize>)> = weights::read(decoder, |_| true)
            .unwrap()
            .into_iter()
            .map(|(info, values)| (info.name, values, info.shape))
            .collect();
        tensors.push((name.to_owned(), values.to_vec(), shape.to_vec()));
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, values, _)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, _, shape), bytes)| {
            (name.clone(), TensorView::new(::safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
        });
        save(decoder, dir).unwrap();
        std::fs::write(dir.join(SINGLE), ::safetensors::serialize(views, None).unwrap()).unwrap();
    }

    #[test]
    fn no_tensor_vanishes_unsaid() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, decoder) = (dir.path(), numbered(&config("llama", true)));
        let with = |name: &str, values: &[f32], shape: &[usize]| save_with(&decoder, dir, name, values, shape);
        with(HEAD, &[0.5; 48], &[3, 16]);
        let error = load(dir, &Device::default()).unwrap_err().to_string();
        assert!(error.contains("lm_head.weight has shape [3, 16] and the embedding [32, 16]"), "{error}");
        with("model.extra", &[0.5; 2], &[2]);
        assert!(notes(dir).unwrap()[0].ends_with("leaves out: model.extra"));
        // Base 10000 in a head of 4, and another base.
        for (values, is_noted) in [([1.0, 0.01], false), ([1.0, 0.001], true)] {
            for name in ["model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"] {
                with(name, &values, &[2]);
                let notes = notes(dir).unwrap();
                assert_eq!(!notes.is_empty(), is_noted, "{notes:?}");
                assert!(notes.iter().all(|note| note.contains(name) && note.contains("rope_theta")), "{notes:?}");
                assert!(load(dir, &Device::default()).is_ok());
            }
        }
        with("model.rotary_emb.inv_freq", &[1.0; 3], &[3]);
        assert!(!notes(dir).unwrap().is_empty());
    }

    #[test]
    fn names_with_another_prefix_and_weights_of_another_format_are_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |rename: &dyn Fn(String) -> String| {
            let shapes: BTreeMap<_, _> =
                expected(&config("llama", true)).map(|(name, shape)| (rename(name), shape)).collect();
            let read = |_: &WeightInfo| -> Result<TensorData> { unreachable!("nothing is read") };
            build(&config("llama", true), Path::new("m"), &shapes, &Device::default(), read).unwrap_err().to_string()
        };
        let error = refused(&|name| format!("language_model.{name}"));
        assert!(error.contains("take `language_model.` off all names"), "{error}");
        let error = refused(&|name| name.replacen("model.", "", 1));
        assert!(error.contains("put `model.` before all names"), "{error}");
        save(&numbered(&config("llama", true)), dir.path()).unwrap();
        let json = dir.path().join("config.json");
        let tied = std::fs::read_to_string(&json).unwrap();
        std::fs::write(&json, tied.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false")).unwrap();
        let error = load(dir.path(), &Device::default()).unwrap_err().to_string();
        assert!(
            error.contains("`lm_head.weight` is missing: where") && error.contains("tie_word_embeddings"),
            "{error}"
        );
        std::fs::write(&json, tied).unwrap();
        std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("pytorch_model.bin")).unwrap();
        let error = load(dir.path(), &Device::default()).unwrap_err().to_string();
        assert!(error.contains("safe_serialization"), "{error}");
    }

    #[test]
    fn a_directory_is_told_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        let steps = [
            ("config.json", Contents::Neither),
            ("model.safetensors", Contents::Model),
            ("adapter_config.json", Contents::Model),
            ("adapter_model.safetensors", Contents::Both),
        ];
        for (name, wanted) in steps {
            touch(name);
            assert_eq!(contents(dir.path()), wanted, "{name}");
        }
        std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        assert_eq!(contents(dir.path()), Contents::Adapter);
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
        save(&numbered(&config("llama", true)), dir.path()).unwrap();
        let path = dir.path().join(SINGLE);
        let mut bytes = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let at = 8 + header + tensors["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let message = load(dir.path(), &Device::default()).unwrap_err().to_string();
        assert!(message.contains("tensor `model.norm.weight` holds NaN at element 0"), "{message}");
    }
}
