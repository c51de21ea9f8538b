//! A sweep on a Slurm cluster: the cells that are not done as one array job, after the stages that several of them read, and
//! before the tables. Slurm decides what runs where and when; the processes share the folder of results and hold stages one
//! by one (`store/hold.rs`).

mod jobs;
mod queue;
mod script;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::SlurmArgs;
use crate::config::Sweep;
use crate::graph::Graph;
use crate::roots::State;
use crate::status::CellState;
use jobs::Job;
use script::Setting;

/// What was submitted last, in the directory of results.
#[derive(Debug, Serialize, Deserialize)]
struct Submission {
    name: String,
    jobs: Vec<Submitted>,
}

/// A job that Slurm has.
#[derive(Debug, Serialize, Deserialize)]
struct Submitted {
    id: u64,
    name: String,
    tasks: usize,
}

impl Submission {
    fn file(results: &Path) -> PathBuf {
        results.join("slurm.json")
    }

    fn read(results: &Path) -> Result<Option<Self>> {
        let file = Self::file(results);
        if file.exists() { Ok(Some(files::read_json(&file)?)) } else { Ok(None) }
    }

    fn ids(&self) -> Vec<u64> {
        self.jobs.iter().map(|job| job.id).collect()
    }
}

/// The jobs of what is left of a sweep, as scripts for `sbatch`.
#[derive(Debug)]
pub struct Scripts {
    name: String,
    dir: PathBuf,
    jobs: Vec<(Job, String)>,
}

impl Scripts {
    /// Nothing is written or submitted.
    ///
    /// # Errors
    /// When a path of the command cannot be found out, or has several lines.
    pub fn new(
        args: &SlurmArgs,
        sweep: &Sweep,
        results: &Path,
        (graph, states, cells): (&Graph, &[State], &BTreeMap<usize, CellState>),
    ) -> Result<Self> {
        let results = std::path::absolute(results).context("the directory of results")?;
        let of = |number: usize| format!("{}-{number}", sweep.name);
        let free = (1..).map(of).find(|name| !results.join("slurm").join(name).exists());
        let name = free.unwrap_or_default();
        let dir = results.join("slurm").join(&name);
        let setting = Setting::new(args, sweep, &name, &dir, queue::most_tasks())?;
        let with_script = |job: Job| setting.script(&job).map(|script| (job, script));
        let jobs = jobs::jobs(sweep, graph, states, cells).into_iter().map(with_script).collect::<Result<_>>()?;
        Ok(Self { name, dir, jobs })
    }

    /// All of them, each under its file's name.
    #[must_use]
    pub fn text(&self) -> String {
        let job = |(at, (job, script)): (usize, &(Job, String))| {
            let after = if at > 0 { format!(", after {}", self.jobs[at - 1].0.name) } else { String::new() };
            format!("==> {}{after}\n{script}\n", self.file(job).display())
        };
        self.jobs.iter().enumerate().map(job).collect()
    }

    fn file(&self, job: &Job) -> PathBuf {
        self.dir.join(format!("{}.sh", job.name))
    }

    /// Submits them, each to begin when the one before it has ended, whatever came of it: what does not read a stage that
    /// failed goes on. Gives back what there is to say of it.
    ///
    /// # Errors
    /// When jobs of an earlier submission have not ended, a script cannot be written, or Slurm refuses one; those that were
    /// submitted before it are cancelled.
    pub fn submit(self, results: &Path) -> Result<String> {
        if let Some(earlier) = Submission::read(results)? {
            let counts = queue::counts(&earlier.ids())?;
            let open = earlier.jobs.iter().find(|job| counts.is_open(job.id));
            if let Some(job) = open {
                bail!(
                    "job {} ({}) of {} has not ended: wait, or `experiments cancel` it",
                    job.id,
                    job.name,
                    earlier.name
                );
            }
        }
        if self.jobs.is_empty() {
            return Ok("every cell is done\n".to_owned());
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let mut submission = Submission { name: self.name.clone(), jobs: Vec::new() };
        for (job, script) in &self.jobs {
            let file = self.file(job);
            let after = submission.jobs.last().map(|job| job.id);
            let written = files::write_whole(&file, script.as_bytes()).map_err(anyhow::Error::from);
            let recorded = written.and_then(|()| queue::submit(&file, after)).and_then(|id| {
                submission.jobs.push(Submitted { id, name: job.name.clone(), tasks: job.tasks.len() });
                Ok(files::write_json(&Submission::file(results), &submission)?)
            });
            if let Err(error) = recorded {
                if !submission.jobs.is_empty() {
                    queue::cancel(&submission.ids())?;
                }
                return Err(error);
            }
        }
        Ok(told(&submission, |job| format!("{} tasks", job.tasks))
            + &format!("scripts and logs: {}\n", self.dir.display()))
    }
}

/// A line for each job.
fn told(submission: &Submission, what: impl Fn(&Submitted) -> String) -> String {
    let line = |job: &Submitted| format!("slurm job {} ({}): {}\n", job.id, job.name, what(job));
    submission.jobs.iter().map(line).collect()
}

/// The states of the jobs of the last submission; nothing if there was none.
#[must_use]
pub fn status(results: &Path) -> String {
    let counted = |submission: Submission| {
        let counts = queue::counts(&submission.ids())?;
        Ok(told(&submission, |job| counts.of(job.id)))
    };
    match Submission::read(results).and_then(|submission| submission.map(counted).transpose()) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => format!("slurm: {}\n", crate::error::with_causes(&error)),
    }
}

/// Cancels the jobs of the last submission.
///
/// # Errors
/// When there was none, or Slurm refuses.
pub fn cancel(results: &Path) -> Result<String> {
    let submission = Submission::read(results)?;
    let submission = submission.with_context(|| format!("no jobs were submitted for {}", results.display()))?;
    ensure!(!submission.jobs.is_empty(), "no jobs were submitted for {}", results.display());
    queue::cancel(&submission.ids())?;
    Ok(told(&submission, |_| "cancelled; `experiments slurm` submits what is left".to_owned()))
}
