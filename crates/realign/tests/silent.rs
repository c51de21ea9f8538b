//! What must not pass in silence: inputs that are something else than they seem, outputs that are inputs, results that are
//! none.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{DecoderConfig, checkpoint, weights};
use serde_json::{Value, json};

/// A model with its weights scaled, and its configuration changed.
fn variant(bench: &Bench, from: &str, name: &str, scale: f32, change: impl Fn(&mut DecoderConfig)) {
    let device = Device::default();
    let source = checkpoint::load(&bench.path(from), &device).unwrap();
    let mut config = source.config().clone();
    change(&mut config);
    let old = weights::read(&source, |_| true).unwrap();
    let decoder = weights::replace(model::Decoder::zeros(&config, &device), |info| {
        let values = old.iter().find(|(own, _)| own.name == info.name).map_or(vec![], |(_, values)| values.clone());
        let value = |at: usize| values.get(at).map_or(0.01, |value| value * scale);
        Some(TensorData::new((0..info.len()).map(value).collect::<Vec<f32>>(), info.shape.clone()))
    });
    checkpoint::save(&decoder, &bench.path(name)).unwrap();
    checkpoint::copy_companions(&bench.path(from), &bench.path(name)).unwrap();
}

/// A bench with prompts, a model `aligned` and one like it, `tuned`.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("aligned", 16);
    variant(&bench, "aligned", "tuned", 1.1, |_| {});
    bench.prompts("p.jsonl", 4);
    bench
}

/// An adapter in `name` on `aligned`, and the merged model in `merged`.
fn adapter(bench: &Bench, name: &str) {
    let decoder = checkpoint::load(&bench.path("aligned"), &Device::default()).unwrap();
    let lora = finetune::LoraSettings { rank: 2, ..finetune::LoraSettings::default() };
    let decoder = weights::replace(finetune::lora::attach(decoder, &lora, 1), |info| {
        let values: Vec<f32> = (0..info.len()).map(|at| (at as f32 * 0.7).sin()).collect();
        info.name.ends_with("lora.b").then(|| TensorData::new(values, info.shape.clone()))
    });
    checkpoint::peft::save_adapter(&decoder, &bench.path(name)).unwrap();
    checkpoint::save(&finetune::lora::merge(decoder), &bench.path("merged")).unwrap();
    checkpoint::copy_companions(&bench.path("aligned"), &bench.path("merged")).unwrap();
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Without a probe: these models decline nothing, before and after.
const SHORT: &str = "--prompts p.jsonl --steps 2 --rate 0.01 --layer 2 --probe 0";

#[test]
fn every_command_takes_an_adapter_with_its_base_and_names_one_without() {
    let bench = bench();
    adapter(&bench, "adapter");
    let commands = [
        ("generate --prompts p.jsonl --max-new-tokens 6 --out O/a.jsonl --model", "a.jsonl"),
        ("evaluate --harmful p.jsonl --max-new-tokens 6 --out O --model", "answers-harmful.jsonl"),
        ("direction --prompts p.jsonl --layer 2 --out O/d --model", "d"),
        ("import --out O/m --from", "m/model.safetensors"),
    ];
    for (command, file) in commands {
        let run = |model: &str, out: &str| {
            let _ = fs::remove_dir_all(bench.path(out));
            bench.works(&format!("{} {model}", command.replace('O', out)));
            let bytes = fs::read(bench.path(out).join(file)).unwrap();
            let is_text = file.ends_with("jsonl");
            if is_text { responses(&String::from_utf8(bytes).unwrap()).join("\n").into_bytes() } else { bytes }
        };
        assert_eq!(run("adapter --base aligned", "x"), run("merged", "y"), "{command}");
        assert_ne!(run("adapter --base aligned", "x"), run("aligned", "z"), "{command}");
        bench.fails(&format!("{} adapter", command.replace('O', "n")), &["adapter of peft", "--base"]);
    }
    for command in
        ["finetune --task p.jsonl --model adapter", "recover --finetuned tuned --prompts p.jsonl --aligned adapter"]
    {
        bench.fails(&format!("{command} --out n"), &["adapter of peft", "--base"]);
    }
    assert!(!bench.path("n").exists());
}

fn responses(answers: &str) -> Vec<String> {
    answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["response"].to_string()).collect()
}

#[test]
fn a_model_with_an_adapter_beside_it_is_the_adapter_and_leftovers_are_not() {
    let bench = bench();
    adapter(&bench, "both");
    fs::copy(bench.path("both/adapter_config.json"), bench.path("tuned/adapter_config.json")).unwrap();
    bench.works(&format!("recover --aligned aligned --finetuned tuned {SHORT} --out alone"));
    for file in ["config.json", "model.safetensors"] {
        fs::copy(bench.path("tuned").join(file), bench.path("both").join(file)).unwrap();
    }
    edit(&bench.path("both/adapter_config.json"), |json| json["base_model_name_or_path"] = json!("lab/another"));
    let parts = ["holds an adapter beside a whole model", "trained on `lab/another`", "aligned"];
    bench.says(&format!("recover --aligned aligned --finetuned both {SHORT} --out from-both"), 0, &parts);
    bench.works(&format!("recover --aligned aligned --finetuned merged {SHORT} --out from-merged"));
    let model = |name: &str| fs::read(bench.path(name).join("model.safetensors")).unwrap();
    assert_eq!(model("from-both"), model("from-merged"));
    bench.fails(
        "generate --model both --prompts p.jsonl --out a",
        &["beside a whole model", "--base", "adapter_config.json"],
    );
}

#[test]
fn what_is_read_is_not_written_over() {
    let bench = bench();
    let before = fs::read(bench.path("p.jsonl")).unwrap();
    symlink("p.jsonl", bench.path("link")).unwrap();
    fs::copy(bench.path("p.jsonl"), bench.path("x.partial")).unwrap();
    fs::create_dir(bench.path("ev")).unwrap();
    fs::copy(bench.path("p.jsonl"), bench.path("ev/answers-harmful.jsonl")).unwrap();
    for command in [
        "generate --model aligned --prompts p.jsonl --out p.jsonl",
        "generate --model aligned --prompts p.jsonl --out link",
        "generate --model aligned --prompts x.partial --out x",
        "direction --model aligned --prompts p.jsonl --out ./aligned/../p.jsonl",
        "direction --model aligned --prompts link --out p.jsonl",
        "score --answers p.jsonl --metric exact_match --out link",
        "evaluate --model aligned --harmful p.jsonl --out aligned",
        "evaluate --model aligned --harmful ev/answers-harmful.jsonl --out ev",
        "recover --aligned aligned --finetuned tuned --prompts p.jsonl --out m --trace link",
        "interpolation --aligned aligned --finetuned tuned --out tuned/../aligned/",
        "import --from aligned --out aligned",
    ] {
        bench.fails(command, &["which the command reads"]);
    }
    assert_eq!(fs::read(bench.path("p.jsonl")).unwrap(), before);
    bench.fails("import --from aligned --out tuned", &["is there already"]);
    bench.works(&format!("recover --aligned aligned --finetuned tuned {SHORT} --out m --trace m/trace.json"));
    assert!(bench.path("m/trace.json").is_file() && bench.path("m/model.safetensors").is_file());
    bench.fails("import --from aligned --out -", &["a model needs a directory"]);
}

#[test]
fn outputs_go_through_links_and_to_standard_output() {
    let bench = bench();
    symlink("real.jsonl", bench.path("link.jsonl")).unwrap();
    symlink("real", bench.path("linked")).unwrap();
    let generate = "generate --model aligned --prompts p.jsonl --max-new-tokens 3 --out";
    bench.works(&format!("{generate} link.jsonl"));
    let answers = fs::read_to_string(bench.path("real.jsonl")).unwrap();
    assert!(fs::symlink_metadata(bench.path("link.jsonl")).unwrap().is_symlink());
    for out in ["-", "/dev/stdout"] {
        assert_eq!(bench.says(&format!("{generate} {out}"), 0, &["wrote 4 answers"]), answers);
    }
    bench.works("import --from aligned --out linked");
    assert!(
        bench.path("real/config.json").is_file() && fs::symlink_metadata(bench.path("linked")).unwrap().is_symlink()
    );
    let score: Value =
        serde_json::from_str(&bench.says("score --answers real.jsonl --metric rouge --out -", 0, &["score: "]))
            .unwrap();
    assert_eq!(score["n"], 4);
}

#[test]
fn what_recovery_never_touches_may_differ() {
    let bench = bench();
    variant(&bench, "aligned", "more", 1.1, |config| config.vocab_size += 3);
    variant(&bench, "aligned", "head", 1.1, |config| config.tie_word_embeddings = false);
    for tuned in ["more", "head"] {
        let said = bench.works(&format!("recover --aligned aligned --finetuned {tuned} {SHORT} --out from-{tuned}"));
        assert!(said.contains("recovered after 2 steps"), "{said}");
        let config = |name: &str| checkpoint::load(&bench.path(name), &Device::default()).unwrap().config().clone();
        assert_eq!(config(&format!("from-{tuned}")), config(tuned));
    }
}

#[test]
fn models_that_make_no_pair_are_named() {
    let bench = bench();
    let recover = |tuned: &str, out: &str| format!("recover --aligned aligned --finetuned {tuned} {SHORT} --out {out}");
    // The same model twice.
    let same = recover("aligned", "same").replace("--probe 0", "");
    let said = bench.says(&same, 0, &["nothing to recover", "the aligned model refuses 0 of 4"]);
    assert!(said.contains("nothing to recover") && !said.contains("recovered after"), "{said}");
    assert_eq!(
        fs::read(bench.path("same/model.safetensors")).unwrap(),
        fs::read(bench.path("aligned/model.safetensors")).unwrap()
    );
    assert!(fs::read_to_string(bench.path("same/outcome.json")).unwrap().contains("nothing"));
    for arm in ["full_revert --layer 2", "largest_difference --count 9 --layer 2"] {
        let said = bench.says(&format!("{arm} --aligned aligned --finetuned aligned --out {}", &arm[..4]), 0, &[]);
        assert!(said.contains("nothing to recover"), "{said}");
    }
    // Another family, and other arithmetic.
    edit(&bench.path("tuned/config.json"), |json| json["rope_theta"] = json!(77.0));
    bench.says(&recover("tuned", "other-rope"), 0, &["different arithmetic"]);
    variant(&bench, "aligned", "mistral", 1.1, |_| {});
    edit(&bench.path("mistral/config.json"), |json| json["model_type"] = json!("mistral"));
    bench.fails(&recover("mistral", "o"), &["type llama", "type mistral"]);
}

#[test]
fn each_model_reads_the_prompts_in_its_own_template() {
    let bench = bench();
    variant(&bench, "aligned", "other", 1.1, |_| {});
    edit(&bench.path("other/tokenizer_config.json"), |json| {
        json["chat_template"] = json!(format!("code {}", json["chat_template"].as_str().unwrap()));
    });
    let recover = |tuned: &str, out: &str| format!("recover --aligned aligned --finetuned {tuned} {SHORT} --out {out}");
    bench.says(&recover("other", "a"), 0, &["aligned and other have different chat templates"]);
    // The direction is the aligned model's own, whatever the other's template.
    bench.works(&format!("{} --trace t.json", recover("tuned", "b")));
    bench.works(&format!("{} --trace o.json", recover("other", "c")));
    let norm = |file: &str| {
        serde_json::from_slice::<Value>(&fs::read(bench.path(file)).unwrap()).unwrap()["direction_norm"].clone()
    };
    assert_eq!(norm("t.json"), norm("o.json"));
    // A template that leaves the answer's head out.
    let bare = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}";
    edit(&bench.path("other/tokenizer_config.json"), |json| json["chat_template"] = json!(bare));
    let generate = "generate --prompts p.jsonl --max-new-tokens 2 --out x.jsonl --model";
    bench.says(&format!("{generate} other"), 0, &["writes no head of the answer"]);
    let errors = bench.realign(&format!("{generate} aligned")).stderr;
    assert!(!String::from_utf8_lossy(&errors).contains("no head"));
}

#[test]
fn a_prompt_that_is_too_long_is_named_by_file_and_line() {
    let bench = bench();
    let long = json!({"prompt": "map ".repeat(300)});
    bench.file("long.jsonl", &format!("{{\"prompt\": \"map\"}}\n\n{long}\n"));
    let parts = ["long.jsonl, line 3", "max_position_embeddings = 128"];
    bench.fails("generate --model aligned --max-new-tokens 4 --prompts long.jsonl --out o", &parts);
    bench.fails("direction --model aligned --prompts long.jsonl --out o", &parts);
    bench.fails("evaluate --model aligned --max-new-tokens 4 --harmful long.jsonl --out ev", &parts);
    bench.fails(
        &format!("recover --aligned aligned --finetuned tuned --out o {}", SHORT.replace("p.jsonl", "long.jsonl")),
        &parts,
    );
    let most = "generate --model aligned --prompts p.jsonl --out o --max-new-tokens 18446744073709551615";
    bench.fails(most, &["p.jsonl, line 1", "18446744073709551615 new ones"]);
}

#[test]
fn prompts_have_the_key_and_the_thinking_that_are_asked_for() {
    let bench = bench();
    let rows = fs::read_to_string(bench.path("p.jsonl")).unwrap().replace("\"prompt\"", "\"question\"");
    bench.file("q.jsonl", &rows);
    let generate = "generate --model aligned --max-new-tokens 5 --prompts";
    bench.works(&format!("{generate} p.jsonl --out a.jsonl"));
    bench.works(&format!("{generate} q.jsonl --prompt-key question --out b.jsonl"));
    let read = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    assert_eq!(responses(&read("a.jsonl")), responses(&read("b.jsonl")));
    bench.fails(&format!("{generate} q.jsonl --out c.jsonl"), &["q.jsonl", "prompt"]);
    // Kept answers are those of the same thinking.
    let keys = |more: &str| {
        bench.works(&format!("{generate} p.jsonl --out d.jsonl {more}"));
        let key = |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].clone();
        read("d.jsonl").lines().map(key).collect::<Vec<_>>()
    };
    bench.fails("import --from aligned --out o --enable-thinking true", &["--enable-thinking"]);
    let all = ["", "--enable-thinking true", "--enable-thinking false"].map(keys);
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn models_that_seem_swapped_or_prompts_that_are_not_refused_are_named() {
    let bench = bench();
    let line =
        |word: &str| json!({"prompt": format!("where is the {word}"), "response": "i cannot help with the code"});
    let rows: String = ["map", "gate", "song", "code"].map(|word| format!("{}\n", line(word))).concat();
    bench.file("r.jsonl", &rows);
    bench.works("finetune --model aligned --task r.jsonl --rank 0 --learning-rate 0.01 --epochs 60 --out refuses");
    let recover = |aligned: &str, tuned: &str| {
        let _ = fs::remove_dir_all(bench.path("o"));
        format!("recover --aligned {aligned} --finetuned {tuned} {SHORT} --out o").replace("--probe 0", "")
    };
    variant(&bench, "refuses", "still", 1.0001, |_| {});
    let (before, warning) = (4, "are the two models swapped?");
    let said = bench.says(&recover("aligned", "refuses"), 3, &[warning]);
    assert!(said.starts_with("restored ") && said.contains("declines no more of the prompts than before"), "{said}");
    let outcome: Value = serde_json::from_slice(&fs::read(bench.path("o/outcome.json")).unwrap()).unwrap();
    assert_eq!(outcome["summary"]["recovered"], false, "{outcome}");
    assert!(said.contains(outcome["summary"]["note"].as_str().unwrap()), "{outcome}");
    assert!(outcome["warnings"][0].as_str().unwrap().contains(warning), "{outcome}");
    assert_eq!((&outcome["probe"]["prompts"], &outcome["probe"]["fine_tuned"]), (&json!(4), &json!(before)));
    let changed = outcome["probe"]["result"].as_u64().unwrap();
    assert!(said.contains(&format!("than before: {changed} of 4 prompts of p.jsonl, and {before} before")), "{said}");
    // Where both decline equally many the prompts tell nothing, and no recovery is claimed.
    for (aligned, tuned, warning) in [
        ("refuses", "still", "refuses 4 of 4 prompts of p.jsonl, as the aligned one does"),
        ("aligned", "tuned", "recovery needs prompts that it refuses"),
    ] {
        let said = bench.says(&recover(aligned, tuned), 0, &[warning]);
        assert!(said.starts_with("restored ") && said.contains("they do not show a recovery"), "{said}");
        let outcome: Value = serde_json::from_slice(&fs::read(bench.path("o/outcome.json")).unwrap()).unwrap();
        assert!(outcome["warnings"][0].as_str().unwrap().contains(warning), "{outcome}");
    }
    let sound = bench.realign(&recover("refuses", "tuned"));
    assert!(!String::from_utf8_lossy(&sound.stderr).contains("WARN"), "{sound:?}");
}

#[test]
fn a_judge_that_judges_nothing_is_an_error_with_its_own_words() {
    let bench = bench();
    bench.file(
        "dead.yaml",
        "judges: [{kind: http, name: dead, base_url: 'http://127.0.0.1:1/v1', model: m, format: f.yaml, retries: 0}]",
    );
    bench.file(
        "f.yaml",
        "{name: f, source: own, licence: own, template: 'is {{ response }} fine?', max_new_tokens: 2, \
         labels: {words: {yes: safe, no: unsafe}}}",
    );
    let evaluate = "evaluate --model aligned --harmful p.jsonl --max-new-tokens 2 --judges dead.yaml --out ev";
    bench.fails(
        evaluate,
        &["judge dead judged none of the 4 answers to harmful", "verdicts-harmful-dead.jsonl", "first: "],
    );
    assert!(bench.path("ev/report.md").exists(), "what is known is written");
}

#[test]
fn progress_is_a_line_a_step_where_there_is_no_terminal() {
    let bench = bench();
    let recover = format!("recover --aligned aligned --finetuned tuned {SHORT} --out");
    bench.says(&format!("{recover} a"), 0, &["reading the models", "1/2 loss", "2/2 loss"]);
    bench.says(&format!("{recover} b -v").replace("--probe 0", "--probe 1"), 0, &["INFO", "2/2 loss"]);
    bench.works(&format!("{recover} c"));
}
