//! Writing a Hugging Face directory that transformers loads: `config.json` and `model.safetensors`, in f32 or 16 bits, or
//! shards with their index where the weights are larger than one file may be.
//!
//! Each file is written beside its place and renamed when it is complete, so that a full disk or a kill leaves the old file
//! or none; of shards the index is the last. One tensor at a time is in memory beside the model.

use std::collections::BTreeMap;
use std::path::Path;

use burn_store::{FloatCastAdapter, ModuleSnapshot, SafetensorsStore};
use serde_json::Value;

use super::safetensors::{INDEX, SINGLE, inside};
use crate::{Decoder, Dtype, Error, Result, weights};

/// Files that belong to a model but not to its weights.
pub const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.jinja",
];

/// A companion may have this many bytes.
const LARGEST: u64 = 512 << 20;

/// Keys of a source's `config.json` that describe its weights and not the saved ones.
const OF_THE_SOURCE: [&str; 3] = ["dtype", "torch_dtype", "quantization_config"];

/// Bytes of weights that a file has at most, as transformers has it.
pub const MAX_SHARD: u64 = 5_000_000_000;

/// Writes `config.json` and the weights in f32 into `dir`, which is made when it is not there.
///
/// # Errors
/// When an adapter is attached (merge it first), or a file cannot be written.
pub fn save(decoder: &Decoder, dir: &Path) -> Result<()> {
    save_as(decoder, Dtype::F32, MAX_SHARD, dir)
}

/// The same with weights rounded to a precision, which `config.json` names, in files with `max_shard` bytes of weights at
/// most; a tensor that is larger has one of its own.
///
/// # Errors
/// As [`save()`], and when a value is not finite or too large for the precision.
pub fn save_as(decoder: &Decoder, dtype: Dtype, max_shard: u64, dir: &Path) -> Result<()> {
    if let Some(info) = weights::infos(decoder).into_iter().find(|info| info.name.contains(".lora.")) {
        return Err(Error::Input(format!("`{}` is an adapter's: merge adapters before saving a model", info.name)));
    }
    weights::check(decoder, dtype)?;
    files::create_dir(dir)?;
    let sizes = weights::infos(decoder).into_iter().map(|info| {
        let bytes = (info.len() * dtype.in_burn().size()) as u64;
        (info.name, bytes)
    });
    let shards = divide(sizes, max_shard);
    let name = |index: usize| match shards.len() {
        1 => SINGLE.to_owned(),
        count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let names: Vec<String> = (0..shards.len()).map(name).collect();
    for (file, shard) in names.iter().zip(&shards) {
        write_shard(decoder, dtype, shard, &dir.join(file))?;
    }
    remove_earlier(dir, &names)?;
    if shards.len() > 1 {
        let file_of = |(file, shard): (&String, &Shard)| -> Vec<(String, String)> {
            shard.names.iter().map(|name| (name.clone(), file.clone())).collect()
        };
        let map: BTreeMap<_, _> = names.iter().zip(&shards).flat_map(file_of).collect();
        let total: u64 = shards.iter().map(|shard| shard.bytes).sum();
        let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
        files::write_json(&dir.join(INDEX), &index)?;
    }
    let mut config = decoder.config().to_json();
    config["torch_dtype"] = dtype.torch_name().into();
    Ok(files::write_json(&dir.join("config.json"), &config)?)
}

/// The tensors of one file.
#[derive(Debug, Default)]
struct Shard {
    names: Vec<String>,
    bytes: u64,
}

/// Divides tensors, in their order, among files with `most` bytes at most.
fn divide(tensors: impl Iterator<Item = (String, u64)>, most: u64) -> Vec<Shard> {
    let mut shards = vec![Shard::default()];
    for (name, bytes) in tensors {
        if shards.last().is_some_and(|last| !last.names.is_empty() && last.bytes.saturating_add(bytes) > most) {
            shards.push(Shard::default());
        }
        if let Some(last) = shards.last_mut() {
            last.names.push(name);
            last.bytes += bytes;
        }
    }
    shards
}

fn write_shard(decoder: &Decoder, dtype: Dtype, shard: &Shard, path: &Path) -> Result<()> {
    files::write_at(path, |scratch| {
        // The store writes a new file of mode 0600 in the place of one that is there but keeps its mode.
        let store = SafetensorsStore::from_file(scratch).clear_metadata().metadata("format", "pt").overwrite(true);
        let store = store.with_full_paths(shard.names.iter().cloned());
        let mut store = store.with_to_adapter(FloatCastAdapter::to(dtype.in_burn()));
        decoder.save_into(&mut store).map_err(|error| unwritable(path, &error))
    })
}

/// Removes what an earlier model left in a directory and would be read with or before the files of the new one: other
/// weights, an index, an adapter.
fn remove_earlier(dir: &Path, new: &[String]) -> Result<()> {
    let is_new = |name: &str| new.iter().any(|new| new == name);
    for name in
        [INDEX, "adapter_config.json", "adapter_model.safetensors", SINGLE].into_iter().filter(|name| !is_new(name))
    {
        files::remove(&dir.join(name))?;
    }
    for entry in std::fs::read_dir(dir).map_err(|source| Error::io(dir, source))? {
        let path = entry.map_err(|source| Error::io(dir, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let shard = numbers.and_then(|rest| rest.split_once("-of-"));
        if shard.is_some_and(|(number, count)| is_number(number) && is_number(count)) && !is_new(name) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Copies what belongs to a model besides its weights (tokenizer, chat template, generation
/// settings) from one model directory to another, and adds the keys of the source's `config.json`
/// that the target's has not, such as `eos_token_id`.
///
/// # Errors
/// When a file cannot be read or written, is a link to the outside of its directory, or a `config.json` is not an object.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    copy_companions_of(&[from], to)
}

/// The same from several directories, each file from the first that has it: those of an adapter and its base. What none
/// of them has is removed from the target, where another model may have left it.
///
/// # Errors
/// As [`copy_companions`].
pub fn copy_companions_of(from: &[&Path], to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let Some(dir) = from.iter().find(|dir| dir.join(name).symlink_metadata().is_ok()) else {
            files::remove(&to.join(name))?;
            continue;
        };
        let source = inside(dir, name).map_err(|reason| Error::checkpoint(dir.join(name), reason))?;
        files::write_whole(&to.join(name), &files::read_regular(&source, LARGEST)?)?;
    }
    copy_more_templates(from, to)?;
    let path = to.join("config.json");
    let mut config = read_object(&path)?;
    let source = from.iter().map(|dir| dir.join("config.json")).find(|path| path.exists());
    for (key, value) in source.map(|path| read_object(&path)).transpose()?.unwrap_or_default() {
        if !OF_THE_SOURCE.contains(&key.as_str()) {
            config.entry(key).or_insert(value);
        }
    }
    Ok(files::write_json(&path, &config)?)
}

/// Copies the directory of further chat templates, from the first directory that has one.
fn copy_more_templates(from: &[&Path], to: &Path) -> Result<()> {
    const DIR: &str = "additional_chat_templates";
    files::remove(&to.join(DIR))?;
    let Some(dir) = from.iter().find(|dir| dir.join(DIR).is_dir()) else { return Ok(()) };
    for entry in std::fs::read_dir(dir.join(DIR)).map_err(|source| Error::io(dir.join(DIR), source))? {
        let name = entry.map_err(|source| Error::io(dir.join(DIR), source))?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".jinja")).map(|name| format!("{DIR}/{name}"))
        else {
            continue;
        };
        let source = inside(dir, &name).map_err(|reason| Error::checkpoint(dir.join(&name), reason))?;
        files::write_whole(&to.join(&name), &files::read_regular(&source, LARGEST)?)?;
    }
    Ok(())
}

fn read_object(path: &Path) -> Result<serde_json::Map<String, Value>> {
    let value = files::json_value(&files::read_regular(path, LARGEST)?).and_then(serde_json::from_value);
    value.map_err(|source| Error::ConfigJson { path: path.to_path_buf(), source })
}

/// burn-store hands on the system's message but not its kind, so a full disk is known by its text.
fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let message = error.to_string();
    let full = ["No space left", "os error 28", "not enough space", "quota exceeded"];
    let hint = if full.iter().any(|text| message.contains(text)) { " (the disk is full: free some space)" } else { "" };
    Error::checkpoint(path, format!("could not be written: {message}{hint}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::load;
    use super::super::tests::{config, numbered};
    use super::*;
    use burn::tensor::{Device, TensorData};
    use std::fs;

    #[test]
    fn a_saved_model_is_loaded_back_bit_for_bit() {
        for config in [config("llama", true), config("llama", false), config("qwen2", true)] {
            let dir = tempfile::tempdir().unwrap();
            let decoder = numbered(&config);
            save(&decoder, dir.path()).unwrap();
            let loaded = load(dir.path(), &Device::default()).unwrap();
            assert_eq!(loaded.config(), decoder.config());
            let all = |decoder| weights::read(decoder, |_| true).unwrap();
            assert_eq!(all(&loaded), all(&decoder));
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["config.json", "model.safetensors"], "nothing temporary stays");
        }
    }

    #[test]
    fn tensors_are_divided_in_their_order() {
        let sizes = [3, 3, 5, 1, 9, 1].into_iter().enumerate().map(|(at, bytes)| (at.to_string(), bytes));
        let shards = divide(sizes, 6);
        let names: Vec<String> = shards.iter().map(|shard| shard.names.join(" ")).collect();
        assert_eq!(names, ["0 1", "2 3", "4", "5"]);
        assert_eq!(shards.iter().map(|shard| shard.bytes).collect::<Vec<_>>(), [6, 6, 9, 1]);
    }

    #[test]
    fn large_models_are_saved_in_shards_and_loaded_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let decoder = numbered(&config("llama", false));
        let all = |decoder: &Decoder| weights::read(decoder, |_| true).unwrap();
        let files_of_weights = || -> Vec<String> {
            let names =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
            names.sort();
            names
        };
        save(&decoder, dir.path()).unwrap();
        let mut counts = Vec::new();
        for (dtype, most) in [(Dtype::F32, 1), (Dtype::F32, 4096), (Dtype::Bf16, 4096), (Dtype::F32, u64::MAX)] {
            save_as(&decoder, dtype, most, dir.path()).unwrap();
            let names = files_of_weights();
            counts.push(names.len());
            if names.len() > 1 {
                let count = names.len();
                let wanted: Vec<_> = (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors")).collect();
                assert_eq!(names, wanted, "of this model alone");
                let index = read_object(&dir.path().join(INDEX)).unwrap();
                let bytes = dtype.in_burn().size();
                let total: usize = weights::infos(&decoder).iter().map(|info| bytes * info.len()).sum();
                assert_eq!(index["metadata"]["total_size"], total);
            }
            let loaded = load(dir.path(), &Device::default()).unwrap();
            assert_eq!(all(&loaded), all(&weights::round(decoder.clone(), dtype).unwrap()));
            assert_eq!(super::super::stored_dtype(dir.path()).unwrap(), dtype);
        }
        assert_eq!(files_of_weights(), [SINGLE], "shards are gone");
        assert!(!dir.path().join(INDEX).exists());
        assert!(counts[0] == all(&decoder).len() && counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 1);
    }

    #[test]
    fn what_an_earlier_model_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let earlier = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json"];
        let others = ["model-notes.txt", "notes.safetensors", "README.md"];
        earlier.iter().chain(&others).for_each(|name| fs::write(dir.path().join(name), "").unwrap());
        save(&numbered(&config("llama", true)), dir.path()).unwrap();
        assert!(earlier.iter().all(|name| !dir.path().join(name).exists()));
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
        assert!(load(dir.path(), &Device::default()).is_ok());
    }

    #[test]
    fn a_value_that_a_precision_cannot_hold_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let decoder = weights::replace(numbered(&config("llama", true)), |info| {
            (info.name == "model.norm.weight").then(|| TensorData::new(vec![1e5_f32; 16], [16]))
        });
        let to = dir.path().join("m");
        let message = save_as(&decoder, Dtype::F16, MAX_SHARD, &to).unwrap_err().to_string();
        assert!(message.contains("`model.norm.weight` holds 100000 at element 0, which f16 cannot hold"), "{message}");
        assert!(!to.exists());
        assert!(weights::round(decoder.clone(), Dtype::F16).is_err());
        for value in [f32::INFINITY, f32::NAN] {
            let broken = weights::replace(decoder.clone(), |info| {
                (info.name == "model.norm.weight").then(|| TensorData::new([vec![1.0; 15], vec![value]].concat(), [16]))
            });
            for dtype in Dtype::ALL {
                let message = save_as(&broken, dtype, MAX_SHARD, &to).unwrap_err().to_string();
                assert!(message.contains("`model.norm.weight` holds") && message.contains("finite"), "{message}");
                assert!(!to.exists() && weights::round(broken.clone(), dtype).is_err());
            }
        }
        save_as(&decoder, Dtype::Bf16, MAX_SHARD, &to).unwrap();
        assert_eq!(super::super::stored_dtype(&to).unwrap(), Dtype::Bf16);
    }

    #[test]
    fn companions_are_copied_and_unknown_keys_kept() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let decoder = numbered(&config("llama", true));
        let source = r#"{"model_type": "llama", "hidden_size": 3, "eos_token_id": [2, 5], "dtype": "bfloat16"}"#;
        fs::write(from.path().join("config.json"), source).unwrap();
        fs::write(from.path().join("tokenizer.json"), "{}").unwrap();
        save(&decoder, to.path()).unwrap();
        copy_companions(from.path(), to.path()).unwrap();
        let config = read_object(&to.path().join("config.json")).unwrap();
        assert_eq!(config["eos_token_id"], serde_json::json!([2, 5]));
        assert_eq!(config["hidden_size"], 16);
        assert!(!config.contains_key("dtype"));
        assert_eq!(fs::read_to_string(to.path().join("tokenizer.json")).unwrap(), "{}");
        assert!(load(to.path(), &Device::default()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_companion_outside_its_directory_is_not_copied_and_a_stale_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let [from, to, secret] = ["snapshots/main", "to", "secret"].map(|name| root.path().join(name));
        save(&numbered(&config("llama", true)), &from).unwrap();
        save(&numbered(&config("llama", true)), &to).unwrap();
        fs::write(&secret, "private").unwrap();
        let link = from.join("merges.txt");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let message = copy_companions(&from, &to).unwrap_err().to_string();
        assert!(message.contains("merges.txt: points outside"), "{message}");
        assert!(!to.join("merges.txt").exists());
        fs::remove_file(&link).unwrap();
        // The layout of the hub's cache.
        fs::create_dir(root.path().join("blobs")).unwrap();
        fs::write(root.path().join("blobs/abc"), "merges").unwrap();
        std::os::unix::fs::symlink("../../blobs/abc", &link).unwrap();
        fs::write(to.join("chat_template.jinja"), "of an earlier model").unwrap();
        copy_companions(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("merges.txt")).unwrap(), "merges");
        assert!(!to.join("chat_template.jinja").exists());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("/dev/zero", from.join("tokenizer.json")).unwrap();
        assert!(copy_companions(&from, &to).is_err());
        fs::remove_file(from.join("tokenizer.json")).unwrap();
        fs::remove_file(from.join("config.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", from.join("config.json")).unwrap();
        let message = load(&from, &Device::default()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }

    #[test]
    fn an_adapters_companions_go_before_its_bases() {
        let [base, adapter, to] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        save(&numbered(&config("llama", true)), base.path()).unwrap();
        save(&numbered(&config("llama", true)), to.path()).unwrap();
        fs::write(base.path().join("tokenizer.json"), "base").unwrap();
        fs::write(base.path().join("merges.txt"), "base").unwrap();
        files::write_whole(&base.path().join("additional_chat_templates/tools.jinja"), b"base").unwrap();
        fs::write(adapter.path().join("tokenizer.json"), "own").unwrap();
        copy_companions_of(&[adapter.path(), base.path()], to.path()).unwrap();
        let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!([read("tokenizer.json"), read("merges.txt")], ["own", "base"]);
        assert_eq!(read("additional_chat_templates/tools.jinja"), "base");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let error = save(&numbered(&config("llama", true)), &blocked.join("model")).unwrap_err();
        assert!(error.to_string().contains("file/model"), "{error}");
    }

    #[test]
    fn a_full_disk_is_called_so() {
        let error = unwritable(Path::new("m"), &std::io::Error::from_raw_os_error(28));
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}
