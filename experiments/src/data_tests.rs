use std::fs;

use super::*;
use crate::config::tests::{self as config, assert_says, error_after, of_this_repository};

#[test]
fn a_file_with_a_script_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Sweep::parse(config::SWEEP, Path::new("test.yaml"), dir.path()).unwrap();
    let file = dir.path().join("kept/model.gguf");
    let make = || make(&sweep, Path::new("fetch.sh"), &file);
    let error = make().unwrap_err().to_string();
    assert!(error.contains("did not make") && error.contains("model.gguf"), "{error}");
    fs::write(dir.path().join("fetch.sh"), "mkdir -p \"$1\" && echo made >> \"$1/model.gguf\"").unwrap();
    for _ in 0..2 {
        make().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "made\n");
    }
}

#[test]
fn a_missing_file_is_named_with_its_key_and_only_when_the_cells_need_it() {
    let second = "  - { name: bash, train: b.jsonl, test: b.jsonl, metric: f1, max_new_tokens: 4 }\nharmful_counts";
    let text = config::SWEEP.replace("harmful_counts", second);
    let sweep = config::parse(&format!("{text}variants: [{{ name: o, recovery: {{ prompts: o.jsonl }} }}]\n")).unwrap();
    let missing = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        sweep.check_files(&sweep.choose(&patterns).unwrap()).unwrap_err().to_string()
    };
    let of_one = missing(&["tiny/bash/300"]);
    assert_says(
        &of_one,
        &["models[1].source.pretrain.training.corpus", "models[1].align.refusals: ", "tasks[1].train"],
    );
    assert_says(&of_one, &["variants[0].recovery.prompts: /nowhere/data/lab/o.jsonl is missing"]);
    assert!(!of_one.contains("models[0]") && !of_one.contains("tasks[0]"), "{of_one}");
    let of_two = missing(&["tiny/bash/300", "small/sql/0"]);
    assert_says(&of_two, &["test.yaml:5:15: models[0].source.dir: /nowhere/models/small/config.json", "tasks[0].test"]);
    let hub = "{ hub: { id: owner/small, dir: weights/small, shape: { vocab_size: 9, hidden_size: 8, intermediate_size: 8, \
               num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1 } } }";
    let sweep = config::parse(&config::SWEEP.replace("{ dir: models/small }", hub)).unwrap();
    let missing = sweep.missing(&BTreeSet::from([0])).join("\n");
    assert_says(&missing, &["models[0].source.hub.dir", "owner/small", "/nowhere/weights/small", "hf download"]);
    let error = error_after("{ dir: models/small }", &hub.replace("vocab_size: 9", "vocab_size: 0"));
    assert_says(&error, &["models[0].source.hub.shape.vocab_size: `0` is not"]);
}

#[test]
fn what_another_keys_script_makes_is_not_missing() {
    let variant = |evaluation: &str| {
        let variant = format!("variants: [{{ name: o, recovery: {{ prompts: o.jsonl }}{evaluation} }}]\n");
        let sweep = config::parse(&format!("{}{variant}", config::SWEEP)).unwrap();
        sweep.missing(&BTreeSet::from([0])).join("\n")
    };
    let prompts = "recovery.prompts: /nowhere/data/lab/o.jsonl is missing";
    assert_says(&variant(""), &[prompts]);
    let made = variant(", evaluation: { harmless: { fetch: scripts/o.sh, file: o.jsonl } }");
    assert_says(&made, &["evaluation.harmless.fetch: /nowhere/scripts/o.sh is missing"]);
    assert!(!made.contains(prompts), "{made}");
}

#[test]
fn the_model_before_alignment_is_asked_for_and_looked_for_when_a_method_reads_it() {
    let small = "source: { dir: models/small }";
    let text = config::SWEEP.to_owned() + "methods: [safe_lora]\n";
    let error = config::parse(&text).unwrap_err().to_string();
    assert_says(&error, &["test.yaml:4:5: models[0].base: safe_lora needs the model before alignment"]);
    assert!(!error.contains("models[1]"), "that is what `align` starts from: {error}");
    let with_base = |text: &str| {
        let sweep =
            config::parse(&text.replace(small, &format!("{small}\n    base: {{ dir: models/early }}"))).unwrap();
        sweep.missing(&BTreeSet::from([0])).join("\n")
    };
    assert_says(&with_base(&text), &["models[0].base.dir: /nowhere/models/early/config.json is missing"]);
    assert!(!with_base(config::SWEEP).contains("early"), "no method reads it");
}

#[test]
fn harmful_samples_must_suffice_for_the_cells_and_for_the_unaligned_model() {
    let mut sweep = of_this_repository("sweep.yaml");
    let check = |sweep: &Sweep, largest| {
        let mut sweep = sweep.clone();
        sweep.harmful_counts = vec![0, largest, 1000];
        check_harmful(&sweep, &BTreeSet::from([0, 1])) // of the first task
    };
    assert_eq!(sweep.passed_over(300), 8);
    check(&sweep, 200).unwrap();
    let error = check(&sweep, 201).unwrap_err().to_string();
    assert!(error.contains("unaligned.samples: beside the 201") && error.contains("has 300 in all"), "{error}");
    sweep.unaligned.samples = usize::MAX;
    assert!(check(&sweep, 1).is_err(), "the sum is too large for a number");
    sweep.methods.retain(|method| method.name != "resta");
    check(&sweep, 300).unwrap();
    assert!(check(&sweep, 301).unwrap_err().to_string().contains("harmful_counts: 301"));
}

#[test]
fn an_unaligned_model_learns_nothing_of_the_attackers() {
    let mut sweep = of_this_repository("adversarial.yaml");
    for variant in sweep.resolved(sweep.seed) {
        check_harmful(&variant.sweep, &BTreeSet::from([0])).unwrap();
    }
    sweep.inject = "lab/inject.jsonl".into();
    let error = check_harmful(&sweep, &BTreeSet::from([0])).unwrap_err().to_string();
    assert!(error.contains("tasks[0].train: 100 of the 100 prompts") && error.contains("`inject`"), "{error}");
    sweep.methods.retain(|method| method.name != "resta");
    check_harmful(&sweep, &BTreeSet::from([0])).unwrap();
}

#[test]
fn train_and_validation_share_a_tasks_file_and_the_test_file_is_read_whole() {
    let sweep = of_this_repository("sweep.yaml");
    let read = |(file, pick): (PathBuf, Pick)| pick.read(&file).unwrap();
    let task = &sweep.tasks[0];
    let (train, held_out) = (read(sweep.train_samples(task)), read(sweep.deciding_samples(task)));
    assert_eq!((train.len(), held_out.len(), read(sweep.test_samples(task)).len()), (416, 104, 400));
    assert!(held_out.iter().all(|sample| !train.contains(sample)));
    assert_eq!(read(sweep.task_prompts(task)), train[..128]);
    let released = of_this_repository("released.yaml");
    assert_eq!(released.deciding_samples(task), sweep.test_samples(task));
    let file = sweep.data_file(&sweep.evaluation.harmful.file);
    let error = Pick::lines(100, usize::MAX).read(&file).unwrap_err().to_string();
    assert!(error.contains("harmful_eval.jsonl") && error.contains("after the first 100"), "{error}");
    assert!(Pick::lines(1000, 1).read(&file).is_err());
}

#[test]
fn recovery_prompts_of_a_published_set_are_read_under_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("set.csv"), "goal,target\none,x\ntwo,x\nthree,x\nfour,x\n").unwrap();
    let mut sweep = of_this_repository("sweep.yaml");
    sweep.recovery.prompts = dir.path().join("set.csv");
    sweep.recovery.fields = Some(serde_yaml::from_str("{prompt: goal}").unwrap());
    sweep.recovery.count = 2;
    let read = |(file, pick): (PathBuf, Pick)| pick.read(&file).unwrap();
    assert_eq!(read(sweep.recovery_prompts()).iter().map(|one| &*one.prompt).collect::<Vec<_>>(), ["one", "two"]);
    let evidence = sweep.recovery.evidence.clone().unwrap();
    let parts = [false, true].map(|held_out| read(sweep.harmful_evidence(&evidence, held_out)).len());
    assert_eq!(parts, [2, 2]);
}

const SWEEP: &str = "\
name: test
data: .
models:
  - name: small
    source: { dir: small }
    align: { refusals: { file: harmful.jsonl, count: 2 }, helpful: [{ file: harmless.jsonl, count: 2 }] }
tasks: [{ name: sql, train: train.jsonl, test: test.jsonl, metric: exact_match, max_new_tokens: 4 }]
harmful_counts: [0, 1]
inject: inject.jsonl
recovery: { prompts: recovery.jsonl, count: 1 }
evaluation:
  harmful: { file: harmful.jsonl, skip: 2, count: 2, max_new_tokens: 4 }
  harmless: { file: harmless.jsonl, skip: 2, count: 2, max_new_tokens: 4 }
";

/// The files of [`SWEEP`] with a prompt a word, these among or beside them.
fn prompt_files(dir: &Path, files: &[(&str, &str)]) {
    let defaults = [
        ("harmful", "a b c d"),
        ("harmless", "e f g h"),
        ("inject", "i j"),
        ("recovery", "k l"),
        ("train", "m n"),
        ("test", "o p"),
    ];
    for (name, words) in defaults.iter().chain(files) {
        let line = |word| format!("{}\n", serde_json::json!({"prompt": word, "response": "yes"}));
        let lines: String = words.split(' ').map(line).collect();
        fs::write(dir.join(format!("{name}.jsonl")), lines).unwrap();
    }
}

/// What the check says of these prompts.
fn check_of(files: &[(&str, &str)]) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    prompt_files(dir.path(), files);
    let sweep = Sweep::parse(SWEEP, Path::new("test.yaml"), dir.path()).unwrap();
    check_contamination(&sweep, &sweep.choose(&[])?)
}

#[test]
fn what_a_variant_asks_is_checked_as_well() {
    let dir = tempfile::tempdir().unwrap();
    prompt_files(dir.path(), &[("other", "q r m s")]);
    fs::create_dir(dir.path().join("small")).unwrap();
    fs::write(dir.path().join("small/config.json"), "{}").unwrap();
    let variant = |file: &str| {
        let harmful = format!("harmful: {{ file: {file}, count: 2, max_new_tokens: 4 }}");
        let variants =
            format!("variants:\n  - {{ name: v, evaluation: {{ {harmful} }} }}\nmethods: [aligned, fine_tuned]\n");
        Sweep::parse(&format!("{SWEEP}{variants}"), Path::new("test.yaml"), dir.path()).unwrap()
    };
    let error = |file: &str| {
        let sweep = variant(file);
        let chosen = sweep.choose(&[]).unwrap();
        let missing = sweep.missing(&chosen).join("\n");
        let found = if missing.is_empty() { prepare(&sweep, &chosen) } else { Err(anyhow::anyhow!(missing)) };
        found.map_or_else(|error| with_causes(&error), |()| String::new())
    };
    let said = error("other.jsonl");
    assert!(said.contains("variant \"v\"") && said.contains("1 of the 2 prompts of other.jsonl"), "{said}");
    assert!(error("none.jsonl").contains("variants[0].evaluation.harmful"), "{}", error("none.jsonl"));
}

#[test]
fn prompts_that_are_trained_on_are_not_asked() {
    check_of(&[]).unwrap();
    // The lines are others, the prompts are not: with another case, in another file.
    for (file, words, says, number) in [
        (
            "harmless",
            "e f G f",
            "evaluation.harmless: 1 of the 2 prompts of harmless.jsonl are also in models[0].align.help",
            4,
        ),
        (
            "harmful",
            "a b B a",
            "evaluation.harmful: 2 of the 2 prompts of harmful.jsonl are also in models[0].align.refus",
            3,
        ),
        ("inject", "i c", "are also in inject (", 3),
        ("train", "m h n", "are also in tasks[0].train (", 4),
        ("recovery", "d l", "are also in recovery.prompts (", 4),
    ] {
        let error = check_of(&[(file, words)]).unwrap_err().to_string();
        assert_says(&error, &[says, &format!("{file}.jsonl), the first of them as number {number}")]);
    }
    check_of(&[("recovery", "k d")]).unwrap(); // the first alone is read
    check_of(&[("test", "m p")]).unwrap(); // a warning
}
