//! Sweeps from end to end, with a model of `data/lab` and a few samples: all methods, stopping and going on, damage, tables
//! without stages, and which stages a setting changes. That every setting is in a key is in `keys.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::{Bench, SWEEP, text, timeless};
use evaluation::{Metric, read_answers};
use experiments::config::Sweep;
use experiments::plan::{self, makes_model};
use experiments::record::{FINE_TUNED, Record, read_all};
use experiments::roots::Roots;
use realign::stage::MODEL;
use serde_json::Value;

const METHODS: &str = "\
methods:
  - aligned
  - fine_tuned
  - recover
  - soft_sft
  - resta
  - random
  - largest_difference
  - full_revert
  - { name: interpolation_20, interpolation: { lambda: 0.2 } }
  - { name: interpolation_40, interpolation: { lambda: 0.4 } }
  - { name: interpolation_60, interpolation: { lambda: 0.6 } }
  - { name: interpolation_80, interpolation: { lambda: 0.8 } }
";

/// Two cells with all methods.
fn sweep(bench: &Bench) -> Sweep {
    bench.sweep("tiny.yaml", &(SWEEP.replace("counts: [2]", "counts: [0, 2]") + METHODS))
}

fn records(out: &Path) -> Vec<Record> {
    read_all(&out.join("records")).unwrap()
}

#[test]
fn all_methods_run_two_cells_at_a_time_and_a_second_run_has_nothing_to_do() {
    let bench = Bench::new();
    let sweep = sweep(&bench);
    let ended = bench.run(&sweep, 2).unwrap();
    assert!(ended.failed.is_empty(), "{:?}", ended.failed);
    let methods: Vec<&str> = sweep.methods.iter().map(|one| one.name.as_str()).collect();
    let records = bench.records();
    assert_eq!((methods.len(), records.len()), (12, 24));
    for cell in records.chunks(12) {
        assert_eq!(cell.iter().map(|record| record.method.as_str()).collect::<Vec<_>>(), methods);
        assert!(cell.iter().all(|record| record.needs.is_some()));
        let restored = |place: usize| cell[place].restored;
        assert!(restored(2) > Some(0) && restored(5) == restored(2) && restored(6) == restored(2));
        assert!(restored(7) > restored(2) && restored(3).is_none() && restored(4).is_none());
        for record in cell {
            let measured = record.damage.map(|damage| (damage.changed > 0.0, damage.divergence.unwrap().is_finite()));
            let expected = (record.method != FINE_TUNED).then_some((true, true));
            assert_eq!(measured, expected, "{}: how far it is from the fine-tuned model", record.method);
        }
    }
    // Of both cells: the import, what SoftSFT knows of the task, the unaligned model. The aligned model is evaluated once.
    let count = |kind: &str| ended.times[kind][0].0;
    assert_eq!((count("import"), count("reference"), count("unaligned")), (1, 2, 1));
    assert_eq!((count("finetune"), count("soft_sft"), count("interpolation")), (2, 2, 8));

    let before = common::files(&bench.results());
    let again = bench.run(&sweep, 2).unwrap();
    assert!(again.failed.is_empty() && again.times.values().all(|[computed, _]| computed.0 == 0), "{again:?}");
    let parquet = |name: &str| name.ends_with(".parquet");
    for (name, bytes) in common::files(&bench.results()).iter().filter(|(name, _)| !parquet(name)) {
        assert!(before.get(name) == Some(bytes), "{name} has changed");
    }
}

#[test]
fn a_cell_that_cannot_gate_keeps_the_fine_tuned_model_and_says_so() {
    let bench = Bench::new();
    let text = SWEEP.replace("metric: rouge", "metric: exact_match");
    let sweep = bench.sweep("tiny.yaml", &format!("{text}methods: [fine_tuned, recover, random, full_revert]\n"));
    let ended = bench.run(&sweep, 1).unwrap();
    assert!(ended.failed.is_empty(), "{:?}", ended.failed);
    let records = bench.records();
    let restored: Vec<Option<u64>> = records.iter().map(|record| record.restored).collect();
    assert_eq!(restored[..3], [None, Some(0), Some(0)]);
    let why = "not recovered: the fine-tuned model scores 0 by exact_match on 3 samples, ";
    assert!(records[1].notes.iter().any(|note| note.starts_with(why)), "{:?}", records[1].notes);
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_records() {
    let bench = Bench::new();
    sweep(&bench);
    let (whole, out) = (bench.path("whole"), bench.path("stopped"));
    text(&bench.command("run", "tiny.yaml", &whole).output().unwrap());

    let mut command = bench.command("run", "tiny.yaml", &out);
    let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("] finetune ")));
    let stop = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(stop.unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("goes on from here")), "{rest:?}");
    let left = common::files(&out);
    assert!(!left.keys().any(|name| name.contains(".error.json") || name.starts_with("failed/")));
    let status = text(&bench.command("status", "tiny.yaml", &out).output().unwrap());
    assert!(status.contains("partly"), "{status}");

    text(&bench.command("run", "tiny.yaml", &out).output().unwrap());
    assert_eq!(timeless(records(&out)), timeless(records(&whole)));
    let status = text(&bench.command("status", "tiny.yaml", &out).output().unwrap());
    assert!(status.contains("2 cells: 2 done"), "{status}");
}

#[test]
fn tables_and_figures_need_records_alone() {
    let bench = Bench::new();
    let words = ["aligned", "fine_tuned", "recover", "full_revert"];
    let sweep = bench.sweep("tiny.yaml", &format!("{SWEEP}methods: [{}]\n", words.join(", ")));
    bench.run(&sweep, 1).unwrap();
    let results = bench.results();
    for word in ["tables", "figures"] {
        let error = bench.command(word, "tiny.yaml", &bench.path("none")).output().unwrap().stderr;
        assert!(String::from_utf8_lossy(&error).contains("run the sweep"), "{word}");
    }
    let before = common::files(&results);
    for entry in fs::read_dir(&results).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.file_name().unwrap().to_str().unwrap() {
            "records" => {}
            _ if entry.is_dir() => fs::remove_dir_all(entry).unwrap(),
            _ => fs::remove_file(entry).unwrap(),
        }
    }
    for word in ["tables", "figures"] {
        text(&bench.command(word, "tiny.yaml", &results).output().unwrap());
    }
    let after = common::files(&results);
    let is_report = |name: &&String| {
        let is_of_kind = ["csv", "md", "html", "svg", "png"].iter().any(|ending| name.ends_with(ending));
        is_of_kind && (name.starts_with("figures/") || !name.contains('/'))
    };
    let reports: Vec<&String> = before.keys().filter(is_report).collect();
    assert!(reports.len() > 5 && reports.iter().any(|name| *name == "report.html"), "{reports:?}");
    for name in reports {
        assert!(before[name] == after[name], "{name}");
    }
}

#[test]
fn status_and_plan_fail_when_a_cell_has_failed() {
    let bench = Bench::new();
    bench.sweep("tiny.yaml", &format!("{SWEEP}methods: [aligned, fine_tuned, full_revert]\n"));
    let out = bench.results();
    let run = |word: &str| bench.command(word, "tiny.yaml", &out).output().unwrap();
    for word in ["status", "plan"] {
        assert!(run(word).status.success(), "{word}: what is missing has not failed");
    }
    fs::create_dir(&out).unwrap();
    fs::write(out.join("full_revert"), "").unwrap(); // a file where the directory would be
    let failed = run("run");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("1 of 1 cells failed: small/sql/2"));
    assert_eq!(records(&out).len(), 2);
    let status = run("status");
    assert!(String::from_utf8_lossy(&status.stdout).contains("failed  small/sql/2: "));
    for word in ["status", "plan"] {
        let output = run(word);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("1 cells failed"), "{word}: {said}");
    }
    fs::remove_file(out.join("full_revert")).unwrap();
    text(&run("run"));
    ["status", "plan"].into_iter().for_each(|word| drop(text(&run(word))));
    // Another sweep of the same name sees nothing of it.
    bench.sweep("other.yaml", &format!("{SWEEP}methods: [aligned, fine_tuned]\n"));
    for word in ["status", "plan", "tables", "cancel", "run"] {
        let output = bench.command(word, "other.yaml", &out).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("has the same name \"tiny\""), "{word}: {said}");
    }
}

#[test]
fn a_plan_says_once_why_a_file_cannot_be_read() {
    let bench = Bench::new();
    let sweep = bench.sweep("tiny.yaml", &format!("{SWEEP}methods: [fine_tuned]\n"));
    fs::remove_file(bench.path("data/sql_train.jsonl")).unwrap();
    let reason = bench.graph(&sweep).cells[&0].unknown.clone().unwrap();
    assert!(reason.contains("sql_train.jsonl") && reason.matches("No such file").count() == 1, "{reason}");
}

#[test]
fn a_damaged_stage_is_made_again_before_another_reads_it() {
    let bench = Bench::new();
    let sweep = bench.sweep("tiny.yaml", &format!("{SWEEP}methods: [aligned, fine_tuned, full_revert]\n"));
    bench.run(&sweep, 2).unwrap();
    let (before, graph) = (bench.records(), bench.graph(&sweep));
    let dir = |kind: &str| {
        let node = graph.nodes.iter().find(|node| node.kind == kind).unwrap();
        bench.results().join(kind).join(&node.key)
    };
    let weights = dir("finetune").join(MODEL).join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert!(bench.left(&sweep).is_empty(), "sizes are the same, and nothing reads it");
    fs::remove_dir_all(dir("full_revert")).unwrap();
    let ended = bench.run(&sweep, 2).unwrap();
    assert!(ended.failed.is_empty(), "{:?}", bench.errors(&sweep));
    assert_eq!(fs::read(&weights).unwrap(), whole);
    assert_eq!(timeless(bench.records()), timeless(before));
}

#[test]
fn records_of_earlier_settings_are_told_of() {
    let bench = Bench::new();
    let cells = SWEEP.replace("counts: [2]", "counts: [0, 2]") + "methods: [fine_tuned]\n";
    bench.sweep("tiny.yaml", &cells);
    let run = |more: &[&str]| text(&bench.command("run", "tiny.yaml", &bench.results()).args(more).output().unwrap());
    let told = "perhaps of earlier settings: small/sql/0\n";
    assert!(!run(&[]).contains("earlier settings"));
    bench.sweep("tiny.yaml", &cells.replace("batch: 4", "batch: 5"));
    assert!(run(&["--cells", "small/sql/2"]).contains(told));
    assert!(text(&bench.command("status", "tiny.yaml", &bench.results()).output().unwrap()).contains(told));
    assert!(!run(&[]).contains("earlier settings"));
    // Records that were changed make no tables, and are written again.
    let (file, tables) = (bench.results().join("records/small~sql~0.jsonl"), || {
        bench.command("tables", "tiny.yaml", &bench.results()).output().unwrap()
    });
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replace("\"harmful_count\":0", "\"harmful_count\":2")).unwrap();
    let refused = tables();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("small~sql~0.jsonl is not as it was written"), "{said}");
    run(&[]);
    assert!(tables().status.success() && fs::read_to_string(&file).unwrap() == whole);
}

#[test]
fn automatic_jobs_are_bounded_by_threads_cells_and_memory_and_one_for_a_model_that_is_not_small() {
    let bench = Bench::new();
    let text = SWEEP.replace("counts: [2]", "counts: [0, 1, 2]") + "methods: [fine_tuned]\n";
    let jobs = |sweep: &Sweep, threads, free| plan::jobs(sweep, &sweep.choose(&[]).unwrap(), threads, free);
    let sweep = bench.sweep("tiny.yaml", &text);
    assert_eq!([1, 2, 16].map(|threads| jobs(&sweep, threads, None)), [1, 2, 3]);
    assert_eq!([1, 1 << 40].map(|free| jobs(&sweep, 2, Some(free))), [1, 2]);
    let config = serde_json::json!({"model_type": "llama", "vocab_size": 410, "hidden_size": 512, "intermediate_size": 1408,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 128,
        "tie_word_embeddings": true});
    fs::create_dir(bench.path("large")).unwrap();
    fs::write(bench.path("large/config.json"), config.to_string()).unwrap();
    let sweep = bench.sweep("large.yaml", &text.replace("LAB/models/llama-small", "large"));
    assert_eq!(jobs(&sweep, 2, None), 1, "13 million parameters");
}

/// The kinds of the stages that only the second sweep has.
fn new_kinds(bench: &Bench, before: &Sweep, after: &Sweep) -> BTreeSet<&'static str> {
    let known: BTreeSet<String> = bench.graph(before).nodes.into_iter().map(|node| node.key).collect();
    let nodes = bench.graph(after).nodes;
    let new = nodes.iter().filter(|node| !known.contains(&node.key));
    new.map(|node| node.kind).collect()
}

#[test]
fn a_changed_setting_makes_what_depends_on_it_and_nothing_else() {
    let bench = Bench::new();
    let before = sweep(&bench);
    let arms = ["recover", "random", "largest_difference"];
    let repairs = [&arms[..], &["resta", "full_revert", "interpolation"]].concat();
    let all = ["finetune", "soft_sft", "unaligned"];
    for (overlay, kinds) in [
        ("settings: { resta: { gamma: 0.4 } }", vec!["resta"]),
        ("settings: { recover: { rate: 0.1 } }", arms.to_vec()),
        ("settings: { soft_sft: { beta_first: 0.25 } }", vec!["soft_sft"]),
        ("unaligned: { epochs: 2 }", vec!["unaligned", "resta"]),
        ("recovery: { count: 3 }", arms.to_vec()),
        ("finetune: { weight_decay: 0.1 }", [&all[..], &repairs].concat()),
        ("evaluation: { batch: 1 }", vec![]),
        ("jobs: 3", vec![]),
    ] {
        let after = bench.sweep("over.yaml", &format!("base: tiny.yaml\nname: over\n{overlay}\n"));
        let mut expected: BTreeSet<&str> = kinds.into_iter().collect();
        if !expected.is_empty() {
            expected.extend(["evaluate", "divergence"]);
        }
        assert_eq!(new_kinds(&bench, &before, &after), expected, "{overlay}");
        let mut kept = after.finetune.clone();
        kept.weight_decay = before.finetune.weight_decay;
        assert_eq!(kept, before.finetune, "{overlay}: the rest stays");
    }
}

#[test]
fn further_metrics_score_the_answers_that_are_there() {
    let (bench, methods) = (Bench::new(), "methods: [fine_tuned]\n");
    let before = bench.sweep("tiny.yaml", &(SWEEP.to_owned() + methods));
    bench.run(&before, 1).unwrap();
    assert!(bench.records()[0].also.is_empty());
    let task = |sweep: &Sweep| {
        let graph = bench.graph(sweep);
        let node = &graph.nodes[graph.cells[&0].evaluated[0].task];
        (node.value().unwrap(), bench.results().join("evaluate").join(&node.key).join("answers-task.jsonl"))
    };
    let (value, answers) = task(&before);
    let only = serde_json::json!({"name": "task", "aim": {"task": ["rouge"]}});
    assert_eq!(value["questions"][0]["asked"], only, "as it was before there were further metrics");
    // A mark in the answers that are kept: what is made again has none.
    common::mark_answers(answers.parent().unwrap(), "answers-task.jsonl");

    let also = SWEEP.replace("rouge,", "rouge, also: [exact_match, sql_normalized],");
    let sweep = bench.sweep("tiny.yaml", &(also + methods));
    assert_eq!(bench.left(&sweep), ["evaluate"]);
    bench.run(&sweep, 1).unwrap();
    assert!(read_answers(&task(&sweep).1).unwrap().iter().all(|answer| answer.response.starts_with("kept ")));
    let record = &bench.records()[0];
    let further: Vec<Metric> = record.also.iter().map(|score| score.metric).collect();
    assert_eq!((record.score.metric, &*further), (Metric::Rouge, &[Metric::ExactMatch, Metric::SqlNormalized][..]));
    let line = &bench.csv("results.csv")[0];
    for score in &record.also {
        assert_eq!(line[score.metric.name()].parse::<f64>().unwrap(), score.value);
    }
    let report = fs::read_to_string(bench.results().join("results.md")).unwrap();
    assert!(report.contains("| exact_match % | sql_normalized % |"), "{report}");
}

#[test]
fn what_a_reader_must_know_of_a_training_is_in_the_notes() {
    let bench = Bench::new();
    let short = SWEEP.replace("max_len: 64", "max_len: 26"); // the task's samples are longer, the injected ones are not
    let sweep = bench.sweep("tiny.yaml", &format!("{short}methods: [aligned, fine_tuned, resta]\n"));
    assert!(bench.run(&sweep, 1).unwrap().failed.is_empty(), "{:?}", bench.errors(&sweep));
    let records = bench.records();
    let notes: Vec<String> = records.iter().map(|record| record.notes.join("; ")).collect();
    assert_eq!(notes[..2], ["", "9 of 11 training samples were too long and left out"]);
    // Four samples, once: the "unaligned" model refuses as before.
    let still = "the unaligned model answers ";
    assert!(notes[2].starts_with(still) && notes[2].contains("unaligned.epochs"), "{notes:?}");
    assert!(bench.csv("results.csv")[2]["note"].contains(still));
}

#[test]
fn methods_that_read_the_model_before_alignment_and_a_safe_model_run() {
    let bench = Bench::new();
    let small = "source: { dir: LAB/models/llama-small }";
    let text = SWEEP.replace(small, &format!("{small}, base: {{ dir: LAB/models/llama-small-base }}")).replace(
        "task_prompts: 4 }",
        "task_prompts: 4, evidence: { harmless: recovery_prompts.jsonl, count: 4, max_new_tokens: 4 } }",
    );
    let methods = "methods:\n  - safe_lora\n  - safe_merge\n  - { name: resta_rank_2, resta: { rank: 2 } }\n  \
                   - { name: chosen, choose: true, safe_lora: {} }\n";
    let sweep = bench.sweep("tiny.yaml", &(text + methods));
    let ended = bench.run(&sweep, 1).unwrap();
    assert!(ended.failed.is_empty(), "{:?}", ended.failed);
    assert_eq!(bench.records().len(), 4);
    let count = |kind: &str| ended.times[kind][0].0;
    assert_eq!((count("import"), count("safe"), count("unaligned"), count("safe_lora")), (2, 1, 1, 2));
    let graph = bench.graph(&sweep);
    for node in &graph.nodes {
        let model = bench.results().join(node.kind).join(&node.key).join(MODEL);
        assert_eq!(makes_model(node.kind), model.is_dir(), "{}", node.kind);
    }
    let of_kind = |kind| graph.nodes.iter().find(|node| node.kind == kind).unwrap();
    let trace: Value = files::read_json(
        &Roots::new(&bench.results(), None).dir("safe_lora", &of_kind("safe_lora").key).join("trace.json"),
    )
    .unwrap();
    let modules = trace["modules"].as_array().unwrap();
    assert!(modules.iter().any(|module| module["changed"] == true && module["cosine"].as_f64() > Some(0.0)), "{trace}");
}

#[test]
fn a_method_that_trains_is_trained_with_each_value_and_chosen() {
    let bench = Bench::new();
    let text = SWEEP.replace(
        "task_prompts: 4 }",
        "task_prompts: 4, evidence: { harmless: recovery_prompts.jsonl, count: 4, max_new_tokens: 4 } }",
    );
    let methods = "methods:\n  - fine_tuned\n  - { name: soft, choose: true, soft_sft: {} }\n  - { name: double, soft_sft: { beta_first: \
                   1.0, beta_early: 4.0, beta_later: 0.2 } }\n";
    let sweep = bench.sweep("tiny.yaml", &(text + methods));
    let ended = bench.run(&sweep, 1).unwrap();
    assert!(ended.failed.is_empty(), "{:?}", ended.failed);
    assert_eq!([ended.times["soft_sft"][0].0, ended.times["choose"][0].0], [5, 1], "twice the betas is one of five");
    let records = bench.records();
    let [chosen, double] = [&records[1], &records[2]];
    let tried: Vec<f64> = chosen.curve.iter().map(|point| point.0).collect();
    assert_eq!(tried, [0.125, 0.25, 0.5, 1.0, 2.0]);
    assert!(chosen.seconds > double.seconds, "of five trainings and of one of them");
    // The model is the one of the least merit, which the stage says.
    let graph = bench.graph(&sweep);
    let roots = Roots::new(&bench.results(), None);
    let weights = |node: usize| {
        let node = &graph.nodes[node];
        std::fs::read(roots.dir(node.kind, &node.key).join(MODEL).join("model.safetensors")).unwrap()
    };
    let place = graph.nodes.iter().position(|node| node.kind == "choose").unwrap();
    let merits: Vec<f64> = chosen.curve.iter().map(|point| point.1.merit).collect();
    let least = (0..5).min_by(|&a, &b| merits[a].total_cmp(&merits[b])).unwrap();
    assert!(chosen.notes.is_empty(), "all bounds are kept by so short a training: {:?}", chosen.notes);
    assert_eq!(weights(place), weights(graph.nodes[place].parents[least]));
}
