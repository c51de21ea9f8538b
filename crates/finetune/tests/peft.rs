//! Parity with peft and `torch.optim.AdamW`: the same adapter start, samples and order at dropout 0.
//! `scripts/goldens/lora.py` writes the fixtures.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{batches, json, largest_difference, peft_name, start, tensors};
use finetune::{Objective, TrainBatch, Trainer};
use model::weights;

#[test]
fn twenty_steps_equal_those_of_peft() {
    let (settings, decoder) = start();
    let mut trainer = Trainer::new(decoder, &settings, 0).unwrap();
    let expected: Vec<f64> =
        serde_json::from_value(json("tests/fixtures/lora/expected.json")["losses"].clone()).unwrap();
    let mut worst = 0.0f64;
    for (batch, expected) in batches().iter().zip(&expected) {
        let indices: Vec<usize> = (0..batch.len()).collect();
        let loss = trainer.step(&TrainBatch::new(batch, &indices).unwrap(), &Objective::Sft).unwrap();
        worst = worst.max((loss - expected).abs() / expected);
    }
    println!("{} losses, largest relative difference {worst:.1e}", expected.len());
    assert!(expected.len() == 20 && worst < 1e-5, "{worst}");

    let last = tensors("tests/fixtures/lora/adapter-final/adapter_model.safetensors");
    let adapters = weights::read(trainer.decoder(), |info| info.name.contains(".lora.")).unwrap();
    let compare =
        |(info, values): &(weights::WeightInfo, Vec<f32>)| largest_difference(values, &last[&peft_name(&info.name)]);
    let adapter = adapters.iter().map(compare).fold(0.0, f32::max);
    let merged = tensors("tests/fixtures/lora/merged.safetensors");
    let dense = weights::read(&trainer.finish(), |info| merged.contains_key(&info.name)).unwrap();
    assert_eq!(dense.len(), merged.len());
    let dense = dense.iter().map(|(info, values)| largest_difference(values, &merged[&info.name])).fold(0.0, f32::max);
    println!("largest difference of the factors {adapter:.1e}, of the merged weights {dense:.1e}");
    assert!(adapter < 1e-3 && dense < 1e-3, "{adapter} {dense}");
}
