//! Writing adapters so that peft loads them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ::safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::{CONFIG, WEIGHTS, tensor_names};
use crate::{Decoder, Dtype as Precision, Error, Lora, Result};

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
