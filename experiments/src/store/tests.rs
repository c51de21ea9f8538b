//! The store's claims: nothing unfinished passes for finished, nothing finished is run twice.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use realign::{Error, Stage};
use serde::Serialize;
use serde_json::{Value, json};

use super::*;

/// A stage that does what a test says.
#[derive(Serialize)]
struct Work<F> {
    rank: u32,
    #[serde(skip)]
    work: F,
}

impl<F: Fn(&Path) -> realign::Result<()>> Stage for Work<F> {
    type Summary = Value;

    fn kind(&self) -> &'static str {
        "work"
    }

    fn run(&self, out: &Path, _: &mut Job<'_>) -> realign::Result<Value> {
        (self.work)(out)?;
        Ok(json!({ "loss": 0.5 }))
    }
}

fn node(rank: u32, work: impl Fn(&Path) -> realign::Result<()> + Send + Sync + 'static) -> Node {
    Node::new(format!("rank {rank}"), Work { rank, work }, &[]).unwrap()
}

fn model(rank: u32) -> Node {
    node(rank, write_model)
}

fn write_model(out: &Path) -> realign::Result<()> {
    Ok(files::write_whole(&out.join("below/model"), b"weights")?)
}

fn failing(rank: u32, text: &'static str) -> Node {
    node(rank, move |_| Err(Error::Invalid(text.into())))
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&Roots::new(dir.path(), None), "flex").unwrap()
}

fn run(store: &Store, node: &Node) -> Result<(Finished, bool)> {
    let mut report = |_: realign::Progress<'_>| ControlFlow::Continue(());
    store.run(
        node,
        &mut Job { device: &Device::default(), batch: 1, max_shard: None, earlier: Vec::new(), report: &mut report },
    )
}

fn error_file(dir: &tempfile::TempDir, node: &Node) -> PathBuf {
    dir.path().join("work").join(format!("{}.error.json", node.key))
}

#[test]
fn a_finished_stage_is_found_and_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, fresh) = run(&open(&dir), &model(8)).unwrap();
    assert!(fresh);
    let again = failing(8, "run twice");
    let (second, fresh) = run(&open(&dir), &again).unwrap();
    assert!(!fresh && second == first);
    assert_eq!(second.summary::<Value>().unwrap(), json!({ "loss": 0.5 }));
    assert_eq!(fs::read_to_string(second.dir.join("below/model")).unwrap(), "weights");
    assert_eq!(open(&dir).state(&again), State::Done(first));
}

#[test]
fn a_changed_manifest_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (finished, _) = run(&open(&dir), &model(8)).unwrap();
    let place = finished.dir.join(MANIFEST);
    let whole = fs::read_to_string(&place).unwrap();
    for (from, to) in
        [("0.5", "0.4"), ("\"bytes\": 7", "\"bytes\": 8"), ("flex", "flux"), ("\"resumed\"", "\"resume\"")]
    {
        assert!(whole.contains(from), "{from}");
        fs::write(&place, whole.replace(from, to)).unwrap();
        assert_ne!(open(&dir).state(&model(8)), State::Done(finished.clone()), "{from}");
    }
    let mut bare: Value = serde_json::from_str(&whole).unwrap();
    bare.as_object_mut().unwrap().remove("digest").unwrap();
    fs::write(&place, bare.to_string()).unwrap();
    assert_ne!(open(&dir).state(&model(8)), State::Done(finished), "without its digest");
    assert!(run(&open(&dir), &model(8)).unwrap().1, "it is made again");
    fs::write(&place, &whole[..whole.len() / 2]).unwrap();
    assert!(run(&open(&dir), &model(8)).unwrap().1);
}

#[test]
fn nothing_is_taken_over_from_a_stage_whose_files_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let dirs = [8, 9].map(|rank| run(&store, &model(rank)).unwrap().0.dir);
    fs::write(dirs[1].join("below/model"), "weightz").unwrap();
    assert_eq!(store.unchanged(dirs.to_vec()), [dirs[0].clone()]);
}

#[test]
fn the_key_of_a_stage_is_the_same_for_ever() {
    // The start of the SHA-256 of ["work",1,{"rank":8}].
    assert_eq!(model(8).key, "b6446011fa898610");
}

#[test]
fn a_stage_that_was_stopped_is_handed_its_directory_again_and_has_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let stopped = node(8, |out| {
        fs::write(out.join("checkpoint"), "step 5").unwrap();
        Err(Error::Stopped)
    });
    assert!(is_stopped(&run(&store, &stopped).unwrap_err()));
    assert_eq!((store.state(&stopped), error_file(&dir, &stopped).exists()), (State::Partly, false));
    let goes_on = node(8, |out| {
        assert_eq!(fs::read_to_string(out.join("checkpoint")).unwrap(), "step 5");
        write_model(out)
    });
    let (finished, fresh) = run(&store, &goes_on).unwrap();
    assert!(fresh && read_manifest(&finished.dir).unwrap().resumed);
}

#[test]
fn a_stage_that_failed_has_its_error_and_is_tried_again_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let failed = node(8, |out| {
        fs::write(out.join(".writing-a1"), "half").unwrap(); // what a killed process was writing
        Err(Error::Invalid("no space left".into()))
    });
    let error = run(&store, &failed).unwrap_err();
    let named = ["rank 8", "work/", "no space left"].map(|part| format!("{error:#}").contains(part));
    assert_eq!(named, [true; 3], "{error:#}");
    assert!(matches!(store.state(&failed), State::Failed(error) if error == "no space left"));
    let (finished, _) = run(&store, &model(8)).unwrap();
    assert!(!error_file(&dir, &failed).exists());
    let manifest = read_manifest(&finished.dir).unwrap();
    assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["below/model"]);
}

#[test]
fn a_panic_is_the_error_of_its_stage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = run(&store, &node(8, |_| panic!("killed here"))).unwrap_err();
    assert!(format!("{error:#}").contains("panicked: killed here"), "{error:#}");
    assert!(matches!(store.state(&model(8)), State::Failed(error) if error.contains("panicked: killed here")));
    assert!(run(&store, &model(8)).unwrap().1);
}

#[test]
fn two_workers_that_want_one_stage_run_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let slow = node(8, move |out| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(50));
        write_model(out)
    });
    let fresh: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(run(&store, &slow).unwrap().1))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!((runs.load(Ordering::Relaxed), fresh), (1, 1));
}

#[test]
fn two_processes_cannot_have_one_store_open() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir);
    let error = Store::open(first.roots(), "flex").unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    drop(first);
    open(&dir);
}

#[test]
fn a_directory_that_is_not_what_its_name_and_manifest_say_is_not_finished() {
    type Damage = fn(&Path);
    fn edit(dir: &Path, change: fn(&mut Manifest)) {
        let mut manifest = read_manifest(dir).unwrap();
        change(&mut manifest);
        files::write_json(&dir.join(MANIFEST), &manifest).unwrap();
    }
    let damages: [(&str, Damage); 7] = [
        ("lost file", |dir| fs::remove_file(dir.join("below/model")).unwrap()),
        ("cut file", |dir| fs::write(dir.join("below/model"), "wei").unwrap()),
        ("no manifest", |dir| fs::remove_file(dir.join(MANIFEST)).unwrap()),
        ("half a manifest", |dir| fs::write(dir.join(MANIFEST), "{ \"kind\": ").unwrap()),
        ("edited value", |dir| edit(dir, |manifest| manifest.value = json!({ "rank": 9 }))),
        ("edited version", |dir| edit(dir, |manifest| manifest.version = 2)),
        ("swapped", |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::rename(dir.with_file_name(model(9).key), dir).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        run(&store, &model(9)).unwrap();
        let (finished, _) = run(&store, &model(8)).unwrap();
        damage(&finished.dir);
        assert_eq!(store.state(&model(8)), State::Partly, "{what}");
        assert!(!store.is_sound(&model(8)).unwrap(), "{what}");
        assert!(run(&store, &model(8)).unwrap().1, "{what}");
        assert_eq!(fs::read_to_string(finished.dir.join("below/model")).unwrap(), "weights");
    }
}

#[test]
fn a_changed_byte_is_found_before_a_stage_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let (finished, _) = run(&open(&dir), &model(8)).unwrap();
    let store = open(&dir);
    assert!(store.is_sound(&model(8)).unwrap());
    fs::write(finished.dir.join("below/model"), "weighty").unwrap();
    assert!(store.is_sound(&model(8)).unwrap(), "a directory is read once in a run");
    let store = open_again(store, &dir);
    assert!(matches!(store.state(&model(8)), State::Done(_)), "the size is the same");
    assert!(!store.is_sound(&model(8)).unwrap());
    assert!(run(&store, &model(8)).unwrap().1 && store.is_sound(&model(8)).unwrap());
}

fn open_again(store: Store, dir: &tempfile::TempDir) -> Store {
    drop(store);
    open(dir)
}

#[test]
fn what_a_base_has_finished_is_read_there_and_nothing_is_written_there() {
    let (base_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = open(&base_dir);
    let (known, _) = run(&base, &model(8)).unwrap();
    run(&base, &failing(9, "cut off")).unwrap_err();
    let before = files::list(base_dir.path()).unwrap();

    // The base's process may still run: its directory is not locked by one that only reads it.
    let (own, roots) = (dir.path().join("out"), |base: &Path| Roots::new(&dir.path().join("out"), Some(base)));
    let store = Store::open(&roots(base_dir.path()), "flex").unwrap();
    assert_eq!(run(&store, &failing(8, "run twice")).unwrap(), (known.clone(), false));
    for new in [9, 10] {
        let (made, fresh) = run(&store, &model(new)).unwrap();
        assert!(fresh && made.dir.starts_with(&own), "{}", made.dir.display());
    }
    assert_eq!(files::list(base_dir.path()).unwrap(), before);

    // What is damaged there is not removed: a changed byte is an error, and a stage that lost its manifest is made here.
    fs::write(known.dir.join("below/model"), "weighty").unwrap();
    let error = store.is_sound(&model(8)).unwrap_err().to_string();
    assert!(error.contains("remove this directory") && known.dir.exists(), "{error}");
    fs::remove_file(known.dir.join(MANIFEST)).unwrap();
    assert!(store.roots().dir("work", &model(8).key).starts_with(&own), "where those that read it look");
    assert!(run(&store, &model(8)).unwrap().0.dir.starts_with(&own));
    let alone = roots(&dir.path().join("absent"));
    assert!(matches!(alone.state("work", &model(10).key), State::Done(_)));
}

#[test]
fn processes_of_a_submission_run_a_stage_once_and_keep_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots::new(dir.path(), None);
    let shared = |submission: &str| Store::open_shared(&roots, "flex", submission).unwrap();
    let (one, other) = (shared("a"), shared("a"));
    assert!(Store::open(&roots, "flex").unwrap_err().to_string().contains("another process is running this sweep"));
    let runs = Arc::new(AtomicUsize::new(0));
    let slow = || {
        let runs = Arc::clone(&runs);
        node(8, move |out| {
            runs.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(300));
            write_model(out)
        })
    };
    std::thread::scope(|scope| {
        let done = [&one, &other].map(|store| scope.spawn(|| run(store, &slow()).unwrap().1));
        let fresh: Vec<bool> = done.into_iter().map(|done| done.join().unwrap()).collect();
        assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), 1);
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 1, "no lock is left");
    drop((one, other));
    let alone = open(&dir);
    assert!(Store::open_shared(&roots, "flex", "a").is_err());
    drop(alone);
}

#[test]
fn a_stage_that_failed_is_tried_once_in_a_submission() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots::new(dir.path(), None);
    let shared = |submission: &str| Store::open_shared(&roots, "flex", submission).unwrap();
    assert!(run(&shared("a"), &failing(8, "no luck")).unwrap_err().to_string().contains("rank 8"));
    let again = run(&shared("a"), &model(8)).unwrap_err();
    assert!(with_causes(&again).contains("no luck"), "{again:#}");
    assert!(run(&shared("b"), &model(8)).unwrap().1, "the next submission tries it");
}

#[test]
fn a_stage_that_another_process_took_over_is_not_finished_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_shared(&Roots::new(dir.path(), None), "flex", "a").unwrap();
    let overtaken = node(8, |out| {
        let lock = out.with_extension("lock");
        fs::write(lock, r#"{"host":"elsewhere","process":1,"taken":1,"beats":0}"#).unwrap();
        write_model(out)
    });
    let error = with_causes(&run(&store, &overtaken).unwrap_err());
    assert!(error.contains("another process has taken this stage over"), "{error}");
    assert_eq!(store.state(&overtaken), State::Partly);
    assert!(!error_file(&dir, &overtaken).exists(), "the other process may succeed");
}
