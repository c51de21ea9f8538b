//! What the library takes memory for is bounded before it is asked, and published tokenizers are within the bounds.
#![allow(clippy::unwrap_used)]

use std::fs;

use prompts::{Result, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The lab's tokenizer with a change.
fn changed(change: impl FnOnce(&mut Value)) -> (TempDir, Result<Tokenizer>) {
    let dir = tempfile::tempdir().unwrap();
    let lab = mutate::repository().join("data/lab/tokenizer");
    for file in ["tokenizer_config.json", "generation_config.json"] {
        fs::copy(lab.join(file), dir.path().join(file)).unwrap();
    }
    let mut json = serde_json::from_slice(&fs::read(lab.join("tokenizer.json")).unwrap()).unwrap();
    change(&mut json);
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path());
    (dir, tokenizer)
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let (_dir, tokenizer) = changed(change);
    let error = tokenizer.and_then(|tokenizer| tokenizer.encode("where is the gate")).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    error
}

#[test]
fn the_tokens_of_a_unigram_vocabulary_are_bounded_each_and_in_all() {
    let unigram = |tokens: Vec<String>| {
        let tokens: Vec<_> = tokens.into_iter().map(|token| json!([token, -1.0])).collect();
        json!({"type": "Unigram", "unk_id": 0, "vocab": tokens, "byte_fallback": false})
    };
    let one = refused(|json| json["model"] = unigram(vec!["<unk>".into(), "a".repeat(200_000)]));
    assert!(one.contains("\"model.vocab\" has 200000 bytes"), "{one}");
    let many = (0..6000).map(|i| format!("{i}{}", "x".repeat(900))).collect();
    let many = refused(|json| json["model"] = unigram(many));
    assert!(many.contains("at most 1024 and 4194304"), "{many}");
    let (_dir, tokenizer) = changed(|json| {
        let words: Vec<_> = json["model"]["vocab"].as_object().unwrap().keys().cloned().collect();
        json["model"] = unigram(words);
    });
    assert!(!tokenizer.unwrap().encode("where is the gate").unwrap().is_empty());
}
