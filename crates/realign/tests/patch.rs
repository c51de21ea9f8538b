//! A recovery patch: any step of a recovery from the fine-tuned model and one file, bit for bit, and back.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{Decoder, checkpoint, weights};
use serde_json::Value;

/// `decoder` with every weight moved.
fn moved(decoder: Decoder, by: f32) -> Decoder {
    let values: BTreeMap<String, Vec<f32>> =
        weights::read(&decoder, |_| true).unwrap().into_iter().map(|(info, values)| (info.name, values)).collect();
    let mut at = 0.0;
    weights::replace(decoder, |info| {
        let moved = values[&info.name].iter().map(|value| {
            at += 0.7_f32;
            value * 1.01 + by * at.sin()
        });
        Some(TensorData::new(moved.collect::<Vec<f32>>(), info.shape.clone()))
    })
}

/// A bench with prompts, a model `aligned`, the fine-tuned `tuned`, and another one, `other`.
fn bench() -> Bench {
    let bench = Bench::new();
    let aligned = bench.model("aligned", 16);
    bench.prompts("p.jsonl", 6);
    for (name, by) in [("tuned", 0.05), ("other", 0.04)] {
        let decoder = checkpoint::load(&aligned, &Device::default()).unwrap();
        checkpoint::save(&moved(decoder, by), &bench.path(name)).unwrap();
        checkpoint::copy_companions(&aligned, &bench.path(name)).unwrap();
    }
    bench
}

const RECOVER: &str = "recover --aligned aligned --prompts p.jsonl --task p.jsonl --rollback on --rate 0.01 --layer 2 \
                       --probe 0";

/// The files of a model directory but for the note on how it was made.
fn model(bench: &Bench, name: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = bench.path(name);
    let names = files::list(&dir).unwrap().into_keys().filter(|name| name != "outcome.json");
    names.map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn every_step_of_a_recovery_is_in_its_patch_and_is_taken_back() {
    let bench = bench();
    for dtype in ["f32", "bf16"] {
        bench.works(&format!("import --from tuned --dtype {dtype} --out tuned-{dtype}"));
        let recover = |steps: usize, out: &str| {
            let rest = format!("--dtype {dtype} --steps {steps} --out {out} --patch {out}.patch");
            bench.works(&format!("{RECOVER} --finetuned tuned-{dtype} {rest}"))
        };
        recover(3, &format!("r3-{dtype}"));
        recover(3, &format!("again-{dtype}"));
        let patch = format!("r3-{dtype}.patch");
        let bytes = |name: &str| fs::read(bench.path(name)).unwrap();
        assert_eq!(bytes(&patch), bytes(&format!("again-{dtype}.patch")), "the same recovery is the same file");
        for step in [1, 2, 3] {
            let (wanted, made, back) =
                (format!("r{step}-{dtype}"), format!("a{step}-{dtype}"), format!("b{step}-{dtype}"));
            if step < 3 {
                recover(step, &wanted);
            }
            bench.works(&format!("patch apply --patch {patch} --model tuned-{dtype} --step {step} --out {made}"));
            assert_eq!(model(&bench, &made), model(&bench, &wanted), "step {step}");
            let before = if step > 1 { format!("a{}-{dtype}", step - 1) } else { format!("tuned-{dtype}") };
            assert_ne!(model(&bench, &made), model(&bench, &before), "step {step} restores something");
            let said = bench.works(&format!("patch verify --patch {patch} --model {wanted} --aligned aligned"));
            assert!(said.contains(&format!("{wanted}: the model after step {step}")), "{said}");
            let said = bench.works(&format!("patch undo --patch {patch} --model {wanted} --step {step} --out {back}"));
            let rounded = "the fine-tuned model in bf16 (rounded to it, unless it was in bf16)";
            assert_eq!(said.starts_with(rounded), dtype == "bf16", "{said}");
            for (name, stage, to) in [(&made, "patch_apply", step), (&back, "patch_undo", 0)] {
                let outcome: Value = serde_json::from_slice(&bytes(&format!("{name}/outcome.json"))).unwrap();
                assert_eq!((&outcome["stage"], &outcome["summary"]["step"]), (&stage.into(), &to.into()));
            }
            assert_eq!(model(&bench, &back), model(&bench, &format!("tuned-{dtype}")), "back from step {step}");
        }
        // Without a step it is the recovery's answer.
        bench.works(&format!("patch apply --patch {patch} --model tuned-{dtype} --out answer-{dtype}"));
        assert_eq!(model(&bench, &format!("answer-{dtype}")), model(&bench, &format!("r3-{dtype}")));
        bench.works(&format!("patch undo --patch {patch} --model answer-{dtype} --out undone-{dtype}"));
        assert_eq!(model(&bench, &format!("undone-{dtype}")), model(&bench, &format!("tuned-{dtype}")));
    }
}

#[test]
fn a_model_that_the_patch_is_not_of_is_refused_and_nothing_is_written() {
    let bench = bench();
    bench.works(&format!("{RECOVER} --finetuned tuned --steps 2 --out r --patch p.patch"));
    let on =
        |what: &str, model: &str, rest: &str| format!("patch {what} --patch p.patch --model {model} --out o {rest}");
    for wrong in ["other", "aligned"] {
        bench.fails(&on("apply", wrong, ""), &["p.patch", wrong, "tensor `model.", "the patch does not fit"]);
    }
    bench.fails(&on("apply", "r", ""), &["the model is the one after step 2 and not the fine-tuned one"]);
    bench.fails(&on("undo", "tuned", ""), &["the model is the fine-tuned one and not the one after step 2"]);
    bench.fails(&on("undo", "r", "--step 1"), &["the one after step 2 and not the one after step 1"]);
    bench.works("patch apply --patch p.patch --model tuned --step 1 --out first");
    bench.fails(&on("undo", "first", ""), &["step 1 and not the one after step 2: take that one back, with --step 1"]);
    bench.fails(&on("apply", "tuned", "--step 3"), &["there is no step 3; the last one is 2"]);
    bench.fails(&on("apply", "tuned", "--dtype bf16"), &["leave --dtype out"]);
    bench.fails("patch verify --patch p.patch --model other", &["other", "tensor `model."]);
    bench.fails("patch verify --patch p.patch --aligned tuned", &["tuned", "is not the aligned model's"]);
    bench.fails("patch apply --patch p.patch --model tuned --out tuned", &["would be written over tuned"]);
    assert!(!bench.path("o").exists());
    let mut bytes = fs::read(bench.path("p.patch")).unwrap();
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    fs::write(bench.path("damaged.patch"), bytes).unwrap();
    for command in ["verify --patch damaged.patch", "show damaged.patch", "diff p.patch damaged.patch"] {
        bench.fails(&format!("patch {command}"), &["damaged.patch: not a patch: it is damaged"]);
    }
    bench.fails("patch show tuned/model.safetensors", &["tuned/model.safetensors: not a patch"]);
    bench.fails("patch show tuned", &["not a regular file"]);
    let resta = "resta --aligned aligned --finetuned tuned --unaligned other --out o --patch o.patch";
    bench.fails(resta, &["has no patch; leave --patch out"]);
}

#[test]
fn a_patch_is_made_of_three_models_where_each_weight_is_of_one_of_two() {
    let bench = bench();
    bench.works(&format!("{RECOVER} --finetuned tuned --steps 2 --out r --patch p.patch"));
    let make = "patch make --aligned aligned --finetuned tuned";
    let said = bench.works(&format!("{make} --recovered r --out made.patch"));
    let shown =
        |patch: &str| -> Value { serde_json::from_str(&bench.works(&format!("patch show {patch} --json"))).unwrap() };
    let (made, own) = (shown("made.patch"), shown("p.patch"));
    assert!(said.starts_with(&format!("{} weights", own["restored"])), "{said}");
    for key in ["aligned", "fine_tuned", "restored", "tensors", "dtype"] {
        assert_eq!(made[key], own[key], "{key}");
    }
    bench.works("patch apply --patch made.patch --model tuned --out a");
    assert_eq!(model(&bench, "a"), model(&bench, "r"));
    bench.works("resta --aligned aligned --finetuned tuned --unaligned other --out s");
    bench.fails(&format!("{make} --recovered s --out no.patch"), &["tensor `model.", "holds ", "of neither model"]);
    bench.model("wide", 20);
    bench.fails(&format!("{make} --recovered wide --out no.patch"), &["tensor `", "or of another shape"]);
    assert!(!bench.path("no.patch").exists());
}

#[test]
fn an_adapter_is_patched_as_the_model_that_it_makes() {
    let bench = bench();
    let decoder = checkpoint::load(&bench.path("aligned"), &Device::default()).unwrap();
    let lora = finetune::LoraSettings { rank: 2, ..finetune::LoraSettings::default() };
    let decoder = weights::replace(finetune::lora::attach(decoder, &lora, 1), |info| {
        let values: Vec<f32> = (0..info.len()).map(|at| (at as f32 * 0.7).sin() * 0.1).collect();
        info.name.ends_with("lora.b").then(|| TensorData::new(values, info.shape.clone()))
    });
    checkpoint::peft::save_adapter(&decoder, &bench.path("adapter")).unwrap();
    bench.works(&format!("{RECOVER} --finetuned adapter --steps 2 --out r --patch p.patch"));
    bench.works("import --from adapter --base aligned --out merged");
    for (name, model) in [("a", "adapter --base aligned"), ("m", "merged")] {
        bench.works(&format!("patch apply --patch p.patch --model {model} --out {name}"));
    }
    assert_eq!(model(&bench, "a"), model(&bench, "r"));
    assert_eq!(model(&bench, "m")["model.safetensors"], model(&bench, "r")["model.safetensors"]);
    let said = bench.works("patch verify --patch p.patch --model adapter --aligned aligned");
    assert!(said.contains("adapter: the fine-tuned model"), "{said}");
    bench.fails("patch apply --patch p.patch --model adapter --out o", &["is an adapter of peft", "--base"]);
}

#[test]
fn what_is_in_a_patch_is_shown_and_two_are_compared() {
    let bench = bench();
    bench.works(&format!("{RECOVER} --finetuned tuned --steps 3 --out r --patch p.patch"));
    bench.works(
        "random --count 200 --aligned aligned --finetuned tuned --prompts p.jsonl --probe 0 --layer 2 --out d \
         --patch d.patch",
    );
    let json: Value = serde_json::from_str(&bench.works("patch show p.patch --json")).unwrap();
    let steps = json["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &json["chosen"], &json["dtype"]), (3, &Value::from(3), &Value::from("f32")));
    assert_eq!(json["method"]["recover"]["rate"], 0.01);
    assert_eq!(json["notes"]["steps"].as_array().unwrap().len(), 3);
    let flips: u64 = steps.iter().map(|step| step["flips"].as_u64().unwrap()).sum();
    let restored = json["restored"].as_u64().unwrap();
    assert!(restored == flips && steps[2]["restored"] == restored, "{json}");
    let of_tensors = json["tensors"].as_object().unwrap().values().map(|tensor| tensor["restored"].as_u64().unwrap());
    assert_eq!(of_tensors.sum::<u64>(), restored);
    let text = bench.works("patch show p.patch");
    for part in ["\"recover\"", "f32", "(the answer)", "q_proj", "\nall "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let cells = |line: &str| line.split_whitespace().skip(1).map(|cell| cell.parse().unwrap()).collect::<Vec<u64>>();
    let diff = bench.works("patch diff p.patch d.patch");
    let counts = cells(diff.lines().last().unwrap());
    assert_eq!((counts[0] + counts[1], counts[0] + counts[2]), (restored, 200), "{diff}");
    assert!(diff.starts_with("aligned models  the same\nfine-tuned models  the same\n"), "{diff}");
    let same = bench.works("patch diff p.patch p.patch");
    assert_eq!(cells(same.lines().last().unwrap()), [restored, 0, 0], "{same}");
}
