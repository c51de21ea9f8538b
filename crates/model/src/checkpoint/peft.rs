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
    /// The first pattern that fits a projection decides its alpha; ranks are those of the tensors.
    #[serde(default)]
    alpha_pattern: Option<Map<String, Value>>,
}

impl Settings {
    fn read(path: &Path) -> Result<Self> {
        let bytes = files::read_regular(path, MAX_CONFIG)?;
        let wrong = |reason: String| Error::checkpoint(path, format!("not an adapter that can be used: {reason}"));
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
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

    /// The alpha of each pattern, in the file's order; a pattern fits a projection by the end of its path.
    fn alphas(&self, path: &Path) -> Result<Vec<(Regex, f64)>> {
        let pattern = |(pattern, alpha): (&String, &Value)| {
            let wrong = |reason: String| {
                Error::checkpoint(path, format!("key `alpha_pattern`, `{pattern}`: {reason}; {}", way_out(path)))
            };
            let alpha = alpha.as_f64().filter(|alpha| alpha.is_finite()).ok_or_else(|| wrong(format!("{alpha}")))?;
            let fits = Regex::new(&format!(r"^(.*\.)?(?:{pattern})$")).map_err(|error| wrong(error.to_string()))?;
            Ok((fits, alpha))
        };
        self.alpha_pattern.iter().flatten().map(pattern).collect()
    }

    fn scale(&self, alphas: &[(Regex, f64)], path: &str, rank: usize) -> f64 {
        let own = alphas.iter().find(|(pattern, _)| pattern.is_match(path));
        let alpha = own.map_or(self.lora_alpha, |(_, alpha)| *alpha);
        alpha / if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
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
    let alphas = settings.alphas(&config)?;
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
        let rank = shapes.get(&names[0]).and_then(|shape| shape.first().copied()).unwrap_or(settings.r).max(1);
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
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32;
        row.iter_mut().for_each(|x| *x *= magnitude / norm);
    }
    Ok(Tensor::from_data(TensorData::new(values, [rows, width]), &device))
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{config, numbered};
    use super::*;
    use crate::weights;
    use std::fs;

    fn base() -> Decoder {
        numbered(&config("llama", true))
    }

    /// A decoder with adapters of rank 2 on the projections that `wanted` accepts.
    fn adapted(wanted: impl Fn(&str) -> bool) -> Decoder {
        let mut decoder = base();
        let device = decoder.device();
        let mut next = 0.0;
        for (path, linear) in decoder.linears_mut().filter(|(path, _)| wanted(path)) {
            let [out_features, in_features] = linear.weight.dims();
            next += 0.01 + path.len() as f64 * 1e-4;
            linear.lora = Some(Lora {
                a: Param::from_tensor(Tensor::full([2, in_features], next, &device)),
                b: Param::from_tensor(Tensor::full([out_features, 2], -next, &device)),
                scale: 4.0,
                dropout: 0.05,
                seed: 0,
            });
        }
        decoder
    }

    fn saved() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        save_adapter(&adapted(|_| true), dir.path()).unwrap();
        dir
    }

    fn change(dir: &Path, key: &str, value: Value) {
        let path = dir.join(CONFIG);
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        fs::write(path, json.to_string()).unwrap();
    }

    #[test]
    fn a_saved_adapter_is_loaded_back_bit_for_bit() {
        for wanted in
            [(|_| true) as fn(&str) -> bool, |path| path.ends_with("q_proj"), |path| path.contains("layers.1.mlp")]
        {
            let decoder = adapted(wanted);
            let dir = tempfile::tempdir().unwrap();
            save_adapter(&decoder, dir.path()).unwrap();
            let mut loaded = base();
            load_adapter(&mut loaded, dir.path()).unwrap();
            let all = |decoder| weights::read(decoder, |_| true).unwrap();
            assert_eq!(all(&loaded), all(&decoder));
            for (_, linear) in loaded.linears() {
                assert!(linear.lora.iter().all(|lora| (lora.scale, lora.dropout) == (4.0, 0.05)));
            }
        }
    }

    #[test]
    fn the_scale_follows_the_rank_or_its_root() {
        let dir = saved();
        change(dir.path(), "use_rslora", json!(true));
        let mut decoder = base();
        load_adapter(&mut decoder, dir.path()).unwrap();
        let (_, linear) = decoder.linears().next().unwrap();
        assert_eq!(linear.lora.as_ref().unwrap().scale, 8.0 / 2f64.sqrt());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let cases = [
            ("peft_type", json!("IA3"), "peft_type is `IA3`; supported: LORA"),
            (
                "trainable_token_indices",
                json!([1]),
                "key `trainable_token_indices` = [1] is not supported; merge it first",
            ),
            ("use_dora", json!(true), "lora_magnitude_vector` is missing"),
            ("alpha_pattern", json!({"(?=q)": 4}), "key `alpha_pattern`, `(?=q)`"),
            ("init_lora_weights", json!("pissa"), "key `init_lora_weights` = \"pissa\""),
            ("r", json!(0), "r must be above 0"),
            ("r", json!("two"), "invalid type"),
            ("lora_dropout", json!(1.0), "below 1"),
        ];
        for (key, value, wanted) in cases {
            let dir = saved();
            change(dir.path(), key, value);
            let mut decoder = base();
            let message = load_adapter(&mut decoder, dir.path()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{wanted}: {message}");
            assert!(decoder.linears().all(|(_, linear)| linear.lora.is_none()), "the decoder is unchanged");
        }
    }

    /// What peft merged, beside the adapters it merged: a case that is handed to the project.
    #[test]
    #[ignore = "needs ../shared/cases"]
    fn merged_adapters_are_what_peft_merges() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/adapters-that-peft-merges");
        let cases = if cases.exists() { cases } else { "/work/shared/cases/adapters-that-peft-merges".into() };
        for name in ["rank-pattern", "alpha-pattern", "dora", "save-norm", "save-head"] {
            let base = cases.join(if name == "save-head" { "base-untied" } else { "base" });
            let mut found = super::super::load(&base, &Device::default()).unwrap();
            load_adapter(&mut found, &cases.join(name)).unwrap();
            for (_, linear) in found.linears_mut() {
                linear.weight = Param::from_tensor(linear.merged_weight());
                linear.lora = None;
            }
            let wanted = super::super::load(&cases.join(format!("merged-{name}")), &Device::default()).unwrap();
            let [found, wanted] = [found, wanted].map(|decoder| weights::read(&decoder, |_| true).unwrap());
            let mut worst = 0.0f32;
            for ((info, found), (other, wanted)) in found.iter().zip(&wanted) {
                assert_eq!(info, other);
                worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            }
            println!("{name}: largest difference {worst:e}");
            assert!(worst < 2e-7, "{name}: {worst}"); // a row's length is rounded once in another order
        }
    }

    #[test]
    fn ranks_and_alphas_may_differ_by_layer() {
        let dir = saved();
        change(dir.path(), "r", json!(8));
        change(dir.path(), "rank_pattern", json!({"q_proj": 2}));
        change(
            dir.path(),
            "alpha_pattern",
            json!({".*\\.layers\\.1\\..*(q_proj|k_proj)": 32, "layers.1.mlp.up_proj": 6}),
        );
        let mut decoder = base();
        load_adapter(&mut decoder, dir.path()).unwrap();
        let scales: Vec<f64> = decoder.linears().map(|(_, linear)| linear.lora.as_ref().unwrap().scale).collect();
        assert_eq!(scales, [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 16.0, 16.0, 4.0, 4.0, 4.0, 3.0, 4.0]);
    }

    #[test]
    fn half_an_adapter_and_foreign_tensors_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        save_adapter(&adapted(|path| path.ends_with("0.mlp.up_proj")), dir.path()).unwrap();
        let path = dir.path().join(WEIGHTS);
        let bytes = fs::read(&path).unwrap();
        for (from, wanted) in [("lora_B", "lora_B.weight` is missing"), ("layers.0", "belongs to no projection")] {
            let mut changed = bytes.clone();
            for at in (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())) {
                changed[at + from.len() - 1] = b'9';
            }
            fs::write(&path, changed).unwrap();
            let message = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn adapters_that_one_file_cannot_hold_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(save_adapter(&base(), dir.path()).unwrap_err().to_string().contains("no adapter is attached"));
        let mut decoder = adapted(|_| true);
        if let Some((_, linear)) = decoder.linears_mut().last() {
            linear.lora.as_mut().unwrap().scale = 1.0;
        }
        let message = save_adapter(&decoder, dir.path()).unwrap_err().to_string();
        assert!(message.contains("`model.layers.1.mlp.down_proj` has another rank, scale"), "{message}");
        assert!(super::super::save(&decoder, dir.path()).unwrap_err().to_string().contains("merge adapters before"));
    }
}
