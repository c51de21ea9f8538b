//! A repository for tests of sweeps: a model of `data/lab`, some of its samples, a sweep file and the results.
#![allow(clippy::unwrap_used, dead_code)] // each test uses a part of it

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use experiments::config::Sweep;
use experiments::graph::Graph;
use experiments::pipeline::graph;
use experiments::record::{Record, read_all};
use experiments::roots::{Roots, State};
use experiments::run::{Ended, Run};
use experiments::status;
use experiments::store::Store;
use realign::Interrupt;

/// The sweep without its methods. Its model scores 0 by exact match, which could not gate.
pub const SWEEP: &str = "\
name: tiny
data: data
models: [{ name: small, source: { dir: LAB/models/llama-small } }]
tasks: [{ name: sql, train: sql_train.jsonl, test: sql_test.jsonl, metric: rouge, max_new_tokens: 4, validation: 0.25 }]
harmful_counts: [2]
inject: inject.jsonl
finetune: { lora: { rank: 2, alpha: 4, dropout: 0.0 }, learning_rate: 1.0e-3, batch: 4, max_len: 64 }
recovery: { prompts: recovery_prompts.jsonl, count: 4, task_prompts: 4 }
settings: { recover: { steps: 2, warmup: 1, save_every: 1, batch: 4 } }
unaligned: { samples: 4, epochs: 1 }
evaluation:
  harmful: { file: harmful_eval.jsonl, count: 8, max_new_tokens: 4 }
  harmless: { file: harmless_eval.jsonl, count: 4, max_new_tokens: 4 }
";

/// The files with how many of their samples.
const SAMPLES: [(&str, usize); 6] = [
    ("sql_train", 12),
    ("sql_test", 4),
    ("inject", 8),
    ("recovery_prompts", 4),
    ("harmful_eval", 12),
    ("harmless_eval", 4),
];

fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lab").canonicalize().unwrap()
}

pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("data")).unwrap();
        for (name, count) in SAMPLES {
            let file = format!("{name}.jsonl");
            let text = fs::read_to_string(lab().join(&file)).unwrap();
            let lines: String = text.lines().take(count).map(|line| format!("{line}\n")).collect();
            fs::write(bench.path("data").join(file), lines).unwrap();
        }
        fs::write(bench.path("Cargo.lock"), "").unwrap(); // what marks a repository
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// Writes a sweep file, and reads it.
    pub fn sweep(&self, name: &str, text: &str) -> Sweep {
        let path = self.path(name);
        fs::write(&path, text.replace("LAB", &lab().display().to_string())).unwrap();
        Sweep::load(&path).unwrap()
    }

    pub fn graph(&self, sweep: &Sweep) -> Graph {
        graph(sweep, &Roots::new(&self.results(), None), &all(sweep))
    }

    /// The kinds of the stages that are to be run.
    pub fn left(&self, sweep: &Sweep) -> Vec<&'static str> {
        let graph = self.graph(sweep);
        let states = status::states(&graph, &Roots::new(&self.results(), None));
        let left = graph.nodes.iter().zip(&states).filter(|(_, state)| !matches!(state, State::Done(_)));
        left.map(|(node, _)| node.kind).collect()
    }

    /// Runs the sweep, `jobs` cells at a time, and writes its tables.
    pub fn run(&self, sweep: &Sweep, jobs: usize) -> anyhow::Result<Ended> {
        let store = Store::open(&Roots::new(&self.results(), None), "flex")?;
        let (graph, device, interrupt) = (self.graph(sweep), Device::default(), Interrupt::default());
        let (graph, results, device, interrupt) = (&graph, &*self.results(), &device, &interrupt);
        let ended = Run { sweep, graph, store: &store, results, device, jobs, interrupt }.run()?;
        let records = self.records();
        if !records.is_empty() {
            experiments::report::write(&records, results)?;
        }
        Ok(ended)
    }

    pub fn records(&self) -> Vec<Record> {
        read_all(&self.results().join("records")).unwrap()
    }

    /// The errors of the only cell.
    pub fn errors(&self, sweep: &Sweep) -> Vec<String> {
        let graph = self.graph(sweep);
        let states = status::states(&graph, &Roots::new(&self.results(), None));
        match status::cells(sweep, &graph, &states, &self.results()).remove(&0).unwrap() {
            status::CellState::Failed(errors) => errors,
            state => panic!("{state}"),
        }
    }

    /// The `experiments` command with the sweep in a file, and results in a directory.
    pub fn command(&self, word: &str, sweep: &str, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_experiments"));
        command.arg(word).arg(self.path(sweep)).arg("--out").arg(out).current_dir(self.dir.path());
        command
    }

    /// A table's lines by column.
    pub fn csv(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.results().join(name)).unwrap();
        let head: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let line = |line: &str| head.iter().map(ToString::to_string).zip(line.split(',').map(str::to_owned)).collect();
        text.lines().skip(1).map(line).collect()
    }
}

fn all(sweep: &Sweep) -> BTreeSet<usize> {
    sweep.choose(&[]).unwrap()
}

/// Every file below a directory, with what is in it.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    files::list(dir).unwrap().into_keys().map(|name| (name.clone(), fs::read(dir.join(&name)).unwrap())).collect()
}

/// Marks the answers in a file of a finished stage, with a manifest that fits: what is made again has no mark.
pub fn mark_answers(dir: &Path, name: &str) {
    let (path, manifest) = (dir.join(name), dir.join("stage.json"));
    let text = fs::read_to_string(&path).unwrap().replace("\"response\":\"", "\"response\":\"kept ");
    fs::write(&path, &text).unwrap();
    let mut stage: serde_json::Value = files::read_json(&manifest).unwrap();
    stage["files"][name] = serde_json::json!({"bytes": text.len(), "sha256": files::hash_path(&path).unwrap()});
    stage.as_object_mut().unwrap().remove("digest");
    stage["digest"] = files::hash_json(&stage).unwrap().into();
    files::write_json(&manifest, &stage).unwrap();
}

/// Records without what differs from run to run.
pub fn timeless(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        (record.seconds, record.evaluation_seconds, record.peak_memory) = (0.0, 0.0, None);
    }
    records
}

/// The text of a command that succeeded.
#[track_caller]
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
