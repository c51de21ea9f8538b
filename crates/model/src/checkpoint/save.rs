//! Writing a Hugging Face directory that transformers loads: `config.json` and `model.safetensors`, in f32 or 16 bits, or
//! shards with their index where the weights are larger than one file may be.
//!
//! Each file is written beside its place and renamed when it is complete, so that a full disk or a kill leaves the old file
//! or none; of shards the index is the last. One tensor at a time is in memory beside the model.

use std::collections::BTreeMap;
use std::path::Path;

use burn_store::{FloatCastAdapter, ModuleSnapshot, SafetensorsStore};

use super::safetensors::{INDEX, SINGLE};
use crate::{Decoder, Dtype, Error, Result, weights};

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

/// burn-store hands on the system's message but not its kind, so a full disk is known by its text.
fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let message = error.to_string();
    let full = ["No space left", "os error 28", "not enough space", "quota exceeded"];
    let hint = if full.iter().any(|text| message.contains(text)) { " (the disk is full: free some space)" } else { "" };
    Error::checkpoint(path, format!("could not be written: {message}{hint}"))
}

#[cfg(test)]
mod tests {
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
                let index = files::read_json_value(&dir.path().join(INDEX)).unwrap();
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
