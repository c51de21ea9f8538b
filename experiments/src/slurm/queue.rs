//! Slurm's own programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What a program of Slurm prints.
///
/// # Errors
/// When it is not there or fails; the message has what it says.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}: is this a machine of a Slurm cluster?"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Submits a script, to begin when another job has ended; gives back the job's number.
pub(super) fn submit(script: &Path, after: Option<u64>) -> Result<u64> {
    let script = script.display().to_string();
    let after = after.map(|id| format!("--dependency=afterany:{id}"));
    let arguments: Vec<&str> = ["--parsable"].into_iter().chain(after.as_deref()).chain([script.as_str()]).collect();
    let said = output("sbatch", &arguments)
        .context("if that is too many jobs for this cluster, submit a part with --cells")?;
    // "number" or "number;cluster"
    let number = said.split(';').next().and_then(|number| number.parse().ok());
    number.with_context(|| format!("sbatch gave {said:?} and not a job's number"))
}

/// Tasks that an array may have; as many as there are where Slurm does not say.
pub(super) fn most_tasks() -> usize {
    let config = output("scontrol", &["show", "config"]).unwrap_or_default();
    of_config(&config).filter(|most| *most > 0).unwrap_or(usize::MAX)
}

fn of_config(config: &str) -> Option<usize> {
    let (_, value) =
        config.lines().filter_map(|line| line.split_once('=')).find(|line| line.0.trim() == "MaxArraySize")?;
    value.trim().parse().ok()
}

/// Cancels jobs; those that have ended are left.
pub(super) fn cancel(ids: &[u64]) -> Result<()> {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    output("scancel", &ids.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
}

/// How many tasks of each job are in which of Slurm's states, in its words.
#[derive(Debug, PartialEq)]
pub(super) struct Counts {
    open: BTreeMap<u64, BTreeMap<String, usize>>,
    ended: BTreeMap<u64, BTreeMap<String, usize>>,
    /// Whether it is known what came of those that have ended.
    accounted: bool,
}

impl Counts {
    pub fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    pub fn of(&self, id: u64) -> String {
        let both = [&self.open, &self.ended].into_iter().filter_map(|states| states.get(&id)).flatten();
        let states: Vec<String> = both.map(|(state, count)| format!("{count} {}", state.to_lowercase())).collect();
        match (states.is_empty(), self.accounted) {
            (false, _) => states.join(", "),
            (true, true) => "not known to Slurm".to_owned(),
            (true, false) => "no longer in the queue".to_owned(),
        }
    }
}

/// The states of jobs, from the queue and, of those that have left it, from the accounts where a cluster keeps them.
pub(super) fn counts(ids: &[u64]) -> Result<Counts> {
    let queue = output("squeue", &["--me", "--noheader", "--array", "--format=%F %T"])?;
    let open = tally(queue.lines().filter_map(|line| line.split_once(' ')).map(|(job, state)| (job, state, 1)), ids);
    let list = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let arguments = ["--noheader", "--allocations", "--parsable2", "--format=JobID,State", "--jobs", &list];
    let accounts = output("sacct", &arguments);
    let (accounted, accounts) = (accounts.is_ok(), accounts.unwrap_or_default());
    let ended = tally(accounts.lines().filter_map(of_accounts), ids);
    Ok(Counts { open, ended, accounted })
}

/// Job, state and number of tasks of a line such as `12_3|CANCELLED by 1000` or `12_[4-6,8]|CANCELLED`; nothing of one that
/// the queue has.
fn of_accounts(line: &str) -> Option<(&str, &str, usize)> {
    let (job, state) = line.split_once('|')?;
    let (job, tasks) = job.split_once('_').unwrap_or((job, ""));
    let state = state.split(' ').next().unwrap_or(state);
    let range = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    };
    let several = tasks.strip_prefix('[').map(|list| list.split(['%', ']']).next().unwrap_or(list));
    let count = several.map_or(Some(1), |list| list.split(',').map(range).sum())?;
    (!["PENDING", "RUNNING", "REQUEUED", "SUSPENDED"].contains(&state)).then_some((job, state, count))
}

fn tally<'a>(
    lines: impl Iterator<Item = (&'a str, &'a str, usize)>,
    ids: &[u64],
) -> BTreeMap<u64, BTreeMap<String, usize>> {
    let mut counts = BTreeMap::<u64, BTreeMap<String, usize>>::new();
    for (job, state, count) in lines {
        let id = job.trim().parse().ok().filter(|id| ids.contains(id));
        if let Some(id) = id {
            *counts.entry(id).or_default().entry(state.trim().to_owned()).or_default() += count;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_array_is_that_of_the_configuration() {
        let config = "Configuration data as of now\nMaxArraySize            = 1001\nMaxJobCount             = 10000\n";
        assert_eq!([of_config(config), of_config("nothing")], [Some(1001), None]);
    }

    #[test]
    fn tasks_are_counted_by_state() {
        let lines = [
            "7_0|COMPLETED",
            "7_1|FAILED",
            "7_2|CANCELLED by 1000",
            "7_[3-5,9%2]|CANCELLED",
            "7_6|RUNNING",
            "8|COMPLETED",
        ];
        let ended = tally(lines.into_iter().filter_map(of_accounts), &[7]);
        let open = tally([("7", "RUNNING", 1), ("9", "PENDING", 1)].into_iter(), &[7, 8]);
        let counts = Counts { open, ended, accounted: true };
        assert_eq!(counts.of(7), "1 running, 5 cancelled, 1 completed, 1 failed");
        assert!(counts.is_open(7) && !counts.is_open(8) && !counts.is_open(9));
        assert_eq!(counts.of(8), "not known to Slurm");
        assert_eq!(Counts { accounted: false, ..counts }.of(8), "no longer in the queue");
    }
}
