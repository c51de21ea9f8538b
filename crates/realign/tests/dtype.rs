//! `--dtype`: what is read and written in 16 bits.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{Dtype, checkpoint, weights};

fn bits(dir: &Path) -> BTreeMap<String, Vec<u32>> {
    let decoder = checkpoint::load(dir, &Device::default()).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    weights::read(&decoder, |_| true).unwrap().into_iter().map(|(info, values)| (info.name, bits(values))).collect()
}

/// A bench with prompts, an f32 model `aligned`, and `tuned`, which differs from it in every weight.
fn bench() -> Bench {
    let bench = Bench::new();
    let aligned = bench.model("aligned", 16);
    bench.prompts("p.jsonl", 6);
    let mut change = 0;
    let decoder = checkpoint::load(&aligned, &Device::default()).unwrap();
    let values: BTreeMap<String, Vec<f32>> =
        weights::read(&decoder, |_| true).unwrap().into_iter().map(|(info, values)| (info.name, values)).collect();
    let tuned = weights::replace(decoder, |info| {
        let moved = values[&info.name].iter().map(|value| {
            change += 1;
            value * 1.01 + 0.05 * (change as f32 * 0.7).sin()
        });
        Some(TensorData::new(moved.collect::<Vec<f32>>(), info.shape.clone()))
    });
    checkpoint::save(&tuned, &bench.path("tuned")).unwrap();
    checkpoint::copy_companions(&aligned, &bench.path("tuned")).unwrap();
    bench
}

fn recover(bench: &Bench, aligned: &str, tuned: &str, rest: &str) -> String {
    bench.works(&format!(
        "recover --aligned {aligned} --finetuned {tuned} --prompts p.jsonl --steps 3 --rate 0.02 --layer 2 \
         --probe 0 {rest}"
    ))
}

fn weights_of(bench: &Bench, name: &str) -> Vec<u8> {
    fs::read(bench.path(name).join("model.safetensors")).unwrap()
}

#[test]
fn a_model_recovered_in_bf16_has_half_the_size_and_exactly_the_weights_of_the_two() {
    let bench = bench();
    recover(&bench, "aligned", "tuned", "--out wide");
    recover(&bench, "aligned", "tuned", "--dtype bf16 --out narrow");
    for name in ["aligned", "tuned"] {
        bench.works(&format!("import --from {name} --dtype bf16 --out {name}-bf16"));
    }
    let data = |name: &str| {
        let bytes = weights_of(&bench, name);
        bytes.len() - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
    };
    assert_eq!((data("wide"), data("tuned")), (2 * data("narrow"), data("wide")));
    let [found, aligned, tuned] = ["narrow", "aligned-bf16", "tuned-bf16"].map(|name| bits(&bench.path(name)));
    let mut counts = [0; 2];
    for (name, found) in &found {
        for (index, value) in found.iter().enumerate() {
            let of = [&aligned, &tuned].map(|model| model[name][index] == *value);
            assert!(of[0] || of[1], "{name} {index} is neither the aligned nor the fine-tuned value");
            counts[usize::from(of[1])] += 1;
        }
    }
    assert!(counts[0] > 100 && counts[1] > counts[0], "{counts:?}");
    // The precision of what is changed is kept without a word, and the command reads its own output.
    recover(&bench, "aligned", "tuned-bf16", "--out kept");
    assert_eq!(weights_of(&bench, "kept"), weights_of(&bench, "narrow"));
    let config = fs::read_to_string(bench.path("kept/config.json")).unwrap();
    assert!(config.contains("\"torch_dtype\": \"bfloat16\""), "{config}");
    bench.works("generate --model kept --prompts p.jsonl --max-new-tokens 2 --out a.jsonl");
}

#[test]
fn a_recovered_model_has_the_files_of_the_fine_tuned_one() {
    let bench = bench();
    bench.works("import --from tuned --dtype bf16 --max-shard-size 4KB --out sharded");
    recover(&bench, "aligned", "sharded", "--patch p.safetensors --out kept");
    let index = |name: &str| fs::read_to_string(bench.path(name).join(checkpoint::INDEX)).unwrap();
    assert!(index("sharded").contains("model-00003-of-"), "{}", index("sharded"));
    assert_eq!(index("kept"), index("sharded"));
    assert_ne!(bits(&bench.path("kept")), bits(&bench.path("sharded")));
    bench.works("patch apply --patch p.safetensors --model sharded --out applied");
    assert_eq!((index("applied"), bits(&bench.path("applied"))), (index("sharded"), bits(&bench.path("kept"))));
    recover(&bench, "aligned", "sharded", "--max-shard-size 1GB --out single");
    assert!(!bench.path("single").join(checkpoint::INDEX).exists());
    assert_eq!(bits(&bench.path("single")), bits(&bench.path("kept")));
}

#[test]
fn training_in_16_bits_keeps_f32_until_it_is_saved() {
    let bench = bench();
    bench.works("import --from aligned --dtype bf16 --out b");
    let tune = |model: &str, rest: &str, out: &str| {
        let rest = format!("--rank 0 --learning-rate 0.01 --epochs 2 {rest} --out {out}");
        bench.works(&format!("finetune --model {model} --task p.jsonl {rest}"))
    };
    tune("b", "", "tuned-b");
    // The same training whose result is f32, rounded afterwards.
    tune("b", "--dtype f32", "tuned-f");
    bench.works("import --from tuned-f --dtype bf16 --out rounded");
    assert_eq!(weights_of(&bench, "tuned-b"), weights_of(&bench, "rounded"));
    assert_eq!(checkpoint::stored_dtype(&bench.path("tuned-b")).unwrap(), Dtype::Bf16);
    assert_eq!(checkpoint::stored_dtype(&bench.path("tuned-f")).unwrap(), Dtype::F32);
    assert_ne!(bits(&bench.path("tuned-f")), bits(&bench.path("tuned-b")));
}

#[test]
fn answers_in_another_precision_are_other_answers() {
    let bench = bench();
    let generate =
        |rest: &str| bench.works(&format!("generate --model tuned --prompts p.jsonl --max-new-tokens 8 {rest}"));
    let keys = |file: &str| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(bench.path(file)).unwrap();
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].clone()).collect()
    };
    for (rest, out) in [("", "plain"), ("--dtype f32", "wide"), ("--dtype bf16", "narrow")] {
        generate(&format!("{rest} --out {out}.jsonl"));
    }
    // f32 is what the model has, so that nothing is answered again for having said so.
    assert_eq!(keys("plain.jsonl"), keys("wide.jsonl"));
    assert!(keys("plain.jsonl").iter().zip(keys("narrow.jsonl")).all(|(plain, narrow)| *plain != narrow));
    let direction = |rest: &str, out: &str| {
        bench.works(&format!("direction --model tuned --prompts p.jsonl --layer 2 {rest} --out {out}"));
        // The tensor of 16 values, after a header whose metadata are in any order.
        let file = fs::read(bench.path(out)).unwrap();
        file[file.len() - 64..].to_vec()
    };
    assert_eq!(direction("", "d"), direction("--dtype f32", "d-f32"));
    assert_ne!(direction("", "d"), direction("--dtype f16", "d-f16"));
}

#[test]
fn a_gguf_file_becomes_f32_where_nothing_else_is_asked_for() {
    let bench = Bench::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/gguf/tiny-llama.gguf");
    bench.works(&format!("import --from {} --out plain", file.display()));
    bench.works(&format!("import --from {} --dtype f16 --out half", file.display()));
    let dtype = |name: &str| checkpoint::stored_dtype(&bench.path(name)).unwrap();
    assert_eq!((dtype("plain"), dtype("half")), (Dtype::F32, Dtype::F16));
    // A directory keeps its own.
    bench.works("import --from half --out again");
    assert_eq!(weights_of(&bench, "again"), weights_of(&bench, "half"));
}

#[test]
fn a_weight_that_is_too_large_for_f16_is_named() {
    let bench = bench();
    let decoder = checkpoint::load(&bench.path("aligned"), &Device::default()).unwrap();
    let large = weights::replace(decoder, |info| {
        (info.name == "model.norm.weight").then(|| TensorData::new(vec![7e4_f32; 16], [16]))
    });
    checkpoint::save(&large, &bench.path("aligned")).unwrap();
    let parts = ["model.norm.weight", "70000", "f16", "take bf16 or f32"];
    bench.fails("import --from aligned --dtype f16 --out o", &parts);
    bench.fails("generate --model aligned --dtype f16 --prompts p.jsonl --out o", &[&parts[..], &["aligned"]].concat());
    assert!(!bench.path("o").exists());
    let said = bench.realign("import --from aligned --dtype f8 --out o");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("f8") && said.contains("bf16"), "{said}");
}
