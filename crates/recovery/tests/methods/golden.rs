//! Whole recoveries agree with the PyTorch reference (`scripts/reference_recovery.py`), which is
//! checked against the released semantics: losses, thresholds, counts, and the restored sets.
//!
//! Counts and sets are compared exactly: the reference chose inputs whose thresholds are at least
//! 2e-5 (relative) from the next value. Losses and thresholds: 2e-5 relative, f32 sums in another
//! order.

use std::ops::Deref;

use model::Decoder;
use recovery::{Error, Inputs, Layer, Outcome, Recover, Repair as _, Repaired, Rollback, Ties, TraceGate};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{gate, go_on, load, path};

const RUNS: [&str; 4] = ["released", "released_rollback", "exact", "exact_rollback"];

/// The reference's results beside the models.
struct Fixture {
    base: crate::Fixture,
    expected: Value,
}

impl Deref for Fixture {
    type Target = crate::Fixture;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

impl Fixture {
    fn read() -> Self {
        let expected = std::fs::read(path("recovery/tests/fixtures/expected.json")).unwrap();
        Self { base: crate::Fixture::read(), expected: serde_json::from_slice(&expected).unwrap() }
    }

    fn settings(&self, run: &str, steps: usize) -> Recover {
        let number = |key: &str| self.expected[key].as_f64().unwrap();
        let exact = self.expected["runs"][run]["exact"].as_bool().unwrap();
        let layer: Layer = number("layer").to_string().parse().unwrap();
        Recover {
            rate: number("rate"),
            batch: number("batch") as usize,
            layer,
            steps,
            save_every: 2,
            ties: if exact { Ties::Exact } else { Ties::Strict },
            ..Recover::default()
        }
    }

    fn run(&self, run: &str, steps: usize) -> Repaired {
        let rollback = !self.expected["runs"][run]["rollback"].is_null();
        let rollback = if rollback { Rollback::On } else { Rollback::Off };
        self.apply(&Recover { rollback, ..self.settings(run, steps) })
    }
}

#[test]
fn traces_agree_with_the_reference() {
    let fixture = Fixture::read();
    for run in RUNS {
        let found = crate::steps_of(fixture.run(run, 6));
        let expected = fixture.expected["runs"][run]["trace"].as_array().unwrap();
        assert_eq!(found.steps.len(), expected.len());
        for (found, expected) in found.steps.iter().zip(expected) {
            let context = format!("{run}, step {}", found.step);
            let close = |a: f64, key: &str| {
                let b = expected[key].as_f64().unwrap();
                assert!((a - b).abs() <= 2e-5 * b.abs().max(1e-3), "{context}, {key}: {a} against {b}");
            };
            close(found.loss, "loss");
            close(found.threshold.unwrap(), "threshold");
            assert_eq!(found.restored as u64, expected["restored"].as_u64().unwrap(), "{context}");
            assert_eq!(found.equal as u64, expected["equal"].as_u64().unwrap(), "{context}");
            if let Some(rolled_back) = found.rolled_back {
                assert_eq!(rolled_back as u64, expected["rolled_back"].as_u64().unwrap(), "{context}");
                close(found.rollback_threshold.unwrap(), "rollback_threshold");
            }
        }
    }
}

#[test]
fn restored_sets_are_those_of_the_reference() {
    let fixture = Fixture::read();
    let bytes = std::fs::read(path("recovery/tests/fixtures/masks.safetensors")).unwrap();
    let masks = SafeTensors::deserialize(&bytes).unwrap();
    for run in RUNS {
        let path = fixture.run(run, 6).path.unwrap();
        for steps in [1, 6] {
            let patch = path.at(steps);
            let prefix = format!("{run}.{steps}.");
            let mut tensors = 0;
            for name in masks.names().into_iter().filter_map(|name| name.strip_prefix(&prefix)) {
                let mask = masks.tensor(&format!("{prefix}{name}")).unwrap();
                let marked = mask.data().iter().enumerate().filter(|(_, value)| **value == 1);
                let expected: Vec<u32> = marked.map(|(index, _)| index as u32).collect();
                assert_eq!(patch.indices(name), expected, "{run} after {steps} steps, {name}");
                tensors += 1;
            }
            assert!(tensors > 0, "no mask of {run} after {steps} steps");
        }
    }
}

#[test]
fn the_gate_starts_again_with_rollback_and_falls_back_to_the_fine_tuned_model() {
    let fixture = Fixture::read();
    let settings = Recover { warmup: 2, ..fixture.settings("exact", 6) };
    // The fine-tuned model scores 1, the warm-up 0.5, the rollback run 0.97, 0.96, then 0.5.
    let mut scores = [1.0, 0.5, 0.97, 0.96, 0.5].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let recovered = settings.apply(Inputs { gate: gate(&mut measure), ..fixture.inputs(go_on()) }).unwrap();
    assert_eq!(recovered.outcome, Outcome::Recovered { steps: 4, rollback: true });
    let path = recovered.path.unwrap();
    assert_eq!((path.len(), path.chosen()), (6, 4), "the steps after the answer are kept");
    assert_eq!(recovered.restored, Some(path.at(4).len()));
    // Nothing stays above the floor.
    let mut scores = [1.0, 0.5, 0.5].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let fallen = settings.apply(Inputs { gate: gate(&mut measure), ..fixture.inputs(go_on()) }).unwrap();
    assert_eq!(fallen.outcome, Outcome::NotRecovered { base: 1.0, score: 0.5, floor: 0.95 });
    assert!(fallen.patch().unwrap().is_empty(), "the answer is the fine-tuned model");
    assert_eq!(crate::steps_of(fallen).gate, Some(TraceGate { base_score: 1.0, floor: 0.95 }));
}

#[test]
fn a_score_of_0_cannot_gate_and_the_answer_is_the_fine_tuned_model() {
    let fixture = Fixture::read();
    let mut scores = [0.0].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let inputs = Inputs { gate: gate(&mut measure), ..fixture.inputs(go_on()) };
    let given_back = fixture.settings("exact", 6).apply(inputs).unwrap();
    assert_eq!((&given_back.outcome, given_back.restored), (&Outcome::CannotGate, Some(0)));
    assert!(given_back.patch().unwrap().is_empty());
    let trace = crate::steps_of(given_back);
    assert_eq!((trace.steps.len(), trace.gate), (0, Some(TraceGate { base_score: 0.0, floor: 0.0 })));
}

#[test]
fn a_score_on_the_floor_is_kept_and_one_that_is_no_number_is_an_error() {
    let fixture = Fixture::read();
    let settings = Recover { warmup: 2, metric_drop: 0.1, ..fixture.settings("exact", 6) };
    assert!(0.09 < 0.1 * (1.0 - settings.metric_drop), "the product is rounded upwards");
    let mut scores = [0.1, 0.09, 0.09, 0.0899].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let recovered = settings.apply(Inputs { gate: gate(&mut measure), ..fixture.inputs(go_on()) }).unwrap();
    assert_eq!(recovered.outcome, Outcome::Recovered { steps: 4, rollback: false });
    for scores in [vec![f64::NAN], vec![1.0, f64::NAN]] {
        let mut scores = scores.into_iter();
        let mut measure = |_: &Decoder| Ok(scores.next().unwrap());
        let error = settings.apply(Inputs { gate: gate(&mut measure), ..fixture.inputs(go_on()) }).unwrap_err();
        assert!(error.to_string().contains("the score is NaN"), "{error}");
    }
}

#[test]
fn models_of_different_shape_are_refused() {
    let fixture = Fixture::read();
    let other = load("tiny-qwen2");
    let inputs = Inputs { aligned: &other, ..fixture.inputs(go_on()) };
    let error = fixture.settings("exact", 1).apply(inputs).unwrap_err();
    assert!(matches!(error, Error::ShapesDiffer { .. }), "{error}");
    assert!(error.to_string().contains("both must be of one shape"), "{error}");
}
