//! The command line: a sweep file and what is done with it.
//!
//! What a sweep does is in the sweep file, so that a result can be run again from it alone.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use realign::{DeviceName, at_least_one};

/// Runs a sweep: every model, task and harmful count of a YAML file, and the tables and figures.
///
/// A stage whose settings and inputs have not changed is not run again; a run that was stopped
/// goes on where it was. `experiments SWEEP` is `experiments run SWEEP`.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What is done.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The words of a command line, the program's name first; a sweep in place of a command is run.
    #[must_use]
    pub fn with_run(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        let known = |word: &OsString| {
            word.to_str().is_some_and(|word| {
                word.starts_with('-') || word == "help" || Self::command().find_subcommand(word).is_some()
            })
        };
        if words.get(1).is_some_and(|word| !known(word)) {
            words.insert(1, "run".into());
        }
        words
    }
}

/// What is done with a sweep.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cells that are not done.
    Run(RunArgs),
    /// Show the cells with their state, and what the rest takes in time, memory and disk.
    Plan(PlanArgs),
    /// Show how many cells are done, the errors of those that failed, and the states of the jobs on a cluster.
    Status(SweepArgs),
    /// Submit the cells that are not done to a Slurm cluster: the stages that several cells read, then an array of cells,
    /// then the tables. The directory of results and this program must be where all of its machines see them.
    Slurm(SlurmArgs),
    /// Cancel the jobs that were submitted last.
    Cancel(SweepArgs),
    /// Make the tables again, from the records alone.
    Tables(SweepArgs),
    /// Draw the figures again, from the records alone.
    Figures(SweepArgs),
}

/// A sweep and its results.
#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// The sweep file, looked up beside the current directory and then in `experiments/`.
    #[arg(required = true)]
    pub sweep: PathBuf,
    /// Directory of the results and of the stages that lead to them [default: the sweep's name under results/runs/ of the
    /// repository].
    ///
    /// Without it a sweep with a `base` shares the base's stages, under the base's name in results/runs/. With it new
    /// stages go into the directory; finished ones of the base are still read from where they are in results/runs/,
    /// and nothing is written there.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What a plan is made of.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The sweep.
    #[command(flatten)]
    pub sweep: SweepArgs,
    /// Only cells that fit this glob over `model/task/count`; may be given more than once.
    #[arg(long, value_name = "PATTERN")]
    pub cells: Vec<String>,
}

/// What a run is given.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The sweep and its cells.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Cells in progress at a time; they share the processor's threads, and each needs its own memory [default: the sweep's
    /// `jobs`, or 1].
    ///
    /// With `auto` one a thread where all models have fewer than 10 million parameters, which leave threads idle, as far as the
    /// free memory allows; else one, and on a graphics processor one.
    #[arg(long, value_name = "N|auto", value_parser = jobs)]
    pub jobs: Option<Jobs>,
    /// Where the tensors are computed.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceName,
    /// Share the directory of results with other processes that have the same name here: each stage is held by one at a
    /// time, one that failed under this name is not tried again, and `tables` and `figures` are left to be run.
    #[arg(long, value_name = "NAME")]
    pub submission: Option<String>,
    /// Run one stage alone, with what it reads: `kind/key`, as it is in the directory of results.
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
}

/// Cells in progress at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jobs {
    /// As many as suit the models and the machine.
    Auto,
    /// So many.
    Number(usize),
}

fn jobs(text: &str) -> Result<Jobs, String> {
    if text == "auto" { Ok(Jobs::Auto) } else { at_least_one(text).map(Jobs::Number) }
}

/// What a submission is given. Slurm reads its own SBATCH_ variables beside it, such as SBATCH_ACCOUNT.
#[derive(Debug, Clone, Args)]
pub struct SlurmArgs {
    /// The sweep and its cells.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Where the tensors are computed.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceName,
    /// Partition of the cluster [default: the cluster's].
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Time limit of a task, as sbatch has it [default: three times what `plan` expects, or the partition's].
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Memory of a task, as sbatch has it [default: what `plan` expects].
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,
    /// Graphics processors of a task [default: 1, or 0 with --device flex].
    #[arg(long, value_name = "N")]
    pub gpus: Option<usize>,
    /// Processors of a task.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub cpus: usize,
    /// Print the scripts, and write and submit nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(Cli::with_run(line.split(' ').map(OsString::from))).unwrap()
    }

    #[test]
    fn a_sweep_alone_is_run() {
        let cli = parse("experiments sweep.yaml --cells a/*/0 --cells b/*/0 --jobs 2");
        let Command::Run(args) = cli.command else { panic!("{:?} is no run", cli.command) };
        assert_eq!((args.plan.sweep.sweep, args.jobs), ("sweep.yaml".into(), Some(Jobs::Number(2))));
        assert_eq!(args.plan.cells, ["a/*/0", "b/*/0"]);
        assert!(matches!(parse("experiments run sweep.yaml").command, Command::Run(args) if args.jobs.is_none()));
        let auto = parse("experiments run sweep.yaml --jobs auto").command;
        assert!(matches!(auto, Command::Run(args) if args.jobs == Some(Jobs::Auto)));
        let error = Cli::try_parse_from(["experiments", "run", "sweep.yaml", "--jobs", "0"]).unwrap_err().to_string();
        assert!(error.contains("--jobs") && error.contains("at least 1"), "{error}");
    }

    #[test]
    fn the_other_commands_take_a_sweep() {
        for name in ["plan", "status", "slurm", "cancel", "tables", "figures"] {
            let command = parse(&format!("experiments {name} sweep.yaml --out dir")).command;
            assert!(!matches!(command, Command::Run(_)), "{name}");
            assert!(Cli::try_parse_from(["experiments", name]).is_err(), "{name}");
        }
        assert!(Cli::try_parse_from(["experiments"]).is_err());
    }
}
