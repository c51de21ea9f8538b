//! What the golden tests share: the fixtures of `scripts/goldens/lora.py` and the model they start from.
#![allow(clippy::unwrap_used, missing_docs, dead_code)] // no test uses all of it

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use finetune::{LoraSettings, Target, TrainSettings, lora};
use model::{Decoder, DecoderConfig, weights};
use prompts::tokenizer::Encoded;
use safetensors::SafeTensors;
use serde_json::Value;

pub fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures(path)).unwrap()).unwrap()
}

pub fn tensors(path: &str) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(fixtures(path)).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| (name.to_owned(), floats(view.data())))
        .collect()
}

/// `decoder` with the values of `tensors`, whose names `rename` makes from a parameter's.
pub fn filled(decoder: Decoder, tensors: &HashMap<String, Vec<f32>>, rename: impl Fn(&str) -> String) -> Decoder {
    let mut used = 0;
    let decoder = weights::replace(decoder, |info| {
        let values = tensors.get(&rename(&info.name))?;
        used += 1;
        Some(TensorData::new(values.clone(), info.shape.clone()))
    });
    assert_eq!(used, tensors.len(), "every tensor of the fixture has its place");
    decoder
}

pub fn peft_name(name: &str) -> String {
    let name = name.replace(".lora.a", ".lora_A.weight").replace(".lora.b", ".lora_B.weight");
    format!("base_model.model.{name}")
}

pub fn batches() -> Vec<Vec<Encoded>> {
    let numbers =
        |value: &Value| -> Vec<u32> { value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect() };
    let row = |row: &Value| Encoded {
        ids: numbers(&row["ids"]),
        loss_mask: numbers(&row["mask"]).into_iter().map(|counts| counts == 1).collect(),
    };
    let batch = |batch: &Value| batch.as_array().unwrap().iter().map(row).collect();
    json("tests/fixtures/lora/batches.json").as_array().unwrap().iter().map(batch).collect()
}

pub fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The model that the goldens start from.
pub fn tiny_llama() -> Decoder {
    let config = DecoderConfig::from_dir(&fixtures("../model/tests/fixtures/tiny-llama")).unwrap();
    let base = tensors("../model/tests/fixtures/tiny-llama/model.safetensors");
    filled(Decoder::zeros(&config, &Device::default()), &base, str::to_owned)
}

/// The settings of the LoRA goldens, and tiny-llama with their adapter start.
pub fn start() -> (TrainSettings, Decoder) {
    let given = json("tests/fixtures/lora/settings.json");
    let number = |key: &str| given[key].as_f64().unwrap();
    let targets: Vec<Target> = serde_json::from_value(given["targets"].clone()).unwrap();
    let lora =
        LoraSettings { rank: number("rank") as usize, alpha: number("alpha"), dropout: number("dropout"), targets };
    let settings = TrainSettings {
        learning_rate: number("learning_rate"),
        weight_decay: number("weight_decay"),
        epsilon: number("epsilon"),
        betas: serde_json::from_value(given["betas"].clone()).unwrap(),
        lora: lora.clone(),
        ..TrainSettings::default()
    };
    let start = tensors("tests/fixtures/lora/adapter-start/adapter_model.safetensors");
    let decoder = filled(lora::attach(tiny_llama(), &lora, 0), &start, peft_name);
    (settings, decoder)
}
