//! A side as a process: it says when it is ready, does a turn for each line it gets, and ends with its input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use model::Dtype;
use serde::{Deserialize, Serialize};

use crate::stage::Stage;

/// What a side says after a turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// Wall seconds.
    pub seconds: f64,
    /// What came out, in words, to see that both sides do the same work.
    pub word: String,
}

/// A running side.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    turns: Vec<Turn>,
}

/// The name of our sides, before their precision.
const OURS: &str = "realign";

/// A side that has ended.
#[derive(Debug)]
pub struct Side {
    /// Who it was.
    pub name: String,
    /// The turns that count.
    pub turns: Vec<Turn>,
    /// Largest resident memory in bytes, reading the models included.
    pub memory: u64,
}

impl Side {
    /// Whether it was this program.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(OURS)
    }
}

impl Child {
    /// This program.
    pub fn ours(stage: Stage, dtype: Dtype, plan: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([stage.word(), "--dtype", dtype.name(), "--plan"]).arg(plan);
        Self::start(format!("{OURS} {}", dtype.torch_name()), &mut command)
    }

    /// The script in `scripts/bench`.
    pub fn peer(python: &Path, stage: Stage, dtype: Dtype, plan: &Path) -> Result<Self> {
        let dtype = dtype.torch_name();
        let script = format!("scripts/bench/{}.py", stage.word().trim_end_matches(char::is_numeric));
        ensure!(Path::new(&script).exists(), "{script} is missing: run this in the repository's root");
        let mut command = Command::new(python);
        command.arg(script).arg(plan).args([stage.word(), dtype]).env("TOKENIZERS_PARALLELISM", "false");
        Self::start(format!("PyTorch {dtype}"), &mut command)
    }

    fn start(name: String, command: &mut Command) -> Result<Self> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.with_context(|| format!("{:?} cannot be started", command.get_program()))?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        let mut child = Self { name, process, input, output, turns: Vec::new() };
        ensure!(child.line()?.trim() == "ready", "{} is not ready", child.name);
        Ok(child)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{} ended; its message is above", self.name);
        Ok(line)
    }

    /// One turn.
    pub fn turn(&mut self, counts: bool) -> Result<()> {
        writeln!(self.input, "go")?;
        let turn = serde_json::from_str(&self.line()?)?;
        if counts {
            self.turns.push(turn);
        }
        // Threads of the other side may still wait actively for more work.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(())
    }

    /// Reads the peak memory and lets the process end.
    pub fn end(mut self) -> Result<Side> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse()?;
        drop(self.input);
        ensure!(self.process.wait()?.success(), "{} failed; its message is above", self.name);
        Ok(Side { name: self.name, turns: self.turns, memory: 1024 * kilobytes })
    }
}
