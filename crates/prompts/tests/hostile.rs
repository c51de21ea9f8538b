//! Files of text and tokenizers as anybody may have written them: refused or read, and no more. `fuzz/` has the same readers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use mutate::Format;
use prompts::{ChatTemplate, Message, Role, Tokenizer, read_jsonl, rows};
use serde_json::{Value, json};

fn tokenizer() -> tempfile::TempDir {
    let dir = mutate::scratch();
    let lab = mutate::repository().join("data/lab/tokenizer");
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(lab.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

/// The lab's tokenizer, and a byte-level one with all the parts that a real one has.
fn sound(dir: &Path) -> Vec<Vec<u8>> {
    let lab: Value = serde_json::from_slice(&fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    let mut words = serde_json::Map::new();
    ["a", "b", "c", "ab", "Ġ", "Ġa", "<unk>"]
        .iter()
        .enumerate()
        .for_each(|(id, word)| drop(words.insert((*word).into(), id.into())));
    let mut bytes = lab.clone();
    bytes["model"] = json!({"type": "BPE", "vocab": words, "merges": [["a", "b"], ["Ġ", "a"]], "unk_token": "<unk>"});
    bytes["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Prepend", "prepend": "a"}]});
    bytes["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|\\w+|\\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    bytes["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "Ġ"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]});
    [lab, bytes].iter().map(|json| json.to_string().into_bytes()).collect()
}

/// Reads a directory, and uses what it holds.
fn read(dir: &Path) -> Result<(), String> {
    let used = || -> prompts::Result<()> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        let ids = tokenizer.encode_prompt("where is the  map of Zürich 🗺", Some("be brief"))?;
        tokenizer.decode(&ids, false)?;
        tokenizer.decode(&[0, 5, u32::MAX], true)?;
        Ok(())
    };
    used().map_err(|error| error.to_string())
}

fn of_file(name: &'static str, file: &str) -> Format {
    let dir = tokenizer();
    let path = dir.path().join(file);
    Format::of_file(name, vec![fs::read(&path).unwrap()], path, move |_| read(dir.path()))
}

pub fn tokenizers() -> Format {
    let dir = tokenizer();
    let (sound, path) = (sound(dir.path()), dir.path().join("tokenizer.json"));
    Format::of_file("tokenizer.json", sound, path, move |_| read(dir.path()))
}

pub fn configurations_of_tokenizers() -> Format {
    of_file("tokenizer_config", "tokenizer_config.json")
}

pub fn configurations_of_generation() -> Format {
    of_file("generation_config", "generation_config.json")
}

pub fn templates() -> Format {
    let goldens: Value = serde_json::from_str(include_str!("fixtures/templates.json")).unwrap();
    let sources =
        goldens.as_array().unwrap().iter().map(|golden| golden["source"].as_str().unwrap().as_bytes().to_vec());
    Format::new("chat template", sources.collect(), |source| {
        let source = String::from_utf8_lossy(source).into_owned();
        let template =
            ChatTemplate::from_source(source, Some("<s>".into()), None).map_err(|error| error.to_string())?;
        // A template may refuse a conversation.
        let _ = template.render(&[Message::new(Role::User, "a question"), Message::new(Role::Assistant, "b")], true);
        Ok(())
    })
}

pub fn samples() -> Format {
    let dir = mutate::scratch();
    let sound = br#"{"prompt": "a \u00e9 b", "response": "c", "id": 7, "category": "d"}
{"prompt": "\ud83d\ude00", "response": null, "more": [1, {"x": 2.5}]}
"#;
    Format::of_file("JSONL", vec![sound.to_vec()], dir.path().join("samples.jsonl"), move |path| {
        let _dir = &dir;
        read_jsonl(path).map(drop).map_err(|error| error.to_string())
    })
}

pub fn tables() -> Format {
    let dir = mutate::scratch();
    let sound = b"\xef\xbb\xbfprompt,response,id\r\n\"a, \"\"b\"\"\nc\",d,7\r\n\r\ne,,8\n";
    Format::of_file("CSV", vec![sound.to_vec()], dir.path().join("samples.csv"), move |path| {
        let _dir = &dir;
        let columns = ["prompt".to_owned(), "response".to_owned(), "id".to_owned()];
        let unnamed = rows(path, Some(&columns));
        read_jsonl(path)
            .and(unnamed.and_then(|mut rows| rows.try_for_each(|row| row.map(drop))))
            .map_err(|error| error.to_string())
    })
}

#[test]
fn tokenizers_survive() {
    tokenizers().survive(10_000);
}

#[test]
fn configurations_survive() {
    configurations_of_tokenizers().survive(10_000);
    configurations_of_generation().survive(10_000);
}

#[test]
fn templates_survive() {
    templates().survive(10_000);
}

#[test]
fn samples_survive() {
    samples().survive(10_000);
    tables().survive(10_000);
}
