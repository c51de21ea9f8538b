//! The refusal direction and the model without it agree with transformers and hooks (`scripts/goldens/attacks.py`) to 1e-5 of
//! the largest value.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use burn::tensor::Device;
use common::{assert_close, fixture};
use direction::{Layer, refusal_direction};
use model::generate::greedy;
use model::{Packed, checkpoint};
use safetensors::SafeTensors;

#[test]
fn a_model_without_its_refusal_direction_is_that_of_the_reference() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture("ablation.json")).unwrap()).unwrap();
    let rows = |key: &str| common::rows(&json, key);
    let bytes = std::fs::read(fixture("ablation.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| common::floats(&expected, name);
    for name in json["models"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
        let decoder = checkpoint::load(&models.join(name), &Device::flex()).unwrap();
        let layer = Layer::default().of_blocks(decoder.config().num_hidden_layers);
        let direction = refusal_direction(&decoder, &rows("harmful"), &rows("harmless"), layer).unwrap();
        assert_close(&direction, &floats(&format!("{name}.direction")), &format!("{name}: direction"));
        let ablated = decoder.clone().without_direction(&direction).unwrap();
        for (row, ids) in rows("rows").into_iter().enumerate() {
            let packed = Packed::new(std::slice::from_ref(&ids)).unwrap();
            let positions: Vec<usize> = (0..ids.len()).collect();
            let logits = |decoder: &model::Decoder| -> Vec<f32> {
                decoder.logits(&packed, &positions).unwrap().try_into_vec_as().unwrap()
            };
            let wanted = floats(&format!("{name}.logits_{row}"));
            assert_close(&logits(&ablated), &wanted, &format!("{name}: logits of row {row}"));
            let apart = logits(&decoder).iter().zip(&wanted).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(apart > 0.05, "{name}: the ablation must show, and the logits are {apart} apart at most");
            let tensor = expected.tensor(&format!("{name}.greedy_{row}")).unwrap();
            let wanted: Vec<u32> =
                tensor.data().chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap()) as u32).collect();
            assert_eq!(greedy(&ablated, &[ids], wanted.len(), &[]).unwrap(), [wanted], "{name}: step by step");
        }
    }
}

#[test]
fn a_direction_of_another_width_or_without_length_is_refused() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let decoder = checkpoint::load(&models.join("tiny-llama"), &Device::flex()).unwrap();
    for (direction, named) in [(vec![1.0; 3], "3 values"), (vec![0.0; 32], "length 0")] {
        let error = decoder.clone().without_direction(&direction).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
