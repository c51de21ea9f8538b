//! LoRA adapters as peft keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter goes where its tensors say. What would change the computation and is not done here
//! (DoRA, trained biases or whole modules, ranks that differ from layer to layer, initialisations
//! that change the base weights) is refused by name, never ignored.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ::safetensors::tensor::{Dtype, TensorView};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;
use serde_json::{Value, json};

use super::safetensors::Files;
use super::{check_finite, missing};
use crate::{Decoder, Error, Linear, Lora, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys of `adapter_config.json` that must be absent, null, false or empty.
const UNSUPPORTED: [&str; 15] = [
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
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
}

impl Settings {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        let wrong = |reason: String| Error::checkpoint(path, format!("not an adapter that can be used: {reason}"));
        let json: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let settings = Self::deserialize(&json).map_err(|error| wrong(error.to_string()))?;
        if settings.peft_type != "LORA" {
            return Err(wrong(format!("peft_type is `{}`; supported: LORA", settings.peft_type)));
        }
        if let Some((key, value)) = unsupported(&json) {
            return Err(wrong(format!("key `{key}` = {value} is not supported")));
        }
        if settings.r == 0 || !settings.lora_alpha.is_finite() || !(0.0..1.0).contains(&settings.lora_dropout) {
            let Self { r, lora_alpha, lora_dropout, .. } = settings;
            let reason = "r must be above 0, lora_alpha finite, lora_dropout at least 0 and below 1";
            return Err(wrong(format!("r = {r}, lora_alpha = {lora_alpha}, lora_dropout = {lora_dropout}: {reason}")));
        }
        Ok(settings)
    }

    fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// The first key that asks for something this crate does not compute.
fn unsupported(json: &Value) -> Option<(&str, &Value)> {
    let neutral = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    let asked =
        UNSUPPORTED.iter().find_map(|&key| json.get(key).filter(|value| !neutral(value)).map(|value| (key, value)));
    let other = |key, known: &[Value]| json.get(key).filter(|value| !known.contains(value)).map(|value| (key, value));
    asked
        .or_else(|| other("bias", &[json!("none"), Value::Null]))
        .or_else(|| other("init_lora_weights", &[json!(true), json!(false), json!("gaussian"), Value::Null]))
}

/// Whether `dir` holds an adapter rather than a model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// Attaches the adapter of a peft directory; adapters that are there already are replaced where
/// it has its own.
///
/// # Errors
/// When a file is missing or damaged, the adapter needs something that is not supported, or its
/// tensors do not fit the decoder. The decoder is unchanged then.
pub fn load_adapter(decoder: &mut Decoder, dir: &Path) -> Result<()> {
    let settings = Settings::read(&dir.join(CONFIG))?;
    let files = Files::open_file(&dir.join(WEIGHTS))?;
    let shapes = files.shapes();
    let device = decoder.device();
    let mut unknown: BTreeSet<&String> = shapes.keys().collect();
    let mut adapters = HashMap::new();
    for (path, linear) in decoder.linears() {
        let names = tensor_names(&path);
        let there = names.each_ref().map(|name| unknown.remove(name));
        if there == [false, false] {
            continue;
        }
        let [out_features, in_features] = linear.weight.dims();
        let shapes_of_layer = [[settings.r, in_features], [out_features, settings.r]];
        let [a, b] = [0, 1].map(|which| read(&files, &names[which], shapes_of_layer[which], &device));
        adapters.insert(path, Lora { a: a?, b: b?, scale: settings.scale(), dropout: settings.lora_dropout, seed: 0 });
    }
    if let Some(name) = unknown.first() {
        return Err(Error::checkpoint(
            files.path(),
            format!("tensor `{name}` belongs to no projection of the decoder"),
        ));
    }
    if adapters.is_empty() {
        return Err(Error::checkpoint(files.path(), "holds no adapter"));
    }
    for (path, linear) in decoder.linears_mut() {
        if let Some(adapter) = adapters.remove(&path) {
            linear.lora = Some(adapter);
        }
    }
    Ok(())
}

/// peft's names of a projection's two tensors.
fn tensor_names(path: &str) -> [String; 2] {
    ["A", "B"].map(|part| format!("base_model.model.{path}.lora_{part}.weight"))
}

fn read(files: &Files, name: &str, expected: [usize; 2], device: &Device) -> Result<Param<Tensor<2>>> {
    let shapes = files.shapes();
    let found = shapes.get(name).ok_or_else(|| missing(files.path(), name))?;
    if *found != expected {
        let reason = format!("tensor `{name}` has shape {found:?}, but model and rank ask for {expected:?}");
        return Err(Error::checkpoint(files.path(), reason));
    }
    let values = check_finite(files.path(), name, files.read(name)?)?;
    Ok(Param::from_tensor(Tensor::from_data(TensorData::new(values, expected), device)))
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
            ("modules_to_save", json!(["lm_head"]), "key `modules_to_save` = [\"lm_head\"]"),
            ("use_dora", json!(true), "key `use_dora` = true"),
            ("bias", json!("all"), "key `bias` = \"all\""),
            ("rank_pattern", json!({"q_proj": 4}), "key `rank_pattern`"),
            ("init_lora_weights", json!("pissa"), "key `init_lora_weights` = \"pissa\""),
            ("r", json!(0), "r must be above 0"),
            ("r", json!("two"), "invalid type"),
            ("lora_dropout", json!(1.0), "below 1"),
            ("r", json!(3), "ask for [3, 16]"),
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
