//! Antidote against plain PyTorch in float64 (scripts/goldens/antidote.py). The sets of restored weights are compared exactly:
//! at every border the reference's scores are 5e-5 (relative) apart.

use recovery::{Antidote, Inputs, Repair as _, Repaired};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::strong::Golden;
use crate::{Fixture, all, go_on, path};

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(path("recovery/tests/fixtures/antidote/expected.json")).unwrap()).unwrap()
}

fn run(fixture: &Fixture, ratio: f64) -> Repaired {
    let mut evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    evidence.harmful.train.truncate(expected()["rows"].as_u64().unwrap() as usize);
    let inputs = Inputs { evidence: Some(&evidence), ..Inputs::new(&fixture.aligned, &fixture.tuned, go_on()) };
    Antidote { ratio }.apply(inputs).unwrap()
}

#[test]
fn what_is_restored_is_what_the_reference_restores() {
    let (fixture, expected) = (Fixture::read(), expected());
    let repaired = run(&fixture, expected["ratio"].as_f64().unwrap());
    assert_eq!(repaired.restored.unwrap() as u64, expected["restored"].as_u64().unwrap());
    let bytes = std::fs::read(path("recovery/tests/fixtures/antidote/expected.safetensors")).unwrap();
    let sets = SafeTensors::deserialize(&bytes).unwrap();
    let indices = |name: &str| -> Vec<u32> {
        let words = sets.tensor(name).map(|set| set.data().to_vec()).unwrap_or_default();
        words.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
    };
    let patch = repaired.patch().unwrap();
    let models = all(&repaired.decoder).into_iter().zip(all(&fixture.aligned)).zip(all(&fixture.tuned));
    for (((info, found), (_, aligned)), (_, tuned)) in models {
        let expected = indices(&info.name);
        assert_eq!(patch.indices(&info.name), expected, "{}", info.name);
        let mut wanted = tuned;
        expected.iter().for_each(|&index| wanted[index as usize] = aligned[index as usize]);
        assert_eq!(found, wanted, "{}", info.name);
    }
}

#[test]
fn none_and_all_of_the_drift_are_the_ends() {
    let fixture = Fixture::read();
    assert_eq!((run(&fixture, 0.0).restored, all(&run(&fixture, 0.0).decoder)), (Some(0), all(&fixture.tuned)));
    let aligned = all(&fixture.aligned).into_iter();
    for ((info, found), (_, aligned)) in all(&run(&fixture, 1.0).decoder).into_iter().zip(aligned) {
        assert!(!info.name.contains("_proj.weight") || found == aligned, "{}", info.name);
    }
}
