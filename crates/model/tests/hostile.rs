//! Files of models as anybody may have written them: refused or read, and no more.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::DecoderConfig;
use model::checkpoint::{gguf, load};
use mutate::{survive, survive_file};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
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

#[test]
fn weights() {
    let dir = copy("tiny-llama");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    survive_file("safetensors", std::slice::from_ref(&whole), 1000, &path, || read(dir.path()));
    // The length before the header is right, so that what is in it is looked at.
    let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    survive("safetensors header", &[whole[8..end].to_vec()], 8000, |header| {
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length, header, &whole[end..]].concat()).map_err(|error| error.to_string())?;
        read(dir.path())
    });
}

#[test]
fn indexes() {
    let dir = copy("tiny-llama-sharded");
    let path = dir.path().join("model.safetensors.index.json");
    survive_file("index", &[fs::read(&path).unwrap()], 8000, &path, || read(dir.path()));
}

#[test]
fn configurations() {
    let dir = mutate::scratch();
    let path = dir.path().join("config.json");
    let families = ["llama", "llama3", "gemma", "gemma2", "gemma3", "mistral", "qwen2", "qwen3"];
    let sound = families.map(|family| fs::read(fixture(&format!("tiny-{family}/config.json"))).unwrap());
    survive_file("config", &sound, 10_000, &path, || {
        let config = DecoderConfig::from_dir(dir.path()).map_err(|error| error.to_string())?;
        config.hidden_parameters();
        DecoderConfig::from_json(&config.to_json(), &path).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn gguf_files() {
    let dir = mutate::scratch();
    let path = dir.path().join("model.gguf");
    let names = ["llama", "llama3", "gemma", "gemma2", "gemma3", "qwen3"];
    let sound = names.map(|name| fs::read(fixture(&format!("gguf/tiny-{name}.gguf"))).unwrap());
    survive_file("GGUF", &sound, 4000, &path, || {
        gguf::load(&path, &Device::default()).map(drop).map_err(|error| error.to_string())
    });
}
