//! The methods on tiny models, in one binary.
#![allow(clippy::unwrap_used)]

mod antidote;
mod arms;
mod checkpoint;
mod choice;
mod distill;
mod golden;
mod halves;
mod hostile;
mod irr;
mod patch_file;
mod resta;
mod safe_delta;
mod safe_lora;
mod settings;
mod strong;
mod vocabulary;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::weights::WeightInfo;
use model::{Decoder, checkpoint as weight_files, weights};
use recovery::{Gate, Inputs, Measure, Repair, Repaired, Report, StepsTrace, Trace};
use serde_json::Value;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

fn load(name: &str) -> Decoder {
    weight_files::load(&path("model/tests/fixtures").join(name), &Device::flex()).unwrap()
}

fn all(decoder: &Decoder) -> Vec<(WeightInfo, Vec<f32>)> {
    weights::read(decoder, |_| true).unwrap()
}

/// A report that never stops the work; nothing is leaked, since it has no size.
fn go_on() -> &'static mut Report<'static> {
    Box::leak(Box::new(|_, _, _| ControlFlow::Continue(())))
}

/// The trace of the paper's method.
fn steps_of(repaired: Repaired) -> StepsTrace {
    let Some(Trace::Steps(trace)) = repaired.trace else { panic!("no trace of steps") };
    trace
}

/// The two models and the prompts that all tests share.
struct Fixture {
    aligned: Decoder,
    tuned: Decoder,
    rows: Value,
}

impl Fixture {
    fn read() -> Self {
        let rows = std::fs::read(path("direction/tests/fixtures/rows.json")).unwrap();
        let rows = serde_json::from_slice(&rows).unwrap();
        Self { aligned: load("tiny-llama"), tuned: load("tiny-llama-finetuned"), rows }
    }

    fn rows(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.rows[key].clone()).unwrap()
    }

    fn inputs<'a>(&'a self, report: &'a mut Report<'a>) -> Inputs<'a> {
        let (prompts, task_prompts) = (self.rows("recovery_rows"), self.rows("task_rows"));
        Inputs { prompts, task_prompts, ..Inputs::new(&self.aligned, &self.tuned, report) }
    }

    fn apply(&self, method: &dyn Repair) -> Repaired {
        method.apply(self.inputs(go_on())).unwrap()
    }
}

/// Compares the weights of a case with those of a reference in float64, of which a test has 14 tensors. The passes are in float32,
/// and so are the sums within a pack: weights of about 0.1 are off by up to 4e-7 here.
fn compare_case(case: &str, found: &Decoder, wanted: &HashMap<String, Vec<f32>>) {
    let (mut compared, mut farthest) = (0, 0f32);
    for (info, found) in all(found) {
        let Some(wanted) = wanted.get(&format!("{case}.{}", info.name)) else { continue };
        let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        (farthest, compared) = (farthest.max(off), compared + 1);
        assert!(off < 2e-6, "{case}: {} is off by {off:e}", info.name);
    }
    println!("{case}: {compared} tensors, off by up to {farthest:e}");
    assert_eq!(compared, 14, "{case}");
}

fn gate<'a>(measure: &'a mut Measure<'a>) -> Option<Gate<'a>> {
    Some(Gate { measure, by: "the test's score".into() })
}
