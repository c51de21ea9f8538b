//! The survey's claims: states are those of the stages, failures are remembered, patterns choose cells.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::sweep::{Method, Profile};

/// A repository with a sweep of two counts and its files, all of them there.
fn repository() -> (tempfile::TempDir, Sweep) {
    let dir = tempfile::tempdir().unwrap();
    let text = "\
name: test
data: data
models: [{ name: small, source: { dir: small } }]
tasks: [{ name: sql, train: train.jsonl, test: test.jsonl, metric: exact_match, max_new_tokens: 4 }]
harmful_counts: [0, 1]
inject: inject.jsonl
recovery: { prompts: recovery.jsonl, count: 1 }
evaluation:
  harmful: { file: harmful.jsonl, count: 1, max_new_tokens: 4 }
  harmless: { file: harmless.jsonl, count: 1, max_new_tokens: 4 }
";
    for file in ["train", "test", "inject", "recovery", "harmful", "harmless"] {
        let path = dir.path().join("data").join(format!("{file}.jsonl"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"prompt\": \"a\", \"response\": \"b\"}\n").unwrap();
    }
    fs::create_dir_all(dir.path().join("small")).unwrap();
    fs::write(dir.path().join("small/config.json"), "{}").unwrap();
    let mut sweep = Sweep::parse(text, Path::new("test.yaml")).unwrap();
    sweep.root = dir.path().to_owned();
    (dir, sweep)
}

fn survey(sweep: &Sweep) -> Survey {
    let results = sweep.root.join("results");
    Survey::of(sweep, &results.as_path().into(), &results)
}

fn states(survey: &Survey) -> Vec<String> {
    survey.cells.iter().map(|cell| format!("{} {}", cell.path, cell.state)).collect()
}

#[test]
fn a_sweep_that_was_never_run_is_missing_and_looking_at_it_leaves_nothing() {
    let (dir, sweep) = repository();
    let found = survey(&sweep);
    assert_eq!(states(&found), ["small/sql/0 missing", "small/sql/1 missing"]);
    assert!(!dir.path().join("results").exists());
    let kinds: Vec<&str> = found.cells[1].stages.iter().map(|stage| stage.kind).collect();
    // The second cell shares the aligned model's two evaluations with the first.
    assert_eq!(kinds, ["finetune", "recover", "evaluate", "evaluate", "evaluate", "evaluate"]);
    let all = found.select(&sweep.choose(&[]).unwrap());
    assert_eq!(found.left(&sweep, &all).len(), 1 + (2 + 6) + (2 + 4));
}

#[test]
fn a_run_of_some_cells_counts_what_they_share_with_the_others() {
    let (_dir, sweep) = repository();
    let found = survey(&sweep);
    let second = found.select(&sweep.choose(&["*/*/1".to_owned()]).unwrap());
    let kinds: Vec<&str> = found.left(&sweep, &second).iter().map(|stage| stage.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "evaluate").count(), 6, "the aligned model's two among them");
    assert_eq!(kinds.len(), 1 + 2 + 6);
}

#[test]
fn the_control_arms_of_recoveries_that_are_not_there_yet_are_each_counted() {
    let (_dir, mut sweep) = repository();
    let variants = "[{ name: low, rate: 0.001 }, { name: high, rate: 0.004 }, { name: higher, rate: 0.008 }]";
    sweep.variants = serde_yaml::from_str(variants).unwrap();
    sweep.methods = vec![Method::Recovered, Method::Random, Method::FullRevert, Method::Interpolation(40)];
    let found = survey(&sweep);
    let of = |kind: &str| found.cells[1].stages.iter().filter(|stage| stage.kind == kind).count();
    // One arm follows each of three recoveries, two are the same for all, and each of the eight models is evaluated twice.
    assert_eq!((of("recover"), of("control"), of("evaluate")), (3, 5, 16));
}

#[test]
fn a_setting_makes_those_arms_anew_that_read_it() {
    let (_dir, mut sweep) = repository();
    sweep.methods = vec![Method::Recovered, Method::FullRevert, Method::Random, Method::Interpolation(40)];
    let arms = |variant: &str| {
        let sweep = Sweep { variants: serde_yaml::from_str(variant).unwrap(), ..sweep.clone() };
        let stages = survey(&sweep).cells[0].stages.clone();
        stages.into_iter().filter(|stage| stage.kind == "control").map(|stage| stage.key).collect::<Vec<_>>()
    };
    let as_it_is = arms("[{ name: as it is }]");
    let changed = |variant| -> Vec<bool> { as_it_is.iter().zip(arms(variant)).map(|(old, new)| *old != new).collect() };
    assert_eq!(changed("[{ name: deeper, layer: 1/2 }]"), [true, true, false]);
    assert_eq!(changed("[{ name: more prompts, count: 2 }]"), [false, true, false]);
    // As many random weights as a recovery that is not there yet: whatever changes it changes them.
    assert_eq!(changed("[{ name: no gate, rollback: off }]"), [false, true, false]);
    // With recoveries that restored as many weights the gate changes no arm.
    for variant in ["[{ name: as it is }]", "[{ name: no gate, rollback: off }]"] {
        let sweep = Sweep { variants: serde_yaml::from_str(variant).unwrap(), ..sweep.clone() };
        let stages = survey(&sweep).cells[0].stages.clone();
        let recovery = stages.iter().find(|stage| stage.kind == "recover").unwrap();
        let manifest = serde_json::json!({"stage": "recover", "version": 1, "seed": 1, "settings": {}, "parents": {}, "inputs": {},
            "revision": "", "device": "", "seconds": 1.0, "resumed": false, "samples": 1, "files": {},
            "summary": {"restored": 7, "recovered": true, "steps": 20, "rollback": false, "note": ""}});
        let dir = sweep.root.join("results/recover").join(&recovery.key);
        fs::create_dir_all(&dir).unwrap();
        write_json(&dir.join("stage.json"), &manifest).unwrap();
    }
    assert_eq!(arms("[{ name: as it is }]"), arms("[{ name: no gate, rollback: off }]"));
    assert_ne!(arms("[{ name: as it is }]"), as_it_is, "the random one knows its number now");
}

#[test]
fn the_test_split_makes_a_recovery_anew_only_where_it_decides_it() {
    let (dir, sound) = repository();
    let released = Sweep { profile: Profile::Released, ..sound.clone() };
    let recoveries = || {
        [&sound, &released].map(|sweep| {
            let found = survey(sweep);
            found.cells[0].stages.iter().find(|stage| stage.kind == "recover").unwrap().key.clone()
        })
    };
    let before = recoveries();
    fs::write(dir.path().join("data/test.jsonl"), "{\"prompt\": \"c\", \"response\": \"d\"}\n").unwrap();
    let after = recoveries();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
}

#[test]
fn a_cell_is_not_done_while_a_stage_that_it_shares_is_missing() {
    let done = |key: &str, state: State| Seen { kind: "evaluate", key: key.into(), state, fresh: false, seconds: 1.0 };
    let (own, shared) = ([done("own", State::Done)], [done("shared", State::Missing)]);
    assert_eq!(state_of(&own, &[], false, None), CellState::Done);
    assert_eq!(state_of(&own, &shared, false, None), CellState::Partly);
}

#[test]
fn a_begun_stage_makes_its_cell_partly_done_and_no_other() {
    let (_dir, sweep) = repository();
    let stage = survey(&sweep).cells[1].stages[0].clone();
    fs::create_dir_all(sweep.root.join("results").join(stage.kind).join(format!("{}.partial", stage.key))).unwrap();
    assert_eq!(states(&survey(&sweep)), ["small/sql/0 missing", "small/sql/1 partly"]);
}

#[test]
fn a_failure_is_shown_with_its_error_until_it_is_forgotten() {
    let (_dir, sweep) = repository();
    let cell = sweep.cells()[1];
    let results = sweep.root.join("results");
    record_failure(&results, cell, &anyhow::anyhow!("no space left")).unwrap();
    let found = survey(&sweep);
    assert_eq!(found.cells[1].state, CellState::Failed("no space left".to_owned()));
    let text = status(&sweep, &found.select(&sweep.choose(&[]).unwrap()));
    assert!(text.contains("2 cells: 0 done, 0 partly, 1 missing, 1 failed"), "{text}");
    assert!(text.contains("failed  small/sql/1: no space left"), "{text}");
    forget_failure(&results, cell).unwrap();
    assert_eq!(survey(&sweep).cells[1].state, CellState::Missing);
}

#[test]
fn a_missing_file_is_said_and_stops_no_survey() {
    let (dir, sweep) = repository();
    fs::remove_file(dir.path().join("small/config.json")).unwrap();
    let found = survey(&sweep);
    assert!(found.cells[0].unknown.as_ref().unwrap().contains("config.json"));
    assert_eq!(found.cells[0].state, CellState::Missing);
    let text = status(&sweep, &found.select(&sweep.choose(&[]).unwrap()));
    assert!(text.contains("stages not all known of small/sql/0 and 1 more: "), "{text}");
    assert!(text.contains("config.json"), "{text}");
}

#[test]
fn seeds_share_the_aligned_models_unless_these_are_redrawn() {
    let (_dir, mut sweep) = repository();
    sweep.models[0].align = Some(
        serde_yaml::from_str(
            "{ refusals: { file: harmful.jsonl, count: 1 }, helpful: [], learning_rate: 1.0e-3, epochs: 1, batch: 1 }",
        )
        .unwrap(),
    );
    sweep.seeds = vec![1, 2, 3];
    let kinds = |sweep: &Sweep| {
        let found = survey(sweep);
        let left = found.select(&sweep.choose(&[]).unwrap());
        let left: Vec<&str> = found.left(sweep, &left).iter().map(|stage| stage.kind).collect();
        let plan = crate::estimate::plan(sweep, &found, &found.select(&sweep.choose(&[]).unwrap()));
        let of = |kind: &str| left.iter().filter(|one| **one == kind).count();
        assert!(
            plan.lines().any(|line| line.starts_with("align") && line.contains(&format!(" {} stages", of("align"))))
        );
        (of("import"), of("align"), of("finetune"), of("evaluate"))
    };
    // Two cells, three seeds; two evaluations of each fine-tuned and recovered model, and of each aligned one.
    assert_eq!(kinds(&sweep), (1, 1, 6, 2 * 12 + 2));
    sweep.redraw_models = true;
    assert_eq!(kinds(&sweep), (1, 3, 6, 2 * 12 + 2 * 3));
}

#[test]
fn models_of_one_source_share_its_import() {
    let (_dir, mut sweep) = repository();
    let mut second = sweep.models[0].clone();
    second.name = "second".to_owned();
    sweep.models.push(second);
    let found = survey(&sweep);
    let imports = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let left = found.select(&sweep.choose(&patterns).unwrap());
        found.left(&sweep, &left).iter().filter(|stage| stage.kind == "import").count()
    };
    assert_eq!((imports(&[]), imports(&["second/*/*"])), (1, 1));
    let plan = crate::estimate::plan(&sweep, &found, &found.select(&sweep.choose(&[]).unwrap()));
    assert!(plan.lines().any(|line| line.starts_with("import") && line.contains(" 1 stages")), "{plan}");
}

#[test]
fn what_is_finished_is_no_more_to_be_done_where_not_all_stages_are_known() {
    let (dir, sweep) = repository();
    fs::remove_file(dir.path().join("data/recovery.jsonl")).unwrap();
    let mut found = survey(&sweep);
    // Of the second cell the fine-tuning alone is known; the evaluations of the aligned model are the first one's.
    let planned = |found: &Survey| -> Vec<usize> {
        let plan = crate::estimate::plan(&sweep, found, &found.select(&sweep.choose(&[]).unwrap()));
        let cells = plan.lines().filter(|line| line.starts_with("small/sql/"));
        cells.map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
    };
    assert_eq!(planned(&found), [2 + 6, 2 + 4]);
    let tuned = found.cells[1].stages.iter_mut().find(|stage| stage.kind == "finetune").unwrap();
    tuned.state = State::Done;
    assert_eq!(planned(&found), [2 + 6, 1 + 4]);
}

#[test]
fn cells_that_the_sweep_leaves_out_are_not_its_own() {
    let (_dir, sweep) = repository();
    let sweep = Sweep { cells: Some("*/*/1".to_owned()), ..sweep };
    assert_eq!(survey(&sweep).cells.iter().map(|cell| cell.own).collect::<Vec<_>>(), [false, true]);
}
