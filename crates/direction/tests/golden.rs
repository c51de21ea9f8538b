//! Directions, loss and gradient agree with the PyTorch reference (`scripts/reference_recovery.py`).
//!
//! Tolerance: 1e-5 of the largest value. The reference sums in another order, in f32 too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use common::{assert_close, fixture, floats, rows};
use direction::{Objective, accumulate, cosine, mean_direction};
use model::{checkpoint, weights};
use safetensors::SafeTensors;

#[test]
fn directions_loss_and_gradient_agree_with_the_reference() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let device = Device::flex();
    let aligned = checkpoint::load(&models.join("tiny-llama"), &device).unwrap();
    let tuned = checkpoint::load(&models.join("tiny-llama-finetuned"), &device).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture("rows.json")).unwrap()).unwrap();
    let bytes = std::fs::read(fixture("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let layer = json["layer"].as_u64().unwrap() as usize;

    let harmful = mean_direction(&aligned, &rows(&json, "recovery_rows"), layer).unwrap();
    let task = mean_direction(&tuned, &rows(&json, "task_rows"), layer).unwrap();
    assert_close(&harmful, &floats(&expected, "harmful_direction"), "harmful direction");
    assert_close(&task, &floats(&expected, "task_direction"), "task direction");
    assert!(cosine(&harmful, &floats(&expected, "harmful_direction")) > 0.999_999);

    let objective = Objective {
        rows: rows(&json, "recovery_rows"),
        direction: harmful,
        layer,
        batch: json["batch"].as_u64().unwrap() as usize,
    };
    let tracked = weights::track(tuned, |info| !info.is_norm && info.layer.is_some_and(|block| block < layer));
    let mut sums = HashMap::new();
    let loss = accumulate(&tracked, &objective, &mut sums).unwrap();
    assert!((loss - json["loss"].as_f64().unwrap()).abs() < 1e-6, "loss {loss}");
    let names: Vec<_> = expected.names().into_iter().filter_map(|name| name.strip_prefix("gradient.")).collect();
    assert_eq!(names.len(), sums.len(), "gradients of the region's tensors and of no other");
    for name in names {
        assert_close(&sums[name], &floats(&expected, &format!("gradient.{name}")), name);
    }
}
