//! A run: the cells that are not done yet, some at a time. A stage that fails is recorded and what does not read it goes
//! on; records are written as cells finish. Which stages there are is in `pipeline.rs`.

mod records;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use evaluation::{Evaluation, JudgeScores, PromptKind};
use rayon::{ThreadPool, ThreadPoolBuilder};
use realign::stage::{RepairSummary, TrainSummary};
use realign::{Interrupt, Job};
use recovery::Damage;

use crate::config::Sweep;
use crate::error::with_causes;
use crate::graph::{Graph, Node};
use crate::progress::Progress;
use crate::roots::{Finished, State};
use crate::status;
use crate::store::{Store, is_stopped, lock};

use records::keep_records;

/// What a run needs besides the sweep.
pub struct Run<'a> {
    /// The sweep.
    pub sweep: &'a Sweep,
    /// Its stages.
    pub graph: &'a Graph,
    /// Where they are kept.
    pub store: &'a Store,
    /// The directory of the results.
    pub results: &'a Path,
    /// Where tensors are computed.
    pub device: &'a Device,
    /// Cells in progress at a time.
    pub jobs: usize,
    /// Whether the user asked to stop.
    pub interrupt: &'a Interrupt,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Ended {
    /// The cells that failed, by their paths.
    pub failed: Vec<String>,
    /// By kind of stage: how many were run and how many were there, each with their seconds.
    pub times: BTreeMap<&'static str, [(usize, f64); 2]>,
}

/// What a worker knows of a stage that it asked for.
type Outcome = Result<(Finished, bool), String>;

struct Worker<'a> {
    run: &'a Run<'a>,
    progress: Progress,
    /// By number: finished stages, and the errors of those that failed, in this run.
    outcomes: Mutex<HashMap<usize, Outcome>>,
    failed: Mutex<Vec<String>>,
    /// By number: held by the worker that finishes a stage.
    turns: Mutex<HashMap<usize, Arc<Mutex<()>>>>,
}

impl Run<'_> {
    /// Runs the stages of all cells of the graph that are not done.
    ///
    /// # Errors
    /// When a judge cannot be asked, or threads cannot be made. A stage that fails is among the [`Ended`] cells' errors.
    pub fn run(&self) -> Result<Ended> {
        let all: BTreeSet<usize> = self.graph.cells.values().flat_map(|cell| cell.stages.iter().copied()).collect();
        let is_left = |&&node: &&usize| !matches!(self.store.state(&self.graph.nodes[node]), State::Done(_));
        let left: Vec<usize> = all.iter().filter(is_left).copied().collect();
        let worker = self.worker(&left)?;
        // Whole groups of cells wait for a model: models come first.
        let models: Vec<usize> = self.graph.models.iter().copied().filter(|node| left.contains(node)).collect();
        in_turn(self.jobs, models, self.interrupt, |node| drop(worker.node(node)))?;
        in_turn(self.jobs, self.graph.cells.keys().copied().collect(), self.interrupt, |cell| worker.cell(cell))?;
        Ok(worker.ended())
    }

    /// Runs one stage, and what it reads.
    ///
    /// # Errors
    /// As [`run`](Self::run); that of the stage, too.
    pub fn stage(&self, node: usize) -> Result<Ended> {
        let worker = self.worker(&[node])?;
        let failed = Mutex::new(None);
        in_turn(1, vec![node], self.interrupt, |node| *lock(&failed) = worker.node(node).and_then(Result::err))?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(anyhow!(error)),
            None => Ok(worker.ended()),
        }
    }

    /// What works on stages, of which these are left.
    fn worker(&self, left: &[usize]) -> Result<Worker<'_>> {
        if left.iter().any(|&node| self.graph.nodes[node].kind == "judge") {
            self.sweep.judges.iter().try_for_each(realign::check_judge)?; // before hours of answers
        }
        let progress = Progress::new(left.iter().map(|&node| self.graph.nodes[node].kind), self.jobs);
        let (outcomes, failed, turns) = Default::default();
        Ok(Worker { run: self, progress, outcomes, failed, turns })
    }
}

impl Worker<'_> {
    fn ended(&self) -> Ended {
        let mut ended = Ended { failed: lock(&self.failed).clone(), ..Ended::default() };
        for (node, outcome) in lock(&self.outcomes).iter() {
            let Ok((finished, fresh)) = outcome else { continue };
            let sum = &mut ended.times.entry(self.run.graph.nodes[*node].kind).or_default()[usize::from(!*fresh)];
            *sum = (sum.0 + 1, sum.1 + finished.seconds);
        }
        ended
    }

    /// The stages of a cell in order, then its records and errors.
    fn cell(&self, index: usize) {
        let cell = &self.run.graph.cells[&index];
        let path = self.run.sweep.cell(index).path();
        let mut errors: Vec<String> = cell.unknown.iter().cloned().collect();
        for &node in &cell.stages {
            match self.node(node) {
                Some(Err(error)) if !errors.contains(&error) => errors.push(error),
                None => return, // the user asked to stop
                _ => {}
            }
        }
        let kept = self.keep(index, &path).and_then(|()| status::record_failure(self.run.results, &path, &errors));
        if let Err(error) = &kept {
            self.progress.fail("results", &path, &with_causes(error));
        }
        if kept.is_err() || !errors.is_empty() {
            lock(&self.failed).push(path);
        }
    }

    /// Finishes a stage; its error, or nothing when the user asked to stop.
    fn node(&self, index: usize) -> Option<Result<(), String>> {
        // A worker that waited for another one takes over its outcome, a failure too.
        let turn = Arc::clone(lock(&self.turns).entry(index).or_default());
        let _turn = lock(&turn);
        let node = &self.run.graph.nodes[index];
        let told = |outcome: &Outcome| outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        let known = lock(&self.outcomes).get(&index).map(told);
        // One that was found damaged since then is made again.
        let is_there = || matches!(self.run.store.state(node), State::Done(_));
        if let Some(known) = known.filter(|known| known.is_err() || is_there()) {
            return Some(known);
        }
        let outcome = match self.run_node(node) {
            Ok(done) => Ok(done),
            Err(error) if is_stopped(&error) => return None,
            Err(error) => Err(with_causes(&error)),
        };
        if outcome.is_err() {
            self.progress.give_up(node.kind);
        }
        match &outcome {
            Ok((finished, true)) => {
                self.progress.finish(node.kind, &node.name, &figure(node, finished), finished.seconds)
            }
            Ok(_) => {}
            // What needs a failed stage fails with its error, which has its line.
            Err(error) if lock(&self.outcomes).values().any(|known| known.as_ref().err() == Some(error)) => {}
            Err(error) => self.progress.fail(node.kind, &node.name, error),
        }
        let told = told(&outcome);
        lock(&self.outcomes).insert(index, outcome);
        Some(told)
    }

    fn run_node(&self, node: &Node) -> Result<(Finished, bool)> {
        let Run { graph, store, device, sweep, interrupt, .. } = self.run;
        if !matches!(store.state(node), State::Done(_)) {
            for &parent in &node.parents {
                if store.is_sound(&graph.nodes[parent])? {
                    continue;
                }
                match self.node(parent) {
                    Some(outcome) => outcome.map_err(|error| anyhow!(error))?,
                    None => return Err(realign::Error::Stopped.into()),
                }
            }
            if interrupt.is_set() {
                return Err(realign::Error::Stopped.into());
            }
        }
        let bar = self.progress.bar(node.kind, &node.name);
        let mut report = |step: realign::Progress<'_>| {
            bar.set_length(step.all as u64);
            bar.set_position(step.done as u64);
            bar.set_message(step.word.to_owned());
            interrupt.flow()
        };
        let batch = sweep.evaluation.batch;
        store.run(node, &mut Job { device, batch, max_shard: None, earlier: Vec::new(), report: &mut report })
    }

    /// Writes the records of what is finished of a cell.
    fn keep(&self, index: usize, path: &str) -> Result<()> {
        let (roots, graph) = (self.run.store.roots(), self.run.graph);
        keep_records(roots, self.run.sweep, graph, index, path, self.run.results)
    }
}

/// What there is to say of a finished stage.
fn figure(node: &Node, finished: &Finished) -> String {
    if let Ok(summary) = finished.summary::<TrainSummary>() {
        return format!("loss {:.3} on {} samples", summary.final_loss, summary.samples);
    }
    if let Ok(summary) = finished.summary::<RepairSummary>() {
        return summary.note;
    }
    if let Ok(Damage { changed, divergence }) = finished.summary::<Damage>() {
        let divergence = divergence.map_or(String::new(), |divergence| format!(", KL {divergence:.3}"));
        return format!("{:.2} % of the weights differ{divergence}", 100.0 * changed);
    }
    let Ok(evaluation) = finished.summary::<Evaluation>() else {
        return if node.kind == "reference" { "aligned model's probabilities".to_owned() } else { String::new() };
    };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rate = |scores: &JudgeScores| scores.rate.as_ref().map_or("unknown".to_owned(), |rate| percent(rate.rate));
    let sets = evaluation.prompt_sets.iter().filter_map(|set| {
        let word = if set.kind == PromptKind::Harmful { "harmful" } else { "over-refusal" };
        Some(format!("{word} {}", rate(set.judges.first()?)))
    });
    let scores = evaluation.tasks.iter().flat_map(|task| task.scores.first());
    sets.chain(scores.map(|score| format!("task {}", percent(score.value)))).collect::<Vec<_>>().join(", ")
}

/// Items in progress at a time, at most; each has a thread of its own at least.
const MOST_JOBS: usize = 256;

/// Works through items in order, `jobs` at a time, each with its share of the processor: threads that wait for each other
/// at every operation of a small model cost more than they bring.
fn in_turn<T: Send>(jobs: usize, items: Vec<T>, interrupt: &Interrupt, work: impl Fn(T) + Sync) -> Result<()> {
    let jobs = jobs.min(items.len()).clamp(1, MOST_JOBS);
    let threads = (rayon::current_num_threads() / jobs).max(1);
    let pools: Vec<ThreadPool> =
        (0..jobs).map(|_| ThreadPoolBuilder::new().num_threads(threads).build()).collect::<Result<_, _>>()?;
    let queue = Mutex::new(VecDeque::from(items));
    thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(|| {
                while !interrupt.is_set() {
                    let Some(item) = lock(&queue).pop_front() else { break };
                    pool.install(|| work(item));
                }
            });
        }
    });
    Ok(())
}

/// The time per kind of stage as a table: of those run now, and of those that were there.
#[must_use]
pub fn times(ended: &Ended) -> String {
    if ended.times.is_empty() {
        return String::new();
    }
    let mut all = [(0, 0.0); 2];
    let mut text = format!("{:<20} {:>8} {:>10} {:>6} {:>10}\n", "stage", "computed", "seconds", "kept", "seconds");
    let mut line = |kind: &str, [computed, kept]: [(usize, f64); 2]| {
        text += &format!("{kind:<20} {:>8} {:>10.1} {:>6} {:>10.1}\n", computed.0, computed.1, kept.0, kept.1);
    };
    for (kind, sums) in &ended.times {
        line(kind, *sums);
        for (all, sum) in all.iter_mut().zip(sums) {
            *all = (all.0 + sum.0, all.1 + sum.1);
        }
    }
    line("in all", all);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_are_worked_on_once_by_any_number_of_jobs() {
        for jobs in [0, 1, 3, 1_000_000, usize::MAX] {
            let done = Mutex::new(Vec::new());
            in_turn(jobs, (0..20).collect(), &Interrupt::default(), |item: usize| lock(&done).push(item)).unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_begun_after_a_stop() {
        let interrupt = Interrupt::default();
        let done = Mutex::new(Vec::new());
        let stop_at_three = |item: usize| {
            lock(&done).push(item);
            if item == 3 {
                interrupt.set();
            }
        };
        in_turn(1, (0..20).collect(), &interrupt, stop_at_three).unwrap();
        assert_eq!(done.into_inner().unwrap(), [0, 1, 2, 3]);
    }
}
