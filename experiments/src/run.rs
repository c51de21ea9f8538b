//! A run: the cells that are not done yet, some at a time; a cell that fails is recorded and the others go on; the rows
//! are written as cells finish. What a cell goes through is in `pipeline.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::interrupt::{self, Stopped, guarded};
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::row::ResultRow;
use crate::stages::SweepJudge;
use crate::store::look::{Seen, State};
use crate::store::{Stage, Store};
use crate::survey::{self, CellSurvey, Survey};
use crate::sweep::{Cell, Sweep};
use crate::{inputs, report, tables, unseen};

/// What a run is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Numbers of the cells in [`Sweep::cells`]; see [`Sweep::choose`].
    pub cells: BTreeSet<usize>,
    /// Cells in hand at a time.
    pub jobs: usize,
}

/// Runs the cells of a sweep that are not done; rows, tables and figures go to `results`.
///
/// # Errors
/// When a prompt that is asked stands among those that are trained on, or there are too few harmful samples. When a cell
/// failed: its error is recorded and printed, the others are finished first. When nothing can be written. [`Stopped`] when the
/// user asked to stop.
pub fn run(sweep: &Sweep, store: &Store, results: &Path, device: &Device, options: &Options) -> Result<()> {
    inputs::fetch_prompts(sweep, &options.cells)?;
    unseen::check(sweep, &options.cells)?;
    inputs::check_harmful(sweep, &options.cells)?;
    // The stages of a model are known when its file is there.
    fetch_models(sweep, &options.cells)?;
    let survey = Survey::of(sweep, store.roots(), results);
    let selected = survey.select(&options.cells);
    let left = survey.left(sweep, &selected);
    let judges = SweepJudge::all(sweep);
    if left.iter().any(|stage| stage.kind == "judge") {
        judges.iter().try_for_each(SweepJudge::check)?; // before hours of answers
    }
    let progress = Progress::new(left.iter().map(|stage| stage.kind), options.jobs);
    println!("{}: {}", sweep.name, survey::counts(&selected));
    let is_selected = |cell: &CellSurvey| selected.iter().any(|other| other.index == cell.index);
    let known = survey.cells.iter().filter(|cell| cell.own || is_selected(cell));
    let run = Run {
        sweep,
        pipeline: Pipeline { sweep, store, judges: &judges, device, progress: &progress },
        results,
        rows: Mutex::new(known.map(|cell| (cell.index, cell.rows.clone())).collect()),
        failed: Mutex::default(),
    };
    let stopped = run.cells(&selected, options.jobs)?;
    let rows = run.rows();
    if !rows.is_empty() {
        tables::write(&rows, results)?;
        report::write(&rows, &judges, store.roots(), results)?;
        report::print(&rows, results)?;
    }
    let seen = store.take_seen();
    print!("{}", times(survey.stages(sweep, &selected).into_iter().chain(&seen)));
    let failed = lock(&run.failed).clone();
    if stopped {
        println!("stopped; the same command goes on where this one was");
        return Err(Stopped.into());
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!(
            "{} of {} failed: {}; `experiments status` shows the errors, and the same command tries again",
            failed.len(),
            selected.len(),
            failed.join(", ")
        ),
    }
}

/// Fetches the models that have a script and are not there.
///
/// # Errors
/// [`Stopped`] when the user asked to stop. A model that cannot be fetched is none: its cells try again and say why.
fn fetch_models(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    for (_, model) in sweep.models_of(cells) {
        interrupt::check()?;
        if let Err(error) = inputs::fetch_model(sweep, model) {
            tracing::debug!("{}: {error:#}", model.name);
        }
    }
    Ok(())
}

struct Run<'a> {
    sweep: &'a Sweep,
    pipeline: Pipeline<'a>,
    results: &'a Path,
    /// By the cell's number.
    rows: Mutex<BTreeMap<usize, Vec<ResultRow>>>,
    /// Names of what failed.
    failed: Mutex<Vec<String>>,
}

impl Run<'_> {
    /// Goes through the cells, their models first. Gives back whether the user asked to stop.
    fn cells(&self, selected: &[CellSurvey], jobs: usize) -> Result<bool> {
        let cells = self.sweep.cells();
        let left = selected.iter().filter(|cell| cell.state != survey::CellState::Done);
        let left: BTreeSet<usize> = left.map(|cell| cell.index).collect();
        let (models, seeds) = (self.sweep.models_of(&left), self.sweep.model_seeds());
        let drawn = models.into_iter().flat_map(|(_, model)| seeds.iter().map(move |&seed| (model, seed))).collect();
        let aligned: Mutex<Aligned<'_>> = Mutex::default();
        in_turn(jobs, drawn, |(model, seed)| {
            let outcome = guarded(|| self.pipeline.aligned(model, seed));
            if let Err(error) = &outcome {
                if error.is::<Stopped>() {
                    return;
                }
                self.pipeline.progress.fail("model", &model.name, error);
            }
            lock(&aligned).insert((&model.name, seed), outcome.map_err(|error| format!("{error:#}")));
        })?;
        let aligned = lock(&aligned).clone();
        in_turn(jobs, left.into_iter().collect(), |index| {
            let (cell, mut rows) = (cells[index], Vec::new());
            let outcome = guarded(|| self.cell(cell, &aligned, &mut rows));
            self.finish(index, cell, rows, outcome);
        })?;
        Ok(interrupt::check().is_err())
    }

    /// Goes through a cell with all its seeds; gives its first error.
    fn cell(&self, cell: Cell<'_>, aligned: &Aligned<'_>, rows: &mut Vec<ResultRow>) -> Result<()> {
        let mut outcome = Ok(());
        for seed in self.sweep.cell_seeds() {
            let of_seed = match aligned.get(&(cell.model.name.as_str(), self.sweep.model_seed(seed))) {
                Some(Ok(aligned)) => self.pipeline.cell(cell, &self.sweep.resolved(seed), aligned, rows),
                Some(Err(error)) => Err(NoModel(error.clone()).into()),
                None => Err(Stopped.into()),
            };
            outcome = outcome.and(of_seed);
        }
        outcome
    }

    /// Keeps a cell's rows, and its error where it has one.
    fn finish(&self, index: usize, cell: Cell<'_>, rows: Vec<ResultRow>, outcome: Result<()>) {
        let recorded = match outcome {
            Ok(()) => survey::forget_failure(self.results, cell),
            Err(error) if error.is::<Stopped>() => return,
            Err(error) => {
                // The model has its own line.
                if !error.is::<NoModel>() {
                    self.pipeline.progress.fail("cell", &cell.to_string(), &error);
                }
                lock(&self.failed).push(cell.path());
                survey::record_failure(self.results, cell, &error)
            }
        };
        let kept = if rows.is_empty() { Ok(()) } else { self.keep(index, rows) };
        if let Err(error) = recorded.and(kept) {
            self.pipeline.progress.fail("results", &cell.to_string(), &error);
            lock(&self.failed).push(cell.path());
        }
    }

    fn keep(&self, index: usize, rows: Vec<ResultRow>) -> Result<()> {
        // Locked until it is written: no older table may come after a newer one.
        let mut all = lock(&self.rows);
        all.insert(index, rows);
        let rows: Vec<ResultRow> = all.values().flatten().cloned().collect();
        tables::write(&rows, self.results)
    }

    fn rows(&self) -> Vec<ResultRow> {
        lock(&self.rows).values().flatten().cloned().collect()
    }
}

/// Why a cell cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("its aligned model failed: {0}")]
struct NoModel(String);

/// The aligned models by name and seed, or why there is none.
type Aligned<'a> = BTreeMap<(&'a str, u64), Result<Stage, String>>;

/// Works through items in order, `jobs` at a time, each with its share of the processor: threads that wait for each
/// other at every operation of a small model cost more than they bring.
///
/// # Errors
/// When the threads cannot be made.
fn in_turn<T: Send>(jobs: usize, items: Vec<T>, work: impl Fn(T) + Sync) -> Result<()> {
    let jobs = jobs.max(1);
    let threads = (rayon::current_num_threads() / jobs).max(1);
    let pools: Vec<ThreadPool> =
        (0..jobs).map(|_| ThreadPoolBuilder::new().num_threads(threads).build()).collect::<Result<_, _>>()?;
    let queue = Mutex::new(VecDeque::from(items));
    thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(|| {
                while interrupt::check().is_ok() {
                    let Some(item) = lock(&queue).pop_front() else { break };
                    pool.install(|| work(item));
                }
            });
        }
    });
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time per kind of stage as a table: of those computed in this run, and of those that were there. Of a stage that was
/// cut off it is the last attempt's.
fn times<'a>(stages: impl IntoIterator<Item = &'a Seen>) -> String {
    // A stage is asked for by several cells; where one of them found it computed just now, it was.
    let mut done = BTreeMap::<String, &Seen>::new();
    for stage in stages.into_iter().filter(|stage| stage.state == State::Done) {
        let known = done.entry(stage.id()).or_insert(stage);
        if stage.fresh {
            *known = stage;
        }
    }
    let mut kinds = BTreeMap::<&str, [(usize, f64); 2]>::new();
    for stage in done.values() {
        for kind in [stage.kind, ALL_KINDS] {
            let sum = &mut kinds.entry(kind).or_default()[usize::from(!stage.fresh)];
            *sum = (sum.0 + 1, sum.1 + stage.seconds);
        }
    }
    let Some(all) = kinds.remove(ALL_KINDS) else { return String::new() };
    let mut text = format!("{:<9} {:>8} {:>10} {:>6} {:>10}\n", "stage", "computed", "seconds", "kept", "seconds");
    for (kind, [computed, kept]) in kinds.into_iter().chain([(ALL_KINDS, all)]) {
        text += &format!("{kind:<9} {:>8} {:>10.1} {:>6} {:>10.1}\n", computed.0, computed.1, kept.0, kept.1);
    }
    text
}

/// The name of the last line.
const ALL_KINDS: &str = "in all";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_items_are_worked_on_once_by_any_number_of_jobs() {
        for jobs in [0, 1, 3] {
            let done = Mutex::new(Vec::new());
            in_turn(jobs, (0..20).collect(), |item: usize| lock(&done).push(item)).unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn times_are_summed_by_kind_for_what_was_computed_and_for_what_was_kept() {
        let seen =
            |kind, key: &str, fresh, seconds| Seen { kind, key: key.to_owned(), state: State::Done, fresh, seconds };
        let missing = Seen { state: State::Missing, ..seen("tune", "d", false, 50.0) };
        // What was missing before the run, and what two cells asked for.
        let stages = [
            Seen { state: State::Missing, ..seen("tune", "a", false, 0.0) },
            seen("tune", "a", true, 2.0),
            seen("tune", "a", false, 2.0),
            seen("tune", "b", true, 4.0),
            seen("tune", "c", false, 9.0),
            seen("score", "a", false, 1.5),
            missing,
        ];
        let text = times(&stages);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["stage computed seconds kept seconds", "score 0 0.0 1 1.5", "tune 2 6.0 1 9.0", "in all 2 6.0 2 10.5"]
        );
        assert_eq!(times(&[]), "");
    }
}
