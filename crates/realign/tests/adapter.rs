//! A peft adapter in the place of the fine-tuned model: every stage that takes one makes of it what it makes of the merged
//! model.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{Decoder, Dtype, checkpoint, weights};
use recovery::Method;
use serde_json::{Value, json};

/// The model in `aligned` with an adapter that changes something.
fn adapted(aligned: &Path, wave: f32) -> Decoder {
    let decoder = checkpoint::load(aligned, &Device::default()).unwrap();
    let lora = finetune::LoraSettings { rank: 2, ..finetune::LoraSettings::default() };
    weights::replace(finetune::lora::attach(decoder, &lora, 1), |info| {
        let values: Vec<f32> = (0..info.len()).map(|at| (at as f32 * wave).sin() * 0.1).collect();
        info.name.ends_with("lora.b").then(|| TensorData::new(values, info.shape.clone()))
    })
}

/// A bench with an aligned model in `dtype` and two fine-tuned ones, `tuned` and `unaligned`, each as `*-adapter` and
/// `*-merged`.
fn bench(dtype: Dtype) -> Bench {
    let bench = Bench::new();
    let aligned = bench.model("aligned", 16);
    let decoder = weights::round(checkpoint::load(&aligned, &Device::default()).unwrap(), dtype).unwrap();
    checkpoint::save_as(&decoder, dtype, checkpoint::MAX_SHARD, &aligned).unwrap();
    bench.prompts("p.jsonl", 4);
    for (name, wave) in [("tuned", 0.7), ("unaligned", 1.3)] {
        let decoder = adapted(&aligned, wave);
        checkpoint::peft::save_adapter(&decoder, &bench.path(&format!("{name}-adapter"))).unwrap();
        let merged = bench.path(&format!("{name}-merged"));
        checkpoint::save_as(&finetune::lora::merge(decoder), dtype, checkpoint::MAX_SHARD, &merged).unwrap();
        checkpoint::copy_companions(&aligned, &merged).unwrap();
    }
    bench
}

/// The adapter's result is the merged model's, is no input, and can be used.
fn same(bench: &Bench, from_adapter: &str, from_merged: &str) {
    let of = |name: &str| fs::read(bench.path(name).join("model.safetensors")).unwrap();
    assert_eq!(of(from_adapter), of(from_merged));
    for input in ["aligned", "tuned-merged"] {
        assert_ne!(of(from_adapter), of(input), "{from_adapter} is {input}");
    }
    assert!(bench.path(from_adapter).join("tokenizer.json").exists());
}

#[test]
fn an_adapter_is_recovered_as_the_model_it_makes() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let bench = bench(dtype);
        for tuned in ["adapter", "merged"] {
            let rest = "--prompts p.jsonl --steps 2 --rate 0.01 --layer 2 --probe 0";
            bench.works(&format!("recover --aligned aligned --finetuned tuned-{tuned} {rest} --out from-{tuned}"));
        }
        same(&bench, "from-adapter", "from-merged");
        assert_eq!(checkpoint::stored_dtype(&bench.path("from-adapter")).unwrap(), dtype);
    }
}

#[test]
fn resta_takes_adapters_in_the_place_of_both_fine_tuned_models() {
    let bench = bench(Dtype::F32);
    for kind in ["adapter", "merged"] {
        let models = format!("--aligned aligned --finetuned tuned-{kind} --unaligned unaligned-{kind}");
        bench.works(&format!("resta {models} --gamma 0.5 --dare 0.3 --out from-{kind}"));
    }
    same(&bench, "from-adapter", "from-merged");
}

#[test]
fn every_control_arm_takes_an_adapter() {
    let bench = bench(Dtype::Bf16);
    let arms = [
        "random --count 20 --layer 2 --prompts p.jsonl --probe 0",
        "largest_difference --count 20 --layer 2",
        "full_revert --layer 2",
        "interpolation --lambda 0.4",
    ];
    for arm in arms {
        assert!(Method::WORDS.iter().any(|word| arm.starts_with(word)), "{arm}");
        let said = ["adapter", "merged"].map(|kind| {
            let out = format!("from-{kind}");
            let _ = fs::remove_dir_all(bench.path(&out));
            let said = bench.works(&format!("{arm} --aligned aligned --finetuned tuned-{kind} --out {out}"));
            said.replace(&out, "")
        });
        assert_eq!(said[0], said[1], "{arm}");
        same(&bench, "from-adapter", "from-merged");
    }
}

/// What two directories make of a question, or one of them.
fn asked(dirs: &[&Path]) -> Option<String> {
    let template = prompts::ChatTemplate::from_dirs(dirs).ok()?;
    Some(template.render(&[prompts::Message::new(prompts::Role::User, "where is the map")], true).unwrap())
}

#[test]
fn what_is_written_of_an_adapter_has_the_template_that_is_read_of_it_and_its_base() {
    let bench = Bench::new();
    let [base, adapter, out] = ["base", "adapter", "out"].map(|name| bench.path(name));
    bench.model("base", 16);
    bench.model("out", 16);
    fs::create_dir(&adapter).unwrap();
    let template = |of: &str| format!("{of}: {{{{ messages[0].content }}}}{{{{ eos_token }}}}");
    // A template in a file of its own, and in tokenizer_config.json: no file, none, a string, a list with and without a default.
    let configs = |dir: &str| {
        let named = |name: &str| json!([{"name": name, "template": template(&format!("{dir} {name}"))}]);
        let templates = [json!(template(&format!("{dir} config"))), named("default"), named("tools")];
        let with = |template: Value| Some(json!({"eos_token": "<|end|>", "chat_template": template}));
        let without = Some(json!({"eos_token": "<|pad|>"}));
        [None, without].into_iter().chain(templates.map(with)).collect::<Vec<_>>()
    };
    let set = |dir: &Path, has_file: bool, config: &Option<Value>| {
        let name = dir.file_name().unwrap().to_str().unwrap();
        let texts = [
            ("chat_template.jinja", has_file.then(|| template(&format!("{name} file")))),
            ("tokenizer_config.json", config.as_ref().map(Value::to_string)),
        ];
        for (file, text) in texts {
            files::remove(&dir.join(file)).unwrap();
            text.iter().for_each(|text| fs::write(dir.join(file), text).unwrap());
        }
    };
    let mut found = BTreeSet::new();
    for (of_adapter, of_base) in
        configs("adapter").iter().flat_map(|one| configs("base").into_iter().map(move |other| (one, other)))
    {
        for (own_file, base_file) in [(false, false), (false, true), (true, false), (true, true)] {
            set(&adapter, own_file, of_adapter);
            set(&base, base_file, &of_base);
            checkpoint::copy_companions_of(&[&adapter, &base], &out).unwrap();
            let wanted = asked(&[&adapter, &base]);
            assert_eq!(asked(&[&out]), wanted, "{own_file} {of_adapter:?} {base_file} {of_base:?}");
            found.extend(wanted);
        }
    }
    for start in ["adapter file", "adapter config", "adapter default", "base file", "base config", "base default"] {
        assert!(found.iter().any(|text| text.starts_with(start)), "{start}: {found:?}");
    }
}

#[test]
fn a_repaired_adapter_answers_by_its_own_template() {
    let bench = bench(Dtype::F32);
    let (own, base) = (bench.path("tuned-adapter"), bench.path("aligned"));
    bench.file("aligned/chat_template.jinja", "base {{ messages[0].content }}<|end|>");
    bench.file("tuned-adapter/tokenizer_config.json", r#"{"chat_template": "own {{ messages[0].content }}<|end|>"}"#);
    let wanted = asked(&[&own, &base]);
    assert_eq!(wanted.as_deref(), Some("own where is the map<|end|>"));
    let recover = "recover --aligned aligned --finetuned tuned-adapter --prompts p.jsonl --steps 2 --rate 0.01 --layer 2 --probe 0";
    bench.works(&format!("{recover} --patch p --out recovered"));
    bench.works("import --from tuned-adapter --base aligned --out imported");
    bench.works("patch apply --patch p --model tuned-adapter --base aligned --out patched");
    for out in ["recovered", "imported", "patched"] {
        assert_eq!(asked(&[&bench.path(out)]), wanted, "{out}");
    }
}

#[test]
fn a_dry_run_says_what_a_repair_would_say_of_an_adapter() {
    let bench = bench(Dtype::F32);
    bench.model("wider", 20);
    let config = bench.path("tuned-adapter/adapter_config.json");
    let sound: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    bench.works("repair --dry-run --aligned aligned --finetuned tuned-adapter --max-new-tokens 4 --own-tokens 4");
    let fails = |aligned: &str, parts: &[&str]| {
        for rest in ["--dry-run", "--out o"] {
            bench.fails(&format!("repair --aligned {aligned} --finetuned tuned-adapter {rest}"), parts);
        }
        assert!(["o", "o.partial", "o.report"].iter().all(|name| !bench.path(name).exists()));
    };
    fails("wider", &["adapter tuned-adapter on wider", "[2, 16]"]);
    for (key, value) in [("init_lora_weights", json!("pissa")), ("modules_to_save", json!(["lm_head"]))] {
        let mut changed = sound.clone();
        changed[key] = value;
        fs::write(&config, changed.to_string()).unwrap();
        fails("aligned", &["adapter tuned-adapter on aligned", key]);
    }
    fs::write(&config, sound.to_string()).unwrap();
    fs::remove_file(bench.path("tuned-adapter/adapter_model.safetensors")).unwrap();
    fails("aligned", &["tuned-adapter/adapter_model.safetensors"]);
}

#[test]
fn an_adapter_on_another_model_is_named() {
    let bench = bench(Dtype::F32);
    bench.model("wider", 20);
    let models = "--aligned wider --finetuned tuned-adapter";
    bench.fails(&format!("resta {models} --unaligned wider --out o"), &["tuned-adapter", "wider", "[2, 16]"]);
    bench.fails(&format!("recover {models} --prompts p.jsonl --out o"), &["tuned-adapter", "wider", "[2, 16]"]);
    assert!(!bench.path("o").exists());
}

#[test]
fn a_gate_takes_an_adapter_in_the_place_of_any_model_and_finds_one_that_is_missing_first() {
    let bench = bench(Dtype::F32);
    bench.works("generate --model tuned-merged --prompts p.jsonl --max-new-tokens 4 --out t.jsonl");
    let gate = |models: &str, out: &str| {
        format!(
            "gate {models} --harmless p.jsonl --task t.jsonl --max-new-tokens 4 --max-task-drop 1 --max-over-refusal +1 \
             --by point --out {out}"
        )
    };
    bench.works(&gate("--model aligned --before tuned-adapter --aligned unaligned-adapter --base aligned", "e"));
    bench.works(&gate("--model aligned --before tuned-merged --aligned unaligned-merged", "f"));
    for file in ["before/answers-task.jsonl", "aligned/answers-harmless.jsonl"] {
        let responses = |out: &str| -> Vec<serde_json::Value> {
            let text = fs::read_to_string(bench.path(&format!("{out}/{file}"))).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.map(|line| line["response"].clone()).collect()
        };
        assert_eq!(responses("e"), responses("f"), "{file}");
    }
    ["empty", "pissa"].iter().for_each(|dir| fs::create_dir(bench.path(dir)).unwrap());
    let config = fs::read_to_string(bench.path("tuned-adapter/adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["init_lora_weights"] = json!("pissa");
    bench.file("pissa/adapter_config.json", &config.to_string());
    fs::copy(bench.path("tuned-adapter/adapter_model.safetensors"), bench.path("pissa/adapter_model.safetensors"))
        .unwrap();
    for (models, part) in [
        ("--model aligned --before pissa --aligned aligned --base aligned", "pissa"),
        ("--model aligned --before tuned-merged --aligned none", "none: there is no such directory"),
        ("--model aligned --before empty --aligned aligned", "empty"),
        ("--model aligned --before tuned-adapter --aligned aligned", "--base"),
        ("--model aligned --before aligned --aligned aligned --base aligned", "leave --base out"),
    ] {
        bench.says(&gate(models, "g"), 2, &[part]);
        assert!(!bench.path("g").exists(), "{models}: nothing was asked");
    }
}
