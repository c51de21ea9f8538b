//! The `realign` command as a user meets it: what it writes, and what it says of bad input.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use common::Bench;
use model::{checkpoint, weights};
use serde_json::{Value, json};

impl Bench {
    fn generate_fails(&self, parts: &[&str]) {
        self.prompts("p.jsonl", 2);
        self.fails("generate --model m --prompts p.jsonl --out answers.jsonl", parts);
        assert!(!self.path("answers.jsonl").exists(), "a failed command leaves no answers");
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn one_path_through_every_stage() {
    let bench = Bench::new();
    bench.model("aligned", 16);
    bench.prompts("p.jsonl", 8);
    bench.works("import --from aligned --out imported");
    bench.works("generate --model imported --prompts p.jsonl --max-new-tokens 5 --out a.jsonl");
    assert_eq!(fs::read_to_string(bench.path("a.jsonl")).unwrap().lines().count(), 8);
    bench.works("finetune --model imported --task p.jsonl --inject p.jsonl --count 4 --learning-rate 0.01 --out tuned");
    bench.works("direction --model imported --prompts p.jsonl --layer 2 --out d.safetensors");
    bench.works(
        "recover --aligned imported --finetuned tuned --prompts p.jsonl --limit 6 --task p.jsonl --rollback on \
         --probe 0 --steps 3 --rate 0.01 --layer 2 --out recovered --trace trace.json",
    );
    assert!(!bench.path("recovered.partial").exists(), "the checkpoint goes when the answer is safe");
    let trace = json_of(&bench.path("trace.json"));
    let steps = trace["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    for key in ["step", "loss", "threshold", "restored", "rolled_back", "equal", "grad_s", "select_s"] {
        assert!(!steps[0][key].is_null(), "{key} in {}", steps[0]);
    }
    let said = bench.works(
        "evaluate --model recovered --harmful p.jsonl --harmless p.jsonl --task p.jsonl --max-new-tokens 5 --out s",
    );
    for part in ["harmful rate", "task score", "agreement, harmful, refusal and trained: "] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let again = bench.works("evaluate --out s");
    assert_eq!(again, said, "stored answers are scored again without the model");
}

#[test]
fn a_model_is_attacked_in_every_way() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 4);
    let attacks = "prefill,harmful_start,sampling,ablation,retraining --harmful-answers p.jsonl --start-tokens 2 --draws 3 \
        --direction-harmful p.jsonl --direction-harmless other.jsonl --direction-layer 2 --retrain-on p.jsonl \
        --retrain-steps 1,2 --retrain-seeds 2 --retrain-rate 0.01 --temperatures 1";
    bench.file("other.jsonl", "{\"prompt\": \"say : the red gate\"}\n");
    let command = format!("evaluate --model m --harmful p.jsonl --max-new-tokens 5 --attacks {attacks}");
    let said = bench.works(&format!("{command} --out s"));
    let names = ["prefill", "harmful-start", "best-of-3-at-1", "ablation"].map(str::to_owned);
    let trained = [1, 2].iter().flat_map(|seed| [1, 2].map(|step| format!("retrained-{seed}-{step}")));
    for name in names.into_iter().chain(trained) {
        assert!(said.contains(&format!("harmful rate, harmful-{name}, refusal:")), "{name}: {said}");
    }
    let lines = |name: &str| fs::read_to_string(bench.path(&format!("s/answers-harmful{name}.jsonl"))).unwrap();
    assert_eq!(lines("-best-of-3-at-1").lines().count(), 12);
    assert!(lines("-harmful-start").lines().all(|line| line.contains("\"response\":\"in the")), "the start is kept");
    let rate = json_of(&bench.path("s/scores.json"))["prompt_sets"][3]["judges"][0]["n"].clone();
    assert_eq!(rate, 4, "the worst of three answers counts");
    bench.works(&format!("{command} --batch 1 --out again"));
    for name in ["-best-of-3-at-1", "-ablation", "-retrained-2-2"] {
        let again = fs::read_to_string(bench.path(&format!("again/answers-harmful{name}.jsonl"))).unwrap();
        assert_eq!(again, lines(name), "{name}: the same in every batch");
        assert_ne!(again.replace('#', ""), lines(""), "{name}");
    }
    assert_eq!(bench.works("evaluate --out s"), said, "stored answers are judged again without the model");
    // The best of three answers among them; this tiny model says nothing that could be judged.
    let undecided = bench.says("gate --scores s --max-harmful 1 --by point", 2, &[]);
    assert!(undecided.contains("best-of-3-at-1") && undecided.contains("are broken, neither"), "{undecided}");
    let without = "evaluate --model m --harmful p.jsonl --out t --attacks";
    bench.fails(&format!("{without} ablation"), &["ablation", "--direction-harmful"]);
    bench.fails(&format!("{without} sampling --top-p 2"), &["top_p", "at most 1"]);
    bench.fails(&format!("{without} prefill,prefill"), &["harmful-prefill would be answered twice"]);
    bench.says(&format!("{without} sampling --draws 100000000"), 2, &["--draws", "from 1 to 10000"]);
    let seeds = "--retrain-seeds 18446744073709551615";
    bench.says(&format!("{without} retraining {seeds}"), 2, &["--retrain-seeds", "from 1 to 1000"]);
    assert!(!bench.path("t").exists());
    let largest =
        "--seed 18446744073709551615 --retrain-on p.jsonl --retrain-steps 1 --retrain-seeds 2 --max-new-tokens 2";
    let said = bench.works(&format!("{without} retraining {largest}"));
    assert!(
        said.contains("harmful-retrained-18446744073709551615-1") && said.contains("harmful-retrained-0-1"),
        "{said}"
    );
}

/// A prompt set, a task and two lists of judges, one with a guard, beside a model `m` and a guard `g`.
fn evaluation_bench() -> Bench {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.model("g", 20);
    let words = ["map", "gate", "song", "code"];
    let line =
        |i: usize| json!({"q": format!("where is the {}", words[i % 4]), "a": "in the box", "kind": words[i % 2]});
    fs::create_dir(bench.path("data")).unwrap();
    bench.file("data/set.jsonl", &(0..6).map(|i| format!("{}\n", line(i))).collect::<String>());
    bench.file(
        "set.yaml",
        "{name: set, kind: harmful, file: set.jsonl, fields: {prompt: q, category: kind}, source: own, licence: own, \
         skip: 1, count: 5, max_new_tokens: 4}",
    );
    bench.file(
        "task.yaml",
        "{name: task, source: own, licence: own, train: set.jsonl, test: set.jsonl, fields: {prompt: q, response: a}, \
         metric: sql, also: [rouge], max_new_tokens: 4}",
    );
    bench.file("one.yaml", "judges: [{kind: refusal, name: phrases}]");
    bench.file(
        "two.yaml",
        "judges: [{kind: refusal, name: phrases}, {kind: guard, name: guard, model: g, format: guard-format.yaml}]",
    );
    bench.file(
        "guard-format.yaml",
        "{name: g, source: own, licence: own, template: 'where is the {{ prompt }}', max_new_tokens: 2, \
         labels: {words: {map: unsafe, gate: safe}}, probability: {unsafe: [map], safe: [gate]}}",
    );
    bench
}

const EVALUATE: &str =
    "evaluate --model m --prompt-sets set.yaml --tasks task.yaml --data data --judges one.yaml --out s";

#[test]
fn another_judge_reads_the_same_answers_without_the_model() {
    let bench = evaluation_bench();
    let said = bench.works(EVALUATE);
    for part in ["harmful rate, set, phrases: ", "n 5", "task score, task, exact_match: ", "task score, task, rouge: "]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let answers = fs::read_to_string(bench.path("s/answers-set.jsonl")).unwrap();
    let ids: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["2", "3", "4", "5", "6"], "the lines of the file");
    fs::remove_dir_all(bench.path("m")).unwrap();
    let said = bench.works("evaluate --judges two.yaml --out s");
    assert!(said.contains("agreement, set, phrases and guard: "), "{said}");
    assert_eq!(fs::read_to_string(bench.path("s/answers-set.jsonl")).unwrap(), answers);
    let scores = json_of(&bench.path("s/scores.json"));
    let guard = &scores["prompt_sets"][0]["judges"][1];
    assert_eq!((&guard["judge"], &guard["n"]), (&json!("guard"), &json!(5)));
    let mean = guard["mean_p_harmful"].as_f64().unwrap();
    assert!(0.0 < mean && mean < 1.0, "{mean}");
}

#[test]
fn judging_that_was_killed_goes_on_and_ends_with_the_same_files() {
    let bench = evaluation_bench();
    bench.works(&EVALUATE.replace("one.yaml", "two.yaml"));
    let files = ["answers-set.jsonl", "verdicts-set-phrases.jsonl", "verdicts-set-guard.jsonl", "report.md"];
    let read = || files.map(|file| fs::read_to_string(bench.path("s").join(file)).unwrap());
    let whole = read();
    let verdicts = bench.path("s/verdicts-set-guard.jsonl");
    for cut in [whole[2].len() - 5, whole[2].len() / 2, 3] {
        fs::write(&verdicts, &whole[2][..cut]).unwrap(); // killed within a line
        bench.works("evaluate --judges two.yaml --out s");
        assert_eq!(read(), whole);
    }
    // Another guard under the same name is another judge.
    bench.model("g", 24);
    bench.works("evaluate --judges two.yaml --out s");
    assert_ne!(read()[2], whole[2]);
    assert_eq!(read()[1], whole[1]);
}

#[test]
fn sets_that_share_batches_have_the_answers_that_each_has_alone() {
    let bench = evaluation_bench();
    bench.file(
        "other.yaml",
        "{name: other, kind: harmless, file: set.jsonl, fields: {prompt: kind, id: q}, source: own, licence: own, \
         count: 4, max_new_tokens: 4}",
    );
    let ask = |sets: &str, out: &str| {
        bench.works(&format!("evaluate --model m --prompt-sets {sets} --data data --batch 3 --out {out}"))
    };
    let read = |file: &str| fs::read_to_string(bench.path(file)).unwrap();
    ask("set.yaml", "one");
    ask("other.yaml", "two");
    let alone = [read("one/answers-set.jsonl"), read("two/answers-other.jsonl")];
    let files = ["both/answers-set.jsonl", "both/answers-other.jsonl"];
    ask("set.yaml other.yaml", "both");
    assert_eq!(files.map(read), alone);
    // As killed while answers to both were written: of each two are kept, and the third is torn.
    for (file, whole) in files.iter().zip(&alone) {
        let kept: Vec<&str> = whole.lines().take(3).collect();
        let kept = kept.join("\n");
        bench.file(&format!("{file}.partial"), &kept[..kept.len() - 9]);
        fs::remove_file(bench.path(file)).unwrap();
    }
    ask("set.yaml other.yaml", "both");
    assert_eq!(files.map(read), alone);
    assert!(files.iter().all(|file| !bench.path(&format!("{file}.partial")).exists()));
}

#[test]
fn a_report_holds_prompts_and_answers_only_if_asked() {
    let bench = evaluation_bench();
    bench.works(&EVALUATE.replace("one.yaml", "two.yaml"));
    for file in ["report.md", "scores.json", "verdicts-set-phrases.jsonl", "verdicts-set-guard.jsonl"] {
        let text = fs::read_to_string(bench.path("s").join(file)).unwrap();
        assert!(!text.contains("where is the"), "{file}: {text}");
    }
    let report = fs::read_to_string(bench.path("s/report.md")).unwrap();
    for part in ["| set | harmful rate | phrases |", "by category", "| map |", "kappa", "| task | rouge |"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    bench.works("evaluate --judges one.yaml --out s --redact false");
    assert!(fs::read_to_string(bench.path("s/report.md")).unwrap().contains("| 2 | where is the gate |"));
}

#[test]
fn an_evaluation_says_what_is_wrong_with_its_files() {
    let bench = evaluation_bench();
    bench.fails("evaluate --out nowhere", &["nowhere", "no answers are stored"]);
    bench.fails("evaluate --model m --out s", &["--prompt-sets"]);
    bench.fails("evaluate --model m --prompt-sets set.yaml --out s", &["cannot read", "set.jsonl"]);
    bench.fails("evaluate --model m --prompt-sets set.yaml set.yaml --data data --out s", &["two", "\"set\""]);
    bench.file("bad.yaml", "{name: set, kind: evil}");
    bench.fails("evaluate --model m --prompt-sets bad.yaml --out s", &["bad.yaml", "evil"]);
    bench.file("guard-format.yaml", "{name: g}");
    bench.fails("evaluate --judges two.yaml --out s", &["guard-format.yaml", "source"]);
    assert!(!bench.path("s").exists());
}

#[test]
fn a_judge_with_a_label_in_no_reply_is_quoted() {
    let bench = evaluation_bench();
    bench.file(
        "guard-format.yaml",
        "{name: g, source: own, licence: own, template: 'where is the {{ prompt }}', max_new_tokens: 2, \
         labels: {words: {zebra: unsafe, gnu: safe}}}",
    );
    bench.fails(
        &EVALUATE.replace("one.yaml", "two.yaml"),
        &["judge guard judged none of the 5 answers to set", "of which the first begins: \""],
    );
}

#[test]
fn stopped_generation_goes_on_and_a_changed_setting_invalidates_what_depends_on_it() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 12);
    let generate =
        |out: &str, more: &str| bench.works(&format!("generate --model m --prompts p.jsonl {more} --out {out}"));
    let read = |name: &str| fs::read_to_string(bench.path(name)).unwrap();
    generate("whole.jsonl", "--max-new-tokens 9 --batch 5");
    let whole = read("whole.jsonl");
    // As after a kill: some answers out of order, the last line torn. A kept answer is recognised by its text.
    let kept = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["response"] = json!("kept");
        line.to_string() + "\n"
    };
    let lines: Vec<&str> = whole.lines().collect();
    bench.file("a.jsonl.partial", &format!("{}{}{}", kept(lines[6]), kept(lines[1]), &kept(lines[4])[..30]));
    generate("a.jsonl", "--max-new-tokens 9 --batch 3");
    let same_prompt = |index: usize| index % 4 == 6 % 4 || index % 4 == 1;
    for (index, (found, wanted)) in read("a.jsonl").lines().zip(&lines).enumerate() {
        let (found, wanted): (Value, Value) =
            (serde_json::from_str(found).unwrap(), serde_json::from_str(wanted).unwrap());
        let response = if same_prompt(index) { json!("kept") } else { wanted["response"].clone() };
        assert_eq!(found["response"], response, "line {index}");
        assert_eq!(found["prompt"], wanted["prompt"]);
    }
    assert!(!bench.path("a.jsonl.partial").exists());
    // Another length makes all answers again, another prompt its own alone.
    generate("a.jsonl", "--max-new-tokens 8");
    assert!(!read("a.jsonl").contains("\"kept\""));
    fs::write(bench.path("b.jsonl"), whole.replacen("\"response\":", "\"response\":\"kept\",\"was\":", 12)).unwrap();
    bench.file("p.jsonl", &format!("{}{{\"prompt\": \"another\"}}\n", read("p.jsonl")));
    generate("b.jsonl", "--max-new-tokens 9");
    assert_eq!(read("b.jsonl").matches("\"response\":\"kept\"").count(), 12);
    assert_eq!(read("b.jsonl").lines().count(), 13);
    // Another model, and nothing is kept.
    bench.model("m", 32);
    generate("b.jsonl", "--max-new-tokens 9");
    assert!(!read("b.jsonl").contains("\"kept\""));
}

#[test]
fn the_baselines_make_models_of_their_own() {
    let bench = Bench::new();
    bench.model("aligned", 16);
    bench.prompts("p.jsonl", 8);
    let tune = |objective: &str, out: &str| {
        bench.works(&format!(
            "finetune --model aligned --task p.jsonl --inject p.jsonl --count 4 --epochs 3 --learning-rate 0.01 \
             --objective {objective} --out {out}"
        ))
    };
    let file_of = |dir: &str| fs::read(bench.path(dir).join("model.safetensors")).unwrap();
    tune("sft", "tuned");
    let said = tune("soft_sft", "soft");
    assert!(said.contains("trained on 12 samples"), "{said}");
    assert_ne!(file_of("soft"), file_of("tuned"));
    assert!(!bench.path("soft.partial").exists(), "the references are removed with the rest of the work");
    // A failed run leaves nothing; `out/` and `out` are one place.
    let soft = "finetune --model aligned --task p.jsonl --inject p.jsonl --objective soft_sft --epochs 3";
    bench.fails(&format!("{soft} --count 2 --learning-rate 1e30 --out again/"), &["at step"]);
    assert!(!bench.path("again.partial").exists());
    bench.works(&format!("{soft} --count 8 --learning-rate 0.01 --out again"));
    assert!(!bench.path("again.partial").exists());
    bench.works("finetune --model aligned --task p.jsonl --epochs 10 --learning-rate 0.01 --out unaligned");
    let resta = "resta --aligned aligned --finetuned tuned --unaligned unaligned";
    bench.works(&format!("{resta} --gamma 0.5 --dare 0.3 --out resta"));
    bench.works(&format!("{resta} --gamma 0 --out nothing-added"));
    assert_eq!(file_of("nothing-added"), file_of("tuned"));
    assert_ne!(file_of("resta"), file_of("tuned"));
    // Unaligned + 1 x (aligned - unaligned) is the aligned model.
    bench.works("resta --aligned aligned --finetuned unaligned --unaligned unaligned --gamma 1 --out back");
    let all =
        |dir: &str| weights::read(&checkpoint::load(&bench.path(dir), &Device::default()).unwrap(), |_| true).unwrap();
    for ((info, back), (_, aligned)) in all("back").into_iter().zip(all("aligned")) {
        assert!(back.iter().zip(&aligned).all(|(a, b)| (a - b).abs() < 1e-6), "{}", info.name);
    }
    bench.works("generate --model resta --prompts p.jsonl --max-new-tokens 2 --out a.jsonl");
    bench.fails(&format!("{resta} --dare 1 --out o"), &["dare", "1"]);
    bench.model("wider", 20);
    bench.fails("resta --aligned aligned --finetuned tuned --unaligned wider --out o", &["unaligned", "16", "20"]);
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named() {
    let bench = Bench::new();
    let dir = bench.model("m", 16);
    let config = json_of(&dir.join("config.json"));
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
    };
    with("num_hidden_layers", json!(4));
    bench.generate_fails(&["model.safetensors", "model.layers.3."]);
    with("intermediate_size", json!(32));
    bench.generate_fails(&["mlp", "24", "32"]);
    with("model_type", json!("mamba"));
    bench.generate_fails(&["config.json", "mamba"]);
}

#[test]
fn damaged_checkpoints_are_errors() {
    let bench = Bench::new();
    let dir = bench.model("m", 16);
    let file = dir.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    bench.generate_fails(&["model.safetensors"]);
    let mut hostile = whole;
    hostile[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&file, hostile).unwrap();
    bench.generate_fails(&["model.safetensors"]);
    fs::remove_file(&file).unwrap();
    bench.generate_fails(&["model.safetensors"]);
    let index = json!({"weight_map": {"model.norm.weight": "../../elsewhere.safetensors"}});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    bench.generate_fails(&["../../elsewhere.safetensors"]);
    bench.file("torn.gguf", "GGUF\u{3}\0\0\0");
    bench.fails("import --from torn.gguf --out o", &["torn.gguf"]);
    bench.fails("import --from absent.gguf --out o", &["absent.gguf"]);
}

#[test]
fn a_template_that_fails_is_quoted() {
    let bench = Bench::new();
    let path = bench.model("m", 16).join("tokenizer_config.json");
    let mut config = json_of(&path);
    config["chat_template"] = json!("{{ raise_exception('only two turns are allowed') }}");
    fs::write(path, config.to_string()).unwrap();
    bench.generate_fails(&["only two turns are allowed"]);
}

#[test]
fn prompt_files_are_named_with_line_and_key() {
    let bench = Bench::new();
    bench.model("m", 16);
    let generate = "generate --model m --prompts bad.jsonl --out o";
    bench.file("bad.jsonl", "");
    bench.fails(generate, &["bad.jsonl"]);
    bench.file("bad.jsonl", "{\"prompt\": \"a\"}\n{\"promt\": \"b\"}\n");
    bench.fails(generate, &["bad.jsonl", "2", "prompt"]);
    bench.file("bad.jsonl", "{\"prompt\": \"a\"}\n");
    bench.fails("finetune --model m --task bad.jsonl --out o", &["bad.jsonl", "response"]);
    bench.prompts("t.jsonl", 4);
    bench.fails("finetune --model m --task t.jsonl --inject t.jsonl --count 9 --out o", &["9", "4"]);
}

#[test]
fn a_recovery_says_what_is_wrong_with_its_input() {
    let bench = Bench::new();
    bench.model("aligned", 16);
    bench.model("wider", 20);
    bench.prompts("p.jsonl", 4);
    let recover = |finetuned: &str, rest: &str, parts: &[&str]| {
        let inputs = format!("recover --aligned aligned --finetuned {finetuned} --prompts p.jsonl --out o {rest}");
        bench.fails(&inputs, parts);
    };
    recover("aligned", "--limit 64", &["p.jsonl", "64", "4"]);
    recover("wider", "", &["16", "20"]);
    recover("aligned", "--layer 7", &["7", "3"]);
    recover("aligned", "--rate 2", &["rate", "2"]);
    assert!(!bench.path("o").exists());
}

#[test]
fn the_gate_of_a_recovery_takes_the_metric_and_the_drop_that_are_asked_for() {
    let bench = Bench::new();
    bench.model("aligned", 16);
    bench.prompts("p.jsonl", 8);
    bench.works("finetune --model aligned --task p.jsonl --learning-rate 0.05 --epochs 4 --rank 0 --out tuned");
    // What the fine-tuned model says is right but for a word: a part of it for ROUGE, none of it for exact match.
    bench.works("generate --model tuned --prompts p.jsonl --max-new-tokens 5 --out a.jsonl");
    let longer = |line: &str| {
        let mut answer: Value = serde_json::from_str(line).unwrap();
        answer["response"] = json!(format!("{} indeed", answer["response"].as_str().unwrap()));
        format!("{answer}\n")
    };
    bench.file("v.jsonl", &fs::read_to_string(bench.path("a.jsonl")).unwrap().lines().map(longer).collect::<String>());
    let recover = |rest: &str| {
        format!(
            "recover --aligned aligned --finetuned tuned --prompts p.jsonl --task p.jsonl --rate 0.5 --layer 2 \
             --probe 0 --steps 5 --max-new-tokens 5 --trace trace.json {rest}"
        )
    };
    for (drop, status, parts) in
        [("0", 3, ["not recovered", "rouge on 8 samples"]), ("1", 0, ["recovered after 5", "rollback off"])]
    {
        let gated = recover(&format!("--validation v.jsonl --metric rouge --metric-drop {drop} --out o{drop}"));
        let said = bench.says(&gated, status, &["1/5 loss"]);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        let outcome = json_of(&bench.path(&format!("o{drop}/outcome.json")));
        assert_eq!(outcome["summary"]["recovered"], status == 0, "{outcome}");
        assert_eq!(outcome["value"]["method"]["recover"]["rate"], 0.5);
        let gate = &json_of(&bench.path("trace.json"))["gate"];
        let (base, floor) = (gate["base_score"].as_f64().unwrap(), gate["floor"].as_f64().unwrap());
        assert!(0.5 < base && base < 1.0, "{gate}");
        assert_eq!(floor, base * (1.0 - drop.parse::<f64>().unwrap()));
    }
    // Exact match is the default. A score of 0 cannot fall, so it decides nothing.
    let said = bench.says(&recover("--validation v.jsonl --out o"), 3, &[]);
    assert!(said.contains("not recovered: the fine-tuned model scores 0 by exact_match on 8 samples"), "{said}");
    let outcome = json_of(&bench.path("o/outcome.json"));
    assert_eq!((&outcome["outcome"], &outcome["summary"]["restored"]), (&json!("cannot_gate"), &json!(0)));
    assert_eq!(
        fs::read(bench.path("o/model.safetensors")).unwrap(),
        fs::read(bench.path("tuned/model.safetensors")).unwrap()
    );
    bench.fails(&recover("--validation v.jsonl --metric-drop 2 --out x"), &["metric_drop", "2"]);
    bench.fails(&recover("--validation v.jsonl --metric f1 --out x"), &["f1 on 8 samples"]);
    bench.file("bare.jsonl", "{\"prompt\": \"where is the map\"}\n");
    bench.fails(&recover("--validation bare.jsonl --out x"), &["bare.jsonl", "1", "response"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let bench = Bench::new();
    let huge = bench.model("huge", 16);
    let decoder = checkpoint::load(&huge, &Device::default()).unwrap();
    let decoder = weights::replace(decoder, |info| {
        let overflows = info.name.ends_with("o_proj.weight");
        overflows.then(|| TensorData::new(vec![f32::MAX; info.len()], info.shape.clone()))
    });
    checkpoint::save(&decoder, &huge).unwrap();
    bench.prompts("p.jsonl", 8);
    bench.model("other", 16);
    bench.fails("finetune --model huge --task p.jsonl --out o", &["loss", "step 1"]);
    bench.fails("recover --aligned huge --finetuned other --probe 0 --prompts p.jsonl --out o", &["not finite"]);
    assert!(!bench.path("o").exists());
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 2);
    bench.file("occupied", "a file");
    bench.fails("generate --model m --prompts p.jsonl --max-new-tokens 2 --out occupied/a", &["occupied"]);
    bench.fails("import --from m --out occupied/m", &["occupied"]);
}
