//! Which jobs a sweep's missing cells are, and what each of their tasks takes.

use std::collections::BTreeMap;

use glob::Pattern;

use crate::config::Sweep;
use crate::graph::Graph;
use crate::plan;
use crate::roots::State;
use crate::status::CellState;

/// An array of tasks.
#[derive(Debug, PartialEq)]
pub(super) struct Job {
    /// Of its script.
    pub name: String,
    pub work: Work,
    /// What `experiments` is given for each task.
    pub tasks: Vec<String>,
    /// Of memory, for a task.
    pub megabytes: u64,
    /// For a task; nothing when a kind of stage was never run.
    pub minutes: Option<u64>,
}

/// What the tasks of a job do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A stage each, which several cells read.
    Stages,
    /// A cell each.
    Cells,
    /// The tables and figures.
    Tables,
}

/// Of memory that a process takes beside the weights.
const MEGABYTES: u64 = 1024;

/// The estimate of a task's time is rough: what it is multiplied with, and what is added.
const TIMES: f64 = 3.0;
const MINUTES: u64 = 10;

/// The jobs in order; none when every cell is done. The stages that several cells read come first, and of these each job has
/// those that read stages of the jobs before it alone, so that no task waits for another one of its job.
pub(super) fn jobs(sweep: &Sweep, graph: &Graph, states: &[State], cells: &BTreeMap<usize, CellState>) -> Vec<Job> {
    let missing: Vec<usize> =
        cells.iter().filter(|(_, state)| **state != CellState::Done).map(|(&index, _)| index).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let is_left = |node: usize| !matches!(states[node], State::Done(_));
    let mut dependents = vec![0usize; graph.nodes.len()];
    for cell in &missing {
        graph.cells[cell].stages.iter().filter(|&&node| is_left(node)).for_each(|&node| dependents[node] += 1);
    }
    let megabytes = MEGABYTES + plan::memory(sweep, &missing.iter().copied().collect()).div_ceil(1 << 20);
    let means = plan::means(graph, states);
    let minutes = |tasks: &[Vec<usize>]| {
        let seconds = |task: &Vec<usize>| -> Option<f64> {
            let mean = |&node: &usize| match graph.nodes[node].kind {
                "divergence" => means.get("divergence").or(means.get("evaluate")), // which earlier runs do not know
                kind => means.get(kind),
            };
            task.iter().map(mean).sum::<Option<f64>>()
        };
        let longest = tasks.iter().map(seconds).collect::<Option<Vec<f64>>>()?.into_iter().fold(0.0, f64::max);
        Some(MINUTES + (TIMES * longest / 60.0).ceil() as u64)
    };

    let mut jobs = Vec::new();
    for (at, nodes) in levels(graph, &dependents).into_iter().enumerate() {
        let task = |&node: &usize| format!("{}/{}", graph.nodes[node].kind, graph.nodes[node].key);
        let own: Vec<Vec<usize>> = nodes.iter().map(|&node| vec![node]).collect();
        jobs.push(Job {
            name: format!("shared-{}", at + 1),
            work: Work::Stages,
            tasks: nodes.iter().map(task).collect(),
            megabytes,
            minutes: minutes(&own),
        });
    }
    let all = sweep.cells();
    let own = |cell: &usize| graph.cells[cell].stages.iter().copied().filter(|&node| dependents[node] == 1).collect();
    jobs.push(Job {
        name: "cells".to_owned(),
        work: Work::Cells,
        tasks: missing.iter().map(|&cell| Pattern::escape(&all[cell].path())).collect(),
        megabytes,
        minutes: minutes(&missing.iter().map(own).collect::<Vec<_>>()),
    });
    let tasks = ["tables", "figures"].map(str::to_owned).to_vec();
    jobs.push(Job {
        name: "tables".to_owned(),
        work: Work::Tables,
        tasks,
        megabytes: MEGABYTES,
        minutes: Some(MINUTES),
    });
    jobs
}

/// The stages with several dependents, each after those that it reads.
fn levels(graph: &Graph, dependents: &[usize]) -> Vec<Vec<usize>> {
    let mut level = vec![0usize; graph.nodes.len()]; // 0: has not several dependents
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for node in (0..graph.nodes.len()).filter(|&node| dependents[node] > 1) {
        level[node] = 1 + graph.nodes[node].parents.iter().map(|&parent| level[parent]).max().unwrap_or(0);
        levels.resize_with(levels.len().max(level[node]), Vec::new);
        levels[level[node] - 1].push(node);
    }
    levels
}
