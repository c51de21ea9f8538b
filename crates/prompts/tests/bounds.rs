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

#[test]
fn a_row_of_harmless_steps_is_refused_wherever_it_stands() {
    let row = |key: &str, step: Value, count: usize| json!({"type": "Sequence", key: vec![step; count]});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let parts = row("pretokenizers", bytes, 100);
    let text = refused(|json| json["pre_tokenizer"] = parts);
    assert!(text.contains("can become"), "{text}");
    for normal in [json!({"type": "ByteLevel"}), json!({"type": "NFKD"})] {
        let text = refused(|json| json["normalizer"] = row("normalizers", normal, 60));
        assert!(text.contains("can become"), "{text}");
    }
    let text = refused(|json| json["normalizer"] = json!({"type": "New"}));
    assert!(text.contains("the step \"New\", which is not known"), "{text}");
    for step in [
        json!({"type": "BPEDecoder", "suffix": ""}),
        json!({"type": "CTC", "pad_token": "x", "word_delimiter_token": "", "cleanup": true}),
    ] {
        let (_dir, tokenizer) = changed(|json| json["decoder"] = row("decoders", step, 60));
        let error = tokenizer.unwrap().decode(&[1, 2], false).unwrap_err().to_string();
        assert!(error.contains("can become") && error.contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn the_steps_of_published_tokenizers_are_taken_with_long_texts() {
    let split = json!({"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+"}, "behavior": "Isolated",
        "invert": false});
    let bytes =
        |prefix| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let parts = |first: Value| json!({"type": "Sequence", "pretokenizers": [first, bytes(false)]});
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepended = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]});
    let back = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let gemma = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    for (family, normalizer, pre_tokenizer, decoder) in [
        ("Llama 3", Value::Null, parts(split.clone()), bytes(true)),
        ("Qwen", json!({"type": "NFC"}), parts(split), bytes(false)),
        ("SmolLM2", Value::Null, parts(digits), bytes(true)),
        ("Llama 2", prepended, Value::Null, back.clone()),
        ("Mistral", Value::Null, meta, back.clone()),
        ("Gemma", space, gemma, back),
    ] {
        let (_dir, tokenizer) = changed(|json| {
            for (key, step) in [("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer), ("decoder", decoder)] {
                json[key] = step;
            }
        });
        let tokenizer = tokenizer.unwrap_or_else(|error| panic!("{family}: {error}"));
        let ids = tokenizer.encode(&"where 12 ".repeat(10_000)).unwrap_or_else(|error| panic!("{family}: {error}"));
        tokenizer.decode(&ids, false).unwrap_or_else(|error| panic!("{family}: {error}"));
    }
}
