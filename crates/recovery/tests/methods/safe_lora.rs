//! Safe LoRA and SafeMERGE agree with plain PyTorch (`scripts/goldens/safe_lora.py`).
//!
//! Cosines: 2e-5, the last of the 5 digits on either side, since weights are f32 here and f64 there. Weights: 1e-5 of the
//! value, since a small difference of f32 weights is what is projected. What is changed: exactly, since the script's
//! thresholds are away from all cosines.

use std::collections::HashMap;

use burn::tensor::TensorData;
use model::{Decoder, weights};
use recovery::{Inputs, Method, ModulesTrace, Projector, Repair, Repaired, Report, Resta, SafeLora, SafeMerge, Trace};
use serde_json::Value;

use crate::resta::{all, models, tensors};
use crate::{go_on, load, path};

type Tensors = HashMap<String, Vec<f32>>;

fn expected(fixture: &str) -> (Value, Tensors) {
    let text = std::fs::read(path(&format!("recovery/tests/fixtures/{fixture}/expected.json"))).unwrap();
    let tensors = tensors(&format!("recovery/tests/fixtures/{fixture}/expected.safetensors"));
    (serde_json::from_slice(&text).unwrap(), tensors)
}

/// The trace and the changed tensors.
fn run(method: &dyn Repair, inputs: Inputs<'_>) -> (ModulesTrace, Tensors) {
    let before = all(inputs.fine_tuned);
    let repaired = method.apply(inputs).unwrap();
    let Some(Trace::Modules(trace)) = repaired.trace else { panic!("no trace of modules") };
    let mut after = all(&repaired.decoder);
    after.retain(|name, values| before[name] != *values);
    (trace, after)
}

/// Checks cosines, which modules were changed, and that nothing else was.
fn check(trace: &ModulesTrace, changed: &Tensors, cosines: &Value, names: &Value) {
    assert_eq!(trace.modules.len(), cosines.as_object().unwrap().len());
    for module in &trace.modules {
        let expected = cosines[&module.name].as_f64().unwrap();
        assert!((module.cosine - expected).abs() < 2e-5, "{}: {} against {expected}", module.name, module.cosine);
    }
    let mut expected: Vec<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let by_trace: Vec<&str> = trace.modules.iter().filter(|one| one.changed).map(|one| &*one.name).collect();
    assert_eq!(by_trace, expected);
    let mut found: Vec<&str> = changed.keys().map(|name| &**name).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-2), "{name}: {a} against {b}");
    }
}

/// The projectors and what selects, by the script's keys.
fn settings(case: &Value) -> Vec<(&'static str, &'static str, SafeLora)> {
    let (number, modules) = (case["number"].as_f64().unwrap(), 28.0);
    let share = SafeLora { share: number / modules, ..SafeLora::default() };
    let threshold = SafeLora { threshold: case["threshold"].as_f64(), ..SafeLora::default() };
    let exact = |one: SafeLora| SafeLora { projector: Projector::Exact, ..one };
    vec![
        ("released", "number", share),
        ("released", "threshold", threshold),
        ("exact", "number", exact(share)),
        ("exact", "threshold", exact(threshold)),
    ]
}

#[test]
fn modules_are_projected_as_in_pytorch() {
    let [fine_tuned, aligned, base] = models();
    let (expected, tensors) = expected("safe_lora");
    let case = &expected["full"];
    for (kind, select, method) in settings(case) {
        let (trace, changed) = run(&method, with_base(&aligned, &fine_tuned, &base));
        check(&trace, &changed, &case[kind]["cosines"], &case[kind]["projected"][select]);
        assert!((trace.threshold.unwrap() - case[kind]["tau"][select].as_f64().unwrap()).abs() < 2e-5);
        for (name, values) in &changed {
            close(name, values, &tensors[&format!("full.{kind}.{name}")]);
        }
    }
}

fn with_base<'a>(aligned: &'a Decoder, fine_tuned: &'a Decoder, base: &'a Decoder) -> Inputs<'a> {
    Inputs { base: Some(base), ..Inputs::new(aligned, fine_tuned, go_on()) }
}

/// The factors of a LoRA golden, by the weight's name.
fn factors(adapter: &str) -> impl Fn(&str, &str) -> Vec<f32> {
    let tensors = tensors(&format!("finetune/tests/fixtures/lora/{adapter}/adapter_model.safetensors"));
    move |name, factor| {
        let name = name.strip_suffix(".weight").unwrap();
        tensors[&format!("base_model.model.{name}.lora_{factor}.weight")].clone()
    }
}

/// `2 B A`, of rank 4.
fn merged(b: &[f32], a: &[f32]) -> Vec<f64> {
    let (rank, scale) = (4, 2.0);
    let input = a.len() / rank;
    let element =
        |row: &[f32], column| (0..rank).map(|k| f64::from(row[k]) * f64::from(a[k * input + column])).sum::<f64>();
    b.chunks(rank).flat_map(|row| (0..input).map(move |column| scale * element(row, column))).collect()
}

/// The aligned weights and what is added to them.
fn added(aligned: &[f32], drift: &[f64]) -> Vec<f32> {
    aligned.iter().zip(drift).map(|(&w, d)| (f64::from(w) + d) as f32).collect()
}

#[test]
fn whole_weights_of_an_adapter_become_those_of_the_projected_adapter() {
    let [base, aligned, fine_tuned] = models();
    let (expected, tensors) = expected("safe_lora");
    let (case, factors, weights) = (&expected["adapter"], factors("adapter-final"), all(&aligned));
    for (kind, select, method) in settings(case).into_iter().filter(|(kind, ..)| *kind == "released") {
        let (trace, changed) = run(&method, with_base(&aligned, &fine_tuned, &base));
        check(&trace, &changed, &case[kind]["cosines"], &case[kind]["projected"][select]);
        for (name, values) in &changed {
            let projected = merged(&tensors[&format!("adapter.{kind}.{name}")], &factors(name, "A"));
            close(name, values, &added(&weights[name], &projected));
        }
    }
}

#[test]
fn without_what_alignment_changed_all_is_taken_back_or_nothing() {
    let [fine_tuned, aligned, _] = models();
    let (none, every) =
        (SafeLora { share: 0.0, ..SafeLora::default() }, SafeLora { share: 1.0, ..SafeLora::default() });
    assert!(run(&none, with_base(&aligned, &fine_tuned, &aligned)).1.is_empty());
    let (trace, changed) = run(&every, with_base(&aligned, &fine_tuned, &aligned));
    assert!(trace.modules.iter().all(|module| module.cosine == 0.0 && module.changed));
    let aligned = all(&aligned);
    assert!(changed.len() == 28 && changed.iter().all(|(name, values)| aligned[name] == *values));
}

#[test]
fn modules_are_merged_with_a_safe_model_as_in_pytorch() {
    let [fine_tuned, aligned, base] = models();
    let (factors, own) = (factors("adapter-start"), all(&aligned));
    let safe = weights::replace(load("tiny-llama"), |info| {
        let is_module = info.layer.is_some() && !info.is_norm;
        let drift = is_module.then(|| merged(&factors(&info.name, "B"), &factors(&info.name, "A")))?;
        Some(TensorData::new(added(&own[&info.name], &drift), info.shape.clone()))
    });
    let (expected, tensors) = expected("safe_merge");
    let method: SafeMerge =
        serde_json::from_value(serde_json::json!({"threshold": expected["threshold"], "weight": expected["weight"]}))
            .unwrap();
    assert_eq!(method, SafeMerge::default());
    let (trace, changed) = run(&method, Inputs { safe: Some(&safe), ..with_base(&aligned, &fine_tuned, &base) });
    check(&trace, &changed, &expected["cosines"], &expected["merged"]);
    for (name, values) in &changed {
        close(name, values, &tensors[name]);
    }
}

#[test]
fn all_values_of_a_knob_at_once_are_those_one_by_one() {
    let [fine_tuned, aligned, other] = models();
    let inputs = || {
        let inputs = with_base(&aligned, &fine_tuned, &other);
        Inputs { safe: Some(&other), unaligned: Some(&other), seed: 3, ..inputs }
    };
    let methods: [Method; 4] = [
        SafeLora::default().into(),
        SafeLora { threshold: Some(0.5), ..SafeLora::default() }.into(),
        SafeMerge::default().into(),
        Resta { dare: 0.5, rank: Some(2), ..Resta::default() }.into(),
    ];
    for method in methods {
        let (knob, mut found) = (method.repair().knob().unwrap(), Vec::new());
        let mut visit = |repaired: Repaired, _: &mut Report<'_>| {
            found.push(all(&repaired.decoder));
            Ok(())
        };
        assert!(method.repair().sweep(&mut inputs(), &mut visit).unwrap());
        assert_eq!(found.len(), knob.values.len());
        for (&value, found) in knob.values.iter().zip(&found) {
            let alone = method.with(knob.key, value).unwrap().repair().apply(inputs()).unwrap();
            assert!(all(&alone.decoder) == *found, "{}: {} {value}", method.word(), knob.key);
        }
        assert!(found.first() != found.last());
    }
}
