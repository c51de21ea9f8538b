//! LoRA adapters as peft keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter goes where its tensors say. Ranks and alphas may differ by layer, saved modules and biases replace those of
//! the decoder, DoRA is merged as it is read. What else would change the computation is refused by name, with the way to
//! merge it, never ignored.

mod save;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

pub use self::save::{adapters, save_adapter, save_adapters};
pub use self::settings::{STARTS, UNSUPPORTED};
use self::settings::{Settings, way_out};
use super::safetensors::{Files, inside};
use super::{EMBEDDING, HEAD, check_finite};
use crate::weights::WeightInfo;
use crate::{Decoder, DecoderConfig, Error, Linear, Lora, Result, weights};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What older versions of peft wrote in its place.
const PICKLED: &str = "adapter_model.bin";

/// Whether `dir` holds an adapter; the configuration alone, left beside a whole model, is none.
pub fn is_adapter(dir: &Path) -> bool {
    let has_weights = || [WEIGHTS, PICKLED].iter().any(|name| dir.join(name).is_file());
    dir.join(CONFIG).is_file() && (has_weights() || !Files::is_in(dir))
}

/// The tensors of an adapter's directory.
fn open(dir: &Path) -> Result<Files> {
    let (path, pickled) = (dir.join(WEIGHTS), dir.join(PICKLED));
    if path.symlink_metadata().is_ok() || !pickled.exists() {
        inside(dir, WEIGHTS).map_err(|reason| Error::checkpoint(&path, reason))?;
        return Files::open_file(&path);
    }
    let reason = format!(
        "is in PyTorch's own format, which is not read: convert it with python -c \"import sys, torch, safetensors.torch as s; \
         w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); \
         s.save_file({{k: v.contiguous() for k, v in w.items()}}, sys.argv[2])\" {} {}",
        files::shell_word(&pickled),
        files::shell_word(&path)
    );
    Err(Error::checkpoint(pickled, reason))
}

/// Checks an adapter for the model in `base`, by its settings and the names, shapes and precisions of its tensors.
///
/// # Errors
/// As [`load_adapter`], as far as it comes up without the values; when a file of the base is missing or damaged.
pub fn check_adapter(dir: &Path, base: &Path) -> Result<()> {
    Fit::new(dir, &super::open(base)?.config).map(drop)
}

/// The number of parameters in those tensors outside the blocks of the model in `base` that an adapter changes.
///
/// # Errors
/// As [`check_adapter`].
pub fn changed_outside_blocks(dir: &Path, base: &Path) -> Result<usize> {
    let config = super::open(base)?.config;
    let fit = Fit::new(dir, &config)?;
    let infos = super::expected(&config).map(|(name, shape)| WeightInfo::new(name, shape));
    // The projections that it adapts are all in blocks.
    let changed = infos.filter(|info| info.layer.is_none() && fit.saved.contains_key(&info.name));
    Ok(changed.map(|info| info.len()).sum())
}

/// An adapter whose tensors fit a decoder; their values are still on disk.
struct Fit {
    settings: Settings,
    files: Files,
    /// The rank of each projection that it is of, by its path.
    ranks: BTreeMap<String, usize>,
    /// Whole tensors that were trained beside it, by the decoder's names, with the file's: norms, biases, and a head or
    /// embedding that are not one.
    saved: BTreeMap<String, String>,
}

impl Fit {
    fn new(dir: &Path, config: &DecoderConfig) -> Result<Self> {
        let mut fit =
            Self { settings: Settings::read(dir)?, files: open(dir)?, ranks: BTreeMap::new(), saved: BTreeMap::new() };
        let Self { settings, files, ranks, saved } = &mut fit;
        let shapes = files.shapes();
        check_vocabulary(files.path(), &shapes, config)?;
        let mut unknown: BTreeSet<&str> = shapes.keys().map(String::as_str).collect();
        let mut take = |name: &str| unknown.remove(name);
        for (name, shape) in super::expected(config) {
            if let (&[out_features, in_features], Some(path)) = (&shape[..], projection(&name)) {
                let names = tensor_names(path);
                if names.each_ref().map(|name| take(name)) != [false, false] {
                    let found = shapes.get(&names[0]).and_then(|shape| shape.first().copied());
                    let fits = settings.rank_of(path, &names[0], found);
                    let rank = fits.map_err(|reason| Error::checkpoint(files.path(), reason))?;
                    files.check(&names[0], &[rank, in_features])?;
                    files.check(&names[1], &[out_features, rank])?;
                    if settings.keys.use_dora {
                        take(&magnitude_name(path));
                        files.check(&magnitude_name(path), &[out_features])?;
                    }
                    ranks.insert(path.to_owned(), rank);
                }
            }
            if config.tie_word_embeddings && name == EMBEDDING {
                continue;
            }
            if let Some(whole) = whole_names(&name).into_iter().find(|whole| take(whole)) {
                files.check(&whole, &shape)?;
                saved.insert(name, whole);
            }
        }
        fit.check_rest(&unknown, config.tie_word_embeddings)?;
        Ok(fit)
    }

    /// That no tensor is left over, and none is missed.
    fn check_rest(&self, unknown: &BTreeSet<&str>, is_tied: bool) -> Result<()> {
        let Self { settings, files, ranks, saved } = self;
        if let Some(name) = unknown.first() {
            let whole = name.strip_prefix(ROOT).unwrap_or(name);
            let why = match is_tied && [EMBEDDING, HEAD].contains(&whole) {
                true => "replaces one of head and embedding, which are one tensor in the model (tie_word_embeddings)",
                false => "belongs to no projection of the decoder",
            };
            let way_out = match whole.starts_with(ROOT) {
                true => format!(
                    "it was trained on a model that had an adapter already: merge that one into its base, take `{ROOT}` off the \
                     names of all tensors once, and name the merged model as the base"
                ),
                false => way_out(&settings.file),
            };
            let reason = format!("tensor `{name}` {why}; {way_out}");
            return Err(Error::checkpoint(files.path(), reason));
        }
        let is_there = |module: &str| saved.keys().any(|name| name.split('.').any(|part| part == module));
        if let Some(module) = settings.keys.modules_to_save.iter().flatten().find(|module| !is_there(module)) {
            let reason =
                format!("key `modules_to_save` names `{module}`, of which {} has no tensor", files.path().display());
            return Err(Error::checkpoint(&settings.file, reason));
        }
        match ranks.is_empty() {
            true => Err(Error::checkpoint(files.path(), "holds no adapter")),
            false => Ok(()),
        }
    }

    fn read<const D: usize>(&self, name: &str, shape: [usize; D], device: &Device) -> Result<Param<Tensor<D>>> {
        Ok(Param::from_tensor(Tensor::from_data(TensorData::new(self.values(name)?, shape), device)))
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        check_finite(self.files.path(), name, self.files.read(name)?)
    }
}

/// Attaches the adapter of a peft directory; adapters that are there already are replaced where
/// it has its own. An adapter with magnitudes (DoRA) is merged instead.
///
/// # Errors
/// When a file is missing or damaged, the adapter needs something that is not supported, or its
/// tensors do not fit the decoder. The decoder is unchanged then.
pub fn load_adapter(decoder: &mut Decoder, dir: &Path) -> Result<()> {
    let fit = Fit::new(dir, decoder.config())?;
    let device = decoder.device();
    let (mut adapters, mut merged) = (HashMap::new(), HashMap::new());
    for (path, linear) in decoder.linears() {
        let Some(&rank) = fit.ranks.get(&path) else { continue };
        let [out_features, in_features] = linear.weight.dims();
        let [a, b] = tensor_names(&path);
        let (a, b) = (fit.read(&a, [rank, in_features], &device)?, fit.read(&b, [out_features, rank], &device)?);
        let scale = fit.settings.scale(&path, rank);
        let lora = Lora { a, b, scale, dropout: fit.settings.keys.lora_dropout, seed: 0 };
        if fit.settings.keys.use_dora {
            let magnitude = fit.read(&magnitude_name(&path), [out_features], &device)?.val();
            let adapted = Linear { lora: Some(lora), ..linear.clone() };
            merged.insert(path, rescaled(adapted.merged_weight(), magnitude)?);
        } else {
            adapters.insert(path, lora);
        }
    }
    let value = |(name, whole): (&String, &String)| Ok((name.clone(), fit.values(whole)?));
    let saved: BTreeMap<String, Vec<f32>> = fit.saved.iter().map(value).collect::<Result<_>>()?;
    if !saved.is_empty() {
        *decoder = weights::replace(decoder.clone(), |info| {
            saved.get(&info.name).map(|values| TensorData::new(values.clone(), info.shape.clone()))
        });
    }
    for (path, linear) in decoder.linears_mut() {
        if let Some(adapter) = adapters.remove(&path) {
            linear.lora = Some(adapter);
        } else if let Some(weight) = merged.remove(&path) {
            (linear.weight, linear.lora) = (Param::from_tensor(weight), None);
        }
    }
    Ok(())
}

/// DoRA (Liu et al. 2024): the direction is the adapted weight's, the length of each row the magnitude's.
///
/// # Mathematical Definition
/// `W' = m / |W0 + s B A|_row (W0 + s B A)`
fn rescaled(adapted: Tensor<2>, magnitude: Tensor<1>) -> Result<Tensor<2>> {
    let [rows, width] = adapted.dims();
    let device = adapted.device();
    let mut values: Vec<f32> = adapted.try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
    let magnitude: Vec<f32> = magnitude.try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
    for (row, magnitude) in values.chunks_exact_mut(width).zip(magnitude) {
        let norm = length(row);
        row.iter_mut().for_each(|x| *x *= magnitude / norm);
    }
    Ok(Tensor::from_data(TensorData::new(values, [rows, width]), &device))
}

/// The Euclidean length, summed in eight lanes as torch does, so that the merged weights have the same bits.
fn length(row: &[f32]) -> f32 {
    let (eights, rest) = row.as_chunks::<8>();
    let mut lanes = [0.0f32; 8];
    for eight in eights {
        lanes.iter_mut().zip(eight).for_each(|(lane, x)| *lane += x * x);
    }
    rest.iter().fold(lanes.into_iter().sum::<f32>(), |sum, x| sum + x * x).sqrt()
}

/// What peft puts before the names of the base's parameters.
const ROOT: &str = "base_model.model.";

/// peft's names of a projection's two tensors.
fn tensor_names(path: &str) -> [String; 2] {
    ["A", "B"].map(|part| format!("{ROOT}{path}.lora_{part}.weight"))
}

/// peft's names of a whole tensor; the bias of a projection with an adapter lies within it.
fn whole_names(name: &str) -> Vec<String> {
    let within = name.strip_suffix(".bias").map(|path| format!("{ROOT}{path}.base_layer.bias"));
    [Some(format!("{ROOT}{name}")), within].into_iter().flatten().collect()
}

/// That an adapter's own head or embedding has the base's number of tokens.
fn check_vocabulary(path: &Path, shapes: &BTreeMap<String, Vec<usize>>, config: &DecoderConfig) -> Result<()> {
    for name in [EMBEDDING, HEAD].map(|name| format!("{ROOT}{name}")) {
        let Some(&rows) = shapes.get(&name).and_then(|shape| shape.first()) else { continue };
        if rows != config.vocab_size {
            let reason = format!(
                "tensor `{name}` has {rows} rows, and the base {} tokens: the vocabulary was resized before the training; save \
                 the base so, with model.resize_token_embeddings({rows}) in transformers, and name that as the base",
                config.vocab_size
            );
            return Err(Error::checkpoint(path, reason));
        }
    }
    Ok(())
}

/// peft's name of the lengths of a projection's rows.
fn magnitude_name(path: &str) -> String {
    format!("{ROOT}{path}.lora_magnitude_vector")
}

/// The path of the projection that a matrix of a block is the weight of.
fn projection(name: &str) -> Option<&str> {
    name.starts_with("model.layers.").then(|| name.strip_suffix(".weight")).flatten()
}

#[cfg(test)]
mod tests;
