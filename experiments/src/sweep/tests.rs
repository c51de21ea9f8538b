//! The sweep's claims: what it lists, and how it answers a mistake.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

const SWEEP: &str = "\
name: test
data: data/lab
models:
  - name: small
    source: { dir: models/small }
  - name: tiny
    source:
      pretrain:
        config: { hidden_size: 64, intermediate_size: 128, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2 }
        training: { tokenizer: tokenizer, corpus: pretrain.jsonl, epochs: 2, batch: 8, learning_rate: 1e-3, max_len: 64 }
    align:
      refusals: { file: harmful.jsonl, count: 10 }
      helpful: [{ file: harmless.jsonl, count: 10 }]
      learning_rate: 2e-4
      epochs: 2
      batch: 8
tasks:
  - { name: sql, train: train.jsonl, test: test.jsonl, metric: exact_match, max_new_tokens: 64 }
harmful_counts: [0, 300]
inject: inject.jsonl
finetune: { learning_rate: 5.0e-4, lora: { rank: 4 } }
recovery: { prompts: recovery.jsonl, count: 64 }
evaluation:
  harmful: { file: eval.jsonl, count: 100, max_new_tokens: 48 }
  harmless: { file: harmless.jsonl, skip: 10, count: 20, max_new_tokens: 48 }
";

fn parse(text: &str) -> anyhow::Result<Sweep> {
    Sweep::parse(text, Path::new("test.yaml"))
}

/// The error of the sweep with one piece of text exchanged.
fn error_after(from: &str, to: &str) -> String {
    assert!(SWEEP.contains(from), "{from:?} is not in the sweep");
    format!("{:#}", parse(&SWEEP.replacen(from, to, 1)).unwrap_err())
}

/// File and line of the first time that a piece of text stands in the sweep.
fn place_of(text: &str) -> String {
    let before = SWEEP.split(text).next().unwrap();
    format!("test.yaml:{}:", before.matches('\n').count() + 1)
}

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn cells_are_models_by_tasks_by_counts() {
    let sweep = parse(SWEEP).unwrap();
    let cells: Vec<String> = sweep.cells().iter().map(ToString::to_string).collect();
    assert_eq!(cells, ["small sql 0", "small sql 300", "tiny sql 0", "tiny sql 300"]);
}

#[test]
fn patterns_choose_cells_by_model_task_and_count() {
    let sweep = parse(SWEEP).unwrap();
    let choose = |patterns: &[&str]| {
        sweep.choose(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).map(Vec::from_iter)
    };
    assert_eq!(choose(&[]).unwrap(), [0, 1, 2, 3]);
    assert_eq!(choose(&["*/sql/300"]).unwrap(), [1, 3]);
    assert_eq!(choose(&["tiny/*/0", "small/s?l/300"]).unwrap(), [1, 2]);
    for wrong in ["*", "large/*/*", "small/sql", "["] {
        assert_says(&choose(&[wrong]).unwrap_err().to_string(), &[wrong]);
    }
}

#[test]
fn keys_that_are_left_out_have_the_papers_values() {
    let sweep = parse(SWEEP).unwrap();
    assert_eq!(sweep.profile, Profile::Sound);
    assert_eq!(sweep.recovery.rate, 0.002);
    assert_eq!((sweep.recovery.count, sweep.recovery.steps), (64, 20));
    assert_eq!(sweep.finetune.lora, Some(Lora { rank: 4, ..Lora::default() }));
    assert_eq!(sweep.finetune.epochs, 1);
    assert_eq!(sweep.softsft, SoftSftSettings::default());
    assert_eq!(sweep.resta, Resta { gamma: 1.0, dare: 0.0, samples: 100, epochs: 10, learning_rate: None });
    assert_eq!(sweep.methods, [Method::Aligned, Method::FineTuned, Method::Recovered]);
}

#[test]
fn null_asks_for_a_training_of_every_weight() {
    let sweep = parse(&SWEEP.replace("{ rank: 4 }", "null")).unwrap();
    assert_eq!(sweep.finetune.lora, None);
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_closest_right_one() {
    for (right, wrong, parts) in [
        ("finetune: { learning_rate", "finetune: { lerning_rate", ["finetune:", "`learning_rate`"]),
        ("harmful_counts", "harmful_count", ["`harmful_count`", "`harmful_counts`"]),
        ("hidden_size", "hiden_size", ["models[1].source", "`hidden_size`"]),
        ("{ rank: 4 }", "{ rnak: 4 }", ["finetune.lora", "`rank`"]),
        ("recovery: {", "resta: { gama: 2 }\nrecovery: {", ["resta:", "`gamma`"]),
    ] {
        let error = error_after(right, wrong);
        assert_says(&error, &[&place_of(right), parts[0], "closest right name is", parts[1]]);
    }
}

#[test]
fn an_unknown_choice_is_answered_with_the_closest_right_one() {
    for (right, wrong) in [("pretrain", "pretrian"), ("exact_match", "exact_mach")] {
        let hint = format!("closest right name is `{right}`");
        assert_says(&error_after(right, wrong), &[&place_of(right), &hint]);
    }
}

#[test]
fn a_wrong_type_is_named_with_file_line_and_key() {
    for (right, wrong, parts) in [
        ("count: 64", "count: many", ["recovery.count", "\"many\""]),
        ("[0, 300]", "[0, -3]", ["harmful_counts[1]", "`-3`"]),
        ("epochs: 2", "epochs: 2.5", ["models[1].source", "2.5"]),
    ] {
        assert_says(&error_after(right, wrong), &[&place_of(right), parts[0], parts[1]]);
    }
}

#[test]
fn a_missing_key_is_named() {
    assert_says(&error_after("inject: inject.jsonl\n", ""), &["test.yaml", "`inject`"]);
    assert_says(&error_after("prompts: recovery.jsonl, ", ""), &["recovery.prompts"]);
}

#[test]
fn text_that_is_no_yaml_is_an_error_with_its_line() {
    assert_says(&error_after("tasks:", "tasks: ["), &["test.yaml:18:"]);
    assert!(parse("").is_err());
}

#[test]
fn values_that_make_no_sense_are_all_reported_with_their_keys() {
    let text = SWEEP
        .replace("[0, 300]", "[300, 0, 300]")
        .replace("name: tiny", "name: small")
        .replace("name: test", "name: ../test")
        .replace("5.0e-4", ".nan")
        .replace("count: 64", "count: 64, rate: 2, warmup: 30")
        .replace(
            "evaluation:",
            "resta: { dare: 1, epochs: 0, learning_rate: 0 }\nsoftsft: { beta_first: -1 }\nevaluation:",
        );
    let error = parse(&text).unwrap_err().to_string();
    assert_says(
        &error,
        &[
            "test.yaml: harmful_counts: [300, 0, 300] must rise",
            "test.yaml: models[1].name: \"small\" is there twice",
            "test.yaml: name: \"../test\"",
            "finetune.learning_rate: NaN must be above 0",
            "recovery.rate: 2 must be",
            "recovery.warmup: 30 is more than the 20 steps",
            "resta.dare: 1 must be",
            "resta.epochs: 0 must be",
            "resta.learning_rate: 0 must be",
            "softsft: setting `beta_first` = -1",
        ],
    );
}

const SHAPE: &str = "{ hidden_size: 64, intermediate_size: 128,";

#[test]
fn a_shape_of_any_architecture_is_read_with_its_own_keys() {
    for (keys, window, head_dim) in [
        ("", None, 16),
        ("model_type: mistral, sliding_window: 16,", Some(16), 16),
        ("model_type: gemma, head_dim: 32, hidden_act: gelu_pytorch_tanh,", None, 32),
        ("model_type: gemma2, sliding_window: 8,", Some(8), 16),
        (
            "model_type: gemma3_text, sliding_window: 8, layer_types: [sliding_attention, full_attention, \
          sliding_attention, full_attention],",
            Some(8),
            16,
        ),
        ("model_type: qwen2,", None, 16),
        ("model_type: qwen3, head_dim: 8,", None, 8),
    ] {
        let sweep = parse(&SWEEP.replace(SHAPE, &format!("{SHAPE} {keys}"))).unwrap();
        let Source::Pretrain(pretrain) = &sweep.models[1].source else { panic!("not pretrained") };
        let config = pretrain.config.decoder(100).unwrap();
        assert_eq!((config.sliding_window, config.head_dim), (window, head_dim), "{keys}");
        assert!(config.query_pre_attn_scalar.is_none_or(|scalar| scalar == head_dim));
        assert_eq!(config.vocab_size, 100);
    }
}

#[test]
fn a_shape_that_makes_no_sense_is_answered_with_its_key() {
    let key = "test.yaml: models[1].source.pretrain.config.";
    for (keys, wanted) in [
        ("model_type: llama, sliding_window: 8,", "sliding_window: llama has none"),
        ("model_type: qwen2, sliding_window: 8,", "sliding_window: qwen2 has none"),
        ("head_dim: 7,", "head_dim: 7 is odd"),
        ("rms_norm_eps: 0,", "rms_norm_eps: `0.0` is not a number above 0"),
        ("model_type: gemma2, layer_types: [full_attention],", "layer_types: has 1 entries"),
    ] {
        assert_says(&error_after(SHAPE, &format!("{SHAPE} {keys}")), &[&format!("{key}{wanted}")]);
    }
    let error = error_after(SHAPE, &format!("{SHAPE} model_type: mistrall,"));
    assert_says(&error, &["models[1].source", "closest right name is `mistral`"]);
}

#[test]
fn a_missing_file_is_named_with_its_key_before_anything_is_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Cargo.lock"), "").unwrap();
    let path = dir.path().join("test.yaml");
    std::fs::write(&path, SWEEP).unwrap();
    let error = Sweep::load(&path).unwrap().check_files(&path, &BTreeSet::from([0])).unwrap_err().to_string();
    assert_says(&error, &["tasks[0].test", "data/lab/test.jsonl is missing", "models[0].source.dir", "config.json"]);
    let text = format!("{SWEEP}variants: [{{ name: others, prompts: others.jsonl }}]\n");
    let missing = parse(&text).unwrap().missing(&BTreeSet::from([0])).join("\n");
    assert_says(&missing, &["variants[0].prompts", "others.jsonl is missing"]);
    // What the cells do not use need not be there.
    let second_task =
        "  - { name: bash, train: b.jsonl, test: b.jsonl, metric: f1, max_new_tokens: 4 }\nharmful_counts";
    let sweep = parse(&SWEEP.replace("harmful_counts", second_task)).unwrap();
    let missing = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        sweep.missing(&sweep.choose(&patterns).unwrap()).join("\n")
    };
    let of_one = missing(&["tiny/bash/300"]);
    assert_says(&of_one, &["models[1].source.pretrain.training.corpus", "models[1].align.refusals", "tasks[1].train"]);
    assert!(!of_one.contains("models[0]") && !of_one.contains("tasks[0]"), "{of_one}");
    let of_two = missing(&["tiny/bash/300", "small/sql/0"]);
    assert_says(&of_two, &["models[0].source.dir", "models[1].align.refusals", "tasks[0].train", "tasks[1].train"]);
}

#[test]
fn a_model_of_the_hub_that_is_not_there_is_said_with_what_to_do() {
    let shape = "vocab_size: 9, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 2, num_attention_heads: 2, \
                 num_key_value_heads: 1";
    let hub = format!("{{ hub: {{ id: owner/small, dir: weights/small, shape: {{ {shape} }} }} }}");
    let mut sweep = parse(&SWEEP.replace("{ dir: models/small }", &hub)).unwrap();
    sweep.root = "/nowhere".into();
    let missing = sweep.missing(&BTreeSet::from([0])).join("\n");
    assert_says(&missing, &["models[0].source.hub.dir", "owner/small", "/nowhere/weights/small", "hf download"]);
    let error = error_after("{ dir: models/small }", &hub.replace("hidden_size: 8", "hidden_size: 0"));
    assert_says(&error, &["models[0].source.hub.shape.hidden_size: 0 must be at least 1"]);
}

#[test]
fn seeds_and_variants_are_resolved_into_sweeps_of_their_own() {
    let text =
        format!("{SWEEP}seeds: [1, 5]\nvariants:\n  - {{ name: low, layer: 2/6 }}\n  - {{ name: fast, rate: 0.01 }}\n");
    let sweep = parse(&text).unwrap();
    assert_eq!(sweep.cell_seeds(), [1, 5]);
    let resolved = sweep.resolved(5);
    assert_eq!(resolved.iter().map(|one| one.variant.as_str()).collect::<Vec<_>>(), ["low", "fast"]);
    assert_eq!((resolved[0].sweep.seed, resolved[1].sweep.recovery.rate), (5, 0.01));
    assert_eq!(resolved[0].sweep.recovery.layer.unwrap().of_blocks(6), 2);
    let plain = parse(SWEEP).unwrap();
    assert_eq!((plain.cell_seeds(), plain.resolved(1)[0].variant.as_str()), (vec![1], ""));
    assert_eq!(plain.resolved(1)[0].sweep, plain);
}

#[test]
fn seeds_variants_and_patterns_that_make_no_sense_are_reported() {
    let with = |more: &str| format!("{:#}", parse(&format!("{SWEEP}{more}\n")).unwrap_err());
    assert_says(&with("seeds: [1, 1]"), &["seeds: [1, 1] has one twice"]);
    assert_says(
        &with("variants: [{ name: a }, { name: a, rate: 2, metric_drop: 5, rollback: off }]"),
        &[
            "variants[1].name: \"a\"",
            "variants[1].rate: 2",
            "variants[1].metric_drop: 5",
            "metric_drop: has nothing to decide",
        ],
    );
    assert_says(&with("variants: [{ name: a, layer: 7/6 }]"), &["7/6"]);
    assert_says(&with("variants: [{ name: a, rat: 1 }]"), &["`rat`", "`rate`"]);
    assert_says(&with("cells: \"[\""), &["cells: \"[\" is no pattern"]);
}

#[test]
fn a_sweep_over_a_base_has_its_keys_and_shares_its_stages() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.yaml"), SWEEP).unwrap();
    let path = dir.path().join("over.yaml");
    let sweep = Sweep::parse("base: base.yaml\nname: over\nharmful_counts: [7]\n", &path).unwrap();
    assert_eq!((sweep.name.as_str(), sweep.store.as_deref()), ("over", Some("test")));
    assert_eq!((sweep.harmful_counts, sweep.models.len()), (vec![7], 2));
    for name in ["", "name: test\n"] {
        let error = Sweep::parse(&format!("base: base.yaml\n{name}harmful_counts: [7]\n"), &path).unwrap_err();
        assert_says(&format!("{error:#}"), &["over.yaml: name: \"test\" is the base's"]);
    }
    let error = Sweep::parse("base: none.yaml\nname: over\n", &path).unwrap_err();
    assert_says(&format!("{error:#}"), &["over.yaml: base: cannot read", "none.yaml"]);
    let error = Sweep::parse("base: base.yaml\nnam: over\n", &path).unwrap_err();
    assert_says(&format!("{error:#}"), &["over.yaml", "`nam`", "`name`"]);
}

#[test]
fn paths_start_at_the_repository_of_the_sweep_file() {
    let mut sweep = parse(SWEEP).unwrap();
    sweep.root = "/repository".into();
    assert_eq!(sweep.data_file(Path::new("a.jsonl")), Path::new("/repository/data/lab/a.jsonl"));
    assert_eq!(sweep.root_file(Path::new("scripts/x.sh")), Path::new("/repository/scripts/x.sh"));
    let home = sweep.root_file(Path::new("~/x.gguf"));
    assert!(home.ends_with("x.gguf") && !home.starts_with("/repository"));
}

#[test]
fn a_sweep_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for() {
    let error = find(Path::new("sweeep.yaml")).unwrap_err().to_string();
    assert_says(&error, &["sweeep.yaml", "experiments/sweeep.yaml"]);
}

#[test]
fn the_sweeps_of_this_repository_are_right() {
    let files = ["sweep", "released", "seeds", "from-nothing", "smollm2", "smollm2-gate", "smollm2-guard", "paper"];
    let names = [
        "lab-125",
        "lab-125-released",
        "lab-125-seeds",
        "lab-125-from-nothing",
        "smollm2",
        "smollm2-gate",
        "smollm2-guard",
        "paper",
    ];
    assert_eq!(files.map(|file| of_this_repository(&format!("{file}.yaml")).name), names);
    assert_eq!(["sweep.yaml", "paper.yaml"].map(|name| of_this_repository(name).cells().len()), [125, 125]);
}

#[test]
fn every_ablation_varies_what_its_name_says_over_the_lab() {
    for (name, variants) in [("layer", 4), ("rate", 4), ("prompts", 4), ("rollback", 3), ("gate", 4)] {
        let sweep = of_this_repository(&format!("ablation-{name}.yaml"));
        assert_eq!((sweep.name.as_str(), sweep.variants.len()), (format!("ablation-{name}").as_str(), variants));
        let recoveries: Vec<Recovery> = sweep.resolved(1).into_iter().map(|one| one.sweep.recovery).collect();
        let twice = (1..variants).find(|&i| recoveries[..i].contains(&recoveries[i]));
        assert_eq!(twice, None, "{name}: a variant is the same as one before it");
        assert_eq!(sweep.store.as_deref(), Some(of_this_repository("sweep.yaml").name.as_str()));
    }
}

fn of_this_repository(name: &str) -> Sweep {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap()
}
