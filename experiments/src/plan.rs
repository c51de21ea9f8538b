//! What the rest of a sweep takes: time, memory and disk, before it is run. All of it is rough and says so.
//!
//! The time of a stage is the mean of the finished ones of its kind, on a model of the same size where there is one; of a
//! kind that was never run it is not known. Memory is that of strong recovery, which needs the most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};
use model::checkpoint::gguf::{self, Gguf};
use model::{DecoderConfig, Dtype};
use realign::needs;
use recovery::Method;

use crate::config::{Compared, ModelSpec, Source, Sweep, What};
use crate::graph::Graph;
use crate::roots::State;
use crate::status::{self, CellState};

/// The cells with their state, and what those that are not done take.
#[must_use]
pub fn plan(sweep: &Sweep, graph: &Graph, states: &[State], cells: &BTreeMap<usize, CellState>) -> String {
    let mut text = format!("{}: {}\n\n", sweep.name, status::counts(cells));
    let all = sweep.cells();
    for (index, state) in cells.iter().filter(|(_, state)| **state != CellState::Done) {
        text += &format!("{state:<8} {}\n", all[*index].path());
    }
    text += &stages(graph, states);
    text += &models(sweep, graph, states);
    let chosen = cells.keys().copied().collect();
    let missing = sweep.missing(&chosen);
    if missing.is_empty() {
        text += &status::reasons(sweep, graph);
    }
    for missing in missing {
        text += &format!("before it can be run: {missing}\n");
    }
    text
}

#[derive(Default)]
struct Kind {
    left: usize,
    done: usize,
    seconds: f64,
}

impl Kind {
    /// Seconds of a finished stage.
    fn mean(&self) -> Option<f64> {
        (self.done > 0).then(|| self.seconds / self.done as f64)
    }
}

fn kinds<'a>(graph: &'a Graph, states: &[State]) -> BTreeMap<&'a str, Kind> {
    let mut kinds = BTreeMap::<&str, Kind>::new();
    for (node, state) in graph.nodes.iter().zip(states) {
        let kind = kinds.entry(node.kind).or_default();
        match state {
            State::Done(finished) => (kind.done, kind.seconds) = (kind.done + 1, kind.seconds + finished.seconds),
            _ => kind.left += 1,
        }
    }
    kinds
}

/// The mean seconds of the finished stages of each kind that was ever run.
pub(crate) fn means<'a>(graph: &'a Graph, states: &[State]) -> BTreeMap<&'a str, f64> {
    kinds(graph, states).into_iter().filter_map(|(name, kind)| Some((name, kind.mean()?))).collect()
}

/// Bytes of memory that a recovery of the largest model of some cells takes; 0 where its size is not known.
pub(crate) fn memory(sweep: &Sweep, chosen: &BTreeSet<usize>) -> u64 {
    let (models, positions) = (sweep.models_of(chosen).into_iter(), positions(sweep));
    models.filter_map(|(_, model)| Some(memory_of(sweep, &config(sweep, model)?, positions))).max().unwrap_or(0)
}

/// A model with fewer parameters leaves threads idle, so that several cells at a time are done sooner.
const SMALL: u64 = 10_000_000;

/// Cells to be in progress at a time, of these: one a thread where all models are small, as far as the free memory has room for
/// so many recoveries; else one. Each has its share of the threads, so that there are never more than these.
#[must_use]
pub fn jobs(sweep: &Sweep, chosen: &BTreeSet<usize>, threads: usize, free: Option<u64>) -> usize {
    let is_small = |model| config(sweep, model).is_some_and(|config| needs::parameters(&config) < SMALL);
    if !sweep.models_of(chosen).into_iter().all(|(_, model)| is_small(model)) {
        return 1;
    }
    let room = free.map_or(u64::MAX, |free| free / memory(sweep, chosen).max(1));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    threads.min(chosen.len()).min(room).max(1)
}

/// Answer tokens of the harmful prompts that strong recovery reads.
fn positions(sweep: &Sweep) -> usize {
    sweep.recovery.evidence.as_ref().map_or(0, |evidence| {
        let parts = [false, true].map(|held_out| sweep.harmful_evidence(evidence, held_out));
        let prompts = parts.iter().map(|(file, pick)| pick.read(file).map_or(0, |found| found.len()));
        prompts.sum::<usize>().saturating_mul(evidence.max_new_tokens)
    })
}

fn memory_of(sweep: &Sweep, config: &DecoderConfig, positions: usize) -> u64 {
    let restores_all =
        |one: &Compared| matches!(&one.what, What::Repair(Method::Strong(strong)) if strong.all_tensors == Some(true));
    let hidden = config.hidden_parameters();
    let outside = if sweep.methods.iter().any(restores_all) { needs::parameters(config) as usize - hidden } else { 0 };
    let (weights, answers) = needs::memory(config, positions, Dtype::F32, outside);
    weights.saturating_add(answers)
}

/// The stages that are left by kind, with the mean time of the finished ones.
fn stages(graph: &Graph, states: &[State]) -> String {
    let kinds = kinds(graph, states);
    let mut text = format!("\n{:<20} {:>6} {:>6} {:>12} {:>14}\n", "stage", "done", "left", "mean", "left takes");
    let span = |seconds: f64| HumanDuration(Duration::from_secs_f64(seconds)).to_string();
    let (mut total, mut unknown) = (0.0, false);
    for (name, kind) in &kinds {
        let (mean_text, left) = match (kind.mean(), kind.left) {
            (None, 0) => ("-".to_owned(), "-".to_owned()),
            (None, _) => {
                unknown = true;
                ("not known".to_owned(), "not known".to_owned())
            }
            (Some(mean), left) => {
                total += mean * left as f64;
                (format!("{mean:.2} s"), span(mean * left as f64))
            }
        };
        text += &format!("{name:<20} {:>6} {:>6} {mean_text:>12} {left:>14}\n", kind.done, kind.left);
    }
    if kinds.values().any(|kind| kind.left > 0) {
        let word = if unknown { "more than " } else { "about " };
        text += &format!("one stage after the other takes {word}{}\n", span(total));
    }
    text
}

/// Parameters and memory by model, and the disk that the models of the stages that are left take.
fn models(sweep: &Sweep, graph: &Graph, states: &[State]) -> String {
    let mut text = format!("\n{:<20} {:>14} {:>14}\n", "model", "parameters", "memory");
    let (mut largest, positions) = (0, positions(sweep));
    for model in &sweep.models {
        let Some(config) = config(sweep, model) else {
            text += &format!("{:<20} {:>14} {:>14}\n", model.name, "not known", "not known");
            continue;
        };
        let parameters = needs::parameters(&config);
        largest = largest.max(parameters);
        let memory = BinaryBytes(memory_of(sweep, &config, positions)).to_string();
        text += &format!("{:<20} {:>12.1} M {:>14}\n", model.name, parameters as f64 / 1e6, memory);
    }
    let left = graph.nodes.iter().zip(states);
    let left = left.filter(|(node, state)| makes_model(node.kind) && !matches!(state, State::Done(_))).count();
    if largest > 0 && left > 0 {
        let disk = BinaryBytes(4 * largest * left as u64);
        text += &format!("{left} models in f32 are left to write, {disk} of disk at most; jobs multiply the memory\n");
    }
    text
}

/// Whether a stage of this kind leaves a model.
#[must_use]
pub fn makes_model(kind: &str) -> bool {
    !["evaluate", "judge", "divergence", "reference", "attack", "own_answers"].contains(&kind)
}

/// A model's shape, from its files or the sweep.
fn config(sweep: &Sweep, model: &ModelSpec) -> Option<DecoderConfig> {
    match &model.source {
        Source::Dir(dir) => DecoderConfig::from_dir(&sweep.root_file(dir)).ok(),
        Source::Hub(hub) => hub.shape.decoder(None).ok(),
        Source::Pretrain(pretrain) => {
            let tokenizer = prompts::Tokenizer::from_dir(&sweep.data_file(&pretrain.training.tokenizer)).ok()?;
            pretrain.config.decoder(Some(tokenizer.vocab_size())).ok()
        }
        Source::Gguf(file) => gguf::config(&Gguf::open(&sweep.root_file(&file.file)).ok()?).ok(),
    }
}
