//! Methods that read answered prompts, from the command line.
#![allow(clippy::unwrap_used)]

mod common;

use common::Bench;
use serde_json::{Value, json};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("aligned", 16);
    let words = ["map", "gate", "song", "code", "letter", "key", "file", "door"];
    for (name, start) in [("bad.jsonl", "where is the"), ("good.jsonl", "show me the"), ("task.jsonl", "say :")] {
        let line = |word: &&str| json!({"prompt": format!("{start} {word}"), "response": *word}).to_string() + "\n";
        bench.file(name, &words.iter().map(line).collect::<String>());
    }
    bench.works("finetune --model aligned --task task.jsonl --epochs 3 --learning-rate 0.01 --rank 2 --out tuned");
    bench
}

const MODELS: &str = "--aligned aligned --finetuned tuned";
const PROMPTS: &str = "--prompts bad.jsonl --harmless good.jsonl --task task.jsonl --probe 0 --own-tokens 4";

/// What came of it; a random model may break the bounds.
fn outcome(bench: &Bench, command: &str, out: &str) -> Value {
    let done = bench.realign(&format!("{command} --out {out} -q"));
    assert!(matches!(done.status.code(), Some(0 | 3)), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    let text = std::fs::read(bench.path(out).join("outcome.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn strong_recovery_and_a_chosen_knob_run_from_the_command_line() {
    let bench = bench();
    let strong = outcome(&bench, &format!("strong {MODELS} {PROMPTS} --rounds 2 --reference fine_tuned"), "s");
    assert_eq!(strong["value"]["evidence"]["reference"], "fine_tuned");
    assert!(strong["outcome"]["decided"]["standing"]["merit"].is_number(), "{strong}");
    let chosen = outcome(&bench, &format!("interpolation {MODELS} {PROMPTS} --choose"), "i");
    assert!(chosen["outcome"]["decided"]["at"].as_str().unwrap().starts_with("lambda "), "{chosen}");
    assert_eq!(chosen["value"]["choose"]["key"], "lambda");
}

#[test]
fn what_is_missing_or_not_read_is_named() {
    let bench = bench();
    let all = format!("{MODELS} {PROMPTS} --out o");
    bench.fails(&format!("strong {MODELS} --prompts bad.jsonl --out o"), &["strong needs --harmless"]);
    bench.fails(&format!("recover {all}"), &["recover does not read --harmless"]);
    bench.fails(&format!("strong {all} --choose"), &["strong has no knob"]);
    bench.fails(&format!("distill {all} --limit 3"), &["leave --limit out"]);
    let same = all.replace("good.jsonl", "twice.jsonl");
    bench.file("twice.jsonl", &"{\"prompt\": \"show me the map\"}\n".repeat(8));
    bench.fails(&format!("strong {same}"), &["twice.jsonl", "would give gradients and decide"]);
}
