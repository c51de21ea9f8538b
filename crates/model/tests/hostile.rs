//! Files of models as anybody may have written them: refused or read, and no more. `fuzz/` has the same readers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use model::checkpoint::peft::{load_adapter, save_adapter};
use model::checkpoint::{gguf, load};
use model::{DecoderConfig, Lora};
use mutate::Format;

fn fixture(name: &str) -> PathBuf {
    mutate::repository().join("crates/model/tests/fixtures").join(name)
}

fn copy(name: &str) -> tempfile::TempDir {
    let dir = mutate::scratch();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn read(dir: &Path) -> Result<(), String> {
    load(dir, &Device::default()).map(drop).map_err(|error| error.to_string())
}

pub fn weights() -> Format {
    let dir = copy("tiny-llama");
    let path = dir.path().join("model.safetensors");
    Format::of_file("safetensors", vec![fs::read(&path).unwrap()], path, move |_| read(dir.path()))
}

/// The length before the header is right, so that what is in it is looked at.
pub fn headers() -> Format {
    let dir = copy("tiny-llama");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    Format::new("safetensors header", vec![whole[8..end].to_vec()], move |header| {
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length, header, &whole[end..]].concat()).map_err(|error| error.to_string())?;
        read(dir.path())
    })
}

pub fn indexes() -> Format {
    let dir = copy("tiny-llama-sharded");
    let path = dir.path().join("model.safetensors.index.json");
    Format::of_file("index", vec![fs::read(&path).unwrap()], path, move |_| read(dir.path()))
}

pub fn configurations() -> Format {
    let dir = mutate::scratch();
    let families = ["llama", "llama3", "gemma", "gemma2", "gemma3", "mistral", "qwen2", "qwen3"];
    let sound = families.map(|family| fs::read(fixture(&format!("tiny-{family}/config.json"))).unwrap());
    Format::of_file("config", sound.to_vec(), dir.path().join("config.json"), move |path| {
        let config = DecoderConfig::from_dir(dir.path()).map_err(|error| error.to_string())?;
        config.hidden_parameters();
        DecoderConfig::from_json(&config.to_json(), path).map(drop).map_err(|error| error.to_string())
    })
}

pub fn gguf_files() -> Format {
    let dir = mutate::scratch();
    let names = ["llama", "llama3", "gemma", "gemma2", "gemma3", "qwen3"];
    let sound = names.map(|name| fs::read(fixture(&format!("gguf/tiny-{name}.gguf"))).unwrap());
    Format::of_file("GGUF", sound.to_vec(), dir.path().join("model.gguf"), move |path| {
        let _dir = &dir;
        gguf::load(path, &Device::default()).map(drop).map_err(|error| error.to_string())
    })
}

/// An adapter of rank 2 on every projection, read for the model that it is of.
fn adapter(name: &'static str, file: &str) -> Format {
    let (dir, base) = (mutate::scratch(), load(&fixture("tiny-llama"), &Device::default()).unwrap());
    let (mut adapted, device) = (base.clone(), base.device());
    for (_, linear) in adapted.linears_mut() {
        let [out_features, in_features] = linear.weight.dims();
        let half = |shape: [usize; 2]| Param::from_tensor(Tensor::full(shape, 0.5, &device));
        let (a, b) = (half([2, in_features]), half([out_features, 2]));
        linear.lora = Some(Lora { a, b, scale: 4.0, dropout: 0.05, seed: 0 });
    }
    save_adapter(&adapted, dir.path()).unwrap();
    let path = dir.path().join(file);
    Format::of_file(name, vec![fs::read(&path).unwrap()], path, move |_| {
        load_adapter(&mut base.clone(), dir.path()).map_err(|error| error.to_string())
    })
}

pub fn configurations_of_adapters() -> Format {
    adapter("adapter_config", "adapter_config.json")
}

pub fn weights_of_adapters() -> Format {
    adapter("adapter_model", "adapter_model.safetensors")
}

#[test]
fn weights_survive() {
    weights().survive(10_000);
    headers().survive(10_000);
    indexes().survive(10_000);
}

#[test]
fn adapters_survive() {
    configurations_of_adapters().survive(10_000);
    weights_of_adapters().survive(10_000);
}

#[test]
fn configurations_survive() {
    configurations().survive(10_000);
}

#[test]
fn gguf_files_survive() {
    gguf_files().survive(10_000);
}
