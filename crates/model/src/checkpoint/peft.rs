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
use self::settings::{Settings, way_out};
use super::check_finite;
use super::safetensors::{Files, inside};
use crate::{Decoder, Error, Linear, Lora, Result, weights};

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

/// Attaches the adapter of a peft directory; adapters that are there already are replaced where
/// it has its own. An adapter with magnitudes (DoRA) is merged instead.
///
/// # Errors
/// When a file is missing or damaged, the adapter needs something that is not supported, or its
/// tensors do not fit the decoder. The decoder is unchanged then.
pub fn load_adapter(decoder: &mut Decoder, dir: &Path) -> Result<()> {
    let settings = Settings::read(dir)?;
    let files = open(dir)?;
    let shapes = files.shapes();
    let device = decoder.device();
    let mut unknown: BTreeSet<&str> = shapes.keys().map(String::as_str).collect();
    let (mut adapters, mut merged) = (HashMap::new(), HashMap::new());
    for (path, linear) in decoder.linears() {
        let names = tensor_names(&path);
        let there = names.each_ref().map(|name| unknown.remove(name.as_str()));
        if there == [false, false] {
            continue;
        }
        let [out_features, in_features] = linear.weight.dims();
        let found = shapes.get(&names[0]).and_then(|shape| shape.first().copied());
        let fits = settings.rank_of(&path, &names[0], found);
        let rank = fits.map_err(|reason| Error::checkpoint(files.path(), reason))?;
        let shapes_of_layer = [[rank, in_features], [out_features, rank]];
        let [a, b] = [0, 1].map(|which| read(&files, &names[which], shapes_of_layer[which], &device));
        let scale = settings.scale(&path, rank);
        let lora = Lora { a: a?, b: b?, scale, dropout: settings.keys.lora_dropout, seed: 0 };
        if settings.keys.use_dora {
            let name = format!("{ROOT}{path}.lora_magnitude_vector");
            unknown.remove(name.as_str());
            let magnitude = read(&files, &name, [out_features], &device)?.val();
            let adapted = Linear { lora: Some(lora), ..linear.clone() };
            merged.insert(path, rescaled(adapted.merged_weight(), magnitude)?);
        } else {
            adapters.insert(path, lora);
        }
    }
    let saved = saved_modules(decoder, &files, &mut unknown)?;
    let is_there = |module: &str| saved.keys().any(|name| name.split('.').any(|part| part == module));
    if let Some(module) = settings.keys.modules_to_save.iter().flatten().find(|module| !is_there(module)) {
        let reason =
            format!("key `modules_to_save` names `{module}`, of which {} has no tensor", files.path().display());
        return Err(Error::checkpoint(&settings.file, reason));
    }
    if let Some(name) = unknown.first() {
        let reason = format!("tensor `{name}` belongs to no projection of the decoder; {}", way_out(&settings.file));
        return Err(Error::checkpoint(files.path(), reason));
    }
    if adapters.is_empty() && merged.is_empty() {
        return Err(Error::checkpoint(files.path(), "holds no adapter"));
    }
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

/// Whole tensors that were trained beside the adapter: norms, biases, and a head or embedding that are not one.
fn saved_modules(decoder: &Decoder, files: &Files, unknown: &mut BTreeSet<&str>) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut saved = BTreeMap::new();
    let tied = decoder.config().tie_word_embeddings;
    for info in weights::infos(decoder).into_iter().filter(|info| !(tied && info.name == super::EMBEDDING)) {
        let name = format!("{ROOT}{}", info.name);
        if unknown.remove(name.as_str()) {
            let values = files.read_as(&name, &info.shape)?;
            saved.insert(info.name, check_finite(files.path(), &name, values)?);
        }
    }
    Ok(saved)
}

/// What peft puts before the names of the base's parameters.
const ROOT: &str = "base_model.model.";

/// peft's names of a projection's two tensors.
fn tensor_names(path: &str) -> [String; 2] {
    ["A", "B"].map(|part| format!("{ROOT}{path}.lora_{part}.weight"))
}

fn read<const D: usize>(files: &Files, name: &str, shape: [usize; D], device: &Device) -> Result<Param<Tensor<D>>> {
    let values = check_finite(files.path(), name, files.read_as(name, &shape)?)?;
    Ok(Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
