//! Patches and traces as anybody may have written them: refused or read, and no more. `fuzz/` has the same readers.

use burn::tensor::Device;
use model::{Dtype, checkpoint};
use mutate::Format;
use recovery::{Models, Patch, PatchFile, Path, Trace};
use serde_json::{Value, json};

/// Patches of two steps and of one, in both precisions.
pub fn patches() -> Format {
    let fixtures = mutate::repository().join("crates/model/tests/fixtures");
    let load = |name: &str| checkpoint::load(&fixtures.join(name), &Device::default()).unwrap();
    let (aligned, fine_tuned) = (load("tiny-llama"), load("tiny-llama-finetuned"));
    let flips = |of: &[(&str, &[u32])]| {
        Patch::new(of.iter().map(|(name, indices)| (format!("model.layers.{name}.weight"), indices.to_vec())))
    };
    let (query, down) = ("0.self_attn.q_proj", "1.mlp.down_proj");
    let mut steps = Path::default();
    steps.push(flips(&[(query, &[0, 3, 17]), (down, &[5])]));
    steps.push(flips(&[(query, &[3]), (down, &[1, 2])]));
    let bytes = |path: &Path, dtype| {
        let models = Models { aligned: &aligned, fine_tuned: &fine_tuned, dtype };
        PatchFile::new(path.clone(), models, json!({"method": "recover"}), Value::Null).unwrap().to_bytes().unwrap()
    };
    let sound = [bytes(&steps, Dtype::F32), bytes(&Path::once(steps.at(2)), Dtype::Bf16)];
    let dir = mutate::scratch();
    Format::of_file("patch", sound.to_vec(), dir.path().join("a.patch"), move |path| {
        let _dir = &dir;
        PatchFile::load(path).map(drop).map_err(|error| error.to_string())
    })
}

/// Traces of all kinds.
pub fn traces() -> Format {
    let standing = json!({"harmful": 1.5, "harmless": 0.25, "task": 0.0, "merit": 2.0});
    let sound = [
        json!({"params": 4096, "region": 2048, "layer": 2, "direction_s": 0.5, "direction_norm": 3.25, "total_s": 1.5,
            "gate": {"base_score": 0.75, "floor": 0.7},
            "steps": [{"step": 0, "loss": -0.5, "threshold": null, "restored": 3, "grad_s": 0.1, "select_s": 0.0,
                "rolled_back": 1, "rollback_threshold": 1e-9, "equal": 7, "score": 0.75}]}),
        json!({"params": 4096, "base": standing, "total_s": 2.5, "rounds": [{"flipped": 2, "restored": 2,
            "standing": standing, "is_little": false, "trials": [{"k": 2, "restored": 2, "standing": standing}],
            "grad_s": 0.5, "trial_s": 0.25}]}),
        json!({"trained": 64, "total_s": 0.5, "losses": [{"loss": 1.0, "harmful": 0.5, "harmless": 0.25, "task": 0.125}]}),
        json!({"threshold": 0.5, "modules": [{"name": "model.layers.0.mlp.up_proj", "cosine": 0.25, "changed": true}]}),
    ];
    Format::new("trace", sound.map(|trace| trace.to_string().into_bytes()).to_vec(), |bytes| {
        serde_json::from_slice::<Trace>(bytes).map(drop).map_err(|error| error.to_string())
    })
}

#[test]
fn patches_and_traces_survive() {
    patches().survive(10_000);
    traces().survive(10_000);
}
