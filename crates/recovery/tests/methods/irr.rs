//! IRR against plain PyTorch in float64 (scripts/goldens/irr.py). The numbers of removed entries are compared exactly: at every
//! border the reference's importances are 5e-5 (relative) apart.

use recovery::{Inputs, Irr, Repair as _};
use serde_json::{Value, json};

use crate::resta::{models, tensors};
use crate::strong::Golden;
use crate::{all, compare_case, go_on, path};

#[test]
fn what_is_removed_and_what_makes_up_for_it_are_those_of_the_reference() {
    let text = std::fs::read(path("recovery/tests/fixtures/irr/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let wanted = tensors("recovery/tests/fixtures/irr/expected.safetensors");
    let [tuned, aligned, unaligned] = models();
    let evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    for (case, settings) in expected["cases"].as_object().unwrap() {
        let number = |key: &str| settings[key].as_f64().unwrap();
        let method = Irr { sparsity: number("sparsity"), block: number("block") as usize };
        let inputs =
            Inputs { evidence: Some(&evidence), unaligned: Some(&unaligned), ..Inputs::new(&aligned, &tuned, go_on()) };
        let found = method.apply(inputs).unwrap().decoder;
        compare_case(case, &found, &wanted);
        for (((info, found), (_, aligned)), (_, tuned)) in all(&found).into_iter().zip(all(&aligned)).zip(all(&tuned)) {
            let Some(removed) = settings["removed"][&info.name].as_u64() else {
                assert_eq!(found, tuned, "{} stays", info.name);
                continue;
            };
            // What makes up for something hits the aligned value by chance at most.
            let equal = found.iter().zip(&aligned).filter(|(a, b)| a == b).count() as u64;
            assert_eq!(equal, removed, "{case}: {}", info.name);
        }
    }
}

#[test]
fn a_sparsity_of_one_removes_nothing() {
    let [tuned, aligned, unaligned] = models();
    let evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    let inputs =
        Inputs { evidence: Some(&evidence), unaligned: Some(&unaligned), ..Inputs::new(&aligned, &tuned, go_on()) };
    let found = Irr { sparsity: 1.0, ..Irr::default() }.apply(inputs).unwrap().decoder;
    for ((info, found), (_, tuned)) in all(&found).into_iter().zip(all(&tuned)) {
        // The aligned weight and the drift add up to the fine-tuned weight, up to the last bit.
        assert!(found.iter().zip(&tuned).all(|(a, b)| (a - b).abs() <= f32::EPSILON * b.abs()), "{}", info.name);
    }
}
