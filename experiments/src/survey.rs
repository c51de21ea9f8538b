//! What there is of a sweep: its cells with their state, the stages that are left, and the rows of what is finished.
//!
//! It goes through the pipeline with a store that only looks, so that it can never differ from what a run does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::row::ResultRow;
use crate::stages::SweepJudge;
use crate::store::look::{Seen, State};
use crate::store::{Roots, Stage, Store, remove_if_there, write_json};
use crate::sweep::{Cell, Sweep};

/// How far a cell has come, over all its seeds, variants and methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellState {
    /// Every stage is there.
    Done,
    /// Some of its stages are there, or begun.
    Partly,
    /// Nothing but what all cells share is there.
    Missing,
    /// Its last run failed, with this error.
    Failed(String),
}

impl fmt::Display for CellState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Partly => "partly",
            Self::Missing => "missing",
            Self::Failed(_) => "failed",
        })
    }
}

/// A cell as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct CellSurvey {
    /// Its number in [`Sweep::cells`].
    pub index: usize,
    /// `model/task/count`.
    pub path: String,
    /// Whether the sweep's `cells` has it; another is in no table unless it is asked for by name.
    pub own: bool,
    /// How far it has come.
    pub state: CellState,
    /// Its stages, those that it shares with an earlier cell left out: of all cells, or of those that were
    /// [selected](Survey::select).
    pub stages: Vec<Seen>,
    /// Its stages that an earlier cell has, too.
    pub shared: Vec<Seen>,
    /// Why not all of its stages can be told, as without a file.
    pub unknown: Option<String>,
    /// The rows of what is finished.
    pub rows: Vec<ResultRow>,
}

/// A sweep as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The stages of each model that its cells share, in the order of the sweep.
    pub models: Vec<Vec<Seen>>,
    /// The cells, in the order of the sweep.
    pub cells: Vec<CellSurvey>,
}

impl Survey {
    /// Looks at a sweep's kept stages, and at the failures recorded in `results`.
    #[must_use]
    pub fn of(sweep: &Sweep, stages: &Roots, results: &Path) -> Self {
        let (store, progress) = (Store::look(stages.clone()), Progress::quiet());
        // Nothing is computed: any device will do, and this one is always there.
        let device = Device::flex();
        let judges = SweepJudge::all(sweep);
        let pipeline = Pipeline { sweep, store: &store, judges: &judges, device: &device, progress: &progress };
        let mut known = BTreeSet::new();
        // What is asked for the first time, and what was asked for by another cell before.
        let mut asked = || {
            let mut here = BTreeSet::new();
            let once = store.take_seen().into_iter().filter(|stage| here.insert(stage.id()));
            let (shared, own): (Vec<Seen>, Vec<Seen>) = once.partition(|stage| known.contains(&stage.id()));
            known.extend(own.iter().map(Seen::id));
            (own, shared)
        };
        let mut survey = Self { models: Vec::new(), cells: Vec::new() };
        let cells = sweep.cells();
        let patterns: Vec<String> = sweep.cells.iter().cloned().collect();
        let own_cells = sweep.choose(&patterns).unwrap_or_default();
        for model in &sweep.models {
            let aligned: BTreeMap<u64, Result<Stage>> =
                sweep.model_seeds().into_iter().map(|seed| (seed, pipeline.aligned(model, seed))).collect();
            let (own, shared) = asked();
            survey.models.push([shared, own].concat());
            for (index, &cell) in cells.iter().enumerate().filter(|(_, cell)| cell.model.name == model.name) {
                let mut rows = Vec::new();
                let mut unknown = None;
                for seed in sweep.cell_seeds() {
                    let outcome = match &aligned[&sweep.model_seed(seed)] {
                        Ok(aligned) => pipeline.cell(cell, &sweep.resolved(seed), aligned, &mut rows),
                        Err(error) => Err(anyhow!("{error:#}")),
                    };
                    unknown = unknown.or(outcome.err().map(|error| format!("{error:#}")));
                }
                let (stages, shared) = asked();
                let state = state_of(&stages, &shared, unknown.is_some(), failure(results, cell));
                let (path, own) = (cell.path(), own_cells.contains(&index));
                survey.cells.push(CellSurvey { index, path, own, state, stages, shared, unknown, rows });
            }
        }
        survey.cells.sort_by_key(|cell| cell.index);
        survey
    }

    /// Some cells, by their numbers. A stage that was shared with a cell that is not among them is now the first one's own.
    #[must_use]
    pub fn select(&self, chosen: &BTreeSet<usize>) -> Vec<CellSurvey> {
        let mut cells: Vec<CellSurvey> =
            self.cells.iter().filter(|cell| chosen.contains(&cell.index)).cloned().collect();
        let mut known: BTreeSet<String> = self.models.iter().flatten().map(Seen::id).collect();
        for cell in &mut cells {
            let all = std::mem::take(&mut cell.shared).into_iter().chain(std::mem::take(&mut cell.stages));
            (cell.stages, cell.shared) = all.partition(|stage| known.insert(stage.id()));
        }
        cells
    }

    /// The rows of the sweep's own cells, cell by cell.
    #[must_use]
    pub fn rows(&self) -> Vec<ResultRow> {
        self.cells.iter().filter(|cell| cell.own).flat_map(|cell| cell.rows.clone()).collect()
    }

    /// The stages of some cells and of their models, each once.
    #[must_use]
    pub fn stages<'a>(&'a self, sweep: &Sweep, cells: &'a [CellSurvey]) -> Vec<&'a Seen> {
        let models = sweep.models_of(&numbers(cells)).into_iter();
        let mut known = BTreeSet::new();
        let once = models.flat_map(|(i, _)| &self.models[i]).filter(|stage| known.insert(stage.id()));
        once.chain(cells.iter().flat_map(|cell| &cell.stages)).collect()
    }

    /// Those of them that are to be run.
    #[must_use]
    pub fn left<'a>(&'a self, sweep: &Sweep, cells: &'a [CellSurvey]) -> Vec<&'a Seen> {
        let mut stages = self.stages(sweep, cells);
        stages.retain(|stage| stage.state != State::Done);
        stages
    }
}

/// The numbers of some cells, as [`Sweep::choose`] gives them.
#[must_use]
pub fn numbers(cells: &[CellSurvey]) -> BTreeSet<usize> {
    cells.iter().map(|cell| cell.index).collect()
}

/// How many cells there are of each state, in words.
#[must_use]
pub fn counts(cells: &[CellSurvey]) -> String {
    let count = |name: &str| cells.iter().filter(|cell| cell.state.to_string() == name).count();
    let states = ["done", "partly", "missing", "failed"].map(|name| format!("{} {name}", count(name)));
    format!("{} cells: {}", cells.len(), states.join(", "))
}

/// How many cells are done, what is begun, and the errors of those that failed.
#[must_use]
pub fn status(sweep: &Sweep, cells: &[CellSurvey]) -> String {
    let mut text = format!("{}: {}\n", sweep.name, counts(cells));
    for cell in cells {
        match &cell.state {
            CellState::Failed(error) => text += &format!("failed  {}: {error}\n", cell.path),
            CellState::Partly => {
                let done = cell.stages.iter().filter(|stage| stage.state == State::Done).count();
                text += &format!("partly  {}: {done} of {} stages\n", cell.path, cell.stages.len());
            }
            CellState::Done | CellState::Missing => {}
        }
    }
    text += &reasons(cells);
    if cells.iter().any(|cell| cell.state != CellState::Done) {
        text += "`experiments run` does what is left\n";
    }
    text
}

/// Why the stages of some cells are not all known, each reason once.
#[must_use]
pub fn reasons(cells: &[CellSurvey]) -> String {
    let mut by_reason = BTreeMap::<&str, Vec<&str>>::new();
    for cell in cells {
        if let Some(reason) = &cell.unknown {
            by_reason.entry(reason).or_default().push(&cell.path);
        }
    }
    let line = |(reason, paths): (&str, Vec<&str>)| {
        let others = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
        format!("stages not all known of {}{others}: {reason}\n", paths[0])
    };
    by_reason.into_iter().map(line).collect()
}

fn state_of(stages: &[Seen], shared: &[Seen], unknown: bool, failure: Option<String>) -> CellState {
    let failed = stages.iter().find_map(|stage| match &stage.state {
        State::Failed(error) => Some(error.clone()),
        State::Done | State::Partly | State::Missing => None,
    });
    let done = !unknown && stages.iter().chain(shared).all(|stage| stage.state == State::Done);
    let begun = stages.iter().any(|stage| matches!(stage.state, State::Done | State::Partly));
    match (done, failure.or(failed)) {
        (true, _) => CellState::Done,
        (false, Some(error)) => CellState::Failed(error),
        (false, None) if begun => CellState::Partly,
        (false, None) => CellState::Missing,
    }
}

/// The record of a cell's failure.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    cell: String,
    error: String,
}

fn failure_file(results: &Path, cell: Cell<'_>) -> PathBuf {
    results.join("failed").join(format!("{}.json", cell.path().replace('/', "~")))
}

fn failure(results: &Path, cell: Cell<'_>) -> Option<String> {
    let text = fs::read_to_string(failure_file(results, cell)).ok()?;
    Some(serde_json::from_str::<Failure>(&text).map_or(text, |failure| failure.error))
}

/// Records why a cell failed.
///
/// # Errors
/// When the record cannot be written.
pub fn record_failure(results: &Path, cell: Cell<'_>, error: &anyhow::Error) -> Result<()> {
    let file = failure_file(results, cell);
    let dir = results.join("failed");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write_json(&file, &Failure { cell: cell.path(), error: format!("{error:#}") })
}

/// Removes the record of a cell that has succeeded.
///
/// # Errors
/// When it is there and stays.
pub fn forget_failure(results: &Path, cell: Cell<'_>) -> Result<()> {
    remove_if_there(&failure_file(results, cell))
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
