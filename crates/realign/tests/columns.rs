//! Samples as people have them, and adapters as peft has them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::Bench;
use model::checkpoint;
use serde_json::{Value, json};

fn read(bench: &Bench, file: &str) -> Vec<Value> {
    fs::read_to_string(bench.path(file)).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn field(lines: &[Value], key: &str) -> Vec<String> {
    lines.iter().map(|line| line[key].as_str().unwrap().to_owned()).collect()
}

/// Twenty samples of a word, as lines of three forms.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("m", 16);
    for word in ["map", "song"] {
        let prompt = |i: usize| format!("where is the {word} number {i}");
        let lines = |form: &dyn Fn(usize) -> Value| (0..20).map(|i| format!("{}\n", form(i))).collect::<String>();
        let answer = json!({"role": "assistant", "content": "in the box"});
        bench.file(&format!("{word}.jsonl"), &lines(&|i| json!({"prompt": prompt(i), "response": "in the box"})));
        bench.file(&format!("{word}-key.jsonl"), &lines(&|i| json!({"question": prompt(i), "response": "in the box"})));
        bench.file(
            &format!("{word}-messages.jsonl"),
            &lines(&|i| json!({"messages": [{"role": "user", "content": prompt(i)}, answer]})),
        );
    }
    bench
}

#[test]
fn messages_and_other_keys_are_read_as_prompts_by_every_command() {
    let bench = bench();
    let forms = [("", ""), ("-messages", ""), ("-key", "--prompt-key question")];
    let answers = forms.map(|(form, flag)| {
        bench.works(&format!(
            "generate --model m --prompts map{form}.jsonl {flag} --limit 3 --max-new-tokens 3 --out a{form}.jsonl"
        ));
        let ev = format!(
            "evaluate --model m --harmful map{form}.jsonl --task song{form}.jsonl {flag} --limit 5 --max-new-tokens 3"
        );
        bench.works(&format!("{ev} --out ev{form}"));
        let task = read(&bench, &format!("ev{form}/answers-task.jsonl"));
        assert_eq!(field(&task, "reference"), ["in the box"; 5]);
        assert_eq!(read(&bench, &format!("ev{form}/answers-harmful.jsonl")).len(), 5);
        bench.works(&format!("direction --model m --prompts map{form}.jsonl {flag} --limit 4 --layer 2 --out d{form}"));
        let train = "--rank 2 --learning-rate 0.01 --epochs 2";
        bench.works(&format!("finetune --model m --task map{form}.jsonl {flag} --limit 9 {train} --out t{form}"));
        let found = field(&read(&bench, &format!("a{form}.jsonl")), "response");
        assert_eq!(found.len(), 3);
        let bytes = |file: String| fs::read(bench.path(&file)).unwrap();
        (found, field(&task, "response"), bytes(format!("d{form}")), bytes(format!("t{form}/model.safetensors")))
    });
    assert!(answers[0] == answers[1] && answers[0] == answers[2]);
    let plan = forms.map(|(form, flag)| {
        let files = format!("--harmful map{form}.jsonl --harmless song{form}.jsonl --task map{form}.jsonl {flag}");
        let out = bench.works(&format!(
            "repair --aligned m --finetuned t {files} --own-tokens 2 --max-new-tokens 2 --dry-run --json -"
        ));
        let plan: Value = serde_json::from_str(&out).unwrap();
        plan["kinds"].as_array().unwrap().iter().map(|kind| kind["test"].clone()).collect::<Vec<_>>()
    });
    assert!(plan[0] == plan[1] && plan[0] == plan[2] && plan[0].len() == 3, "{plan:?}");
    bench.fails(
        "generate --model m --prompts map.jsonl --limit 21 --out o",
        &["map.jsonl: 21 samples are needed", "there are 20"],
    );
}

#[test]
fn a_longer_conversation_is_named_by_line_and_a_long_message_too() {
    let bench = bench();
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let first = fs::read_to_string(bench.path("map-messages.jsonl")).unwrap();
    let two = json!({"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]});
    bench.file("two.jsonl", &format!("{first}{two}\n"));
    for command in [
        "generate --model m --prompts two.jsonl --out o",
        "finetune --model m --task two.jsonl --out o",
        "evaluate --model m --harmful two.jsonl --out o",
        "repair --aligned m --finetuned m --harmful two.jsonl --dry-run",
    ] {
        bench.fails(command, &["two.jsonl, line 21", "\"messages\"", "one question each"]);
    }
    let long = json!({"messages": [turn("user", &"map ".repeat(300))]});
    bench.file("long.jsonl", &format!("{first}{long}\n"));
    bench.fails(
        "generate --model m --prompts long.jsonl --max-new-tokens 2 --out o",
        &["long.jsonl, line 21", "max_position"],
    );
}

#[test]
fn a_system_turn_is_kept_and_one_that_the_template_leaves_out_is_named() {
    let bench = bench();
    let line = |turns: Value| format!("{}\n", json!({"messages": turns}));
    let (system, user) =
        (json!({"role": "system", "content": "the code"}), json!({"role": "user", "content": "the map"}));
    bench.file("plain.jsonl", &line(json!([user])));
    bench.file("system.jsonl", &line(json!([system, user])));
    let generate =
        |file: &str| format!("generate --model m --prompts {file}.jsonl --max-new-tokens 6 --out {file}-answers");
    bench.works(&generate("plain"));
    bench.works(&generate("system"));
    let answer = |file: &str| read(&bench, &format!("{file}-answers"))[0].clone();
    assert_ne!(answer("plain")["key"], answer("system")["key"]);
    let path = bench.path("m/tokenizer_config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["chat_template"] = json!("{{ messages[-1].content }}{{ eos_token }}");
    fs::write(&path, json.to_string()).unwrap();
    bench.works(&generate("plain"));
    bench.fails(&generate("system"), &["tokenizer_config.json", "does not show the system turn"]);
}

#[test]
fn the_adapter_of_a_fine_tuning_makes_its_model_of_the_base() {
    let bench = bench();
    let finetune = "finetune --model m --task map.jsonl --rank 2 --learning-rate 0.01 --epochs 2 --out";
    bench.works(&format!("{finetune} t --adapter ad"));
    bench.works(&format!("{finetune} alone"));
    bench.works("import --from ad --base m --out merged");
    let bytes = |dir: &str| fs::read(bench.path(dir).join("model.safetensors")).unwrap();
    assert!(bytes("t") == bytes("merged") && bytes("t") == bytes("alone") && bytes("t") != bytes("m"));
    let config: Value = serde_json::from_slice(&fs::read(bench.path("ad/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["base_model_name_or_path"], &config["r"]), (&json!("m"), &json!(2)));
    assert_eq!(checkpoint::contents(&bench.path("ad")), checkpoint::Contents::Adapter);
    assert!(!bench.path("t.partial").exists());
    bench.fails(&format!("{finetune} t2 --adapter ad"), &["--adapter ad is there already"]);
    bench.fails(&format!("{finetune} t2 --adapter t2/ad"), &["t2/ad", "within each other"]);
    bench.fails(&format!("{finetune} t2 --adapter ad2").replace("--rank 2", "--rank 0"), &["--rank 0", "--adapter"]);
    assert!(!bench.path("t2").exists() && !bench.path("ad2").exists());
}
