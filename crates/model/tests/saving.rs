//! What is saved: weights rounded as torch rounds them (`scripts/goldens/dtype.py`), in memory and in the files that are
//! written, and models that transformers reads. Bits are compared, so there is no tolerance.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use model::{Decoder, DecoderConfig, Dtype, checkpoint, weights};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const EMBEDDING: &str = "model.embed_tokens.weight";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// `scripts/parity_saved.py` sets `REALIGN_SAVED_DIR`, runs this and lets transformers load the models.
#[test]
#[ignore = "needs REALIGN_SAVED_DIR, which scripts/parity_saved.py sets"]
fn saved_models_are_left_for_transformers() {
    let out = std::env::var_os("REALIGN_SAVED_DIR").expect("REALIGN_SAVED_DIR is set");
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("config.json").exists() || !dir.join("expected.safetensors").exists() {
            continue;
        }
        let decoder = checkpoint::load(&dir, &Device::default()).unwrap();
        for dtype in Dtype::ALL {
            let name = format!("{}.{}", dir.file_name().unwrap().display(), dtype.name());
            for (name, most) in [(name.clone(), checkpoint::MAX_SHARD), (format!("{name}.shards"), 4096)] {
                checkpoint::save_as(&decoder, dtype, most, &Path::new(&out).join(name)).unwrap();
            }
        }
    }
}

/// The bits of a 16-bit tensor, and its values as f32.
fn halves(file: &SafeTensors<'_>, name: &str, dtype: Dtype) -> (Vec<u16>, Vec<f32>) {
    let tensor = file.tensor(name).unwrap();
    let bits: Vec<u16> = tensor.data().chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap())).collect();
    let widen: fn(u16) -> f32 = match (dtype, tensor.dtype()) {
        (Dtype::Bf16, safetensors::Dtype::BF16) => |bits| half::bf16::from_bits(bits).to_f32(),
        (Dtype::F16, safetensors::Dtype::F16) => |bits| half::f16::from_bits(bits).to_f32(),
        (dtype, found) => panic!("{name} is {found:?}, not {dtype:?}"),
    };
    let values = bits.iter().map(|&bits| widen(bits)).collect();
    (bits, values)
}

fn bits_of(decoder: &Decoder) -> Vec<u32> {
    let mut found = weights::read(decoder, |info| info.name == EMBEDDING).unwrap();
    found.remove(0).1.into_iter().map(f32::to_bits).collect()
}

#[test]
fn weights_are_rounded_as_torch_rounds_them() {
    let golden = std::fs::read(fixtures().join("rounding.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&golden).unwrap();
    let values = file.tensor("values").unwrap();
    let values: Vec<f32> = values.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let json = serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "tie_word_embeddings": true});
    let config = DecoderConfig::from_json(&json, Path::new("config.json")).unwrap();
    let decoder = weights::replace(Decoder::zeros(&config, &Device::default()), |info| {
        (info.name == EMBEDDING).then(|| TensorData::new(values.clone(), [32, 16]))
    });
    for dtype in [Dtype::Bf16, Dtype::F16] {
        let (bits, wanted) = halves(&file, dtype.name(), dtype);
        let wanted: Vec<u32> = wanted.into_iter().map(f32::to_bits).collect();
        // In memory, in the file, and in memory again.
        assert_eq!(bits_of(&weights::round(decoder.clone(), dtype).unwrap()), wanted, "{dtype:?}");
        let dir = tempfile::tempdir().unwrap();
        checkpoint::save_as(&decoder, dtype, checkpoint::MAX_SHARD, dir.path()).unwrap();
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        assert_eq!(halves(&SafeTensors::deserialize(&bytes).unwrap(), EMBEDDING, dtype).0, bits, "{dtype:?}");
        assert_eq!(bits_of(&checkpoint::load(dir.path(), &Device::default()).unwrap()), wanted);
        assert_eq!(checkpoint::stored_dtype(dir.path()).unwrap(), dtype);
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], dtype.torch_name());
    }
}

#[test]
fn a_model_whose_tensors_differ_in_precision_counts_as_f32() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = checkpoint::load(&fixtures().join("tiny-llama"), &Device::default()).unwrap();
    checkpoint::save_as(&decoder, Dtype::Bf16, checkpoint::MAX_SHARD, dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let wide = vec![0_u8; 4 * 32];
    let norm = TensorView::new(safetensors::Dtype::F32, vec![32], &wide).unwrap();
    let mixed = file.iter().map(|(name, view)| (name, if name == "model.norm.weight" { norm.clone() } else { view }));
    let mixed: Vec<(&str, TensorView<'_>)> = mixed.collect();
    // A tensor that the decoder does not read decides nothing.
    let unread = ("model.rotary_emb.inv_freq", norm.clone());
    let same: Vec<(&str, TensorView<'_>)> = file.iter().chain([unread]).collect();
    for (tensors, wanted) in [(mixed, Dtype::F32), (same, Dtype::Bf16)] {
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        assert_eq!(checkpoint::stored_dtype(dir.path()).unwrap(), wanted);
    }
}
