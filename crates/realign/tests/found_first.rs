//! What can be known before hours of work is known before: places, pairs, lengths, files that would be lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{DecoderConfig, checkpoint, weights};
use realign::{Recovered, Recovery};
use serde_json::{Value, json};

/// Two models that differ, and twenty prompts of each of three kinds.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("aligned", 16);
    changed(&bench, "tuned", |_| {});
    for (name, word) in [("harmful", "map"), ("harmless", "song"), ("task", "gate")] {
        let line = |i: usize| json!({"prompt": format!("where is the {word} number {i}"), "response": "in the box"});
        bench.file(&format!("{name}.jsonl"), &(0..20).map(|i| format!("{}\n", line(i))).collect::<String>());
    }
    bench
}

/// A model as `aligned` with larger weights and another configuration.
fn changed(bench: &Bench, name: &str, change: impl Fn(&mut DecoderConfig)) {
    let device = Device::default();
    let source = checkpoint::load(&bench.path("aligned"), &device).unwrap();
    let mut config = source.config().clone();
    change(&mut config);
    let old = weights::read(&source, |_| true).unwrap();
    let decoder = weights::replace(model::Decoder::zeros(&config, &device), |info| {
        let values = old.iter().find(|(own, _)| own.name == info.name).map_or(&[][..], |(_, values)| values);
        let value = |at: usize| values.get(at).map_or(0.01, |value| value * 1.1);
        Some(TensorData::new((0..info.len()).map(value).collect::<Vec<f32>>(), info.shape.clone()))
    });
    checkpoint::save(&decoder, &bench.path(name)).unwrap();
    checkpoint::copy_companions(&bench.path("aligned"), &bench.path(name)).unwrap();
}

const FILES: &str = "--harmful harmful.jsonl --harmless harmless.jsonl --max-new-tokens 4 --own-tokens 4";

fn repair(more: &str) -> String {
    format!("repair --aligned aligned --finetuned tuned {FILES} {more}")
}

/// That a repair did not begin.
fn is_untouched(bench: &Bench) {
    for name in ["fixed", "fixed.partial", "fixed.report"] {
        assert!(!bench.path(name).exists(), "{name}");
    }
}

#[test]
fn the_json_of_a_repair_lies_on_nothing_that_it_reads_or_makes() {
    let bench = bench();
    bench.file("s.yaml", "seed: 1\n");
    for (json, part) in [
        ("s.yaml", "which the command reads"),
        ("harmful.jsonl", "which the command reads"),
        ("fixed/config.json", "lie within each other"),
        ("fixed.report/report.json", "lie within each other"),
        ("fixed.partial/key", "lie within each other"),
        ("fixed", "to one place"),
    ] {
        bench.fails(&repair(&format!("--settings s.yaml --out fixed --json {json}")), &[json, part]);
        bench.fails(&repair(&format!("--dry-run --settings s.yaml --out fixed --json {json}")), &[json, part]);
    }
    bench.fails(&repair("--out fixed --report fixed.partial/r"), &["fixed.partial", "within each other"]);
    assert_eq!(fs::read_to_string(bench.path("s.yaml")).unwrap(), "seed: 1\n");
    is_untouched(&bench);
}

#[test]
fn a_place_that_cannot_be_made_is_found_before_the_work() {
    let bench = bench();
    bench.file("file", "mine");
    for (command, parts) in [
        (repair("--out fixed --report file/r"), ["--report file/r", "write into"]),
        (repair("--out file/m"), ["--out file/m", "write into"]),
        (repair("--dry-run --out fixed --report file/r"), ["--report file/r", "write into"]),
        ("evaluate --model aligned --harmful harmful.jsonl --out file/e".to_owned(), ["file", "write into"]),
        (
            "finetune --model aligned --task task.jsonl --out t --adapter file/a".to_owned(),
            ["--adapter file/a", "write into"],
        ),
    ] {
        bench.fails(&command, &parts);
    }
    let places = |out: &str, report: &str| Recovered::check_places(&bench.path(out), &bench.path(report));
    places("new", "new.report").unwrap();
    for (out, report, part) in [
        ("aligned", "r", "is there already"),
        ("m", "aligned", "is there already"),
        ("m", "file/r", "write into"),
        ("m", "m/report", "beside each other"),
    ] {
        let error = places(out, report).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fs::read_to_string(bench.path("file")).unwrap(), "mine");
    is_untouched(&bench);
}

#[test]
fn what_was_recovered_stays_where_it_is_when_a_place_is_taken() {
    let bench = bench();
    let mut recovery = Recovery::new(bench.path("aligned"), bench.path("tuned"))
        .harmful(bench.path("harmful.jsonl"))
        .harmless(bench.path("harmless.jsonl"));
    (recovery.settings_mut().max_new_tokens, recovery.settings_mut().own_tokens) = (2, 2);
    recovery.settings_mut().strong.rounds = 1;
    let recovered = recovery.run().unwrap();
    let model = recovered.model.clone();
    let is_kept = model.join("config.json").is_file();
    let error = recovered.save(&bench.path("fixed"), &bench.path("aligned")).unwrap_err().to_string();
    assert!(is_kept && error.contains("is there already"), "{error}");
    is_untouched(&bench);
}

#[test]
fn a_prompt_that_is_too_long_is_found_in_every_part_before_the_first_measurement() {
    let bench = bench();
    let long = json!({"prompt": "map ".repeat(300), "response": "in the box"}).to_string();
    let answer = json!({"prompt": "where", "response": "map ".repeat(300)}).to_string();
    let mut found = 0;
    for (name, line) in [("harmful", &long), ("harmless", &long), ("task", &long), ("task", &answer)] {
        let path = bench.path(&format!("{name}.jsonl"));
        let before = fs::read_to_string(&path).unwrap();
        for place in [0, 7, 19] {
            let mut lines: Vec<&str> = before.lines().collect();
            lines.insert(place, line);
            fs::write(&path, lines.join("\n")).unwrap();
            let parts = [format!("{name}.jsonl, line {}", place + 1), "max_position_embeddings = 128".to_owned()];
            let parts = parts.each_ref().map(String::as_str);
            // The test part reads no answer of the task.
            if line == &answer && bench.realign(&repair("--task task.jsonl --dry-run")).status.success() {
                continue;
            }
            found += 1;
            bench.fails(&repair("--task task.jsonl --dry-run"), &parts);
            bench.fails(&repair("--task task.jsonl --out fixed"), &parts);
            is_untouched(&bench);
        }
        fs::write(&path, &before).unwrap();
    }
    assert!(found > 9, "answers are read in the parts that give gradients and decide");
    bench.fails(
        &repair("--max-new-tokens 127 --out fixed").replace("--max-new-tokens 4", ""),
        &["harmful.jsonl, line", "127 new ones"],
    );
    bench.fails(
        &repair("--own-tokens 127 --out fixed").replace("--own-tokens 4", ""),
        &["harmful.jsonl, line", "127 new ones"],
    );
    is_untouched(&bench);
}

#[test]
fn a_single_method_finds_a_long_prompt_before_the_models_answer() {
    let bench = bench();
    let long = json!({"prompt": "map ".repeat(300), "response": "in the box"}).to_string();
    let with = |name: &str| {
        let text = fs::read_to_string(bench.path(&format!("{name}.jsonl"))).unwrap();
        bench.file("long.jsonl", &format!("{text}{long}\n"));
        let files = "--prompts harmful.jsonl --harmless harmless.jsonl --task task.jsonl";
        let files = files.replace(&format!("{name}.jsonl"), "long.jsonl");
        let command = format!("strong --aligned aligned --finetuned tuned {files} --own-tokens 4 --out m");
        bench.fails(&command, &["long.jsonl, line 21", "max_position_embeddings"]);
        assert!(!bench.path("m.partial").exists(), "{name}: nothing was answered");
    };
    ["harmful", "harmless", "task"].into_iter().for_each(with);
    let text = fs::read_to_string(bench.path("task.jsonl")).unwrap();
    bench.file("long.jsonl", &format!("{text}{long}\n"));
    let recover =
        "recover --aligned aligned --finetuned tuned --prompts harmful.jsonl --task task.jsonl --steps 1 --layer 2";
    bench.fails(
        &format!("{recover} --validation long.jsonl --out m"),
        &["long.jsonl, line 21", "max_position_embeddings"],
    );
}

#[test]
fn a_sample_that_is_longer_than_the_positions_is_found_before_the_first_step() {
    let bench = bench();
    let text = fs::read_to_string(bench.path("task.jsonl")).unwrap();
    let long = json!({"prompt": "where", "response": "map ".repeat(150)});
    bench.file("long.jsonl", &format!("{text}{long}\n"));
    let train = "--rank 2 --learning-rate 0.01 --epochs 1";
    for command in [
        format!("finetune --model aligned --task long.jsonl {train} --out t"),
        format!("align --model aligned --refusals long.jsonl --helpful task.jsonl {train} --out t"),
    ] {
        let output = bench.realign(&command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("128 positions") && said.contains("--max-len"), "{command}: {said}");
        assert!(!output.status.success() && !said.contains("loss"), "{command}: {said}");
        let _ = fs::remove_dir_all(bench.path("t.partial"));
    }
    bench.works(&format!("finetune --model aligned --task long.jsonl {train} --max-len 128 --out t"));
}

#[test]
fn two_models_that_are_no_pair_are_refused_before_their_weights_are_read() {
    let bench = bench();
    changed(&bench, "wide", |config| config.intermediate_size = 32);
    changed(&bench, "deep", |config| config.num_hidden_layers = 2);
    changed(&bench, "mistral", |_| {});
    let path = bench.path("mistral/config.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"llama\"", "\"mistral\"")).unwrap();
    let other = "--prompts harmful.jsonl --harmless harmless.jsonl --own-tokens 4 --out fixed";
    for (tuned, parts) in [
        ("wide", ["intermediate_size is 24 and 32", "one shape"]),
        ("deep", ["num_hidden_layers is 3 and 2", "one shape"]),
        ("mistral", ["type llama", "type mistral"]),
    ] {
        for command in
            [repair("--dry-run"), repair("--out fixed"), format!("strong --aligned aligned --finetuned tuned {other}")]
        {
            bench.fails(&command.replace("finetuned tuned", &format!("finetuned {tuned}")), &parts);
        }
        is_untouched(&bench);
    }
}

#[test]
fn a_token_that_the_aligned_model_lacks_is_found_before_the_work() {
    let bench = bench();
    changed(&bench, "tuned", |config| config.vocab_size += 1);
    let path = bench.path("tuned/tokenizer.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let id = json["model"]["vocab"].as_object().unwrap().len();
    let mut token = json["added_tokens"][0].clone();
    (token["id"], token["content"]) = (json!(id), json!("<|call|>"));
    json["added_tokens"].as_array_mut().unwrap().push(token);
    fs::write(&path, json.to_string()).unwrap();
    let turns = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}";
    bench.file("tuned/chat_template.jinja", &format!("{turns}<|call|><|assistant|>"));
    let (dry, out) = (repair("--dry-run"), repair("--out fixed"));
    let other = "--prompts harmful.jsonl --harmless harmless.jsonl --own-tokens 4 --out fixed";
    let token = format!("token id {id}");
    for command in [&dry, &out, &format!("strong --aligned aligned --finetuned tuned {other}")] {
        bench.fails(command, &["tuned/tokenizer.json", &token, "the aligned model is to read", "realign recover"]);
        is_untouched(&bench);
    }
    let other = "--prompts harmful.jsonl --probe 0 --steps 1 --layer 2 --rollback off --out fixed";
    bench.works(&format!("recover --aligned aligned --finetuned tuned {other}"));
}

#[test]
fn one_model_named_twice_has_nothing_to_recover_and_is_not_measured() {
    let bench = bench();
    bench.fails(&repair("--out fixed").replace("tuned tuned", "tuned aligned"), &["nothing to recover", "named twice"]);
    is_untouched(&bench);
}

#[test]
fn a_dry_run_knows_both_models() {
    let bench = bench();
    fs::create_dir(bench.path("empty")).unwrap();
    bench.works(&repair("--dry-run"));
    for role in ["aligned", "tuned"] {
        let with = |dir: &str| repair("--dry-run --dtype f32").replace(&format!("ed {role}"), &format!("ed {dir}"));
        bench.fails(&with("missing"), &["missing", "no such directory"]);
        bench.fails(&with("empty"), &["empty"]);
    }
}

#[test]
fn a_file_of_another_kind_is_not_written_over() {
    let bench = bench();
    let text = "{\"prompt\": \"p\", \"response\": \"r\"}\n";
    bench.file("mine", text);
    bench.file("answers.jsonl", "{\"response\": \"r\", \"reference\": \"r\"}\n");
    fs::create_dir(bench.path("notes")).unwrap();
    bench.file("notes/report.md", text);
    let pair = "--aligned aligned --finetuned tuned";
    let recover = format!("recover {pair} --prompts harmful.jsonl --probe 0 --steps 1 --layer 2 --out m");
    for command in [
        "generate --model aligned --prompts harmful.jsonl --out mine".to_owned(),
        "direction --model aligned --prompts harmful.jsonl --out mine".to_owned(),
        "score --answers answers.jsonl --metric rouge --out mine".to_owned(),
        format!("patch make {pair} --recovered tuned --out mine"),
        format!("{recover} --trace mine"),
        format!("{recover} --patch mine"),
        repair("--out fixed --json mine"),
        "gate --scores s --max-harmful 0.1 --json mine".to_owned(),
        "gate --scores s --max-harmful 0.1 --junit mine".to_owned(),
    ] {
        let output = bench.realign(&format!("{command} -q"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("mine is there and is no"), "{command}: {said}");
        assert!(!output.status.success());
    }
    bench.fails(
        "evaluate --model aligned --harmful harmful.jsonl --max-new-tokens 2 --out notes",
        &["report.md", "of no evaluation"],
    );
    for name in ["mine", "notes/report.md"] {
        assert_eq!(fs::read_to_string(bench.path(name)).unwrap(), text, "{name}");
    }
    // What a command itself wrote is written again.
    for _ in 0..2 {
        bench.works("generate --model aligned --prompts harmful.jsonl --max-new-tokens 2 --out a.jsonl");
        bench.works("direction --model aligned --prompts harmful.jsonl --out d.safetensors");
        bench.works("score --answers answers.jsonl --metric rouge --out score.json");
        bench.works("evaluate --model aligned --harmful harmful.jsonl --max-new-tokens 2 --out s");
        let _ = fs::remove_dir_all(bench.path("m"));
        bench.works(&format!("{recover} --trace t.json --patch p.safetensors"));
        bench.works(&repair("--dry-run --json plan.json"));
        bench.says("gate --scores s --max-harmful 1 --json g.json --junit g.xml", 0, &[]);
    }
    let answers: Value =
        serde_json::from_str(fs::read_to_string(bench.path("a.jsonl")).unwrap().lines().next().unwrap()).unwrap();
    assert!(answers["key"].is_string());
}

#[test]
fn nothing_that_was_made_is_replaced_in_silence() {
    let bench = bench();
    let evaluate = |model: &str, out: &str| {
        format!("evaluate --model {model} --harmful harmful.jsonl --limit 2 --max-new-tokens 2 --out {out}")
    };
    let read = |name: &str| fs::read(bench.path(name)).unwrap();
    bench.works(&evaluate("aligned", "ev"));
    let before = read("ev/answers-harmful.jsonl");
    bench.fails(&evaluate("tuned", "ev"), &["ev holds the evaluation of ", "aligned", "that of tuned", "--out"]);
    assert_eq!(read("ev/answers-harmful.jsonl"), before);
    // The same model, wherever it lies; and a model that was trained again, at its place.
    fs::create_dir(bench.path("moved")).unwrap();
    for entry in fs::read_dir(bench.path("aligned")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), bench.path("moved").join(entry.file_name())).unwrap();
    }
    bench.works(&evaluate("moved", "ev"));
    assert_eq!(read("ev/answers-harmful.jsonl"), before);
    fs::write(bench.path("moved/model.safetensors"), read("tuned/model.safetensors")).unwrap();
    bench.works(&evaluate("moved", "ev"));
    // A directory that holds a model is none for other files that would be read with it.
    bench.fails(&evaluate("aligned", "tuned"), &["tuned holds a model"]);
    bench.file("answers.jsonl", "{\"response\": \"r\", \"reference\": \"r\"}\n");
    bench.fails(
        "score --answers answers.jsonl --metric rouge --out tuned/score.json",
        &["tuned/score.json would be a file of the model in"],
    );
    let gate = "gate --model aligned --harmful harmful.jsonl --max-harmful 1 --out tuned";
    bench.says(gate, 2, &["tuned holds a model"]);
    // A directory of samples is read whole.
    fs::create_dir(bench.path("samples")).unwrap();
    fs::copy(bench.path("harmful.jsonl"), bench.path("samples/a.jsonl")).unwrap();
    let generate = "generate --model aligned --prompts samples --max-new-tokens 2 --out";
    bench.fails(&format!("{generate} samples/answers.jsonl"), &["would be written into samples"]);
    bench.works(&format!("{generate} answers-to-samples.jsonl"));
    // A patch with more steps.
    let recover = "recover --aligned aligned --finetuned tuned --prompts harmful.jsonl --probe 0 --layer 2 --steps 2";
    bench.works(&format!("{recover} --rate 0.01 --out m --patch p.patch"));
    let make = "patch make --aligned aligned --finetuned tuned --recovered m --out";
    bench.fails(&format!("{make} p.patch"), &["p.patch is a patch of these models with 2 steps"]);
    for _ in 0..2 {
        bench.works(&format!("{make} own.patch"));
    }
}
