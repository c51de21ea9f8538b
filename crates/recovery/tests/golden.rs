//! Whole recoveries agree with the PyTorch reference (`scripts/reference_recovery.py`), which is
//! checked against the released semantics: losses, thresholds, counts, and the restored sets.
//!
//! Counts and sets are compared exactly: the reference chose inputs whose thresholds are at least
//! 2e-5 (relative) from the next value. Losses and thresholds: 2e-5 relative, f32 sums in another
//! order.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::{Decoder, checkpoint};
use recovery::{Inputs, Measure, Outcome, Recovered, RecoverySettings, Run, Ties, TraceGate, recover};
use safetensors::SafeTensors;
use serde_json::Value;

const RUNS: [&str; 4] = ["released", "released_rollback", "exact", "exact_rollback"];

struct Fixture {
    aligned: Decoder,
    tuned: Decoder,
    rows: Value,
    expected: Value,
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

fn json(relative: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(relative)).unwrap()).unwrap()
}

impl Fixture {
    fn read() -> Self {
        let load = |name: &str| checkpoint::load(&path("model/tests/fixtures").join(name), &Device::flex()).unwrap();
        Self {
            aligned: load("tiny-llama"),
            tuned: load("tiny-llama-finetuned"),
            rows: json("direction/tests/fixtures/rows.json"),
            expected: json("recovery/tests/fixtures/expected.json"),
        }
    }

    fn settings(&self, run: &str, steps: usize) -> RecoverySettings {
        let number = |key: &str| self.expected[key].as_f64().unwrap();
        let exact = self.expected["runs"][run]["exact"].as_bool().unwrap();
        RecoverySettings {
            rate: number("rate"),
            batch: number("batch") as usize,
            layer: Some(number("layer") as usize),
            steps,
            save_every: 2,
            ties: if exact { Ties::Exact } else { Ties::Strict },
            ..RecoverySettings::default()
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        let rows = |key: &str| serde_json::from_value(self.rows[key].clone()).unwrap();
        Inputs {
            aligned: &self.aligned,
            fine_tuned: &self.tuned,
            prompts: rows("recovery_rows"),
            task_prompts: Some(rows("task_rows")),
            checkpoint: None,
        }
    }

    fn run(&self, run: &str, steps: usize) -> Recovered {
        let rollback = !self.expected["runs"][run]["rollback"].is_null();
        recover(self.inputs(), &self.settings(run, steps), Run::Fixed { rollback }, &mut |_| {}).unwrap()
    }
}

fn gated<'a>(measure: &'a mut Measure<'a>) -> Run<'a> {
    Run::Gated { measure, by: "the test's score" }
}

#[test]
fn traces_agree_with_the_reference() {
    let fixture = Fixture::read();
    for run in RUNS {
        let found = fixture.run(run, 6).trace;
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
        for steps in [1, 6] {
            let patch = fixture.run(run, steps).patch;
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
fn an_interrupted_recovery_goes_on_as_if_it_had_not_been() {
    let fixture = Fixture::read();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let settings = fixture.settings("exact", 6);
    let whole = fixture.run("exact", 6);
    let inputs = || Inputs { checkpoint: Some(file.clone()), ..fixture.inputs() };
    let mut scores = 0;
    // The second measurement fails after a checkpoint was written.
    let mut failing = |_: &Decoder| {
        scores += 1;
        if scores > 2 { Err("stopped".into()) } else { Ok(1.0) }
    };
    let settings = RecoverySettings { warmup: 2, ..settings };
    assert!(recover(inputs(), &settings, gated(&mut failing), &mut |_| {}).is_err());
    // Another score has another floor, and without a gate nothing is kept.
    for (other, name) in
        [(Run::Gated { measure: &mut |_| Ok(1.0), by: "ROUGE" }, "ROUGE"), (Run::Fixed { rollback: true }, "nothing")]
    {
        let error = recover(inputs(), &settings, other, &mut |_| {}).err().unwrap().to_string();
        assert!(error.contains("decided by the test's score") && error.contains(name), "{error}");
    }
    let mut steps = Vec::new();
    let resumed = recover(inputs(), &settings, gated(&mut |_| Ok(1.0)), &mut |row| steps.push(row.step)).unwrap();
    assert_eq!(steps, [2, 3, 4, 5], "the first two steps are not done again");
    assert_eq!(resumed.patch, whole.patch);
    assert_eq!(resumed.outcome, Outcome::Recovered { steps: 6, rollback: false });
}

#[test]
fn the_gate_starts_again_with_rollback_and_falls_back_to_the_fine_tuned_model() {
    let fixture = Fixture::read();
    let settings = RecoverySettings { warmup: 2, ..fixture.settings("exact", 6) };
    // The fine-tuned model scores 1, the warm-up 0.5, the rollback run 0.97, 0.96, then 0.5.
    let mut scores = [1.0, 0.5, 0.97, 0.96, 0.5].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let recovered = recover(fixture.inputs(), &settings, gated(&mut measure), &mut |_| {}).unwrap();
    assert_eq!(recovered.outcome, Outcome::Recovered { steps: 4, rollback: true });
    assert!(!recovered.patch.is_empty());
    // Nothing stays above the floor.
    let mut scores = [1.0, 0.5, 0.5].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let fallen = recover(fixture.inputs(), &settings, gated(&mut measure), &mut |_| {}).unwrap();
    assert_eq!(fallen.outcome, Outcome::NotRecovered { base: 1.0, score: 0.5, floor: 0.95 });
    assert_eq!(fallen.trace.gate, Some(TraceGate { base_score: 1.0, floor: 0.95 }));
    assert!(fallen.patch.is_empty(), "the answer is the fine-tuned model");
}

#[test]
fn a_score_on_the_floor_is_kept_and_one_that_is_no_number_is_an_error() {
    let fixture = Fixture::read();
    let settings = RecoverySettings { warmup: 2, metric_drop: 0.1, ..fixture.settings("exact", 6) };
    assert!(0.09 < 0.1 * (1.0 - settings.metric_drop), "the product is rounded upwards");
    let mut scores = [0.1, 0.09, 0.09, 0.0899].into_iter();
    let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
    let recovered = recover(fixture.inputs(), &settings, gated(&mut measure), &mut |_| {}).unwrap();
    assert_eq!(recovered.outcome, Outcome::Recovered { steps: 4, rollback: false });
    for scores in [vec![f64::NAN], vec![1.0, f64::NAN]] {
        let mut scores = scores.into_iter();
        let mut measure = |_: &Decoder| Ok(scores.next().unwrap());
        let error = recover(fixture.inputs(), &settings, gated(&mut measure), &mut |_| {}).err().unwrap();
        assert!(error.to_string().contains("the score is NaN"), "{error}");
    }
}

#[test]
fn models_of_different_shape_are_refused() {
    let fixture = Fixture::read();
    let other = path("model/tests/fixtures/tiny-qwen2");
    let other = checkpoint::load(&other, &Device::flex()).unwrap();
    let inputs = Inputs { aligned: &other, ..fixture.inputs() };
    let settings = fixture.settings("exact", 1);
    let error = recover(inputs, &settings, Run::Fixed { rollback: false }, &mut |_| {}).err().unwrap();
    assert!(error.to_string().contains("both must be of one shape"), "{error}");
}
