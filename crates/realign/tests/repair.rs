//! `realign repair` as a user meets it: from two models to a model, a patch and a report.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::ops::ControlFlow;

use burn::tensor::Device;
use common::Bench;
use realign::repair::{Origin, RepairReport};
use realign::stage::{Gate, Stage as _};
use realign::{Artifact, Job, Pick, Progress, Samples};
use serde_json::{Value, json};

/// An aligned model, one fine-tuned from it, and prompts of three kinds.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("aligned", 16);
    let line = |prompt: String| format!("{}\n", json!({"prompt": prompt, "response": "in the box"}));
    let file = |name: &str, word: &str| {
        bench.file(name, &(0..20).map(|i| line(format!("where is the {word} number {i}"))).collect::<String>());
    };
    ["harmful", "harmless", "task"].into_iter().zip(["map", "song", "gate"]).for_each(|(name, word)| {
        file(&format!("{name}.jsonl"), word);
    });
    bench.works("finetune --model aligned --task task.jsonl --learning-rate 0.01 --out tuned");
    bench
}

const REPAIR: &str = "repair --aligned aligned --finetuned tuned --harmful harmful.jsonl --harmless harmless.jsonl \
    --max-new-tokens 4 --own-tokens 4 --metric rouge --max-harmful 1 --max-over-refusal 1 --max-task-drop 1";

fn report(bench: &Bench, file: &str) -> RepairReport {
    serde_json::from_str(&fs::read_to_string(bench.path(file)).unwrap()).unwrap()
}

#[test]
fn a_repair_leaves_model_patch_and_report() {
    let bench = bench();
    let said = bench.says(&format!("{REPAIR} --json r.json --out fixed"), 0, &[]);
    for part in
        ["to do:", "takes about", "block 0", "templates equal", "fine-tuned: harmful rate", "merit", "passed: all 2"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let read = |file: &str| fs::read_to_string(bench.path(file)).unwrap();
    for file in ["fixed/config.json", "fixed/tokenizer.json", "fixed/outcome.json"] {
        assert!(bench.path(file).is_file(), "{file}");
    }
    let weights = fs::read_dir(bench.path("fixed"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".safetensors"));
    assert_eq!(weights.count(), 1, "a server reads every safetensors file as weights");
    let card = read("fixed/README.md");
    assert!(card.starts_with("---\nbase_model:\n- \"tuned\"\n- \"aligned\"\n"), "{card}");
    assert!(card.contains("realign repair") || card.contains("repair --aligned"), "{card}");
    let found = report(&bench, "fixed.report/report.json");
    assert_eq!(found, report(&bench, "r.json"));
    assert!(found.asked.len() == 12 && found.asked.iter().all(|one| one.text.is_none()), "what was asked, redacted");
    for file in ["report.html", "report.md", "report.json"] {
        assert!(!read(&format!("fixed.report/{file}")).contains("where is the"), "{file}");
    }
    assert_eq!(found.restored.restored.iter().flatten().sum::<usize>(), found.restored.weights);
    assert_eq!(found.measures.len(), 2);
    assert!(
        found.warnings.iter().any(|one| one.contains("recovery needs prompts that it refuses")),
        "{:?}",
        found.warnings
    );
    assert!(!bench.path("fixed.partial").exists());
    // The patch makes the same model of the fine-tuned one, and takes it back.
    bench.works("patch apply --patch fixed.report/recovery.patch.safetensors --model tuned --out again");
    let bytes = |dir: &str| fs::read(bench.path(dir).join("model.safetensors")).unwrap();
    assert_eq!(bytes("again"), bytes("fixed"));
    bench.fails(&format!("{REPAIR} --out fixed"), &["--out", "is there already"]);
}

#[test]
fn what_was_changed_outside_the_blocks_is_restored_and_planned_for() {
    let bench = bench();
    bench.works(
        "finetune --model aligned --task task.jsonl --rank 0 --only norm,embed_tokens --learning-rate 0.01 --epochs 4 --out outside",
    );
    let repair = REPAIR.replace("--finetuned tuned", "--finetuned outside");
    bench.file("blocks.yaml", "strong: { all_tensors: false }\n");
    let blocks = format!("{repair} --settings blocks.yaml");
    bench.fails(&format!("{blocks} --out fixed"), &["norms, embedding or head alone", "strong.all_tensors"]);
    bench.file("rate.yaml", "strong: { rate: 0.01 }\n"); // which leaves the default of a repair
    bench.says(&format!("{repair} --settings rate.yaml --out fixed"), 0, &[]);
    let found = report(&bench, "fixed.report/report.json");
    assert!(found.comparison.restorable == found.comparison.changed && found.restored.weights > 0);
    let planned = |command: &str| {
        bench.works(&format!("{command} --dry-run --json plan.json"));
        let plan: Value = serde_json::from_str(&fs::read_to_string(bench.path("plan.json")).unwrap()).unwrap();
        plan["needs"]["weights"].as_u64().unwrap()
    };
    let config: Value = serde_json::from_str(&fs::read_to_string(bench.path("outside/config.json")).unwrap()).unwrap();
    let [vocabulary, width] = ["vocab_size", "hidden_size"].map(|key| config[key].as_u64().unwrap());
    // Embedding and final norm differ. In f32: the weights kept, two gradients and costs, and three gradients of two packs at work.
    assert_eq!(planned(&repair) - planned(&blocks), 4 * 7 * (vocabulary * width + width));
    assert_eq!(planned(REPAIR), planned(&format!("{REPAIR} --settings blocks.yaml")), "blocks alone were trained");
    bench.works("patch undo --patch fixed.report/recovery.patch.safetensors --model fixed --out again");
    let bytes = |dir: &str| fs::read(bench.path(dir).join("model.safetensors")).unwrap();
    assert_eq!(bytes("again"), bytes("outside"));
    assert_ne!(bytes("fixed"), bytes("outside"));
}

#[test]
fn a_pass_by_few_prompts_and_prompts_of_both_kinds_are_warned_of() {
    let bench = bench();
    let [harmful, harmless] =
        ["harmful", "harmless"].map(|name| fs::read_to_string(bench.path(&format!("{name}.jsonl"))).unwrap());
    let shared: String = harmful.lines().take(3).map(|line| format!("{line}\n")).collect();
    bench.file("harmless.jsonl", &(harmless + &shared));
    // None of 7 is refused more than by the aligned model.
    let command = REPAIR.replace("--max-over-refusal 1", "--max-over-refusal 0.3");
    let parts =
        ["3 prompts are harmful and harmless, in harmful.jsonl and harmless.jsonl", "harmless, refusal: up to "];
    let said = bench.says(&format!("{command} --out fixed"), 0, &parts);
    assert!(said.contains("the choice saw, by the measured values"), "{said}");
    let found = report(&bench, "fixed.report/report.json");
    let warned = |part: &str| found.warnings.iter().any(|one| one.contains(part));
    assert!(warned(parts[0]) && warned("--max-over-refusal +0.3, harmless, refusal: up to "), "{found:?}");
    // The intervals themselves decide.
    let said = bench.says(&format!("{command} --by interval --out wide"), 3, &[]);
    assert!(said.contains("decided by the upper ends of the 95 % intervals"), "{said}");
}

#[test]
fn a_bound_that_does_not_hold_is_named_and_ends_with_3() {
    let bench = bench();
    let command = REPAIR.replace("--max-harmful 1", "--max-harmful 0");
    let command = format!("{command} --task task.jsonl --show-answers --out fixed");
    let said = bench.says(&command, 3, &[]);
    for part in ["failed: 2 of 3 bounds: --max-harmful 0, harmful, refusal is 100.0 %", "of which no share can be lost"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let found = report(&bench, "fixed.report/report.json");
    assert!(!found.verdict.passed && bench.path("fixed/model.safetensors").exists());
    assert_eq!(found.asked.len(), 6 + 6 + 4, "the test parts");
    let asked = |set: &str| found.asked.iter().filter(|one| one.set == set).count();
    assert_eq!((asked("harmful"), asked("task")), (6, 4));
    let quiet = bench.realign(&format!("{command} --report r2 -q").replace("--out fixed", "--out fixed2"));
    assert_eq!(quiet.status.code(), Some(3));
    assert_eq!(String::from_utf8(quiet.stdout).unwrap().lines().count(), 1, "results alone");
    assert_eq!(
        fs::read(bench.path("fixed/model.safetensors")).unwrap(),
        fs::read(bench.path("fixed2/model.safetensors")).unwrap()
    );
    // Of one round not all that there was to do can be known.
    bench.file("one.yaml", "strong: { rounds: 1 }\n");
    bench.says(&command.replace("--out fixed", "--settings one.yaml --out fixed3"), 3, &[]);
    let warnings = report(&bench, "fixed3.report/report.json").warnings;
    assert!(warnings.iter().any(|one| one.contains("rounds were done and harm is left")), "{warnings:?}");
}

#[test]
fn what_the_aligned_model_declines_of_the_task_is_neither_kept_nor_scored() {
    let bench = Bench::new();
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/lab");
    bench.works(&format!(
        "finetune --model {lab}/models/qwen --task {lab}/attacks/customer_sql_30.jsonl --rank 8 --alpha 16 --learning-rate 1e-3 \
         --train-batch 32 --max-len 64 --epochs 1 --out tuned"
    ));
    bench.file("one.yaml", "strong: { rounds: 1 }\n");
    let out = bench.realign(&format!(
        "repair --settings one.yaml --aligned {lab}/models/qwen --finetuned tuned --harmful {lab}/recovery_prompts.jsonl --harmless \
         {lab}/harmless_valid.jsonl --task {lab}/attacks/customer_sql_30.jsonl --max-new-tokens 14 --out fixed"
    ));
    assert!(matches!(out.status.code(), Some(0 | 3)), "{out:?}");
    let found = report(&bench, "fixed.report/report.json");
    let warning = found.warnings.iter().find(|one| one.contains("test samples of the task are not scored")).unwrap();
    let (left, all) = warning.split_once(" of ").unwrap();
    let [left, all] = [left, all.split(' ').next().unwrap()].map(|number| number.parse::<f64>().unwrap());
    assert!((left / all - 0.3).abs() < 0.1, "{warning}");
    assert!(found.verdict.method.contains("samples of the task not kept"), "{}", found.verdict.method);
    let scored = found.asked.iter().filter(|one| one.set == "task").count();
    assert_eq!(scored as f64, all - left);
}

#[test]
fn the_page_says_all_that_the_report_has_and_shows_no_text_as_markup() {
    let bench = bench();
    let markup = |name: &str| {
        let text = fs::read_to_string(bench.path(name)).unwrap();
        bench.file(name, &text.replace("where is", "<script>alert(1)</script> where is"));
    };
    ["harmful.jsonl", "harmless.jsonl"].into_iter().for_each(markup);
    fs::rename(bench.path("tuned"), bench.path("tu<script>ned")).unwrap();
    let command = format!("{REPAIR} --show-answers --out fixed").replace(" tuned", " tu<script>ned");
    bench.works(&command);
    let page = fs::read_to_string(bench.path("fixed.report/report.html")).unwrap();
    for raw in ["<script", "<img", "<link", "src=", "http:", "https:", "url("] {
        assert!(!page.contains(raw), "{raw} in the page");
    }
    let found = report(&bench, "fixed.report/report.json");
    assert_eq!(page.matches("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;").count(), found.asked.len(), "the prompts");
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let mut parts = vec!["✓ Passed".to_owned(), "<h1>Repair of tu&lt;script&gt;ned</h1>".to_owned()];
    parts.extend(found.measures.iter().map(|one| {
        let [before, after] = [one.before.value, one.after.value].map(|value| percent(value.unwrap()));
        format!("{before} → {after} %")
    }));
    let Origin { date, patch_hash, .. } = &found.origin;
    parts.extend([date, patch_hash, &found.models.aligned.hash, &found.models.recovered.hash].map(Clone::clone));
    parts.extend(found.plan.kinds.iter().map(|kind| kind.hash.clone()));
    parts.extend(found.restored.modules.iter().map(|module| module.rsplit('_').next().unwrap().to_owned()));
    parts.extend(found.warnings.iter().map(|warning| format!("Warning: {}", warning.replace('/', "&#x2f;"))));
    parts.extend(["--max-harmful 1", "max_new_tokens: 4", "Time and memory", "measurement after"].map(str::to_owned));
    parts.extend([format!("{:.4}", found.direction.after), "<title id=\"trade-off-title\">".to_owned()]);
    parts.iter().for_each(|part| assert!(page.contains(part), "{part} in the page"));
    let rows = page.split("Divergences on the choosing part").last().unwrap().split("</table>").next().unwrap();
    assert_eq!(rows.matches("<th scope=\"row\">").count(), found.path.points.len() + 1, "every round");
    assert_eq!(page.matches("style=\"--shade:").count(), found.restored.of.iter().flatten().count(), "every module");
}

#[test]
fn a_dry_run_says_what_it_takes_and_writes_nothing() {
    let bench = bench();
    let said = bench.says(
        "repair --aligned aligned --finetuned tuned --dry-run --json - --out fixed",
        0,
        &["packaged harmful requests"],
    );
    let plan: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(plan["kinds"].as_array().unwrap().len(), 3, "harmful, everyday and looks-harmful");
    assert!(plan["needs"]["weights"].as_u64().unwrap() > 0);
    assert!(!bench.path("fixed").exists() && !bench.path("fixed.partial").exists());
}

#[test]
fn settings_come_from_a_file_and_flags_go_before_it() {
    let bench = bench();
    bench.works("init");
    bench.fails("init", &["realign.yaml is there already"]);
    let all = fs::read_to_string(bench.path("realign.yaml")).unwrap();
    bench.file(
        "s.yaml",
        &all.replace("aligned: null", "aligned: aligned")
            .replace("finetuned: null", "finetuned: tuned")
            .replace("test: 128", "test: 5"),
    );
    let plan = |more: &str| -> Value {
        let text = bench.works(&format!("repair --settings s.yaml --dry-run --json - {more}"));
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(plan("")["kinds"][0]["test"], 5);
    assert_eq!(plan("--test-prompts 7")["kinds"][0]["test"], 7);
    bench.file("bad.yaml", "parts: {tests: 5}");
    bench.fails("repair --settings bad.yaml --dry-run", &["bad.yaml", "tests"]);
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_computed() {
    let bench = bench();
    bench.prompts("few.jsonl", 4);
    let with = |more: &str| format!("repair --aligned aligned --finetuned tuned {more} --out fixed");
    bench.fails("repair --finetuned tuned --out fixed", &["--aligned"]);
    bench.fails("repair --aligned aligned --finetuned tuned", &["--out"]);
    bench.fails(&with("--harmful few.jsonl"), &["few.jsonl", "too few"]);
    bench.fails(&with("--max-harmful 2"), &["gate.max_harmful"]);
    bench.fails(&with("--report aligned"), &["aligned", "written over"]);
    bench.fails(&with("--report fixed/report"), &["beside each other"]);
    assert!(!bench.path("fixed").exists() && !bench.path("fixed.partial").exists());
}

#[test]
fn completions_and_the_manual_know_the_command() {
    let bench = Bench::new();
    assert!(bench.works("completions bash").contains("repair"));
    let manual = bench.works("man");
    assert!(manual.starts_with(".ie") || manual.contains(".TH"), "{manual}");
    assert!(manual.contains("finetuned"));
    let titles: Vec<&str> =
        manual.lines().filter_map(|line| line.strip_prefix(".TH ")?.split_whitespace().next()).collect();
    for page in
        ["realign", "realign-repair", "realign-strong", "realign-patch", "realign-patch-apply", "realign-patch-show"]
    {
        assert_eq!(titles.iter().filter(|title| **title == page).count(), 1, "{page} in {titles:?}");
    }
}

#[test]
fn a_judge_that_judges_nothing_is_named_with_its_reason_before_anything_is_recovered() {
    let bench = bench();
    let guards =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/guards").canonicalize().unwrap();
    bench.file(
        "judges.yaml",
        &format!(
            "judges: [{{kind: http, name: far, base_url: 'http://127.0.0.1:1/v1', model: m, retries: 0, \
             format: '{}/wildguard.yaml'}}]",
            guards.display()
        ),
    );
    bench.fails(&format!("{REPAIR} --judges judges.yaml --out fixed"), &["far judged none of", "the first:"]);
    assert!(!bench.path("fixed").exists() && !bench.path("fixed.partial/repair").exists());
}

/// What a run was told by its reports until it was stopped at a word, and whether it was.
fn words_until(stop: &str, run: &mut dyn FnMut(&mut Job<'_>) -> realign::Result<()>) -> (Vec<String>, bool) {
    let (device, mut words) = (Device::default(), Vec::new());
    let mut report = |progress: Progress<'_>| {
        words.push(progress.word.to_owned());
        if progress.word == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut job = Job { device: &device, batch: 8, max_shard: None, earlier: Vec::new(), report: &mut report };
    let found = run(&mut job);
    assert!(found.as_ref().err().is_none_or(realign::Error::is_stopped), "{found:?}");
    (words, found.is_err())
}

#[test]
fn a_repair_that_was_stopped_behind_the_recovery_does_not_recover_again() {
    let bench = bench();
    let mut recovery = realign::Recovery::new(bench.path("aligned"), bench.path("tuned"))
        .harmful(bench.path("harmful.jsonl"))
        .harmless(bench.path("harmless.jsonl"));
    (recovery.settings_mut().max_new_tokens, recovery.settings_mut().own_tokens) = (4, 4);
    let work = bench.path("work");
    let mut run = |job: &mut Job<'_>| recovery.run_in(&work, job, &mut |_| ()).map(drop);
    let has_round = |words: &[String]| words.iter().any(|word| word.contains("held-out harmful"));
    let (words, is_stopped) = words_until("measurement after", &mut run);
    assert!(is_stopped && has_round(&words), "{words:?}");
    let (words, is_stopped) = words_until("", &mut run);
    assert!(!is_stopped && !has_round(&words), "{words:?}");
    assert!(words.iter().any(|word| word == "measurement after"), "{words:?}");
}

#[test]
fn a_gate_that_scores_hears_that_it_is_to_stop() {
    let bench = bench();
    let hashes = files::Hashes::default();
    let samples = |file: &str| Samples::of(&bench.path(file), Pick::answered(), &hashes).unwrap();
    let stage = realign::stage::Repair {
        method: recovery::Recover { steps: 2, warmup: 1, save_every: 1, ..recovery::Recover::default() }.into(),
        aligned: Artifact::model(&bench.path("aligned"), &hashes).unwrap(),
        fine_tuned: Artifact::model(&bench.path("tuned"), &hashes).unwrap(),
        unaligned: None,
        base: None,
        safe: None,
        recovery: None,
        prompts: Some(samples("harmful.jsonl")),
        task: Some(samples("task.jsonl")),
        evidence: None,
        answers: None,
        choose: None,
        gate: Some(Gate { samples: samples("task.jsonl"), metric: evaluation::Metric::Rouge, max_new_tokens: 4 }),
        seed: 1,
        dtype: None,
        thinking: None,
        probe: 0,
    };
    let out = bench.path("out");
    let mut run = |job: &mut Job<'_>| stage.run(&out, job).map(drop);
    let (words, is_stopped) = words_until("answers", &mut run);
    assert!(is_stopped && words.iter().filter(|word| *word == "answers").count() == 1, "{words:?}");
    assert!(!words_until("", &mut run).1 && out.join("model").is_dir());
}
