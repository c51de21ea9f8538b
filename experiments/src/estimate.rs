//! What the rest of a sweep takes: time, memory and disk, before it is run. All of it is rough and says so.
//!
//! Time is work over speed. The work of a stage is counted from parameters and tokens; the speed is that of the finished
//! stages of the same kind, else of all finished ones, else an assumption. Shapes of models that are not there yet are
//! the sweep's.

mod needs;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;

use indicatif::{BinaryBytes, HumanDuration};

use crate::store::look::{Seen, State};
use crate::survey::{CellSurvey, Survey, counts, numbers, reasons};
use crate::sweep::{Method, Source, Sweep};
use needs::{Memory, Work};
pub use shape::Shape;

/// Operations per second where nothing was run yet: what two cores with AVX2 reach in training (results/LOG.md).
const ASSUMED_SPEED: f64 = 30e9;

/// Operations to a byte that is written or read: the disk's 200 MB/s at the assumed speed.
const WORK_OF_A_BYTE: f64 = ASSUMED_SPEED / 200e6;

/// The cells with their state, and what those that are not done take.
#[must_use]
pub fn plan(sweep: &Sweep, survey: &Survey, cells: &[CellSurvey]) -> String {
    let plan = Plan::new(sweep, survey);
    let mut text = format!("{}: {}\n\n", sweep.name, counts(cells));
    text += &plan.cell_table(cells);
    text += &plan.model_table(cells);
    text += &plan.stage_table(cells);
    let missing = sweep.missing(&numbers(cells));
    if missing.is_empty() {
        text += &reasons(cells);
    }
    for missing in missing {
        text += &format!("before it can be run: {missing}\n");
    }
    text
}

struct Plan<'a> {
    sweep: &'a Sweep,
    survey: &'a Survey,
    /// By model; none where nothing tells its shape yet.
    shapes: Vec<Option<Shape>>,
    work: Work,
    speeds: BTreeMap<&'static str, f64>,
    /// Of all finished stages.
    speed: Option<f64>,
}

impl<'a> Plan<'a> {
    fn new(sweep: &'a Sweep, survey: &'a Survey) -> Self {
        let shapes = sweep.models.iter().map(|model| Shape::of(sweep, model)).collect();
        let mut plan = Self { sweep, survey, shapes, work: Work::of(sweep), speeds: BTreeMap::new(), speed: None };
        let mut sums = BTreeMap::<&'static str, (f64, f64)>::new();
        for (model, cell, stage) in plan.stages() {
            if stage.state == State::Done && stage.seconds > 0.0 {
                // What has no work to speak of (a sum of weights, a list of phrases) has no speed.
                let Some(work) = plan.work_of(model, cell, stage.kind).filter(|work| *work > 0.0) else { continue };
                let sum = sums.entry(stage.kind).or_default();
                *sum = (sum.0 + work, sum.1 + stage.seconds);
            }
        }
        let (work, seconds) = sums.values().fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        plan.speed = (work > 0.0).then(|| work / seconds);
        plan.speeds = sums.into_iter().map(|(kind, (work, seconds))| (kind, work / seconds)).collect();
        plan
    }

    /// Every stage of the sweep with the number of its model and its cell, none where all cells share it.
    fn stages(&self) -> Vec<(usize, Option<&'a CellSurvey>, &'a Seen)> {
        let survey = self.survey;
        let shared = survey
            .models
            .iter()
            .enumerate()
            .flat_map(|(model, stages)| stages.iter().map(move |one| (model, None, one)));
        let own = survey.cells.iter().flat_map(|cell| {
            let model = self.model_of(cell);
            cell.stages.iter().map(move |one| (model, Some(cell), one))
        });
        shared.chain(own).collect()
    }

    fn model_of(&self, cell: &CellSurvey) -> usize {
        cell.index / (self.sweep.tasks.len() * self.sweep.harmful_counts.len())
    }

    /// Operations of a stage, its reading and writing included.
    fn work_of(&self, model: usize, cell: Option<&CellSurvey>, kind: &str) -> Option<f64> {
        let shape = self.shapes[model]?;
        let cell = cell.map(|cell| self.sweep.cells()[cell.index]);
        let spec = &self.sweep.models[model];
        let operations = self.work.operations(self.sweep, spec, &shape, cell, kind);
        Some(operations + WORK_OF_A_BYTE * 4.0 * self.work.weights(self.sweep, &shape, kind))
    }

    fn seconds(&self, model: usize, cell: Option<&CellSurvey>, kind: &str) -> Option<f64> {
        let speed = self.speeds.get(kind).copied().or(self.speed).unwrap_or(ASSUMED_SPEED);
        Some(self.work_of(model, cell, kind)? / speed)
    }

    /// Bytes that a stage leaves: a model's weights in f32, or answers or probabilities, which are little beside them.
    fn bytes(&self, model: usize, kind: &str) -> u64 {
        let weights = self.shapes[model].map_or(0, |shape| 4 * shape.parameters as u64);
        if matches!(kind, "evaluate" | "judge" | "reference") { 0 } else { weights }
    }

    /// The stages of a cell that are left. Where not all are known by key, as without a file, their kinds are, roughly: what
    /// cells or variants share is counted where it would come first.
    fn left(&self, cell: &CellSurvey) -> Vec<&'static str> {
        if cell.unknown.is_none() {
            return cell.stages.iter().filter(|one| one.state != State::Done).map(|one| one.kind).collect();
        }
        let sweep = self.sweep;
        let variants = sweep.variants.len().max(1);
        let counts = sweep.harmful_counts.len();
        let first = cell.index.is_multiple_of(counts);
        let first_of_model = cell.index.is_multiple_of(counts * sweep.tasks.len());
        let first_that_injects = sweep.harmful_counts.iter().position(|&count| count > 0);
        let of_model = cell.index % (counts * sweep.tasks.len());
        let mut kinds = vec!["finetune"];
        let times = |method: Method| if method.follows_recovery() { variants } else { 1 };
        for &method in &sweep.methods {
            match method {
                Method::Aligned if !first => continue,
                Method::Aligned | Method::FineTuned => {}
                Method::Recovered => kinds.extend(vec!["recover"; times(method)]),
                Method::SoftSft => {
                    // The task's reference, which its counts share, and that of the harmful samples.
                    let references = usize::from(first) + usize::from(first_that_injects == Some(of_model));
                    kinds.extend(repeat_n("reference", references).chain(["softsft"]));
                }
                Method::Resta => {
                    let shared = ["unaligned", "evaluate"].into_iter().filter(|_| first_of_model);
                    kinds.extend(shared.chain(["resta"]));
                }
                Method::Random | Method::LargestDifference | Method::FullRevert | Method::Interpolation(_) => {
                    kinds.extend(vec!["control"; times(method)]);
                }
            }
            kinds.extend(vec!["evaluate"; 2 * times(method)]);
            kinds.extend(vec!["judge"; sweep.judged_by.len() * times(method)]);
        }
        let mut kinds = kinds.repeat(sweep.cell_seeds().len());
        for done in cell.stages.iter().filter(|one| one.state == State::Done) {
            if let Some(at) = kinds.iter().position(|kind| *kind == done.kind) {
                kinds.swap_remove(at);
            }
        }
        kinds
    }

    /// The kinds of a model's stages that are left; `counted` are those of the models before, which may have the same source.
    fn left_of_model(&self, model: usize, counted: &mut BTreeSet<String>) -> Vec<&'static str> {
        let spec = &self.sweep.models[model];
        let seeds = self.sweep.model_seeds().len();
        // Only what is trained from nothing is another model with another seed before it is aligned.
        let imports = if matches!(spec.source, Source::Pretrain(_)) { seeds } else { 1 };
        let aligns = if spec.align.is_some() { seeds } else { 0 };
        let expected = repeat_n("import", imports).chain(repeat_n("align", aligns));
        let known = &self.survey.models[model];
        let left = known.iter().filter(|one| one.state != State::Done && counted.insert(one.id()));
        let mut kinds: Vec<&str> = left.map(|one| one.kind).collect();
        kinds.extend(expected.skip(known.len()));
        kinds
    }

    fn cell_table(&self, cells: &[CellSurvey]) -> String {
        let mut text = format!("{:<36} {:<8} {:>6} {:>14} {:>11}\n", "cell", "state", "stages", "time", "disk");
        for cell in cells {
            let (model, left) = (self.model_of(cell), self.left(cell));
            let seconds: Option<f64> = left.iter().map(|kind| self.seconds(model, Some(cell), kind)).sum();
            let bytes = left.iter().map(|kind| self.bytes(model, kind)).sum();
            let (path, state, left) = (&cell.path, &cell.state, left.len());
            text += &format!("{path:<36} {state:<8} {left:>6} {:>14} {:>11}\n", span(seconds), size(bytes));
        }
        text + "\n"
    }

    fn model_table(&self, cells: &[CellSurvey]) -> String {
        let mut text = format!(
            "{:<18} {:>11} {:>11} + {:>11} + {:>11} = {:>11}\n",
            "memory, at most", "parameters", "weights", "gradients", "activations", "in all"
        );
        for (model, spec) in self.sweep.models_of(&numbers(cells)) {
            let name = &spec.name;
            let Some(shape) = self.shapes[model] else {
                text += &format!("{name:<18} not known before its file is there\n");
                continue;
            };
            let Memory { stage, weights, gradients, activations } = needs::memory(self.sweep, spec, &shape);
            let all = size(weights + gradients + activations);
            let (weights, gradients, activations) = (size(weights), size(gradients), size(activations));
            let parameters = format!("{:.4} G", shape.parameters as f64 / 1e9);
            text += &format!(
                "{name:<18} {parameters:>11} {weights:>11} + {gradients:>11} + {activations:>11} = {all:>11} in {stage}\n"
            );
        }
        text + "\n"
    }

    fn stage_table(&self, cells: &[CellSurvey]) -> String {
        let models = self.sweep.models_of(&numbers(cells)).into_iter();
        let mut counted = BTreeSet::new();
        let shared = models.flat_map(|(model, _)| {
            let left = self.left_of_model(model, &mut counted);
            left.into_iter().map(move |kind| (model, None, kind))
        });
        let own = cells
            .iter()
            .flat_map(|cell| self.left(cell).into_iter().map(move |kind| (self.model_of(cell), Some(cell), kind)));
        let mut kinds = BTreeMap::<&str, (usize, Option<f64>)>::new();
        let (mut all, mut bytes) = (Some(0.0), 0);
        for (model, cell, kind) in shared.chain(own) {
            let seconds = self.seconds(model, cell, kind);
            let add = |sum: Option<f64>| Some(sum? + seconds?);
            let entry = kinds.entry(kind).or_insert((0, Some(0.0)));
            *entry = (entry.0 + 1, add(entry.1));
            all = add(all);
            bytes += self.bytes(model, kind);
        }
        let mut text = String::new();
        for (kind, (count, seconds)) in &kinds {
            let basis = match (self.speeds.contains_key(kind), self.speed) {
                (true, _) => "from finished stages of this kind",
                (false, Some(_)) => "from finished stages of other kinds",
                (false, None) => "assuming 30 GFLOP/s",
            };
            text += &format!("{kind:<9} {count:>6} stages {:>14}  {basis}\n", span(*seconds));
        }
        text + &format!("in all: {}, {} of disk\n", span(all), size(bytes))
    }
}

fn span(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds <= 0.0 => "-".to_owned(),
        Some(seconds) => HumanDuration(std::time::Duration::from_secs_f64(seconds)).to_string(),
        None => "not known".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { BinaryBytes(bytes).to_string() }
}
