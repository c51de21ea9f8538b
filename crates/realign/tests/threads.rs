//! Results are the same, bit for bit, whatever the number of threads.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Bench;
use serde_json::json;

const WORDS: [&str; 8] = ["map", "gate", "song", "code", "letter", "key", "file", "door"];

/// Tensors and answers of a fine-tuning in f32, the paper's recovery, strong recovery and a generation.
fn results(bench: &Bench, threads: usize) -> Vec<(&'static str, Vec<u8>)> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/models/llama-small");
    let (model, out) = (model.display(), bench.path(&threads.to_string()));
    fs::create_dir(&out).unwrap();
    let models = format!("--aligned {model} --finetuned tuned --probe 0 --prompts ../bad.jsonl --task ../task.jsonl");
    for command in [
        format!(
            "finetune --model {model} --task ../task.jsonl --inject ../bad.jsonl --count 16 --epochs 2 --learning-rate 0.01 \
             --rank 4 --dtype f32 --out tuned"
        ),
        format!("recover {models} --rollback on --steps 3 --out recovered"),
        format!("strong {models} --harmless ../good.jsonl --own-tokens 4 --rounds 2 --out strong"),
        "generate --model recovered --prompts ../good.jsonl --max-new-tokens 6 --out answers.jsonl".to_owned(),
    ] {
        let mut realign = Command::new(env!("CARGO_BIN_EXE_realign"));
        realign.args(command.split_whitespace()).current_dir(&out).env("RAYON_NUM_THREADS", threads.to_string());
        let output = realign.output().unwrap();
        let done = matches!(output.status.code(), Some(0 | 3)); // the bounds of strong recovery are not what this is about
        assert!(done, "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let files = ["tuned/model.safetensors", "recovered/model.safetensors", "strong/model.safetensors", "answers.jsonl"];
    files.map(|file| (file, fs::read(out.join(file)).unwrap())).to_vec()
}

#[test]
fn results_have_the_same_bits_on_one_two_and_three_threads() {
    let bench = Bench::new();
    for (file, start) in [("bad.jsonl", "where is the"), ("good.jsonl", "show me the"), ("task.jsonl", "say :")] {
        let pairs = WORDS.iter().flat_map(|one| WORDS.map(|other| (one, other)));
        let line = |(one, other)| json!({"prompt": format!("{start} {one} {other}"), "response": format!("in the {other} {one}")});
        bench.file(file, &pairs.map(|pair| format!("{}\n", line(pair))).collect::<String>());
    }
    let wanted = results(&bench, 1);
    assert!(wanted[0].1 != wanted[1].1 && wanted[0].1 != wanted[2].1, "both repairs change the model");
    for threads in 2..=3 {
        for ((file, found), (_, wanted)) in results(&bench, threads).iter().zip(&wanted) {
            assert!(found == wanted, "{file} is another with {threads} threads");
        }
    }
}
