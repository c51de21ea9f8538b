use super::super::tests::{config, numbered};
use super::super::{load, save};
use super::*;
use burn::tensor::Device;
use std::fs;

fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(&numbered(&config("llama", true)), dir.path()).unwrap();
    dir
}

fn error(dir: &Path) -> String {
    load(dir, &Device::default()).unwrap_err().to_string()
}

/// A file of the given header and `data` bytes of zero.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_file_truncated_anywhere_is_an_error() {
    let dir = saved();
    let path = dir.path().join(SINGLE);
    let bytes = fs::read(&path).unwrap();
    for length in (0..200).chain((200..bytes.len()).step_by(97)) {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = error(dir.path());
        assert!(message.contains("model.safetensors: not a safetensors file"), "{length}: {message}");
    }
}

#[test]
fn hostile_headers_are_errors_that_say_what_is_wrong() {
    let dir = saved();
    let path = dir.path().join(SINGLE);
    let tensor =
        |from: u64, to: u64, shape: &str| format!(r#"{{"dtype":"U8","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    let one = |info: String| file(&format!(r#"{{"x":{info}}}"#), 8);
    // Sizes that sum up to 2^64 - 16 - header: the end wraps around to the file's length.
    let wrapping = {
        let step = (1u64 << 61) - 64;
        let entries: Vec<String> =
            (0..8).map(|i| format!(r#""t{i}":{}"#, tensor(i * step, (i + 1) * step, &format!("[{step}]")))).collect();
        file(&format!("{{{}}}", entries.join(",")), 8)
    };
    let cases = [
        (u64::MAX.to_le_bytes().to_vec(), "give a header of 18446744073709551615 bytes"),
        (file("not json", 0), "the header is not as it should be"),
        (file("[1]", 0), "expected an object of tensors"),
        (one(tensor(0, 9, "[9]")), "tensor `x` lies at 0..9 of 8 bytes of data"),
        (one(tensor(8, 0, "[8]")), "tensor `x` lies at 8..0"),
        (one(tensor(0, u64::MAX, "[9]")), "of 8 bytes of data"),
        (one(r#"{"dtype":"U8","shape":[8]}"#.into()), "tensor `x`: missing field `data_offsets`"),
        (one(r#"{"dtype":"Q1","shape":[8],"data_offsets":[0,8]}"#.into()), "tensor `x`: unknown variant `Q1`"),
        (one(tensor(0, 8, "[4]")), "is U8 of shape [4] and has 8 bytes, which do not fit"),
        (one(tensor(0, 8, "[4294967296,4294967296,2]")), "which do not fit"),
        (
            file(&format!(r#"{{"x":{},"y":{}}}"#, tensor(0, 8, "[8]"), tensor(4, 8, "[4]")), 8),
            "tensor `y` begins at 4, and the one before it ends at 8",
        ),
        (file(&format!(r#"{{"x":{}}}"#, tensor(0, 4, "[4]")), 8), "have 4 bytes, and it has 8"),
        (file(&format!(r#"{{"x":{0},"x":{0}}}"#, tensor(0, 8, "[8]")), 8), "tensor `x` is there twice"),
        (wrapping, "of 8 bytes of data"),
    ];
    for (bytes, wanted) in cases {
        fs::write(&path, bytes).unwrap();
        let message = error(dir.path());
        assert!(message.contains("model.safetensors: ") && message.contains(wanted), "{wanted}: {message}");
    }
}

#[test]
fn weights_under_another_name_are_told_what_to_do() {
    let dir = saved();
    let mut path = dir.path().join(SINGLE);
    for (name, wanted) in [
        (
            "model.fp16.safetensors",
            "model.fp16.safetensors: if that is the whole model, rename it to model.safetensors",
        ),
        ("consolidated.safetensors", "consolidated.safetensors, which is in Mistral's own format"),
        ("model-00001-of-00002.safetensors", "a part of the weights: fetch model.safetensors.index.json"),
        ("adapter_model.safetensors", "holds neither model.safetensors nor model.safetensors.index.json"),
    ] {
        let other = dir.path().join(name);
        fs::rename(&path, &other).unwrap();
        path = other;
        assert!(error(dir.path()).contains(wanted), "{name}: {}", error(dir.path()));
    }
}

#[test]
fn a_file_that_is_shortened_while_it_is_read_is_an_error() {
    let dir = saved();
    let path = dir.path().join(SINGLE);
    let files = Files::open(dir.path()).unwrap();
    let half = fs::metadata(&path).unwrap().len() / 2;
    fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
    let errors = files.shapes().keys().filter_map(|name| files.read(name).err()).collect::<Vec<_>>();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|error| error.to_string().contains("has lost its end")), "{errors:?}");
}

#[test]
fn a_tensor_that_the_index_leaves_out_is_read_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = numbered(&config("llama", true));
    super::super::save_as(&decoder, Dtype::F32, 4096, dir.path()).unwrap();
    let path = dir.path().join(INDEX);
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    let shard = map["model.norm.weight"].clone();
    assert!(map.values().filter(|file| **file == shard).count() > 1, "another tensor names the shard");
    map.remove("model.norm.weight");
    fs::write(&path, index.to_string()).unwrap();
    let loaded = load(dir.path(), &Device::default()).unwrap();
    let all = |decoder| crate::weights::read(decoder, |_| true).unwrap();
    assert_eq!(all(&loaded), all(&decoder));
    let notes = super::super::notes(dir.path()).unwrap();
    assert!(notes.len() == 1 && notes[0].contains(shard.as_str().unwrap()), "{notes:?}");
    assert!(notes[0].contains("the index does not name") && notes[0].ends_with("model.norm.weight"), "{notes:?}");
}

#[test]
fn an_index_entry_outside_the_directory_is_refused_by_name() {
    let dir = saved();
    let outside = saved();
    let target = outside.path().join(SINGLE);
    fs::rename(dir.path().join(SINGLE), dir.path().join("real.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&target, dir.path().join("link.safetensors")).unwrap();
    let up = format!("../{}/{SINGLE}", outside.path().file_name().unwrap().to_str().unwrap());
    let mut entries = vec![up, target.to_str().unwrap().to_owned(), "./../x".into(), String::new()];
    if cfg!(unix) {
        entries.push("link.safetensors".into());
    }
    for entry in entries {
        let index = serde_json::json!({"weight_map": {"model.norm.weight": entry}});
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        let message = error(dir.path());
        let wanted = format!("weight_map entry `model.norm.weight`: \"{entry}\" points outside");
        assert!(message.contains(&wanted), "{message}");
    }
    for (index, wanted) in [
        (serde_json::json!({"weight_map": {"a": "none.safetensors"}}), "`a`: \"none.safetensors\" cannot be opened"),
        (serde_json::json!({"weight_map": {"a": 3}}), "`a`: 3 is not a file name"),
        (serde_json::json!({"weight_map": {"a": "real.safetensors"}}), "is a file without that tensor"),
        (serde_json::json!({}), "no object `weight_map`"),
    ] {
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        assert!(error(dir.path()).contains(wanted), "{}", error(dir.path()));
    }
}

#[test]
fn half_precision_is_widened_exactly_and_integers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let header = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"c":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}"#;
    let mut bytes = file(header, 12);
    let data = bytes.len() - 12;
    for (index, value) in [1.5f32, -0.171_875].into_iter().enumerate() {
        let (bf16, f16) = (half::bf16::from_f32(value), half::f16::from_f32(value));
        bytes[data + 2 * index..data + 2 * index + 2].copy_from_slice(&bf16.to_le_bytes());
        bytes[data + 4 + 2 * index..data + 6 + 2 * index].copy_from_slice(&f16.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let files = Files::open_file(&path).unwrap();
    assert_eq!(files.read("a").unwrap(), [1.5, -0.171_875]);
    assert_eq!(files.read("b").unwrap(), [1.5, -0.171_875]);
    assert!(files.read("c").unwrap_err().to_string().contains("tensor `c` is I32; supported are F32, F16 and BF16"));
}
