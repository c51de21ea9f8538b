//! The store's claims: nothing unfinished passes for finished, nothing finished is run twice.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use anyhow::bail;
use serde_json::json;

use super::*;

fn key(settings: Value) -> StageKey {
    StageKey::new("train", 1, 7, &settings).unwrap()
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), "flex").unwrap()
}

fn write_model(dir: &Path) -> Result<Output> {
    fs::write(dir.join("model"), "weights")?;
    Output::new(&json!({ "loss": 0.5 }), 3)
}

#[test]
fn a_finished_stage_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let first = store.run(&key(json!({ "rank": 8 })), write_model).unwrap();
    assert!(first.fresh);
    let second = store.run(&key(json!({ "rank": 8 })), |_| bail!("run twice")).unwrap();
    assert!(!second.fresh);
    assert_eq!((&second.key, second.samples), (&first.key, 3));
    assert_eq!(second.summary::<Value>().unwrap(), json!({ "loss": 0.5 }));
    assert_eq!(fs::read_to_string(second.dir.join("model")).unwrap(), "weights");
}

#[test]
fn the_order_of_settings_does_not_matter_but_their_values_do() {
    let digest = |settings| key(settings).digest().unwrap();
    let first = digest(json!({ "rank": 8, "alpha": 16.0 }));
    assert_eq!(first, digest(json!({ "alpha": 16.0, "rank": 8 })));
    assert_ne!(first, digest(json!({ "rank": 9, "alpha": 16.0 })));
}

#[test]
fn the_key_of_a_stage_is_the_same_for_ever() {
    // The start of the SHA-256 of {"inputs":{},"parents":{},"seed":7,"settings":{"rank":8},"stage":"train","version":1}.
    assert_eq!(key(json!({ "rank": 8 })).digest().unwrap(), "99cbbd5da24aad8d");
}

#[test]
fn settings_version_seed_parents_and_inputs_each_change_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let file = dir.path().join("data.jsonl");
    let digest = |key: StageKey| key.digest().unwrap();
    let base = || key(json!({}));
    let parent = |n: u32| store.run(&key(json!({ "n": n })), write_model).unwrap();
    let with_content = |content: &str| {
        fs::write(&file, content).unwrap();
        digest(base().input("data", &file).unwrap())
    };
    let mut digests = vec![
        digest(base()),
        digest(StageKey::new("train", 2, 7, &json!({})).unwrap()),
        digest(StageKey::new("train", 1, 8, &json!({})).unwrap()),
        digest(base().parent("model", &parent(1))),
        digest(base().parent("model", &parent(2))),
        with_content("one"),
        with_content("two"),
    ];
    assert_eq!(with_content("one"), digests[5]);
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 7);
}

#[test]
fn a_failed_stage_is_recorded_not_finished_and_tried_again_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let key = key(json!({}));
    let error = store
        .run(&key, |work| {
            fs::write(work.join("checkpoint"), "step 5")?;
            // What a killed process was writing.
            fs::create_dir(work.join("below"))?;
            for name in [".writing-a1", ".tmpb2", "recovery.part", "below/weights.7-1.tmp"] {
                fs::write(work.join(name), "half")?;
            }
            bail!("no space left")
        })
        .unwrap_err();
    assert!(format!("{error:#}").contains("no space left"));
    assert_eq!(store.find(&key).unwrap(), None);
    let record = dir.path().join("train").join(format!("{}.error.json", key.digest().unwrap()));
    assert!(fs::read_to_string(&record).unwrap().contains("no space left"));

    let stage = store
        .run(&key, |work| {
            assert_eq!(fs::read_to_string(work.join("checkpoint")).unwrap(), "step 5");
            write_model(work)
        })
        .unwrap();
    assert!(stage.fresh && !record.exists());
    let manifest = fs::read_to_string(stage.dir.join(MANIFEST)).unwrap();
    let manifest: Manifest = serde_json::from_str(&manifest).unwrap();
    assert!(manifest.resumed);
    let half = |name: &&String| name.contains("writing") || name.contains("tmp") || name.ends_with("part");
    assert_eq!(manifest.files.keys().find(half), None);
}

#[test]
fn a_panic_is_an_error_that_is_recorded_and_a_stop_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let key = key(json!({}));
    let record = dir.path().join("train").join(format!("{}.error.json", key.digest().unwrap()));
    let stopped = store.run(&key, |_| std::panic::resume_unwind(Box::new(Stopped))).unwrap_err();
    assert!(stopped.is::<Stopped>() && !record.exists());
    let error = store.run(&key, |work| {
        write_model(work)?;
        panic!("killed here")
    });
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("panicked: killed here"), "{error}");
    assert!(fs::read_to_string(&record).unwrap().contains("panicked: killed here"));
    assert_eq!(store.find(&key).unwrap(), None);
    assert!(store.run(&key, write_model).unwrap().fresh && !record.exists());
}

#[test]
fn a_directory_that_lost_a_file_or_its_manifest_is_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let key = key(json!({}));
    for damage in [
        |stage: &Stage| fs::remove_file(stage.dir.join("model")),
        |stage: &Stage| fs::write(stage.dir.join("model"), "wei"),
        |stage: &Stage| fs::remove_file(stage.dir.join(MANIFEST)),
        |stage: &Stage| fs::write(stage.dir.join(MANIFEST), "{ \"stage\": "),
    ] {
        let stage = store.run(&key, write_model).unwrap();
        damage(&stage).unwrap();
        assert_eq!(store.find(&key).unwrap(), None);
        assert!(store.run(&key, write_model).unwrap().fresh);
    }
}

#[test]
fn what_a_base_has_finished_is_read_there_and_nothing_is_written_there() {
    let (base_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (known, failed, new) = (key(json!({ "rank": 8 })), key(json!({ "rank": 9 })), key(json!({ "rank": 10 })));
    let base = store(&base_dir);
    let kept = base.run(&known, write_model).unwrap();
    base.run(&failed, |_| bail!("cut off")).unwrap_err();
    let files = |dir: &Path| {
        let mut found = BTreeMap::new();
        list_files(dir, dir, &mut found).unwrap();
        found
    };
    let before = files(base_dir.path());

    // The base's process may still run: its directory is not locked by the one that only reads it.
    let own = dir.path().join("out");
    let store = Store::open(Roots::over(&own, base_dir.path()), "flex").unwrap();
    let found = store.run(&known, |_| bail!("run twice")).unwrap();
    assert_eq!((found.fresh, &found.dir), (false, &kept.dir));
    for key in [&failed, &new] {
        let made = store.run(key, write_model).unwrap();
        assert!(made.fresh && made.dir.starts_with(&own), "{}", made.dir.display());
    }
    assert_eq!(files(base_dir.path()), before);

    // A base that is damaged or not there at all is none.
    fs::remove_file(kept.dir.join(MANIFEST)).unwrap();
    assert!(store.run(&known, write_model).unwrap().dir.starts_with(&own));
    let alone = Store::look(Roots::over(&own, &dir.path().join("absent")));
    assert!(alone.find(&new).unwrap().is_some());
}

#[test]
fn two_processes_cannot_hold_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(&dir);
    let error = Store::open(dir.path(), "flex").unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    assert!(Store::open(dir.path(), "flex").is_ok());
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    fs::write(&path, "old").unwrap();
    let failed = write_whole(&path, |file| {
        file.write_all(b"half")?;
        bail!("disk full")
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_hash_of_a_file_is_its_sha256() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("abc");
    fs::write(&path, "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash_file(&path).unwrap(), expected);
    assert_ne!(hash_file(dir.path()).unwrap(), expected);
    assert!(hash_file(&dir.path().join("none")).is_err());
}
