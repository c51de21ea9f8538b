//! Writing a Hugging Face directory that transformers loads: `config.json` and `model.safetensors`, in f32 or 16 bits, or
//! shards with their index where the weights are larger than one file may be.
//!
//! Each file is written beside its place and renamed when it is complete, so that a full disk or a kill leaves the old file
//! or none; of shards the index is the last. One tensor at a time is in memory beside the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{FloatCastAdapter, ModuleAdapter, ModuleContext, ModuleSnapshot, SafetensorsStore};

use super::layout::{self, Precisions, Shard};
use super::safetensors::{Files, INDEX, SINGLE};
use crate::weights::WeightInfo;
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
    check(decoder, dtype)?;
    let precisions = layout::uniform(decoder, dtype);
    write(decoder, layout::divide(sizes(decoder, &precisions), max_shard), precisions, dir)
}

/// The same with what is not given as it is in the directory of another model: the precision of each tensor, where it holds
/// all values (else the tensor is in f32), and which tensors share a file.
///
/// # Errors
/// As [`save_as()`], and when the other model's files are missing or damaged.
pub fn save_like(
    decoder: &Decoder,
    like: &Path,
    dtype: Option<Dtype>,
    max_shard: Option<u64>,
    dir: &Path,
) -> Result<()> {
    let files = Files::open(like)?;
    let common = match dtype {
        Some(dtype) => Some(dtype),
        None => super::common_dtype(&files, decoder.config())?,
    };
    check(decoder, common.unwrap_or(Dtype::F32))?;
    let precisions = match common {
        Some(dtype) => layout::uniform(decoder, dtype),
        None => layout::precisions_like(decoder, &files)?,
    };
    let sizes = sizes(decoder, &precisions);
    let shards = match max_shard {
        Some(most) => layout::divide(sizes, most),
        None => layout::divide_like(sizes, &files),
    };
    write(decoder, shards, precisions, dir)
}

/// Checks that a model can be written in a precision.
fn check(decoder: &Decoder, dtype: Dtype) -> Result<()> {
    if let Some(info) = weights::infos(decoder).into_iter().find(|info| info.name.contains(".lora.")) {
        return Err(Error::Input(format!("`{}` is an adapter's: merge adapters before saving a model", info.name)));
    }
    weights::check(decoder, dtype)
}

/// The bytes of each tensor.
fn sizes(decoder: &Decoder, precisions: &Precisions) -> Vec<(String, u64)> {
    let bytes = |(info, (_, dtype)): (WeightInfo, &(String, Dtype))| {
        let bytes = (info.len() * dtype.in_burn().size()) as u64;
        (info.name, bytes)
    };
    weights::infos(decoder).into_iter().zip(precisions).map(bytes).collect()
}

fn write(decoder: &Decoder, shards: Vec<Shard>, precisions: Precisions, dir: &Path) -> Result<()> {
    files::create_dir(dir)?;
    let name = |index: usize| match shards.len() {
        1 => SINGLE.to_owned(),
        count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    };
    let names: Vec<String> = (0..shards.len()).map(name).collect();
    let mut config = decoder.config().to_json();
    let first = precisions.first().map_or(Dtype::F32, |(_, dtype)| *dtype);
    let is_uniform = precisions.iter().all(|(_, dtype)| *dtype == first);
    if is_uniform || config.get("torch_dtype").is_none() {
        config["torch_dtype"] = if is_uniform { first } else { Dtype::F32 }.torch_name().into();
    }
    let cast = Cast(Arc::new(precisions.into_iter().collect()));
    for (file, shard) in names.iter().zip(&shards) {
        write_shard(decoder, &cast, shard, &dir.join(file))?;
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
    Ok(files::write_json(&dir.join("config.json"), &config)?)
}

/// Casts each tensor to its precision as it is written.
#[derive(Clone)]
struct Cast(Arc<BTreeMap<String, Dtype>>);

impl ModuleAdapter for Cast {
    fn adapt(&self, tensor: PackTensor, context: ModuleContext<'_>) -> PackTensor {
        match self.0.get(&tensor.name) {
            Some(dtype) => FloatCastAdapter::to(dtype.in_burn()).adapt(tensor, context),
            None => tensor,
        }
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}

fn write_shard(decoder: &Decoder, cast: &Cast, shard: &Shard, path: &Path) -> Result<()> {
    files::write_at(path, |scratch| {
        // The store writes a new file of mode 0600 in the place of one that is there but keeps its mode.
        let store = SafetensorsStore::from_file(scratch).clear_metadata().metadata("format", "pt").overwrite(true);
        let store = store.with_full_paths(shard.names.iter().cloned());
        let mut store = store.with_to_adapter(cast.clone());
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
    fn a_model_is_saved_in_the_files_and_precisions_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let [like, out] = ["like", "out"].map(|name| dir.path().join(name));
        let decoder = weights::round(numbered(&config("llama", false)), Dtype::Bf16).unwrap();
        // Norms in f32, the rest in bf16, in three files that are not the ones a size would give.
        let dtype_of = |name: &str| if name.contains("norm") { Dtype::F32 } else { Dtype::Bf16 };
        let precisions: Precisions =
            weights::infos(&decoder).into_iter().map(|info| (info.name.clone(), dtype_of(&info.name))).collect();
        let mut shards: Vec<Shard> = (0..3).map(|_| Shard::default()).collect();
        for (at, (name, bytes)) in sizes(&decoder, &precisions).into_iter().enumerate() {
            shards[(at + 1) % 3].push(name, bytes);
        }
        write(&decoder, shards, precisions, &like).unwrap();
        assert_eq!(super::super::stored_dtype(&like).unwrap(), Dtype::F32, "of mixed precisions");
        let layout = |dir: &Path| -> Vec<(String, String, Dtype)> {
            let files = Files::open(dir).unwrap();
            let of = |info: WeightInfo| {
                let file = files.file_of(&info.name).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
                let dtype = files.dtype(&info.name).unwrap();
                (info.name, file, dtype)
            };
            weights::infos(&decoder).into_iter().map(of).collect()
        };
        save_like(&decoder, &like, None, None, &out).unwrap();
        assert_eq!(layout(&out), layout(&like));
        let all = |decoder: &Decoder| weights::read(decoder, |_| true).unwrap();
        assert_eq!(all(&load(&out, &Device::default()).unwrap()), all(&decoder));
        let config_of = |dir: &Path| files::read_json_value(&dir.join("config.json")).unwrap()["torch_dtype"].clone();
        assert_eq!(config_of(&out), config_of(&like));
        // A tensor that bf16 cannot hold is not rounded.
        let odd = "model.layers.0.mlp.up_proj.weight";
        let moved = weights::replace(decoder.clone(), |info| {
            (info.name == odd).then(|| TensorData::new(vec![1.0001_f32; info.len()], info.shape.clone()))
        });
        save_like(&moved, &like, None, None, &out).unwrap();
        let differ: Vec<_> = layout(&out).into_iter().zip(layout(&like)).filter(|(a, b)| a != b).collect();
        assert!(differ.len() == 1 && differ[0].0.0 == odd && differ[0].0.2 == Dtype::F32, "{differ:?}");
        assert_eq!(all(&load(&out, &Device::default()).unwrap()), all(&moved));
        // What is asked for goes before what the other model has.
        save_like(&decoder, &like, Some(Dtype::F32), Some(u64::MAX), &out).unwrap();
        assert!(layout(&out).iter().all(|(_, file, dtype)| file == SINGLE && *dtype == Dtype::F32));
        assert_eq!(config_of(&out), "float32");
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
