//! Safe Delta against plain PyTorch in float64 (scripts/goldens/safe_delta.py). What is taken is compared exactly: at every
//! border the reference's sums are 5e-5 (relative) from the budget.

use std::collections::HashMap;

use model::Decoder;
use recovery::{Inputs, Repair as _, SafeDelta};
use serde_json::{Value, json};

use crate::resta::tensors;
use crate::strong::Golden;
use crate::{Fixture, all, compare_case, go_on, path};

fn run(fixture: &Fixture, settings: SafeDelta) -> Decoder {
    let evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    let inputs = Inputs { evidence: Some(&evidence), ..Inputs::new(&fixture.aligned, &fixture.tuned, go_on()) };
    settings.apply(inputs).unwrap().decoder
}

#[test]
fn what_is_taken_and_what_makes_up_for_it_are_those_of_the_reference() {
    let text = std::fs::read(path("recovery/tests/fixtures/safe_delta/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let wanted = tensors("recovery/tests/fixtures/safe_delta/expected.safetensors");
    let fixture = Fixture::read();
    let tuned: HashMap<String, Vec<f32>> = all(&fixture.tuned).into_iter().map(|(info, w)| (info.name, w)).collect();
    for (case, settings) in expected["cases"].as_object().unwrap() {
        let number = |key: &str| settings[key].as_f64().unwrap();
        let found = run(&fixture, SafeDelta { scale: number("s"), block: number("block") as usize });
        compare_case(case, &found, &wanted);
        for ((info, found), (_, aligned)) in all(&found).into_iter().zip(all(&fixture.aligned)) {
            let Some(taken) = settings["taken"][&info.name].as_u64() else {
                assert_eq!(found, aligned, "{} stays", info.name);
                continue;
            };
            // What makes up for something hits the fine-tuned value by chance at most.
            let equal = found.iter().zip(&tuned[&info.name]).filter(|(a, b)| a == b).count() as u64;
            assert_eq!(equal, taken, "{case}: {}", info.name);
        }
    }
}

#[test]
fn a_scale_of_zero_is_the_aligned_model() {
    let fixture = Fixture::read();
    assert_eq!(all(&run(&fixture, SafeDelta { scale: 0.0, ..SafeDelta::default() })), all(&fixture.aligned));
}
