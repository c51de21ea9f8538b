//! Distillation against plain PyTorch in float64 (scripts/goldens/distill.py).

use recovery::{Distill, Inputs, Repair as _, Repaired, Trace};
use serde_json::Value;

use crate::resta::tensors;
use crate::strong::Golden;
use crate::{Fixture, all, go_on, path};

/// Losses are of float32 models: the golden's own float32 run is within 1e-5 of its float64 one.
const LOSSES: f64 = 2e-5;
/// Adam divides by the size of a gradient, so that where one is next to nothing its rounding moves the weight; the golden's
/// own float32 run is up to 5e-5 from its float64 one. All weights move by up to 2e-3.
const FARTHEST: f32 = 5e-5;
/// What nearly all weights keep.
const NEAR: f32 = 1e-6;

fn run(expected: &Value, settings: &Distill) -> Repaired {
    let (fixture, evidence) = (Fixture::read(), Golden::read().evidence(expected));
    let inputs = Inputs { evidence: Some(&evidence), ..Inputs::new(&fixture.aligned, &fixture.tuned, go_on()) };
    settings.apply(inputs).unwrap()
}

#[test]
fn losses_and_weights_are_those_of_the_reference() {
    let text = std::fs::read(path("recovery/tests/fixtures/distill/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let number = |key: &str| expected[key].as_f64().unwrap();
    let settings = Distill {
        steps: number("steps") as usize,
        learning_rate: number("learning_rate"),
        lambda: number("task_weight"),
        drawn: 1000, // all of them in each step
    };
    let repaired = run(&expected, &settings);
    let Some(Trace::Distill(trace)) = &repaired.trace else { panic!("another trace") };
    assert_eq!(trace.losses.len(), settings.steps);
    for (step, (found, wanted)) in trace.losses.iter().zip(expected["figures"].as_array().unwrap()).enumerate() {
        let losses =
            [("loss", found.loss), ("harm", found.harmful), ("harmless", found.harmless), ("task", found.task)];
        for (key, found) in losses {
            let wanted = wanted[key].as_f64().unwrap();
            assert!((found - wanted).abs() <= LOSSES * wanted.max(0.1), "step {step}, {key}: {found}, {wanted}");
        }
    }
    let wanted = tensors("recovery/tests/fixtures/distill/expected.safetensors");
    let mut off = Vec::new();
    for (info, found) in all(&repaired.decoder) {
        off.extend(wanted.get(&info.name).into_iter().flatten().zip(found).map(|(a, b)| (a - b).abs()));
    }
    let farthest = off.iter().copied().fold(0.0, f32::max);
    let far = off.iter().filter(|&&off| off > NEAR).count();
    println!("{} weights, off by up to {farthest:e}, {far} above {NEAR:e}", off.len());
    assert_eq!(off.len(), wanted.values().map(Vec::len).sum::<usize>());
    assert!(farthest < FARTHEST && far * 100 < off.len(), "off by up to {farthest:e}, {far} above {NEAR:e}");
}

#[test]
fn only_the_blocks_learn_and_only_as_fast_as_told() {
    let expected = serde_json::json!({"reference": "aligned", "mu": 1.0});
    let (tuned, rate) = (Fixture::read().tuned, 1e-3);
    let found = run(&expected, &Distill { steps: 1, learning_rate: rate, ..Distill::default() });
    for ((info, found), (_, before)) in all(&found.decoder).into_iter().zip(all(&tuned)) {
        let moved = found.iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let is_trained = info.layer.is_some() && !info.is_norm;
        // Adam's first step is at most the learning rate.
        assert!(moved <= rate as f32 * 1.01 && (moved > 0.0) == is_trained, "{} moved by {moved}", info.name);
    }
}
