//! The sweep's claims: how layers are merged, and how a mistake is answered.

use std::collections::BTreeSet;

use recovery::{Interpolation, Method, Recover, Resta};
use serde_json::{Map, Value as Json, json};

use super::*;

pub(crate) const SWEEP: &str = "\
name: test
data: data/lab
models:
  - name: small
    source: { dir: models/small }
  - name: tiny
    source:
      pretrain:
        config: { hidden_size: 64, intermediate_size: 128, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2 }
        training: { tokenizer: tokenizer, corpus: pretrain.jsonl, train: { epochs: 3, lora: { rank: 0 } } }
    align:
      refusals: { file: harmful.jsonl, count: 10 }
      helpful: [{ file: harmless.jsonl, count: 10 }]
      train: { learning_rate: 2e-4, lora: { rank: 0 } }
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

/// The sweep of a text, in a repository that is not there.
pub(crate) fn parse(text: &str) -> Result<Sweep> {
    Sweep::parse(text, Path::new("test.yaml"), Path::new("/nowhere"))
}

pub(crate) fn of_this_repository(name: &str) -> Sweep {
    Sweep::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The error of the sweep with one piece of text exchanged.
pub(crate) fn error_after(from: &str, to: &str) -> String {
    assert!(SWEEP.contains(from), "{from:?} is not in the sweep");
    parse(&SWEEP.replacen(from, to, 1)).unwrap_err().to_string()
}

/// File and line of the first time that a piece of text is in the sweep.
fn place_of(text: &str) -> String {
    let before = SWEEP.split(text).next().unwrap();
    format!("test.yaml:{}:", before.matches('\n').count() + 1)
}

#[track_caller]
pub(crate) fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// A sweep over `below`, in files of a directory of its own.
fn over(below: &str, above: &str) -> Result<Sweep> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("base.yaml"), below)?;
    Sweep::parse(&format!("base: base.yaml\n{above}"), &dir.path().join("over.yaml"), Path::new("/nowhere"))
}

fn recover(sweep: &Sweep) -> Recover {
    let found = sweep.methods.iter().find_map(|one| match &one.what {
        What::Repair(Method::Recover(settings)) => Some(settings.clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn keys_that_are_left_out_have_the_papers_values() {
    let sweep = parse(SWEEP).unwrap();
    let recovery = &sweep.recovery;
    assert_eq!((sweep.profile, sweep.seed, recovery.decide_on), (Profile::Sound, 1, DecideOn::Validation));
    assert_eq!((recovery.count, recovery.task_prompts), (64, 256));
    let mut finetune = TrainSettings { learning_rate: 5e-4, ..TrainSettings::default() };
    finetune.lora.rank = 4;
    assert_eq!(sweep.finetune, finetune);
    assert_eq!(sweep.unaligned, Unaligned { samples: 100, epochs: 10, learning_rate: None });
    let methods = sweep.methods.iter().map(|one| one.name.as_str());
    assert_eq!(methods.collect::<Vec<_>>(), ["aligned", "fine_tuned", "recover"]);
    assert_eq!(recover(&sweep), Recover::default());
}

#[test]
fn samples_of_the_task_are_as_many_as_prompts_unless_told() {
    let parts = |counts: &str| {
        let text = format!("{{harmless: a.jsonl, max_new_tokens: 4, held_out: 0.25, {counts}}}");
        let spec: EvidenceSpec = serde_yaml::from_str(&text).unwrap();
        [false, true].map(|held_out| (spec.part(held_out), spec.task_part(held_out)))
    };
    assert_eq!(parts("count: 10"), [(7, 7), (3, 3)]);
    assert_eq!(parts("count: 10, task_count: 4"), [(7, 3), (3, 1)]);
}

#[test]
fn what_a_method_needs_beside_the_two_models_is_told_in_words() {
    let sweep = of_this_repository("rivals.yaml");
    let needs = |name: &str, trust_task| {
        let method = sweep.methods.iter().find(|one| one.name == name).unwrap();
        method.needs_in_words(trust_task).join("; ")
    };
    let prompts = "harmful prompts; harmless prompts";
    for (name, words) in [
        ("fine_tuned", String::new()),
        ("full_revert", String::new()),
        ("recover", "harmful prompts; task samples".to_owned()),
        ("strong", format!("{prompts}; task samples")),
        ("resta", format!("{prompts}; task samples; an unaligned model")),
        ("safe_merge", format!("{prompts}; task samples; the model before alignment; a safe model")),
        ("one_shot", "harmful prompts".to_owned()),
        ("one_shot_control", "harmless prompts".to_owned()),
        ("safe_instruct_3", "the fine-tuning itself; harmful prompts".to_owned()),
        ("soft_sft", "the fine-tuning itself".to_owned()),
        ("largest_difference", "a recovery's number of weights".to_owned()),
    ] {
        assert_eq!(needs(name, true), words, "{name}");
    }
    assert_eq!((needs("strong", false), needs("recover", false)), (prompts.to_owned(), "harmful prompts".to_owned()));
}

#[test]
fn an_overlay_keeps_what_it_does_not_name() {
    let lab = of_this_repository("sweep.yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("other.yaml");
    let overlay = "base: sweep.yaml\nname: other\nfinetune: {epochs: 2}\nharmful_counts: [7]\nsettings: {recover: {rate: 0.01}}\n";
    let sweep = Sweep::parse(overlay, &path, &lab.root).unwrap();
    assert_eq!(sweep.finetune, TrainSettings { epochs: 2, ..lab.finetune.clone() });
    assert_eq!((sweep.finetune.learning_rate, sweep.finetune.max_len), (1e-3, 64));
    assert_eq!(recover(&sweep), Recover { rate: 0.01, ..recover(&lab) });
    assert_eq!((sweep.harmful_counts, sweep.models), (vec![7], lab.models));
}

#[test]
fn null_and_lists_replace_what_is_below() {
    let below = format!("{SWEEP}unaligned: {{ learning_rate: 0.1, epochs: 3 }}\n");
    let sweep = over(&below, "name: over\nunaligned: { learning_rate: ~ }\n").unwrap();
    assert_eq!(sweep.unaligned, Unaligned { epochs: 3, ..Unaligned::default() });
    let merged = |below: &str, over: &str| {
        let value = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
        assert_eq!(layers::merge(value(below), value(over)), value("{a: {b: [3], c: 2, d: 5}, e: null}"));
    };
    merged("{a: {b: [1, 2], c: 2}, e: {f: 1}}", "{a: {b: [3], d: 5}, e: ~}");
}

#[test]
fn a_profile_is_an_overlay_below_the_file_that_names_it() {
    let released = over(SWEEP, "name: over\nprofile: released\n").unwrap();
    assert_eq!((released.recovery.decide_on, released.recovery.count), (DecideOn::Test, 64));
    assert_eq!(serde_json::to_value(recover(&released).ties).unwrap(), "strict");
    let exact = "name: over\nprofile: released\nsettings: { recover: { ties: exact } }\n";
    assert_eq!(recover(&over(SWEEP, exact).unwrap()), Recover::default());
    let below = format!("{SWEEP}profile: released\n");
    let sound = over(&below, "name: over\nprofile: sound\n").unwrap();
    assert_eq!((recover(&sound), sound.recovery.decide_on), (Recover::default(), DecideOn::Validation));
    assert_eq!(over(&below, "name: over\n").unwrap().recovery.decide_on, DecideOn::Test);
}

#[test]
fn bases_form_a_chain_whose_lowest_keeps_the_stages() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("base.yaml"), SWEEP).unwrap();
    std::fs::write(dir.path().join("mid.yaml"), "base: base.yaml\nname: mid\nfinetune: { epochs: 5 }\n").unwrap();
    let parse = |text: &str| Sweep::parse(text, &dir.path().join("top.yaml"), Path::new("/r"));
    let sweep = parse("base: mid.yaml\nname: top\nfinetune: { batch: 2 }\n").unwrap();
    assert_eq!((sweep.finetune.epochs, sweep.finetune.batch, sweep.finetune.learning_rate), (5, 2, 5e-4));
    assert_eq!(sweep.store.as_deref(), Some("test"));
    let at = |name: &str| Path::new("/r/results/runs").join(name);
    assert_eq!(sweep.paths(None), Paths { results: at("top"), own: at("test"), base: None });
    let out = PathBuf::from("/out");
    assert_eq!(sweep.paths(Some(&out)), Paths { results: out.clone(), own: out.clone(), base: Some(at("test")) });
    let plain = super::tests::parse(SWEEP).unwrap();
    assert_eq!(plain.paths(Some(&out)), Paths { results: out.clone(), own: out, base: None });
    for (text, part) in [
        ("base: mid.yaml\n", "mid.yaml:2:1: name: \"mid\" is the base's"),
        ("base: mid.yaml\nname: test\n", "top.yaml:2:1: name: \"test\" is the base's"),
        ("base: none.yaml\nname: over\n", "top.yaml: base: cannot read"),
        ("base: mid.yaml\nnam: over\n", "top.yaml:2:1: unknown field `nam`"),
        ("base: mid.yaml\nname: top\nfinetune: { epoks: 2 }\n", "top.yaml:3:13: finetune: unknown field `epoks`"),
        ("base: mid.yaml\nname: top\nfinetune: { epochs: 0 }\n", "top.yaml:3:13: finetune: setting `epochs` = 0"),
        ("base: [1]\nname: top\n", "base: must be"),
    ] {
        assert_says(&format!("{:#}", parse(text).unwrap_err()), &[part]);
    }
    std::fs::write(dir.path().join("top.yaml"), "base: mid.yaml\nname: top\n").unwrap();
    std::fs::write(dir.path().join("base.yaml"), "base: top.yaml\nname: base\n").unwrap();
    assert_says(&parse("base: mid.yaml\nname: top\n").unwrap_err().to_string(), &["is its own base"]);
    // A circle whose every turn has another path.
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    std::fs::write(dir.path().join("round.yaml"), format!("base: ../{name}/round.yaml\nname: round\n")).unwrap();
    assert_says(&parse("base: round.yaml\nname: top\n").unwrap_err().to_string(), &["round.yaml is its own base"]);
    for i in 0..20 {
        let text = format!("base: b{}.yaml\nname: b{i}\n", i + 1);
        std::fs::write(dir.path().join(format!("b{i}.yaml")), text).unwrap();
    }
    assert_says(&parse("base: b0.yaml\nname: top\n").unwrap_err().to_string(), &["b15.yaml: base: 16 bases"]);
}

#[test]
fn methods_are_words_or_words_with_settings_of_their_own() {
    let text = format!(
        "{SWEEP}settings: {{ resta: {{ gamma: 0.5 }} }}\nmethods: [recovered, softsft, resta, {{ name: sparse, resta: {{ dare: \
         0.3 }} }}, {{ name: interpolation_20, label: interpolation 20 %, interpolation: {{ lambda: 0.2 }} }}]\n"
    );
    let methods = parse(&text).unwrap().methods;
    let names: Vec<&str> = methods.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["recover", "soft_sft", "resta", "sparse", "interpolation_20"]);
    let labels: Vec<&str> = methods.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels, ["recovery", "SoftSFT", "RESTA", "sparse", "interpolation 20 %"]);
    assert_eq!(methods[3].what, What::Repair(Method::Resta(Resta { gamma: 0.5, dare: 0.3, rank: None })));
    assert_eq!(methods[4].what, What::Repair(Method::Interpolation(Interpolation { lambda: 0.2 })));
    let error = |more: &str| parse(&format!("{SWEEP}{more}\n")).unwrap_err().to_string();
    for (more, parts) in [
        ("methods: [recover, recovr]", ["test.yaml:24:20: methods[1]", "`aligned`", "`full_revert`", "is `recover`"]),
        ("methods: [aligned, aligned]", ["methods[1]: \"aligned\" is there twice", "", "", ""]),
        ("methods: [{ name: a/b, recover: }]", ["methods[0]: \"a/b\"", "", "", ""]),
        ("methods: [{ name: a }]", ["methods[0]: must have one method", "", "", ""]),
        ("methods: [{ name: a, recover: { rat: 1 } }]", ["test.yaml:24:", "methods[0]", "`rat`", "`rate`"]),
        ("methods: [random]", ["methods[0]: random restores as many weights as a recovery", "", "", ""]),
        ("methods: []", ["test.yaml:24:1: methods: must not be empty", "", "", ""]),
        ("settings: { resta: { gama: 2 } }", ["test.yaml:24:22: settings.resta", "`gama`", "is `gamma`", ""]),
        ("settings: { rests: { gamma: 2 } }", ["test.yaml:24:13: settings", "`rests`", "is `resta`", ""]),
        ("settings: { recover: { steps: many } }", ["test.yaml:24:", "settings.recover", "many", ""]),
    ] {
        assert_says(&error(more), &parts);
    }
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_closest_right_one() {
    for (right, wrong, parts) in [
        ("learning_rate: 5", "lerning_rate: 5", ["finetune:", "`learning_rate`"]),
        ("harmful_counts", "harmful_count", ["`harmful_count`", "`harmful_counts`"]),
        ("hidden_size", "hiden_size", ["models[1].source", "`hidden_size`"]),
        ("rank: 4", "rnak: 4", ["finetune.lora", "`rank`"]),
        ("count: 64", "cout: 64", ["recovery:", "`count`"]),
        ("pretrain", "pretrian", ["models[1].source", "`pretrain`"]),
    ] {
        assert_says(&error_after(right, wrong), &[&place_of(right), parts[0], "closest right name is", parts[1]]);
    }
    assert_says(&error_after("exact_match", "exact_mach"), &["tasks", "exact_mach", "exact_match"]);
}

#[test]
fn a_wrong_or_missing_value_is_named_with_file_line_and_key() {
    for (right, wrong, parts) in [
        ("count: 64", "count: many", ["recovery.count", "\"many\""]),
        ("[0, 300]", "[0, -3]", ["harmful_counts[1]", "`-3`"]),
        ("epochs: 3", "epochs: 2.5", ["models[1].source", "2.5"]),
        ("prompts: recovery.jsonl, ", "", ["recovery: ", "`prompts`"]),
    ] {
        let place = if wrong.is_empty() { "test.yaml:20:" } else { &place_of(right) };
        assert_says(&error_after(right, wrong), &[place, parts[0], parts[1]]);
    }
    assert_says(&error_after("inject: inject.jsonl\n", ""), &["test.yaml: missing field `inject`"]);
    assert_says(&error_after("tasks:", "tasks: ["), &["test.yaml:16:"]);
    assert!(parse("").is_err());
}

#[test]
fn values_that_make_no_sense_are_all_reported_with_line_and_key() {
    let text = SWEEP
        .replace("[0, 300]", "[300, 0, 300]")
        .replace("name: tiny", "name: small")
        .replace("name: test", "name: ../test")
        .replace("5.0e-4", ".nan")
        .replace("epochs: 3, lora: { rank: 0 }", "epochs: 0, lora: { rank: 8 }")
        .replace("count: 64", "count: 0");
    let more = "settings: { recover: { rate: 2 }, resta: { dare: 1 }, soft_sft: { beta_first: -1 } }\nseeds: [1, 1]\n\
                unaligned: { epochs: 0, learning_rate: 0 }\ncells: '['\n";
    let error = parse(&format!("{text}{more}")).unwrap_err().to_string();
    assert_says(
        &error,
        &[
            "test.yaml:17:1: harmful_counts: [300, 0, 300] must rise",
            "test.yaml:6:5: models[1].name: \"small\" is there twice",
            "test.yaml:1:1: name: \"../test\"",
            "test.yaml:19:13: finetune: setting `learning_rate` = NaN",
            "test.yaml:10:76: models[1].source.pretrain.training.train: setting `epochs` = 0",
            "models[1].source.pretrain.training.train.lora.rank: must be 0",
            "recovery.count: 0 must be at least 1",
            "settings.recover: ",
            "settings.resta: ",
            "settings.soft_sft: setting `beta_first` = -1",
            "unaligned.epochs: 0 must be",
            "unaligned.learning_rate: 0 must be above 0",
            "seeds: [1, 1] has one twice",
            "cells: \"[\" is not a pattern",
        ],
    );
}

#[test]
fn a_sweep_without_bound_is_refused() {
    let many = |count: usize, item: fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let variants = format!("{SWEEP}variants: [{}]\n", many(65, |i| format!("{{ name: v{i} }}")));
    assert_says(&parse(&variants).unwrap_err().to_string(), &["variants: 65 are too many"]);
    let numbers = |count: usize| many(count, |i| i.to_string());
    let seeds = format!("{SWEEP}seeds: [{}]\n", numbers(1000)).replace("[0, 300]", &format!("[{}]", numbers(200)));
    assert_says(&parse(&seeds).unwrap_err().to_string(), &["the grid compares", "at most 200000"]);
    for (key, entry) in [("seeds", "1"), ("methods", "recover"), ("variants", "{ seed: 1 }")] {
        let error = parse(&format!("{SWEEP}{key}: [{}]\n", format!("{entry}, ").repeat(1001))).unwrap_err().to_string();
        assert_eq!(error, format!("test.yaml:24:1: {key}: has 1001 entries; at most 1000 are read"));
    }
    let error = parse(&format!("{SWEEP}methods: [{}]\n", "recover, ".repeat(1000))).unwrap_err().to_string();
    assert_says(&error, &["methods[1]: \"recover\" is there twice", "methods[20]: ", "test.yaml: 979 more mistakes"]);
    assert_eq!(error.lines().count(), 21);
    let variants = format!("{SWEEP}variants: [{}]\n", many(60, |_| "{ seed: 1 }".to_owned()));
    let error = parse(&variants).unwrap_err().to_string();
    assert!(error.lines().count() == 21 && error.ends_with("from variants[20] on is looked at yet"), "{error}");
}

#[test]
fn seeds_and_variants_are_resolved_into_sweeps_of_their_own() {
    let text = format!(
        "{SWEEP}seeds: [1, 5]\nsettings: {{ recover: {{ steps: 9 }} }}\nvariants:\n  - {{ name: low, settings: {{ recover: {{ \
         layer: 2/6 }} }} }}\n  - {{ name: few, recovery: {{ count: 8 }}, profile: released }}\n"
    );
    let sweep = parse(&text).unwrap();
    assert_eq!((sweep.cell_seeds(), sweep.model_seeds()), (vec![1, 5], vec![1]));
    let [low, few] = &sweep.resolved(5)[..] else { panic!("not two variants") };
    assert_eq!((low.variant.as_str(), few.variant.as_str(), low.sweep.seed), ("low", "few", 5));
    assert_eq!((recover(&low.sweep).layer.to_string().as_str(), recover(&low.sweep).steps), ("2/6", 9));
    assert_eq!(
        (few.sweep.recovery.count, few.sweep.recovery.decide_on, recover(&few.sweep).steps),
        (8, DecideOn::Test, 9)
    );
    assert_eq!(low.sweep.models, sweep.models);
    let plain = parse(SWEEP).unwrap();
    assert_eq!((plain.cell_seeds(), plain.resolved(1)[0].variant.as_str()), (vec![1], ""));
    assert_eq!(plain.resolved(1)[0].sweep, plain);
    for (variants, part) in [
        ("[{ name: a }, { name: a }]", "test.yaml:24:27: variants[1].name: \"a\" is there twice"),
        ("[{ name: a, settings: { recover: { rate: 2 } } }]", "test.yaml:24:46: variants[0].settings.recover: "),
        ("[{ name: a, settings: { recover: { layer: 7/6 } } }]", "7/6"),
        ("[{ name: a, finetune: { lora: { rnak: 1 } } }]", "test.yaml:24:43: variants[0].finetune.lora: unknown"),
        ("[{ name: a, seeds: [2] }]", "variants[0].seeds: a variant cannot"),
        ("[{ name: a, methods: [aligned] }]", "variants[0].methods: a variant cannot"),
        ("[{ name: a, judges: [] }]", "variants[0].judges: a variant cannot"),
        ("[{ seed: 2 }]", "variants[0].name: must be a text"),
    ] {
        assert_says(&parse(&format!("{SWEEP}variants: {variants}\n")).unwrap_err().to_string(), &[part]);
    }
}

const SHAPE: &str = "{ hidden_size: 64, intermediate_size: 128,";

#[test]
fn a_shape_of_any_architecture_is_read_with_its_own_keys() {
    for (keys, window, head_dim) in [
        ("", None, 16),
        ("model_type: mistral, sliding_window: 16,", Some(16), 16),
        ("model_type: gemma, head_dim: 32, hidden_act: gelu_pytorch_tanh,", None, 32),
        (
            "model_type: gemma3_text, sliding_window: 8, layer_types: [sliding_attention, full_attention, \
          sliding_attention, full_attention],",
            Some(8),
            16,
        ),
        ("model_type: qwen3, head_dim: 8,", None, 8),
    ] {
        let sweep = parse(&SWEEP.replace(SHAPE, &format!("{SHAPE} {keys}"))).unwrap();
        let Source::Pretrain(pretrain) = &sweep.models[1].source else { panic!("not pretrained") };
        let config = pretrain.config.decoder(Some(100)).unwrap();
        assert_eq!((config.sliding_window, config.head_dim, config.vocab_size), (window, head_dim, 100), "{keys}");
        assert!(config.query_pre_attn_scalar.is_none_or(|scalar| scalar == head_dim));
    }
    for (keys, wanted) in [
        ("model_type: llama, sliding_window: 8,", "sliding_window: llama has none"),
        ("head_dim: 7,", "head_dim: 7 is odd"),
        ("rms_norm_eps: 0,", "rms_norm_eps: `0` is not a number above 0"),
        ("model_type: gemma2, layer_types: [full_attention],", "layer_types: has 1 entries"),
    ] {
        let key = "models[1].source.pretrain.config.";
        assert_says(&error_after(SHAPE, &format!("{SHAPE} {keys}")), &["test.yaml:9:", &format!("{key}{wanted}")]);
    }
    let error = error_after(SHAPE, &format!("{SHAPE} model_type: mistrall,"));
    assert_says(&error, &["models[1].source", "`mistrall` is not supported", "mistral"]);
}

#[test]
fn judges_are_a_list_or_a_file_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let judges = "[{kind: refusal, name: phrases}, {kind: refusal, name: again}]";
    std::fs::write(dir.path().join("two.yaml"), format!("judges: {judges}")).unwrap();
    let read = |judges: &str| {
        Sweep::parse(&format!("{SWEEP}judges: {judges}\n"), Path::new("test.yaml"), dir.path())
            .map(|sweep| sweep.judges)
    };
    let names: Vec<String> = read("two.yaml").unwrap().iter().map(|judge| judge.name().to_owned()).collect();
    assert_eq!((names, read(judges).unwrap()), (vec!["phrases".into(), "again".into()], read("two.yaml").unwrap()));
    for (yaml, part) in [
        ("[{kind: refusal, nam: a}]", "nam"),
        ("[{kind: oracle, name: a}]", "oracle"),
        ("{kind: refusal}", "a list of judges or the path"),
        ("[]", "judges is empty"),
    ] {
        assert_says(&read(yaml).unwrap_err().to_string(), &["test.yaml:24:1: judges", part]);
    }
}

#[test]
fn files_are_found_from_the_repository_of_the_sweep_file() {
    let sweep = parse(SWEEP).unwrap();
    assert_eq!(sweep.data_file(Path::new("a.jsonl")), Path::new("/nowhere/data/lab/a.jsonl"));
    assert_eq!(sweep.root_file(Path::new("scripts/x.sh")), Path::new("/nowhere/scripts/x.sh"));
    let home = sweep.root_file(Path::new("~/x.gguf"));
    assert!(home.ends_with("x.gguf") && !home.starts_with("/nowhere"));
    let root = of_this_repository("sweep.yaml").root;
    assert_eq!(root, Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap());
    let error = find(Path::new("sweeep.yaml")).unwrap_err().to_string();
    assert_says(&error, &["sweeep.yaml", "experiments/sweeep.yaml"]);
}

/// The keys of a sweep that decide its results.
#[test]
fn an_attack_is_of_one_kind_and_its_mistakes_have_their_place() {
    let with = |attack: &str| parse(&format!("{SWEEP}  attacks:\n    - {attack}\n"));
    let sweep = with("{ name: drawn, sampling: { temperature: 0.7 } }").unwrap();
    let drawn = sweep.evaluation.attacks[0].sampling.clone().unwrap();
    assert_eq!(drawn, SamplingSpec { temperature: 0.7, top_p: 0.9, draws: 8 });
    for (attack, parts) in [
        ("{ name: none }", ["evaluation.attacks[0]", "one of prefill"]),
        (
            "{ name: two, sampling: { temperature: 1 }, prefill: { text: a } }",
            ["evaluation.attacks[0]", "one of prefill"],
        ),
        ("{ name: a b, prefill: { text: a } }", ["evaluation.attacks[0].name", "a b"]),
        ("{ name: a, prefill: { text: a, answers: b } }", ["evaluation.attacks[0].prefill", "`answers`"]),
        ("{ name: a, sampling: { temperature: 0 } }", ["evaluation.attacks[0].sampling", "temperature"]),
        (
            "{ name: a, sampling: { temperature: 1, draws: 1000000000 } }",
            ["evaluation.attacks[0].sampling", "`draws` is 1000000000: must be from 1 to 10000"],
        ),
        ("{ name: a, retraining: { harmful: 3, steps: [2, 1] } }", ["evaluation.attacks[0].retraining", "rise"]),
        (
            "{ name: a, retraining: { harmful: 3, train: { bach: 1 } } }",
            ["evaluation.attacks[0].retraining.train", "bach"],
        ),
    ] {
        assert_says(&with(attack).unwrap_err().to_string(), &parts);
    }
}

fn keys(sweep: &Sweep) -> Map<String, Json> {
    let method = |one: &Compared| {
        let what = match &one.what {
            What::Aligned | What::FineTuned => Json::Null,
            What::SoftSft(settings) => json!({ "soft_sft": settings }),
            What::SafeInstruct(settings) => json!({ "safe_instruct": settings }),
            What::OneShot(settings) => json!({ "one_shot": settings }),
            What::Repair(method) => json!({ "repair": method }),
        };
        json!({"name": one.name, "label": one.label, "what": what, "choose": one.by_merit, "train": one.train})
    };
    let json = json!({
        "data": sweep.data, "models": sweep.models, "tasks": sweep.tasks, "harmful_counts": sweep.harmful_counts,
        "inject": sweep.inject, "finetune": sweep.finetune, "evading": sweep.evading, "recovery": sweep.recovery, "unaligned": sweep.unaligned,
        "methods": sweep.methods.iter().map(method).collect::<Vec<_>>(), "evaluation": sweep.evaluation,
        "judges": sweep.judges.iter().map(Judge::name).collect::<Vec<_>>(), "cell_seeds": sweep.cell_seeds(),
        "model_seeds": sweep.model_seeds(), "cells": sweep.cells, "jobs": sweep.jobs, "store": sweep.store,
    });
    json.as_object().unwrap().clone()
}

/// The keys whose values are not those of `below`.
fn changes(keys: Map<String, Json>, below: &Map<String, Json>) -> Map<String, Json> {
    keys.into_iter().filter(|(key, value)| below.get(key) != Some(value)).collect()
}

/// Every sweep of this directory with all its settings, of one with a base those that differ, of a variant likewise. A
/// change of a default or of a file shows here; `UPDATE_GOLDEN=1` writes the file.
#[test]
fn the_sweeps_of_this_repository_have_the_pinned_settings() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Map::new();
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    for file in files {
        let sweep = of_this_repository(&file);
        let own = keys(&sweep);
        let base = sweep.base.as_ref().map(|base| keys(&of_this_repository(&base.to_string_lossy())));
        let variant = |one: &Resolved| {
            (
                one.variant.clone(),
                changes(keys(&one.sweep), &own).into_iter().filter(|(key, _)| key != "cell_seeds").collect(),
            )
        };
        let variants: Map<String, Json> = sweep.variants.iter().map(variant).collect();
        let distinct: BTreeSet<String> = variants.values().map(Json::to_string).collect();
        assert_eq!(distinct.len(), sweep.variants.len(), "{file}: two variants are the same");
        let mut all = changes(own, &base.unwrap_or_default());
        all.insert("name".into(), sweep.name.as_str().into());
        all.insert("variants".into(), variants.into());
        found.insert(file, all.into());
    }
    let golden = dir.join("tests/fixtures/sweeps.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let lines = serde_json::to_string(&found).unwrap().replace(",\"", ",\n\"").replace("},\n", "},\n\n");
        std::fs::write(&golden, lines + "\n").unwrap();
    }
    let pinned: Map<String, Json> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    for (file, settings) in &found {
        for (key, value) in settings.as_object().unwrap() {
            assert_eq!(Some(value), pinned[file].get(key), "{file}: {key}");
        }
    }
    assert_eq!(found, pinned);
}
