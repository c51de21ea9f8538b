//! Sweeps on a cluster whose programs are stand-ins that run a job as soon as it is submitted; `scripts/slurm.sh` has the real
//! ones.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use common::{Bench, SWEEP, text, timeless};

/// Runs the tasks of a script at once, notes its arguments, and gives each job a number.
const SBATCH: &str = r#"
echo "sbatch $*" >> "$SLURM_LOG"
script=${@: -1}
[ ! -e "$SLURM_LOG.refuse" ] || { echo "no such partition" >&2; exit 1; }
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
for ((task = 0; task <= ${last:-0}; task++)); do
  SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=1 bash "$script" >> "$SLURM_LOG.said" 2>&1 || echo "task $task failed" >> "$SLURM_LOG"
done
grep -c ^sbatch "$SLURM_LOG"
"#;

struct Cluster {
    bench: Bench,
}

impl Cluster {
    fn new(sweep: &str) -> Self {
        let bench = Bench::new();
        bench.sweep("sweep.yaml", sweep);
        let cluster = Self { bench };
        fs::create_dir(cluster.bench.path("bin")).unwrap();
        cluster.program("sbatch", SBATCH);
        cluster.program("squeue", "cat \"$SLURM_LOG.queue\" 2>/dev/null || true");
        cluster.program("sacct", "echo 'accounting is disabled' >&2; exit 1");
        cluster.program("scancel", "echo \"scancel $*\" >> \"$SLURM_LOG\"");
        cluster
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.bench.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, word: &str) -> Command {
        let mut command = self.bench.command(word, "sweep.yaml", &self.bench.results());
        let path = format!("{}:{}", self.bench.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("SLURM_LOG", self.bench.path("log"));
        command
    }

    fn run(&self, word: &str) -> Output {
        self.command(word).output().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.path("log")).unwrap_or_default()
    }
}

fn sweep() -> String {
    SWEEP.replace("[2]", "[0, 2]") + "methods: [aligned, fine_tuned, recover]\n"
}

#[test]
fn the_results_are_those_of_a_run() {
    let cluster = Cluster::new(&sweep());
    let out = text(&cluster.run("slurm"));
    assert!(out.contains("2 missing") && out.contains("(cells): 2 tasks"), "{out}");
    let log = cluster.log();
    let lines: Vec<&str> = log.lines().collect();
    assert!(!log.contains("failed"), "{log}\n{}", fs::read_to_string(cluster.bench.path("log.said")).unwrap());
    // Aligned model; its answers, which both cells have; cells; tables.
    assert_eq!(lines.len(), 4, "{log}");
    assert!(!lines[0].contains("--dependency"), "{log}");
    assert!(lines[1].contains("--dependency=afterany:1") && lines[1].contains("shared-2.sh"), "{log}");
    assert!(lines[2].contains("--dependency=afterany:2") && lines[2].contains("cells.sh"), "{log}");
    assert!(lines[3].contains("--dependency=afterany:3") && lines[3].contains("tables.sh"), "{log}");
    let shared = cluster.bench.records();
    let table = cluster.bench.csv("results.csv");
    assert!(cluster.bench.path("results/figures").exists());

    let alone = Bench::new();
    alone.run(&alone.sweep("sweep.yaml", &sweep()), 1).unwrap();
    assert_eq!(timeless(shared), timeless(alone.records()));
    assert_eq!(table.len(), alone.csv("results.csv").len());

    let out = text(&cluster.run("slurm"));
    assert!(out.contains("every cell is done"), "{out}");
    assert_eq!(cluster.log(), log, "nothing is submitted");
    let out = text(&cluster.run("status"));
    assert!(out.contains("slurm job 3 (cells): no longer in the queue"), "{out}");
}

#[test]
fn scripts_are_printed_with_what_was_asked_for_and_nothing_is_written() {
    let cluster = Cluster::new(&sweep());
    let mut command = cluster.command("slurm");
    command.args([
        "--dry-run",
        "--partition",
        "gpu",
        "--time",
        "1:00:00",
        "--gpus",
        "1",
        "--cpus",
        "4",
        "--cells",
        "small/*/2",
    ]);
    let out = text(&command.output().unwrap());
    // One cell shares nothing.
    for part in [
        "#SBATCH --array=0-0\n",
        "#SBATCH --partition=gpu\n",
        "#SBATCH --time=1:00:00\n",
        "#SBATCH --gres=gpu:1\n",
        "#SBATCH --cpus-per-task=4\n",
        "#SBATCH --requeue\n",
        "'small/sql/2'\n",
        "cells.sh\n",
        "tables.sh, after cells\n",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    assert!(!out.contains("shared-1"), "{out}");
    assert!(!cluster.bench.results().exists() && cluster.log().is_empty());
}

#[test]
fn an_array_that_is_too_long_for_the_cluster_has_several_cells_in_a_task() {
    let cluster = Cluster::new(&sweep());
    cluster.program("scontrol", "echo 'MaxArraySize            = 1'");
    text(&cluster.run("slurm"));
    let script = fs::read_to_string(cluster.bench.path("results/slurm/tiny-1/cells.sh")).unwrap();
    assert!(script.contains("#SBATCH --array=0-0\n") && script.contains("task += 1"), "{script}");
    assert!(!cluster.log().contains("failed"), "{}", cluster.log());
    let out = text(&cluster.run("status"));
    assert!(out.contains("2 done"), "{out}");
}

#[test]
fn a_sweep_is_submitted_once_and_can_be_cancelled() {
    let cluster = Cluster::new(&sweep());
    cluster.program("sbatch", "echo \"sbatch $*\" >> \"$SLURM_LOG\"; grep -c ^sbatch \"$SLURM_LOG\"");
    text(&cluster.run("slurm"));
    fs::write(cluster.bench.path("log.queue"), "3 RUNNING\n3 PENDING\n4 PENDING\n77 RUNNING\n").unwrap();
    let out = text(&cluster.run("status"));
    assert!(out.contains("slurm job 3 (cells): 1 pending, 1 running\n"), "{out}");
    let again = cluster.run("slurm");
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && error.contains("job 3 (cells) of tiny-1 has not ended"), "{error}");
    let out = text(&cluster.run("cancel"));
    assert!(out.contains("slurm job 3 (cells): cancelled"), "{out}");
    assert!(cluster.log().ends_with("scancel 1 2 3 4\n"), "{}", cluster.log());
}

#[test]
fn what_slurm_says_is_told() {
    let cluster = Cluster::new(&sweep());
    cluster.program(
        "sbatch",
        "[ ! -e \"$SLURM_LOG\" ] || { echo 'no such partition' >&2; exit 1; }; echo x > \"$SLURM_LOG\"; echo 12",
    );
    let refused = cluster.run("slurm");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("no such partition"), "{error}");
    assert!(cluster.log().ends_with("scancel 12\n"), "what was submitted before is cancelled: {}", cluster.log());
    let bench = Bench::new();
    bench.sweep("sweep.yaml", &sweep());
    let mut command = bench.command("slurm", "sweep.yaml", &bench.results());
    let error = command.env("PATH", "").output().unwrap();
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("cannot run sbatch"), "{error}");
    let mut command = bench.command("cancel", "sweep.yaml", &bench.path("other"));
    let error = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
    assert!(error.contains("no jobs were submitted"), "{error}");
}
