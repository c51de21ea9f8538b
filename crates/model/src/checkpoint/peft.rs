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
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::check_finite;
use super::safetensors::{Files, inside};
use crate::{Decoder, Dtype as Precision, Error, Linear, Lora, Result, weights};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What older versions of peft wrote in its place.
const PICKLED: &str = "adapter_model.bin";
/// `adapter_config.json` may have this many bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Entries that `alpha_pattern` and `rank_pattern` may have each; one for each projection of the largest models is 900.
const MAX_PATTERNS: usize = 1024;
/// Bytes that one of them may take once it is compiled; the path of a projection takes a tenth.
const MAX_PATTERN: usize = 64 << 10;
/// The same of the pattern of a key that has one.
const MAX_MODULES: usize = 1 << 20;

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
    /// Which of these it is not of, named the same way.
    #[serde(default)]
    exclude_modules: Value,
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
        let settings = Self::deserialize(&json).map_err(|error| {
            let key = wrong_key(&json).map_or(String::new(), |key| format!("key `{key}`: "));
            wrong(format!("{key}{error}"))
        })?;
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

    /// Whether a projection is in a block that the adapter is of.
    fn has_block(&self, path: &str) -> bool {
        let block = weights::WeightInfo::new(path.to_owned(), Vec::new()).layer.map(|block| block as u64);
        match &self.layers_to_transform {
            Value::Array(blocks) if !blocks.is_empty() => blocks.iter().any(|one| one.as_u64() == block),
            one @ Value::Number(_) => one.as_u64() == block,
            _ => true,
        }
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
            let fits = compiled(&format!(r"^(.*\.)?(?:{pattern})$"), MAX_PATTERN).map_err(&wrong)?;
            Ok((fits, number))
        };
        let count = patterns.map_or(0, Map::len);
        if count > MAX_PATTERNS {
            let reason =
                format!("key `{key}` has {count} patterns, and at most {MAX_PATTERNS} are read; {}", way_out(path));
            return Err(Error::checkpoint(path, reason));
        }
        Ok(Self(patterns.into_iter().flatten().map(pattern).collect::<Result<_>>()?))
    }

    fn of(&self, path: &str) -> Option<f64> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, number)| *number)
    }
}

/// A pattern that takes so much memory at most.
fn compiled(pattern: &str, most: usize) -> std::result::Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(most).dfa_size_limit(most).build().map_err(|error| error.to_string())
}

/// The first key whose value is of another type than peft's.
fn wrong_key(json: &Value) -> Option<&String> {
    let sound = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1.0});
    json.as_object()?.iter().find_map(|(key, value)| {
        let mut one = sound.clone();
        one[key] = value.clone();
        Settings::deserialize(&one).is_err().then_some(key)
    })
}

/// Projections that a key names: all, those whose paths end so, or those whose paths a pattern fits whole.
enum Modules {
    All,
    Ends(Vec<String>),
    Pattern(Regex),
}

impl Modules {
    /// Those of a key's value, or `without` one.
    fn new(key: &str, value: &Value, without: Self, path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::checkpoint(path, format!("key `{key}`: {reason}"));
        match value {
            Value::Null => Ok(without),
            Value::String(pattern) => match compiled(&format!("^(?:{pattern})$"), MAX_MODULES) {
                Ok(pattern) => Ok(Self::Pattern(pattern)),
                Err(error) => Err(wrong(format!("{error}; {}", way_out(path)))),
            },
            Value::Array(ends) if ends.iter().all(Value::is_string) => {
                Ok(Self::Ends(ends.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
            }
            other => Err(wrong(format!("{other} is neither a list of names nor a pattern"))),
        }
    }

    fn has(&self, path: &str) -> bool {
        let ends_with =
            |end: &String| path.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        match self {
            Self::All => true,
            Self::Ends(ends) => ends.iter().any(ends_with),
            Self::Pattern(pattern) => pattern.is_match(path),
        }
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
        "is in PyTorch's own format, which is not read: convert it with python -c \"import torch, safetensors.torch as s; \
         s.save_file({{k: v.contiguous() for k, v in torch.load('{}', map_location='cpu', weights_only=True).items()}}, \
         '{}')\"",
        pickled.display(),
        path.display()
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
    let config = dir.join(CONFIG);
    inside(dir, CONFIG).map_err(|reason| Error::checkpoint(&config, reason))?;
    let settings = Settings::read(&config)?;
    let alphas = Patterns::new("alpha_pattern", settings.alpha_pattern.as_ref(), &config)?;
    let ranks = Patterns::new("rank_pattern", settings.rank_pattern.as_ref(), &config)?;
    let targets = match &settings.target_modules {
        Value::String(word) if word == "all-linear" => Modules::All,
        value => Modules::new("target_modules", value, Modules::All, &config)?,
    };
    let excluded = Modules::new("exclude_modules", &settings.exclude_modules, Modules::Ends(Vec::new()), &config)?;
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
        if !(targets.has(&path) && settings.has_block(&path)) {
            let reason = format!(
                "`{}` is of no projection that target_modules and layers_to_transform of {} name, so peft would leave it out; correct them, or take the tensor away",
                names[0],
                config.display()
            );
            return Err(Error::checkpoint(files.path(), reason));
        }
        if excluded.has(&path) {
            let reason = format!(
                "`{}` is of a projection that exclude_modules of {} names, so peft would leave it out; correct the key, or take \
                 the tensor away",
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
    save_adapters(&adapters(decoder), decoder.config().num_hidden_layers, dir)
}

/// The attached adapters with the paths of their projections.
pub fn adapters(decoder: &Decoder) -> Vec<(String, Lora)> {
    decoder.linears().filter_map(|(path, linear)| Some((path, linear.lora.clone()?))).collect()
}

/// As [`save_adapter`], of the adapters of a decoder with so many layers.
///
/// # Errors
/// As [`save_adapter`].
pub fn save_adapters(adapters: &[(String, Lora)], layers: usize, dir: &Path) -> Result<()> {
    let Some((_, first)) = adapters.first() else {
        return Err(Error::Input("no adapter is attached, so none can be saved".into()));
    };
    let settings = |lora: &Lora| (lora.a.dims()[0], lora.scale.to_bits(), lora.dropout.to_bits());
    if let Some((path, _)) = adapters.iter().find(|(_, lora)| settings(lora) != settings(first)) {
        let reason = "has another rank, scale or dropout than the first one; one file holds one of each";
        return Err(Error::Input(format!("the adapter of `{path}` {reason}")));
    }
    files::create_dir(dir)?;
    write_weights(adapters, &dir.join(WEIGHTS))?;
    let json = config_json(adapters, first, layers);
    Ok(files::write_json(&dir.join(CONFIG), &json)?)
}

fn write_weights(adapters: &[(String, Lora)], path: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (module, lora) in adapters {
        for (name, parameter) in tensor_names(module).into_iter().zip([&lora.a, &lora.b]) {
            let data = parameter.val().try_into_data_as::<f32>().map_err(|error| Error::Device(error.to_string()))?;
            Precision::F32.check(&name, data.as_slice().map_err(|error| Error::Device(error.to_string()))?)?;
            tensors.push((name, data));
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

fn config_json(adapters: &[(String, Lora)], first: &Lora, layers: usize) -> Value {
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
