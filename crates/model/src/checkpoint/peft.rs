//! LoRA adapters as peft keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter goes where its tensors say. Ranks and alphas may differ by layer, saved modules and biases replace those of
//! the decoder, DoRA is merged as it is read. What else would change the computation is refused by name, with the way to
//! merge it, never ignored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use ::safetensors::tensor::{Dtype, TensorView};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::check_finite;
use super::safetensors::Files;
use crate::{Decoder, Error, Linear, Lora, Result, weights};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// `adapter_config.json` may have this many bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Keys of `adapter_config.json` that must be absent, null, false or empty.
const UNSUPPORTED: [&str; 11] = [
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "alora_invocation_tokens",
];

/// Ways to begin a training that leave the base's weights as they are.
const STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The keys of `adapter_config.json` that matter here, under peft's names.
#[derive(Debug, Deserialize)]
struct Settings {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    /// The first pattern that fits a projection decides its alpha.
    #[serde(default)]
    alpha_pattern: Option<Map<String, Value>>,
    /// The same of its rank.
    #[serde(default)]
    rank_pattern: Option<Map<String, Value>>,
    /// Which projections it is of: ends of their paths, or a pattern.
    #[serde(default)]
    target_modules: Value,
    /// Blocks that it is of, where not of all.
    #[serde(default)]
    layers_to_transform: Value,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
}

impl Settings {
    fn read(path: &Path) -> Result<Self> {
        let bytes = files::read_regular(path, MAX_CONFIG)?;
        let wrong = |reason: String| Error::checkpoint(path, format!("not an adapter that can be used: {reason}"));
        let json = files::json_value(&bytes).map_err(|error| wrong(error.to_string()))?;
        let settings = Self::deserialize(&json).map_err(|error| wrong(error.to_string()))?;
        if settings.peft_type != "LORA" {
            let reason = format!("peft_type is `{}`; supported: LORA", settings.peft_type);
            return Err(wrong(format!("{reason}; {}", way_out(path))));
        }
        if let Some((key, value)) = unsupported(&json) {
            return Err(wrong(format!("key `{key}` = {value} is not supported; {}", way_out(path))));
        }
        if settings.r == 0 || !settings.lora_alpha.is_finite() || !(0.0..1.0).contains(&settings.lora_dropout) {
            let Self { r, lora_alpha, lora_dropout, .. } = settings;
            let reason = "r must be above 0, lora_alpha finite, lora_dropout at least 0 and below 1";
            return Err(wrong(format!("r = {r}, lora_alpha = {lora_alpha}, lora_dropout = {lora_dropout}: {reason}")));
        }
        Ok(settings)
    }

    fn scale(&self, alphas: &Patterns, path: &str, rank: usize) -> f64 {
        let alpha = alphas.of(path).unwrap_or(self.lora_alpha);
        alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
    }

    /// Whether peft would put an adapter at a projection.
    fn is_target(&self, path: &str) -> bool {
        let ends_with = |part: &str| path.strip_suffix(part).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let is_named = match &self.target_modules {
            Value::Array(parts) => parts.iter().filter_map(Value::as_str).any(ends_with),
            Value::String(pattern) if pattern != "all-linear" => {
                Regex::new(&format!("^(?:{pattern})$")).map_or(true, |pattern| pattern.is_match(path))
            }
            _ => true,
        };
        let block = weights::WeightInfo::new(path.to_owned(), Vec::new()).layer.map(|block| block as u64);
        let is_in = match &self.layers_to_transform {
            Value::Array(blocks) if !blocks.is_empty() => blocks.iter().any(|one| one.as_u64() == block),
            one @ Value::Number(_) => one.as_u64() == block,
            _ => true,
        };
        is_named && is_in
    }
}

/// Numbers by patterns of paths; a pattern fits a projection by the end of its path, and the first that does counts.
struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    fn new(key: &str, patterns: Option<&Map<String, Value>>, path: &Path) -> Result<Self> {
        let pattern = |(pattern, number): (&String, &Value)| {
            let wrong = |reason: String| {
                Error::checkpoint(path, format!("key `{key}`, `{pattern}`: {reason}; {}", way_out(path)))
            };
            let number =
                number.as_f64().filter(|number| number.is_finite()).ok_or_else(|| wrong(format!("{number}")))?;
            let fits = Regex::new(&format!(r"^(.*\.)?(?:{pattern})$")).map_err(|error| wrong(error.to_string()))?;
            Ok((fits, number))
        };
        Ok(Self(patterns.into_iter().flatten().map(pattern).collect::<Result<_>>()?))
    }

    fn of(&self, path: &str) -> Option<f64> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, number)| *number)
    }
}

/// What to do with an adapter that is not supported.
fn way_out(path: &Path) -> String {
    let dir = path.parent().unwrap_or(path).display();
    format!(
        "merge it first: python -c \"from peft import AutoPeftModelForCausalLM as M; \
         M.from_pretrained('{dir}').merge_and_unload().save_pretrained('merged')\""
    )
}

/// The first key that asks for something this crate does not compute.
fn unsupported(json: &Value) -> Option<(&str, &Value)> {
    let neutral = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    let asked = UNSUPPORTED.into_iter().find(|&key| json.get(key).is_some_and(|value| !neutral(value)));
    let start = json.get("init_lora_weights").filter(|value| match value {
        Value::String(start) => !STARTS.contains(&start.as_str()),
        _ => false,
    });
    asked.or(start.map(|_| "init_lora_weights")).and_then(|key| Some((key, json.get(key)?)))
}

/// Whether `dir` holds an adapter; the configuration alone, left beside a whole model, is none.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file() && (dir.join(WEIGHTS).is_file() || !Files::is_in(dir))
}

/// Attaches the adapter of a peft directory; adapters that are there already are replaced where
/// it has its own. An adapter with magnitudes (DoRA) is merged instead.
///
/// # Errors
/// When a file is missing or damaged, the adapter needs something that is not supported, or its
/// tensors do not fit the decoder. The decoder is unchanged then.
pub fn load_adapter(decoder: &mut Decoder, dir: &Path) -> Result<()> {
    let config = dir.join(CONFIG);
    let settings = Settings::read(&config)?;
    let alphas = Patterns::new("alpha_pattern", settings.alpha_pattern.as_ref(), &config)?;
    let ranks = Patterns::new("rank_pattern", settings.rank_pattern.as_ref(), &config)?;
    let files = Files::open_file(&dir.join(WEIGHTS))?;
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
        let rank = ranks.of(&path).map_or(settings.r, |rank| rank as usize);
        let found = shapes.get(&names[0]).and_then(|shape| shape.first().copied());
        if let Some(found) = found.filter(|found| *found != rank) {
            let reason = format!(
                "`{}` has rank {found}, and {} says {rank}; correct r or rank_pattern",
                names[0],
                config.display()
            );
            return Err(Error::checkpoint(files.path(), reason));
        }
        if !settings.is_target(&path) {
            let reason = format!(
                "`{}` is of no projection that target_modules and layers_to_transform of {} name, so peft would leave it out; correct them, or take the tensor away",
                names[0],
                config.display()
            );
            return Err(Error::checkpoint(files.path(), reason));
        }
        let shapes_of_layer = [[rank, in_features], [out_features, rank]];
        let [a, b] = [0, 1].map(|which| read(&files, &names[which], shapes_of_layer[which], &device));
        let scale = settings.scale(&alphas, &path, rank);
        let lora = Lora { a: a?, b: b?, scale, dropout: settings.lora_dropout, seed: 0 };
        if settings.use_dora {
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
    if let Some(module) = settings.modules_to_save.iter().flatten().find(|module| !is_there(module)) {
        let reason =
            format!("key `modules_to_save` names `{module}`, of which {} has no tensor", files.path().display());
        return Err(Error::checkpoint(&config, reason));
    }
    if let Some(name) = unknown.first() {
        let reason = format!("tensor `{name}` belongs to no projection of the decoder; {}", way_out(&config));
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

/// Writes the attached adapters into `dir`, which is made when it is not there, so that peft
/// loads them.
///
/// # Errors
/// When no adapter is attached, their ranks, scales or dropouts differ, or a file cannot be
/// written.
pub fn save_adapter(decoder: &Decoder, dir: &Path) -> Result<()> {
    let adapted = |(path, linear)| adapter(linear).map(|adapter| (path, adapter));
    let adapters: Vec<(String, &Lora)> = decoder.linears().filter_map(adapted).collect();
    let Some((_, first)) = adapters.first() else {
        return Err(Error::Input("no adapter is attached, so none can be saved".into()));
    };
    let settings = |lora: &Lora| (lora.a.dims()[0], lora.scale.to_bits(), lora.dropout.to_bits());
    if let Some((path, _)) = adapters.iter().find(|(_, lora)| settings(lora) != settings(first)) {
        let reason = "has another rank, scale or dropout than the first one; one file holds one of each";
        return Err(Error::Input(format!("the adapter of `{path}` {reason}")));
    }
    files::create_dir(dir)?;
    write_weights(&adapters, &dir.join(WEIGHTS))?;
    let json = config_json(&adapters, first, decoder.config().num_hidden_layers);
    Ok(files::write_json(&dir.join(CONFIG), &json)?)
}

fn adapter(linear: &Linear) -> Option<&Lora> {
    linear.lora.as_ref()
}

fn write_weights(adapters: &[(String, &Lora)], path: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (module, lora) in adapters {
        for (name, parameter) in tensor_names(module).into_iter().zip([&lora.a, &lora.b]) {
            let data = parameter.val().try_into_data_as::<f32>();
            tensors.push((name, data.map_err(|error| Error::Device(error.to_string()))?));
        }
    }
    let failed = |error: ::safetensors::SafeTensorError| Error::checkpoint(path, error.to_string());
    let mut views = Vec::new();
    for (name, data) in &tensors {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes()).map_err(failed)?;
        views.push((name.as_str(), view));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(files::write_whole(path, &::safetensors::serialize(views, Some(metadata)).map_err(failed)?)?)
}

fn config_json(adapters: &[(String, &Lora)], first: &Lora, layers: usize) -> Value {
    let rank = first.a.dims()[0];
    // Last parts when each layer has the same ones, as peft writes it; whole paths otherwise.
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let parts: BTreeSet<String> = adapters.iter().map(|(path, _)| last(path)).collect();
    let targets: Vec<String> = if parts.len() * layers == adapters.len() {
        parts.into_iter().collect()
    } else {
        adapters.iter().map(|(path, _)| path.clone()).collect()
    };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": first.scale * rank as f64,
        "lora_dropout": first.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_rslora": false,
        "use_dora": false,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
