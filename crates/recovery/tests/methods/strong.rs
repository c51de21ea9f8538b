//! Strong recovery against the reference (scripts/goldens/strong.py, float64) on tiny models.

use std::ops::ControlFlow;

use recovery::{
    Answered, Evidence, Inputs, MeritSettings, Parts, Reference, Repair, Repaired, Standing, Strong, StrongTrace,
    Trace, damage,
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{Fixture, all, load, path};

/// Losses are of float32 models: the golden's own float32 run is within 2e-6 of its float64 one.
const TOLERANCE: f64 = 2e-5;

pub(crate) struct Golden {
    expected: Value,
    sets: Vec<u8>,
}

impl Golden {
    pub(crate) fn read() -> Self {
        let dir = path("recovery/tests/fixtures/strong");
        let expected = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        Self { expected, sets: std::fs::read(dir.join("expected.safetensors")).unwrap() }
    }

    pub(crate) fn evidence(&self, settings: &Value) -> Evidence {
        let rows = |part: &str, kind: &str| -> Vec<Answered> {
            let rows = self.expected[part][kind].as_array().unwrap().iter();
            let row = |row: &Value| Answered {
                ids: serde_json::from_value(row["ids"].clone()).unwrap(),
                start: row["start"].as_u64().unwrap() as usize,
            };
            rows.map(row).collect()
        };
        let merit = MeritSettings::default();
        let number = |key: &str, otherwise: f64| settings[key].as_f64().unwrap_or(otherwise);
        let parts = |kind: &str| Parts { train: rows("train", kind), held_out: rows("held", kind) };
        Evidence {
            harmful: parts("harmful"),
            harmless: parts("harmless"),
            task: parts("task"),
            reference: match settings["reference"].as_str().unwrap() {
                "aligned" => Reference::Aligned,
                _ => Reference::FineTuned,
            },
            merit: MeritSettings {
                mu: number("mu", merit.mu),
                enough: number("enough", merit.enough),
                task: number("penalty", merit.task),
                max_harmful: number("max_harmful", merit.max_harmful),
                ..merit
            },
        }
    }

    fn run(&self, name: &str) -> (Repaired, StrongTrace) {
        let settings = &self.expected["runs"][name]["settings"];
        let number = |key: &str| settings[key].as_f64().unwrap();
        let strong = Strong {
            lambda: number("task_weight"),
            momentum: number("momentum"),
            rate: number("start"),
            cap: number("cap"),
            max_cap: number("max_cap"),
            rounds: number("rounds") as usize,
            tolerance: number("tolerance"),
            drawn: 1000, // all of them in each round
            all_tensors: settings["all_tensors"].as_bool(),
            ..Strong::default()
        };
        let (fixture, evidence) = (Fixture::read(), self.evidence(settings));
        let mut report = |_: usize, _: usize, _: &str| ControlFlow::Continue(());
        let inputs = Inputs::new(&fixture.aligned, &fixture.tuned, &mut report);
        let inputs = Inputs { evidence: Some(&evidence), seed: settings["seed"].as_u64().unwrap(), ..inputs };
        let repaired = strong.apply(inputs).unwrap();
        let Some(Trace::Strong(trace)) = repaired.trace.clone() else { panic!("another trace") };
        (repaired, trace)
    }

    /// The weights that a round flips, by tensor.
    fn flips(&self, name: &str, round: usize) -> Vec<(String, Vec<u32>)> {
        let tensors = SafeTensors::deserialize(&self.sets).unwrap();
        let prefix = format!("{name}.round_{round}.");
        let mut found: Vec<(String, Vec<u32>)> = tensors
            .tensors()
            .into_iter()
            .filter_map(|(key, view)| {
                let words = view.data().as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
                Some((key.strip_prefix(&prefix)?.to_owned(), words.collect()))
            })
            .collect();
        found.sort();
        found
    }
}

fn close(found: f64, wanted: &Value, what: &str) {
    let wanted = wanted.as_f64().unwrap();
    assert!((found - wanted).abs() <= TOLERANCE * wanted.abs().max(0.1), "{what}: {found} instead of {wanted}");
}

fn compare(found: &Standing, wanted: &Value, what: &str) {
    close(found.harmful, &wanted["harm"], what);
    close(found.harmless, &wanted["harmless"], what);
    close(found.task, &wanted["task"], what);
    close(found.merit, &wanted["merit"], what);
}

#[test]
fn rounds_trials_and_flips_are_those_of_the_reference() {
    let golden = Golden::read();
    for name in ["aligned", "fine_tuned", "capped", "wide", "raised", "all_tensors"] {
        let (repaired, trace) = golden.run(name);
        let rounds = golden.expected["runs"][name]["rounds"].as_array().unwrap();
        assert_eq!(trace.rounds.len(), rounds.len(), "{name}");
        compare(&trace.base, &rounds[0]["start"], name);
        let steps = repaired.path.as_ref().unwrap().steps();
        for (number, (found, wanted)) in trace.rounds.iter().zip(rounds).enumerate() {
            let what = format!("{name}, round {}", number + 1);
            let trials = wanted["trials"].as_array().unwrap();
            let counts = |trials: &[Value]| trials.iter().map(|trial| trial["k"].as_u64().unwrap()).collect::<Vec<_>>();
            assert_eq!(found.trials.iter().map(|trial| trial.k as u64).collect::<Vec<_>>(), counts(trials), "{what}");
            for (found, wanted) in found.trials.iter().zip(trials) {
                compare(&found.standing, wanted, &format!("{what}, {} flips", found.k));
                assert_eq!(found.restored as u64, wanted["restored"].as_u64().unwrap(), "{what}");
            }
            let flips: Vec<(String, Vec<u32>)> =
                steps[number].tensors().map(|(name, indices)| (name.to_owned(), indices.to_vec())).collect();
            assert_eq!(flips, golden.flips(name, number + 1), "{what}");
        }
        assert_eq!(repaired.restored, repaired.patch().map(|patch| patch.len()), "{name}");
    }
}

#[test]
fn damage_is_the_share_of_changed_weights_and_the_references_divergence() {
    let golden = Golden::read();
    // In this run R is of the fine-tuned model, so that the golden's figure is KL(fine-tuned || repaired).
    let (repaired, _) = golden.run("fine_tuned");
    let run = &golden.expected["runs"]["fine_tuned"];
    let last = run["rounds"].as_array().unwrap().last().unwrap();
    let applied = last["trials"].as_array().unwrap().iter().find(|trial| trial["k"] == last["flipped"]);
    let wanted = &applied.unwrap_or(&last["start"])["harmless"];
    let (fixture, harmless) = (Fixture::read(), golden.evidence(&run["settings"]).harmless.held_out);
    let found = damage(&fixture.tuned, &repaired.decoder, &harmless).unwrap();
    close(found.divergence.unwrap(), wanted, "the repaired model");
    let weights: usize = all(&fixture.tuned).iter().map(|(info, _)| info.len()).sum();
    assert_eq!(found.changed, repaired.restored.unwrap() as f64 / weights as f64);
    // At the start of the other runs it is KL(aligned || fine-tuned).
    let wanted = &golden.expected["runs"]["aligned"]["rounds"][0]["start"]["harmless"];
    let found = damage(&fixture.aligned, &fixture.tuned, &harmless).unwrap();
    close(found.divergence.unwrap(), wanted, "the fine-tuned model beside the aligned one");
    let none = damage(&fixture.tuned, &fixture.tuned, &harmless).unwrap();
    assert!(none.changed == 0.0 && none.divergence.unwrap().abs() < 1e-9, "{none:?}");
}

#[test]
fn two_equal_models_leave_nothing_to_recover() {
    let golden = Golden::read();
    let evidence = golden.evidence(&golden.expected["runs"]["aligned"]["settings"]);
    let aligned = load("tiny-llama");
    let mut report = |_: usize, _: usize, _: &str| ControlFlow::Continue(());
    let inputs = Inputs { evidence: Some(&evidence), ..Inputs::new(&aligned, &aligned, &mut report) };
    let repaired = Strong::default().apply(inputs).unwrap();
    assert_eq!((repaired.outcome, repaired.restored), (recovery::Outcome::Nothing, Some(0)));
}

#[test]
fn a_stopped_recovery_goes_on_to_the_same_end() {
    let golden = Golden::read();
    let evidence = golden.evidence(&golden.expected["runs"]["aligned"]["settings"]);
    let (fixture, dir) = (Fixture::read(), tempfile::tempdir().unwrap());
    let run = |checkpoint: bool, stop_after: usize| {
        let mut calls = 0;
        let mut report = |_: usize, _: usize, _: &str| {
            calls += 1;
            if calls > stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let checkpoint = checkpoint.then(|| dir.path().join("checkpoint"));
        let inputs = Inputs::new(&fixture.aligned, &fixture.tuned, &mut report);
        Strong { rounds: 3, cap: 0.005, drawn: 4, ..Strong::default() }.apply(Inputs {
            evidence: Some(&evidence),
            checkpoint,
            ..inputs
        })
    };
    let whole = run(false, usize::MAX).unwrap();
    // Within the second round: the first is in the checkpoint.
    assert!(matches!(run(true, 6), Err(recovery::Error::Stopped)));
    assert!(dir.path().join("checkpoint").is_file());
    let resumed = run(true, usize::MAX).unwrap();
    assert_eq!((resumed.path, resumed.outcome), (whole.path, whole.outcome));
}
