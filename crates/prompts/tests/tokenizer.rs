//! The tokenizer and the loss mask, on a tiny byte-level vocabulary written as a GGUF import writes it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use prompts::{Error, GgufVocab, Tokenizer, write_tokenizer};
use tempfile::TempDir;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const IM_END: u32 = 2;

/// Three special tokens, one user-defined one, the bytes, and a few merges (`Ċ` is a line break, `Ġ` a space).
fn vocab(template: &str) -> GgufVocab {
    let merges = ["h e", "l l", "he ll", "hell o", "Ċ Ċ", "1 2", "Ġ Ġ"];
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<note>"].map(String::from).into();
    tokens.extend(alphabet);
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    GgufVocab {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        token_types: [3, 3, 3, 4].into_iter().chain(tokens.iter().skip(4).map(|_| 1)).collect(),
        tokens,
        merges: merges.map(String::from).into(),
        bos_id: Some(1),
        eos_id: Some(IM_END),
        unk_id: Some(0),
        pad_id: Some(IM_END),
        add_bos: Some(false),
        chat_template: Some(template.into()),
        ..GgufVocab::default()
    }
}

fn written(vocab: &GgufVocab) -> (TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer(vocab, dir.path()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    (dir, tokenizer)
}

fn refused(change: impl FnOnce(&mut GgufVocab)) -> String {
    let mut vocab = vocab(CHATML);
    change(&mut vocab);
    let dir = tempfile::tempdir().unwrap();
    let error = write_tokenizer(&vocab, dir.path()).unwrap_err().to_string();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written: {error}");
    error
}

fn set(dir: &Path, file: &str, text: &str) {
    fs::write(dir.join(file), text).unwrap();
}

#[test]
fn text_comes_back_from_its_ids() {
    let (_dir, tokenizer) = written(&vocab(CHATML));
    for text in ["hello hello", "Größe  12\n\n\t34 👍 <|im_end|> <note>x", ""] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    let ids = tokenizer.encode("<|im_start|>hello<note><|im_end|>").unwrap();
    assert_eq!(ids.len(), 4, "each special token is one id, and so is hello");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hello<note>");
    assert_eq!(tokenizer.vocab_size(), vocab(CHATML).tokens.len());
}

#[test]
fn the_splitting_rule_decides_which_merges_apply() {
    let pieces = |pre: &str, text: &str| {
        let (_dir, tokenizer) = written(&GgufVocab { pre: Some(pre.into()), ..vocab(CHATML) });
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().map(|&id| vocab(CHATML).tokens[id as usize].clone()).collect::<Vec<_>>()
    };
    assert_eq!(pieces("smollm", "a  12"), ["a", "ĠĠ", "1", "2"], "digits are cut off first, and alone");
    assert_eq!(pieces("gpt-2", "a  12"), ["a", "Ġ", "Ġ", "12"], "a number keeps one space before it");
    assert_eq!(pieces("llama-bpe", "1212"), ["12", "1", "2"], "digits by threes");
    assert_eq!(pieces("qwen2", "1212e\u{301}"), ["1", "2", "1", "2", "Ã", "©"], "digits alone, and in form C");
}

#[test]
fn what_a_gguf_file_does_not_say_is_noted() {
    assert_eq!(vocab(CHATML).notes(), Vec::<String>::new());
    let notes = GgufVocab { pre: None, chat_template: None, ..vocab(CHATML) }.notes();
    assert!(notes[0].contains("tokenizer.ggml.pre") && notes[1].contains("chat_template.jinja"), "{notes:?}");
    let sentence_piece = GgufVocab { pre: None, model: "llama".into(), ..vocab(CHATML) };
    assert!(sentence_piece.notes().is_empty(), "it needs no rule");
}

#[test]
fn the_loss_is_on_the_response_and_its_end_of_turn_token_alone() {
    let (_dir, tokenizer) = written(&vocab(CHATML));
    for system in [None, Some("Be brief.")] {
        let prompt = tokenizer.encode_prompt("Say 12.", system).unwrap();
        let sample = tokenizer.encode_sample("Say 12.", "hello 12", system).unwrap();
        assert_eq!(sample.ids[..prompt.len()], prompt, "generation sees the same prompt");
        let expected = [vec![false; prompt.len()], vec![true; sample.ids.len() - prompt.len()]].concat();
        assert_eq!(sample.loss_mask, expected);
        assert_eq!(tokenizer.decode(&sample.ids[prompt.len()..], false).unwrap(), "hello 12<|im_end|>");
    }
}

#[test]
fn a_response_that_would_merge_with_the_prompt_leaves_the_prompt_alone() {
    let (_dir, tokenizer) = written(&vocab(CHATML));
    let prompt = tokenizer.encode_prompt("Go", None).unwrap();
    let whole = "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n\n\nhello";
    assert!(!tokenizer.encode(whole).unwrap().starts_with(&prompt), "together they do merge");
    let sample = tokenizer.encode_sample("Go", "\n\nhello", None).unwrap();
    assert!(sample.ids.starts_with(&prompt));
    assert_eq!(tokenizer.decode(&sample.ids[prompt.len()..], false).unwrap(), "\n\nhello<|im_end|>");
}

#[test]
fn an_end_of_turn_token_inside_the_response_does_not_cut_it() {
    let (_dir, tokenizer) = written(&vocab(CHATML));
    let sample = tokenizer.encode_sample("Go", "a<|im_end|>b<note>c", None).unwrap();
    assert!(tokenizer.decode(&sample.ids, false).unwrap().ends_with("a<|im_end|>b<note>c<|im_end|>"));
}

#[test]
fn a_template_that_changes_the_prompt_is_refused_for_training() {
    let shouting = "{% for m in messages %}{{ loop.length }}{{ m.content }}<|im_end|>{% endfor %}";
    let (_dir, tokenizer) = written(&vocab(shouting));
    let error = tokenizer.encode_sample("Go", "hello", None).unwrap_err();
    assert!(matches!(error, Error::NotAPrefix { at: 0, .. }), "{error}");
}

#[test]
fn a_template_without_an_end_of_turn_token_is_refused_for_training() {
    let (_dir, tokenizer) = written(&vocab("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"));
    assert!(!tokenizer.encode_prompt("Go", None).unwrap().is_empty());
    let error = tokenizer.encode_sample("Go", "hello", None).unwrap_err();
    assert!(matches!(error, Error::NoEndOfTurn { .. }), "{error}");
    assert_eq!(tokenizer.eos_ids(), [IM_END], "generation still stops where the configuration says");
}

#[test]
fn generation_stops_at_the_configured_ids_and_at_the_end_of_turn() {
    let (dir, tokenizer) = written(&vocab(CHATML));
    let eos = |generation: &str| {
        set(dir.path(), "generation_config.json", generation);
        Tokenizer::from_dir(dir.path()).map(|tokenizer| tokenizer.eos_ids())
    };
    assert_eq!(tokenizer.eos_ids(), [IM_END]);
    assert_eq!(eos(r#"{"eos_token_id": [5, 2]}"#).unwrap(), [5, 2]);
    assert_eq!(eos(r#"{"eos_token_id": 0}"#).unwrap(), [0, IM_END]);
    set(dir.path(), "config.json", r#"{"eos_token_id": [7, 2]}"#);
    assert_eq!(eos("{}").unwrap(), [7, 2], "config.json is asked next");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(eos(r#"{"eos_token_id": "x"}"#).unwrap_err().to_string().contains("generation_config.json: eos_token_id"));
    set(dir.path(), "tokenizer_config.json", r#"{"eos_token": "<|endoftext|>", "chat_template": "{{ messages }}"}"#);
    assert_eq!(eos("{}").unwrap(), [0]);
    set(dir.path(), "tokenizer_config.json", r#"{"eos_token": "</s>", "chat_template": "x"}"#);
    assert!(eos("{}").unwrap_err().to_string().contains("\"eos_token\" is \"</s>\""));
    set(dir.path(), "tokenizer_config.json", r#"{"chat_template": "x", "pad_token": "[UNK]"}"#);
    set(dir.path(), "special_tokens_map.json", r#"{"eos_token": {"content": "<|endoftext|>"}}"#);
    assert_eq!(eos("{}").unwrap(), [0], "an unknown pad token does not matter");
    fs::remove_file(dir.path().join("special_tokens_map.json")).unwrap();
    assert!(eos("{}").unwrap_err().to_string().contains("no token at which generation stops"));
}

#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let (dir, plain) = written(&vocab(CHATML));
    let path = dir.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("one two").unwrap(), plain.encode("one two").unwrap());
}

#[test]
fn a_broken_tokenizer_file_is_named() {
    let (dir, _) = written(&vocab(CHATML));
    set(dir.path(), "tokenizer.json", "{\"model\": 3");
    let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::from_dir(dir.path()).unwrap_err().to_string().contains("cannot read"));
    for other in ["vocab.json", "tokenizer.model"] {
        set(dir.path(), other, "");
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{other}: is the only tokenizer")), "{error}");
    }
}

/// Cases that are handed to the project.
#[test]
#[ignore = "needs ../shared/cases"]
fn hostile_tokenizers_and_templates_are_errors() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/hostile-tokenizer");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(shared.join("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let run = || Tokenizer::from_dir(dir.path()).and_then(|tokenizer| tokenizer.encode_prompt("Größe?", None));
    assert!(run().is_ok());
    set(dir.path(), "chat_template.jinja", &format!("{{{{ messages[0].content{} }}}}", "|list".repeat(60_000)));
    assert!(matches!(run(), Err(Error::Template { .. })));
    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    for name in ["charsmap", "slice", "index"] {
        fs::copy(shared.join(format!("{name}.json")), dir.path().join("tokenizer.json")).unwrap();
        assert!(run().is_err(), "{name}");
    }
}

#[test]
fn a_file_cut_off_anywhere_or_that_the_library_cannot_take_is_an_error() {
    let (dir, _) = written(&vocab(CHATML));
    let path = dir.path().join("tokenizer.json");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len() - 1).step_by(37) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not valid JSON, is the file whole?"), "{length}: {error}");
    }
    // Panics of the library: a decoder that is no object of the known form, a prefix longer than a merge's part.
    let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    for (pointer, value) in [
        ("/decoder", serde_json::json!({"type": "ByteLevel", "add_prefix_space": "x"})),
        ("/normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("/model/continuing_subword_prefix", serde_json::json!("##########")),
    ] {
        let mut broken = json.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        fs::write(&path, broken.to_string()).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{pointer}: {error}");
    }
    // A text on which the splitting rule gives up.
    let mut slow = json.clone();
    slow["pre_tokenizer"] = serde_json::json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated",
        "invert": false});
    fs::write(&path, slow.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let error = tokenizer.encode(&("a".repeat(60) + "b")).unwrap_err().to_string();
    assert!(error.contains("the library cannot take it"), "{error}");
    // Replacements that are harmless one by one.
    let double = serde_json::json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(16)});
    let row = |key: &str| serde_json::json!({"type": "Sequence", key: vec![&double; 12]});
    let mut grown = json;
    (grown["normalizer"], grown["decoder"]) = (row("normalizers"), row("decoders"));
    fs::write(&path, grown.to_string()).unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("can become"), "{error}");
}

#[test]
fn what_a_tokenizer_takes_memory_for_is_bounded() {
    let (dir, tokenizer) = written(&vocab(CHATML));
    let path = dir.path().join("tokenizer.json");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let error = tokenizer.encode(&"a ".repeat(3 << 20)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("at most"), "{error}");
    let fails = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = json.clone();
        change(&mut changed);
        fs::write(&path, changed.to_string()).unwrap();
        Tokenizer::from_dir(dir.path())
            .and_then(|tokenizer| tokenizer.encode(&"a".repeat(4000)))
            .unwrap_err()
            .to_string()
    };
    let added = |content: String, normalized: bool| {
        serde_json::json!({"id": 999, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": false})
    };
    let many = |json: &mut serde_json::Value| {
        let added = (0..300).map(|i| added(format!("{i}{}", "x".repeat(9000)), false));
        json["added_tokens"].as_array_mut().unwrap().extend(added);
    };
    let prepended = |json: &mut serde_json::Value| {
        json["normalizer"] = serde_json::json!({"type": "Prepend", "prepend": "p".repeat(1 << 20)});
        json["added_tokens"].as_array_mut().unwrap().push(added("short".into(), true));
    };
    let before_texts = |json: &mut serde_json::Value| {
        json["normalizer"] = serde_json::json!({"type": "Prepend", "prepend": "p".repeat(10_000)});
    };
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: [(Change<'_>, &str); 3] =
        [(&many, "added tokens have"), (&prepended, "can become"), (&before_texts, "can become")];
    for (change, wanted) in changes {
        let error = fails(change);
        assert!(error.contains(wanted) && error.contains("tokenizer.json"), "{error}");
    }
}

/// As transformers 4.53 and 5.23 read these files.
#[test]
fn tokens_that_other_files_add_are_known() {
    let (dir, plain) = written(&vocab(CHATML));
    let size = plain.vocab_size() as u32;
    let read = |config: serde_json::Value| {
        set(dir.path(), "tokenizer_config.json", &config.to_string());
        Tokenizer::from_dir(dir.path())
    };
    let token = |content: &str, special: bool| {
        serde_json::json!({"content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    let config = serde_json::json!({"eos_token": "<note>", "chat_template": CHATML, "pad_token": "<pad>"});
    let with = |key: &str, value: serde_json::Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    let text = "<new>hello<note><pad>";
    let tokenizer = read(config.clone()).unwrap();
    assert_eq!(tokenizer.encode(text).unwrap(), plain.encode(text).unwrap());
    let ids = tokenizer.encode("<note>").unwrap();
    assert_eq!(
        (plain.decode(&ids, true).unwrap(), tokenizer.decode(&ids, true).unwrap()),
        ("<note>".into(), "".into())
    );
    let stated = |special| with("added_tokens_decoder", serde_json::json!({size.to_string(): token("<new>", special)}));
    for (config, shown) in [
        (stated(false), "<new>"),
        (stated(true), ""),
        (with("additional_special_tokens", serde_json::json!(["<new>"])), ""),
        (with("extra_special_tokens", serde_json::json!({"new_token": "<new>"})), ""),
    ] {
        let tokenizer = read(config).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap()[0], size);
        assert_eq!(tokenizer.decode(&[size], true).unwrap(), shown);
    }
    let named = with("extra_special_tokens", serde_json::json!({"new_token": "<new>"}));
    let source = "{{ messages[0].content }}{{ new_token }}";
    set(dir.path(), "chat_template.jinja", source);
    assert!(read(named).unwrap().encode_prompt("hello", None).unwrap().ends_with(&[size]));
    set(dir.path(), "added_tokens.json", &format!("{{\"<new>\": {size}}}"));
    assert_eq!(read(config.clone()).unwrap().decode(&[size], true).unwrap(), "<new>");
    set(dir.path(), "added_tokens.json", "{\"<new>\": 7}");
    let error = read(config.clone()).unwrap_err().to_string();
    assert!(
        error.contains("added_tokens.json") && error.contains(&format!("has the id 7 here, and {size} by")),
        "{error}"
    );
    let long = with("additional_special_tokens", serde_json::json!(["x".repeat(3 << 20)]));
    assert!(read(long).unwrap_err().to_string().contains("added tokens have"));
    let wrong = with("added_tokens_decoder", serde_json::json!({"a": token("<new>", false)}));
    assert!(read(wrong).unwrap_err().to_string().contains("`a`: is not a token id"));
}

#[test]
fn an_adapters_own_files_go_before_those_of_its_base() {
    let (base, plain) = written(&vocab(CHATML));
    let adapter = tempfile::tempdir().unwrap();
    let prompt = || {
        let tokenizer = Tokenizer::from_dirs(&[adapter.path(), base.path()]).unwrap();
        tokenizer.decode(&tokenizer.encode_prompt("Go", None).unwrap(), false).unwrap()
    };
    assert_eq!(prompt(), plain.decode(&plain.encode_prompt("Go", None).unwrap(), false).unwrap());
    set(base.path(), "chat_template.jinja", "base {{ messages[0].content }}{{ eos_token }}");
    let own = r#"{"chat_template": "own {{ messages[0].content }}{{ eos_token }}", "eos_token": "<note>"}"#;
    set(adapter.path(), "tokenizer_config.json", own);
    assert_eq!(prompt(), "own Go<note>");
    let without = r#"{"chat_template": "own {{ messages[0].content }}{{ eos_token }}"}"#;
    set(adapter.path(), "tokenizer_config.json", without);
    assert!(base.path().join("special_tokens_map.json").exists());
    assert_eq!(prompt(), "own Go", "special tokens are of one directory");
    set(adapter.path(), "chat_template.jinja", "file {{ messages[0].content }}");
    assert_eq!(prompt(), "file Go");
    set(adapter.path(), "chat_template.jinja", "file");
    let hidden = Tokenizer::from_dirs(&[adapter.path(), base.path()]).unwrap().encode_prompt("Go", None).unwrap_err();
    assert!(matches!(hidden, Error::NotShown { .. }) && hidden.to_string().contains("chat_template.jinja"), "{hidden}");
}

#[cfg(unix)]
#[test]
fn a_device_and_what_a_link_leads_out_to_are_not_read() {
    let (dir, _) = written(&vocab(CHATML));
    for name in ["chat_template.jinja", "generation_config.json", "tokenizer_config.json", "tokenizer.json"] {
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("not a regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        let (outside, _) = written(&vocab(CHATML));
        let private = outside.path().join(name);
        fs::write(&private, "{}").unwrap();
        std::os::unix::fs::symlink(&private, &path).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("points outside"), "{error}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_vocabulary_that_makes_no_tokenizer_is_refused_before_anything_is_written() {
    assert!(refused(|vocab| vocab.model = "bert".into()).contains("tokenizer.ggml.model is \"bert\""));
    assert!(refused(|vocab| vocab.model = "llama".into()).contains("tokenizer.ggml.scores has 0 entries"));
    assert!(refused(|vocab| vocab.pre = Some("chatglm".into())).contains("tokenizer.ggml.pre is \"chatglm\""));
    assert!(refused(|vocab| vocab.tokens[9] = "<note>".into()).contains("\"<note>\" twice, at 3 and 9"));
    assert!(refused(|vocab| vocab.eos_id = Some(70_000)).contains("tokenizer.ggml.eos_token_id is 70000"));
    assert!(refused(|vocab| vocab.merges.push("x yz".into())).contains("do not make a tokenizer"));
    assert!(refused(|vocab| vocab.merges.push("x".into())).contains("do not make a tokenizer"));
    assert!(refused(|vocab| vocab.token_types.truncate(3)).contains("tokenizer.ggml.token_type has"));
    let long = refused(|vocab| {
        (vocab.model, vocab.scores) = ("llama".into(), vec![0.0; vocab.tokens.len()]);
        vocab.tokens[9] = "a".repeat(1_000_000);
    });
    assert!(long.contains("the longest has 1000000 bytes"), "{long}");
}

#[test]
fn a_sentence_piece_vocabulary_merges_by_score_and_falls_back_to_bytes() {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let pieces = ["▁", "o", "p", "e", "n", "op", "en", "▁o", "open", "▁open"];
    tokens.extend(pieces.map(String::from));
    let count = tokens.len();
    // Later pieces score lower: `op` and `en` before `▁o`, as SentencePiece numbers them.
    let scores = (0..count).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f32 }).collect();
    let kind = |id| {
        if id == 0 {
            2
        } else if id < 3 {
            3
        } else if id < 259 {
            6
        } else {
            1
        }
    };
    let vocab = GgufVocab {
        model: "llama".into(),
        pre: Some("default".into()),
        token_types: (0..count).map(kind).collect(),
        tokens: tokens.clone(),
        scores,
        bos_id: Some(1),
        eos_id: Some(2),
        unk_id: Some(0),
        chat_template: Some("{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}".into()),
        ..GgufVocab::default()
    };
    let (_dir, tokenizer) = written(&vocab);
    let pieces = |text: &str| -> Vec<String> {
        tokenizer.encode(text).unwrap().into_iter().map(|id| tokens[id as usize].clone()).collect()
    };
    assert_eq!(pieces("open"), ["▁open"]);
    assert_eq!(pieces("open pen"), ["▁open", "▁", "p", "en"]);
    assert_eq!(pieces("é\n"), ["▁", "<0xC3>", "<0xA9>", "<0x0A>"]);
    for text in ["open pen", "é\n 👍 open", " two  spaces"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), false).unwrap(), text);
    }
    let (_dir, bare) = written(&GgufVocab { add_space_prefix: Some(false), ..vocab.clone() });
    assert_eq!(bare.encode("open").unwrap().len(), 1);
    assert_eq!(bare.decode(&bare.encode("open").unwrap(), false).unwrap(), "open");
}

#[test]
fn the_first_token_is_added_to_plain_text_only_by_the_post_processor() {
    let (dir, tokenizer) = written(&GgufVocab { add_bos: Some(true), ..vocab(CHATML) });
    let raw = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(raw.encode("hello", true).unwrap().get_ids()[0], 1);
    assert_eq!(tokenizer.encode("hello").unwrap().len(), 1);
}
