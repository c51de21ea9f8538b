//! What there is of a sweep: how far its cells have come, and the errors of those that failed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::Sweep;
use crate::graph::{CellStages, Graph};
use crate::record::cell_file;
use crate::roots::{Roots, State};

/// How far a cell has come, over all its seeds, variants and methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellState {
    /// Every stage is there.
    Done,
    /// Some of its stages are there, or begun: so many of so many.
    Partly(usize, usize),
    /// None of its own stages is there.
    Missing,
    /// Its last run failed, with these errors.
    Failed(Vec<String>),
}

impl fmt::Display for CellState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Partly(..) => "partly",
            Self::Missing => "missing",
            Self::Failed(_) => "failed",
        })
    }
}

/// The state of every stage of a graph, in its order.
#[must_use]
pub fn states(graph: &Graph, roots: &Roots) -> Vec<State> {
    graph.nodes.iter().map(|node| roots.state(node.kind, &node.key)).collect()
}

/// The state of every cell of a graph, by its number.
#[must_use]
pub fn cells(sweep: &Sweep, graph: &Graph, states: &[State], results: &Path) -> BTreeMap<usize, CellState> {
    let all = sweep.cells();
    let of = |(&index, cell): (&usize, &CellStages)| {
        (index, cell_state(cell, graph, states, failures(results, &all[index].path())))
    };
    graph.cells.iter().map(of).collect()
}

fn cell_state(cell: &CellStages, graph: &Graph, states: &[State], mut failures: Vec<String>) -> CellState {
    let done = cell.stages.iter().filter(|&&node| matches!(states[node], State::Done(_))).count();
    if done == cell.stages.len() && cell.unknown.is_none() {
        return CellState::Done;
    }
    for &node in &cell.stages {
        if let (State::Failed(error), true) = (&states[node], failures.is_empty()) {
            failures.push(error.clone());
        }
    }
    if !failures.is_empty() {
        return CellState::Failed(failures);
    }
    // The models that cells share do not make a cell begun.
    let own = cell.stages.iter().filter(|node| !graph.models.contains(node));
    let is_begun = |&&node: &&usize| matches!(states[node], State::Done(_) | State::Partly);
    if own.filter(is_begun).count() > 0 { CellState::Partly(done, cell.stages.len()) } else { CellState::Missing }
}

/// How many cells there are of each state, in words.
#[must_use]
pub fn counts(cells: &BTreeMap<usize, CellState>) -> String {
    let count = |name: &str| cells.values().filter(|state| state.to_string() == name).count();
    let states = ["done", "partly", "missing", "failed"].map(|name| format!("{} {name}", count(name)));
    format!("{} cells: {}", cells.len(), states.join(", "))
}

/// How many cells are done, what is begun, and the errors of those that failed.
#[must_use]
pub fn text(sweep: &Sweep, graph: &Graph, cells: &BTreeMap<usize, CellState>, results: &Path) -> String {
    let all = sweep.cells();
    let mut text = format!("{}: {}\n", sweep.name, counts(cells));
    for (index, state) in cells {
        let path = all[*index].path();
        match state {
            CellState::Failed(errors) => errors.iter().for_each(|error| text += &format!("failed  {path}: {error}\n")),
            CellState::Partly(done, of) => text += &format!("partly  {path}: {done} of {of} stages\n"),
            CellState::Done | CellState::Missing => {}
        }
    }
    text += &reasons(sweep, graph);
    text += &outdated(sweep, cells, results);
    if cells.values().any(|state| *state != CellState::Done) {
        text += "`experiments run` does what is left\n";
    }
    text
}

/// Which cells have records although their stages are not all there: a setting may have changed since, and then the tables
/// mix old and new.
#[must_use]
pub fn outdated(sweep: &Sweep, cells: &BTreeMap<usize, CellState>, results: &Path) -> String {
    let all = sweep.cells();
    let is_open = |state: &CellState| matches!(state, CellState::Partly(..) | CellState::Missing);
    let paths = cells.iter().filter(|(_, state)| is_open(state)).map(|(&index, _)| all[index].path());
    let old: Vec<String> = paths.filter(|path| cell_file(&results.join("records"), path).exists()).collect();
    let Some(first) = old.first() else { return String::new() };
    let others = if old.len() > 1 { format!(" and {} more", old.len() - 1) } else { String::new() };
    format!("records without all of their stages, perhaps of earlier settings: {first}{others}\n")
}

/// Why the stages of some cells are not all known, each reason once.
#[must_use]
pub fn reasons(sweep: &Sweep, graph: &Graph) -> String {
    let all = sweep.cells();
    let mut by_reason = BTreeMap::<&str, Vec<String>>::new();
    for (index, cell) in &graph.cells {
        if let Some(reason) = &cell.unknown {
            by_reason.entry(reason).or_default().push(all[*index].path());
        }
    }
    let line = |(reason, paths): (&str, Vec<String>)| {
        let others = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
        format!("stages not all known of {}{others}: {reason}\n", paths[0])
    };
    by_reason.into_iter().map(line).collect()
}

/// The record of a cell's failure.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    cell: String,
    errors: Vec<String>,
}

fn failure_file(results: &Path, cell: &str) -> PathBuf {
    results.join("failed").join(format!("{}.json", cell.replace('/', "~")))
}

fn failures(results: &Path, cell: &str) -> Vec<String> {
    let file = failure_file(results, cell);
    match files::read_json::<Failure>(&file) {
        Ok(failure) => failure.errors,
        Err(_) if !file.exists() => Vec::new(),
        Err(error) => vec![error.to_string()],
    }
}

/// Records why a cell failed, every error of it; removes the record of one that did not.
///
/// # Errors
/// When the record cannot be written or removed.
pub fn record_failure(results: &Path, cell: &str, errors: &[String]) -> Result<()> {
    let file = failure_file(results, cell);
    if errors.is_empty() {
        return Ok(files::remove(&file)?);
    }
    Ok(files::write_json(&file, &Failure { cell: cell.to_owned(), errors: errors.to_vec() })?)
}
