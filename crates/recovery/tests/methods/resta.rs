//! RESTA agrees with plain PyTorch (`scripts/goldens/baselines.py`). The unaligned model is tiny-llama
//! with the adapters of the LoRA goldens merged.

use std::collections::HashMap;

use burn::tensor::TensorData;
use model::{Decoder, weights};
use recovery::{Inputs, Repair as _, Resta};
use safetensors::SafeTensors;

use crate::{go_on, load, path};

pub(crate) fn tensors(relative: &str) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(path(relative)).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.iter().map(|(name, view)| (name.to_owned(), floats(view.data()))).collect()
}

/// Fine-tuned, aligned and unaligned.
pub(crate) fn models() -> [Decoder; 3] {
    let merged = tensors("finetune/tests/fixtures/lora/merged.safetensors");
    let unaligned = weights::replace(load("tiny-llama"), |info| {
        merged.get(&info.name).map(|values| TensorData::new(values.clone(), info.shape.clone()))
    });
    [load("tiny-llama-finetuned"), load("tiny-llama"), unaligned]
}

/// The script's settings with this probability of dropping.
fn settings(dare: bool) -> Resta {
    let text = std::fs::read_to_string(path("recovery/tests/fixtures/resta/settings.json")).unwrap();
    let settings: Resta = serde_json::from_str(&text).unwrap();
    Resta { dare: if dare { settings.dare } else { 0.0 }, ..settings }
}

fn try_resta([fine_tuned, aligned, unaligned]: [&Decoder; 3], settings: Resta, seed: u64) -> recovery::Result<Decoder> {
    let inputs = Inputs { unaligned: Some(unaligned), seed, ..Inputs::new(aligned, fine_tuned, go_on()) };
    Ok(settings.apply(inputs)?.decoder)
}

fn resta(models: [&Decoder; 3], settings: Resta) -> HashMap<String, Vec<f32>> {
    all(&try_resta(models, settings, 0).unwrap())
}

fn run(settings: &Resta, seed: u64) -> HashMap<String, Vec<f32>> {
    all(&try_resta(models().each_ref(), *settings, seed).unwrap())
}

pub fn all(decoder: &Decoder) -> HashMap<String, Vec<f32>> {
    weights::read(decoder, |_| true).unwrap().into_iter().map(|(info, values)| (info.name, values)).collect()
}

/// The fixture's tensors of one kind, by the parameter's name.
fn expected(kind: &str) -> HashMap<String, Vec<f32>> {
    let all = tensors("recovery/tests/fixtures/resta/expected.safetensors");
    let own = all.into_iter().filter_map(|(name, values)| Some((name.strip_prefix(kind)?.to_owned(), values)));
    own.collect()
}

/// f32 rounding of a result that PyTorch computed in f64, as this crate does.
fn same(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1e-2)
}

#[test]
fn the_safety_vector_is_added_to_all_weights_as_in_pytorch() {
    let (found, expected) = (run(&settings(false), 0), expected("plain."));
    assert_eq!(expected.len(), 4);
    for (name, expected) in &expected {
        assert!(found[name].iter().zip(expected).all(|(&a, &b)| same(a, b)), "{name}");
    }
}

#[test]
fn dare_drops_its_share_of_what_fine_tuning_changed_and_rescales_the_rest_as_in_pytorch() {
    let (dropped, rescaled) = (expected("dropped."), expected("rescaled."));
    let found = run(&settings(true), 3);
    let (mut drops, mut number) = (0usize, 0usize);
    for (name, found) in found.iter().filter(|(name, _)| dropped.contains_key(*name)) {
        for ((&found, &dropped), &rescaled) in found.iter().zip(&dropped[name]).zip(&rescaled[name]) {
            assert!(same(found, dropped) || same(found, rescaled), "{name}: {found}, {dropped} or {rescaled}");
            drops += usize::from(same(found, dropped));
            number += 1;
        }
    }
    let (dare, n) = (settings(true).dare, number as f64);
    let share = drops as f64 / n;
    println!("{drops} of {number} dropped");
    // Four standard deviations of a binomial share.
    assert!((share - dare).abs() < 4.0 * (dare * (1.0 - dare) / n).sqrt(), "{share} is not {dare}");
}

#[test]
fn dare_keeps_the_expectation_and_is_a_seeded_draw() {
    let (plain, runs) = (run(&settings(false), 0), (0..64).map(|seed| run(&settings(true), seed)).collect::<Vec<_>>());
    assert_eq!(run(&settings(true), 5), runs[5]);
    assert_ne!(runs[4], runs[5]);
    // The mean over runs and weights of what DARE adds is zero within its own spread.
    let name = "model.layers.0.self_attn.q_proj.weight";
    let errors: Vec<f64> =
        runs.iter().flat_map(|run| run[name].iter().zip(&plain[name])).map(|(a, b)| f64::from(a - b)).collect();
    let n = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / n;
    let deviation = (errors.iter().map(|error| error * error).sum::<f64>() / n).sqrt();
    assert!(deviation > 0.0 && mean.abs() < 4.0 * deviation / n.sqrt(), "{mean} with deviation {deviation}");
}

#[test]
fn without_a_vector_or_a_difference_nothing_changes() {
    let [fine_tuned, aligned, unaligned] = models();
    let none = Resta { gamma: 0.0, dare: 0.0, rank: None };
    assert_eq!(run(&none, 0), all(&fine_tuned));
    assert_eq!(resta([&fine_tuned, &aligned, &aligned], Resta::default()), all(&fine_tuned));
    // From the aligned model itself DARE has nothing to drop.
    let [plain, thinned] = [false, true].map(|dare| resta([&aligned, &aligned, &unaligned], settings(dare)));
    assert_eq!(plain, thinned);
}

#[test]
fn models_of_another_shape_are_named() {
    let [fine_tuned, aligned, _] = models();
    let message = |unaligned: &Decoder, settings| {
        try_resta([&fine_tuned, &aligned, unaligned], settings, 0).unwrap_err().to_string()
    };
    let error = message(&load("tiny-qwen2"), Resta::default());
    assert!(error.contains("the aligned and the unaligned model differ"), "{error}");
    assert!(message(&aligned, Resta { dare: -0.1, ..Resta::default() }).contains("`dare`: -0.1"));
}

#[test]
fn a_rank_keeps_the_largest_directions_of_the_vector_in_linear_layers_as_in_pytorch() {
    let [unaligned, aligned, fine_tuned] = models();
    let text = std::fs::read_to_string(path("recovery/tests/fixtures/resta_rank/settings.json")).unwrap();
    let settings: Resta = serde_json::from_str(&text).unwrap();
    let found = resta([&fine_tuned, &aligned, &unaligned], settings);
    let expected = tensors("recovery/tests/fixtures/resta_rank/expected.safetensors");
    assert_eq!(expected.len(), 8);
    for (name, expected) in &expected {
        assert!(found[name].iter().zip(expected).all(|(&a, &b)| same(a, b)), "{name}");
    }
    // A rank that no layer exceeds cuts nothing.
    let [whole, full] =
        [Some(4096), None].map(|rank| resta([&fine_tuned, &aligned, &unaligned], Resta { rank, ..settings }));
    assert!(whole == full && full != found);
}
