//! A job's script: options for `sbatch`, and one command for each task of the array.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use realign::DeviceName;

use super::jobs::{Job, Work};
use crate::cli::SlurmArgs;
use crate::config::Sweep;

/// What the scripts of a submission share.
pub(super) struct Setting<'a> {
    args: &'a SlurmArgs,
    name: &'a str,
    dir: &'a Path,
    program: PathBuf,
    sweep: PathBuf,
    out: Option<PathBuf>,
    /// Tasks that an array may have.
    most_tasks: usize,
}

impl<'a> Setting<'a> {
    pub fn new(args: &'a SlurmArgs, sweep: &Sweep, name: &'a str, dir: &'a Path, most_tasks: usize) -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let absolute =
            |path: &Path| std::path::absolute(path).with_context(|| format!("cannot tell where {} is", path.display()));
        let out = args.plan.sweep.out.as_deref().map(absolute).transpose()?;
        Ok(Self { args, name, dir, program, sweep: absolute(sweep.file())?, out, most_tasks })
    }

    /// # Errors
    /// When a path has several lines: an option ends with its line.
    pub fn script(&self, job: &Job) -> Result<String> {
        let mut script = String::from("#!/bin/bash\n");
        for (name, value) in self.options(job) {
            ensure!(!value.contains(['\n', '"']), "--{name}: {value:?} cannot be in a script for Slurm");
            let value = if value.contains(' ') { format!("\"{value}\"") } else { value };
            script += &format!("#SBATCH --{name}={value}\n");
        }
        script += "#SBATCH --requeue\n";
        script += "set -eu\nexport RAYON_NUM_THREADS=\"$SLURM_CPUS_PER_TASK\"\n";
        let on = self.sweep_and_out();
        let program = quoted(&self.program);
        if job.work == Work::Tables {
            job.tasks.iter().for_each(|word| script += &format!("{program} {word} {on}\n"));
            return Ok(script);
        }
        script += "tasks=(\n";
        job.tasks.iter().for_each(|task| script += &format!("{}\n", quoted(Path::new(task))));
        let word = if job.work == Work::Stages { "stage" } else { "cells" };
        // Stages are looked up among those of the cells that were chosen.
        let patterns = if job.work == Work::Stages { &*self.args.plan.cells } else { &[] };
        let chosen: String = patterns.iter().map(|cells| format!(" --cells {}", quoted(Path::new(cells)))).collect();
        let run = |task: &str| {
            let (device, name) = (self.args.device.name(), quoted(Path::new(self.name)));
            format!(
                "{program} run {on} --device {device} --jobs 1 --submission {name}{chosen} --{word} \"${{tasks[{task}]}}\""
            )
        };
        let length = self.length(job);
        script += ")\n";
        script += &match length == job.tasks.len() {
            true => format!("exec {}\n", run("$SLURM_ARRAY_TASK_ID")),
            false => format!(
                "failed=0\nfor ((task = SLURM_ARRAY_TASK_ID; task < ${{#tasks[@]}}; task += {length})); do\n  {} || failed=1\ndone\nexit $failed\n",
                run("$task")
            ),
        };
        Ok(script)
    }

    /// Tasks of a job's array, each with as many of the job's as are needed: a cluster bounds an array's length.
    fn length(&self, job: &Job) -> usize {
        job.tasks.len().div_ceil(self.rounds(job))
    }

    /// Tasks of a job that one of its array does, at most.
    fn rounds(&self, job: &Job) -> usize {
        job.tasks.len().div_ceil(self.most_tasks).max(1)
    }

    fn sweep_and_out(&self) -> String {
        let out = self.out.as_ref().map(|out| format!(" --out {}", quoted(out)));
        quoted(&self.sweep) + &out.unwrap_or_default()
    }

    fn options(&self, job: &Job) -> Vec<(&'static str, String)> {
        let args = self.args;
        let is_array = job.work != Work::Tables;
        // `%` begins a pattern in the name of a log.
        let log = self.dir.join(&job.name).display().to_string().replace('%', "%%");
        let mut options = vec![
            ("job-name", format!("{} {}", self.name, job.name)),
            ("output", format!("{log}{}.log", if is_array { "-%a" } else { "" })),
            ("open-mode", "append".to_owned()),
            ("cpus-per-task", args.cpus.to_string()),
            ("mem", args.mem.clone().unwrap_or_else(|| format!("{}M", job.megabytes))),
        ];
        if is_array {
            options.push(("array", format!("0-{}", self.length(job).saturating_sub(1))));
            let gpus = args.gpus.unwrap_or(usize::from(args.device != DeviceName::Flex));
            options.extend((gpus > 0).then(|| ("gres", format!("gpu:{gpus}"))));
        }
        let minutes = |minutes: u64| minutes.saturating_mul(self.rounds(job) as u64).to_string();
        let time = args.time.clone().or_else(|| job.minutes.map(minutes));
        options.extend(time.map(|time| ("time", time)));
        options.extend(args.partition.clone().map(|partition| ("partition", partition)));
        options
    }
}

/// A word for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
