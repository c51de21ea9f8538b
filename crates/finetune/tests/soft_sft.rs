//! Parity of SoftSFT with plain PyTorch: weights, loss and gradient on fixed logits, and a training from
//! the start of the LoRA goldens. `scripts/goldens/baselines.py` writes the fixtures.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use common::{batches, json, largest_difference, peft_name, start, tensors, tiny_llama};
use finetune::{Objective, ReferenceLogProbs, SoftSftSettings, TrainBatch, Trainer, soft_sft};
use model::{ops, weights};
use prompts::tokenizer::Encoded;

#[test]
fn weights_loss_and_gradient_equal_those_of_pytorch() {
    let (given, expected) =
        (tensors("tests/fixtures/soft_sft/fixed.safetensors"), json("tests/fixtures/soft_sft/fixed.json"));
    let t: Vec<usize> = serde_json::from_value(expected["t"].clone()).unwrap();
    let targets: Vec<u32> = serde_json::from_value(expected["targets"].clone()).unwrap();
    let vocab = given["logits"].len() / targets.len();
    let device = Device::default().autodiff();
    let logits = TensorData::new(given["logits"].clone(), [targets.len(), vocab]);
    let logits: Tensor<2> = Tensor::from_data(logits, &device).require_grad();
    let losses = ops::negative_log_likelihood(logits.clone(), &targets);
    let own: Vec<f32> = losses.clone().try_into_vec_as().unwrap();
    let settings = SoftSftSettings::default();
    for (at, &expected) in given["weights"].iter().enumerate() {
        let found = settings.weight(t[at], f64::from(-own[at]) - f64::from(given["aligned"][at]));
        assert!((found - f64::from(expected)).abs() < 1e-5, "token {at}: {found} is not {expected}");
    }
    let loss = soft_sft::loss(losses, &given["aligned"], &t, &settings).unwrap();
    let value: f32 = loss.clone().try_into_scalar().unwrap();
    let wanted = expected["loss"].as_f64().unwrap();
    assert!((f64::from(value) / wanted - 1.0).abs() < 1e-6, "{value} is not {wanted}");
    let gradient: Vec<f32> = logits.grad(&loss.backward()).unwrap().try_into_vec_as().unwrap();
    let worst = largest_difference(&gradient, &given["gradient"]);
    println!("loss {value}, largest difference of the gradient {worst:.1e}");
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn eight_steps_equal_those_of_pytorch() {
    let (settings, decoder) = start();
    let mut trainer = Trainer::new(decoder, &settings, 0).unwrap();
    let losses: Vec<f64> =
        serde_json::from_value(json("tests/fixtures/soft_sft/training.json")["losses"].clone()).unwrap();
    let soft = SoftSftSettings::default();
    let batches = batches();
    let all: Vec<Encoded> = batches.concat();
    let reference =
        ReferenceLogProbs::new(&tiny_llama(), &all, settings.max_len, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let mut worst = 0.0f64;
    for (batch, expected) in batches.iter().zip(&losses) {
        let values: Vec<&[f32]> = batch.iter().map(|example| reference.get(example).unwrap()).collect();
        let objective = Objective::SoftSft { reference: &values, settings: &soft };
        let indices: Vec<usize> = (0..batch.len()).collect();
        let loss = trainer.step(&TrainBatch::new(batch, &indices).unwrap(), &objective).unwrap();
        worst = worst.max((loss / expected - 1.0).abs());
    }
    assert_eq!(losses.len(), 8);
    // f32 sums in another order; the script finds the same spread between f32 and f64.
    assert!(worst < 1e-5, "{worst}");
    let factors = tensors("tests/fixtures/soft_sft/factors.safetensors");
    let found = weights::read(trainer.decoder(), |info| factors.contains_key(&peft_name(&info.name))).unwrap();
    assert_eq!(found.len(), factors.len());
    let moved =
        |(info, values): &(weights::WeightInfo, Vec<f32>)| largest_difference(values, &factors[&peft_name(&info.name)]);
    let factor = found.iter().map(moved).fold(0.0, f32::max);
    println!("largest relative difference of a loss {worst:.1e}, of a factor {factor:.1e}");
    assert!(factor < 1e-4, "{factor}");
}
