//! The method in order, numbered as in the paper's section IV and METHOD.md: what a sweep does with each model, task and
//! harmful count, as a graph of stage values. Nothing is run here; a run, a plan and the tables walk the graph.

mod answers;
mod attacks;
mod methods;
mod models;
mod training;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use files::Hashes;
use model::Dtype;
use realign::{Artifact, Pick, Samples, Stage};
use recovery::{Method, Recover, Rollback};

use self::answers::Made;
use self::methods::{Base, is_recovery};
use crate::config::{Resolved, Sweep, What};
use crate::error::with_causes;
use crate::graph::{CellStages, Evaluated, Graph, Node};
use crate::grid::Cell;
use crate::roots::Roots;

/// Models of a sweep are f32, whatever they came as: stored results keep their meaning.
const DTYPE: Option<Dtype> = Some(Dtype::F32);

/// Builds the graph of some cells. What is wrong with a cell is kept with it.
#[must_use]
pub fn graph(sweep: &Sweep, roots: &Roots, chosen: &BTreeSet<usize>) -> Graph {
    let cells = sweep.cells();
    let (hashes, graph) = (Hashes::default(), Graph::default());
    let mut builder = Builder { sweep, roots, hashes, graph, known: HashMap::new(), counted: HashMap::new() };
    let mut aligned: BTreeMap<(&str, u64), Result<usize, String>> = BTreeMap::new();
    for (_, model) in sweep.models_of(chosen) {
        for seed in sweep.model_seeds() {
            let node = builder.aligned(model, seed).map_err(|error| with_causes(&error));
            aligned.insert((&model.name, seed), node);
        }
    }
    builder.graph.models = (0..builder.graph.nodes.len()).collect();
    // Once for all cells: each holds the whole sweep.
    let resolved: Vec<(u64, Vec<Resolved>)> =
        sweep.cell_seeds().into_iter().map(|seed| (seed, sweep.resolved(seed))).collect();
    for &index in chosen {
        let mut stages = CellStages::default();
        if let Err(error) = builder.cell(cells[index], &resolved, &aligned, &mut stages) {
            stages.unknown = Some(with_causes(&error));
        }
        stages.stages = builder.with_parents(&stages.stages);
        builder.graph.cells.insert(index, stages);
    }
    builder.graph
}

struct Builder<'a> {
    sweep: &'a Sweep,
    roots: &'a Roots,
    hashes: Hashes,
    graph: Graph,
    /// By key.
    known: HashMap<String, usize>,
    /// The number of samples of each injection file.
    counted: HashMap<PathBuf, usize>,
}

/// The settings that a cell's stages are built from.
struct At<'a> {
    sweep: &'a Sweep,
    cell: Cell<'a>,
    seed: u64,
}

impl At<'_> {
    /// The method; where the task's samples are not trusted, no score decides about its rollback.
    fn decided(&self, method: &Method) -> Method {
        match method {
            Method::Recover(settings) if !self.sweep.recovery.trust_task && settings.rollback != Rollback::On => {
                Method::Recover(Recover { rollback: Rollback::Off, ..settings.clone() })
            }
            _ => method.clone(),
        }
    }
}

impl Builder<'_> {
    fn add<S: Stage + Send + Sync + 'static>(&mut self, name: String, stage: S, parents: &[usize]) -> Result<usize> {
        let mut node = Node::new(name, stage, parents)?;
        let next = self.graph.nodes.len();
        let place = *self.known.entry(node.key.clone()).or_insert(next);
        if place == next {
            node.evaluated = match node.kind {
                "evaluate" => parents.first().map(|&model| self.graph.nodes[model].key.clone()),
                "judge" => parents.first().and_then(|&answers| self.graph.nodes[answers].evaluated.clone()),
                _ => None,
            };
            self.graph.nodes.push(node);
        }
        Ok(place)
    }

    /// The directory of a stage's result, finished or not.
    fn dir(&self, node: usize) -> PathBuf {
        let node = &self.graph.nodes[node];
        self.roots.dir(node.kind, &node.key)
    }

    fn artifact(&self, node: usize, file: &str) -> Artifact {
        Artifact { key: self.graph.nodes[node].key.clone(), path: self.dir(node).join(file) }
    }

    fn samples(&self, (file, pick): (PathBuf, Pick)) -> Result<Samples> {
        Ok(Samples::of(&file, pick, &self.hashes)?)
    }

    /// 2. to 4. of a cell with all its seeds and variants.
    fn cell(
        &mut self,
        cell: Cell<'_>,
        resolved: &[(u64, Vec<Resolved>)],
        aligned: &BTreeMap<(&str, u64), Result<usize, String>>,
        stages: &mut CellStages,
    ) -> Result<()> {
        for (seed, variants) in resolved {
            let seed = *seed;
            let of_seed = &aligned[&(cell.model.name.as_str(), self.sweep.model_seed(seed))];
            let aligned = *of_seed.as_ref().map_err(|error| anyhow!("{error}"))?;
            let mut compared: Vec<Vec<Evaluated>> = Vec::new();
            for Resolved { variant, sweep } in variants {
                let Some(cell) = same_cell(sweep, cell) else { continue };
                let at = At { sweep, cell, seed };
                compared.push(self.compare(&at, aligned, variant)?);
            }
            let compared = shared_once(compared);
            stages.stages.extend(compared.iter().flat_map(Evaluated::nodes));
            stages.evaluated.extend(compared);
        }
        Ok(())
    }

    /// What is compared in a cell with one seed and variant.
    fn compare(&mut self, at: &At<'_>, aligned: usize, variant: &str) -> Result<Vec<Evaluated>> {
        // 2. Fine-tuning on the task with injected harmful samples.
        let tuned = self.tune(at, aligned)?;
        // 3. Recovery, decided on the validation split, the baselines and the control arms beside it.
        let mut base = Base { aligned, tuned, recovery: None };
        if let Some(compared) = at.sweep.methods.iter().find(|one| is_recovery(one)) {
            base.recovery = Some(self.model(at, compared, base)?);
        }
        let mut all = Vec::new();
        for compared in &at.sweep.methods {
            let model = self.model(at, compared, base)?;
            // 4. Evaluation on the test splits.
            let name = format!("{} {}", named(at.cell, variant), compared.name);
            let is_compared = model != tuned && at.sweep.methods.iter().any(|one| one.what == What::FineTuned);
            let tuned = Some(tuned).filter(|_| is_compared);
            all.push(self.evaluate(at, name, compared, Made { model, tuned }, variant)?);
        }
        Ok(all)
    }

    /// Some stages with all that they read, each after its parents, each once.
    fn with_parents(&self, wanted: &[usize]) -> Vec<usize> {
        let mut needed: BTreeSet<usize> = BTreeSet::new();
        let mut open = wanted.to_vec();
        while let Some(node) = open.pop() {
            if needed.insert(node) {
                open.extend(&self.graph.nodes[node].parents);
            }
        }
        needed.into_iter().collect() // a stage is added after its parents
    }
}

/// One entry for a method whose model and answers are the same in all variants, else one for each variant; methods in their order.
/// A model that is compared with other fine-tuned ones in other variants, as the aligned one may be, is then compared with none.
fn shared_once(variants: Vec<Vec<Evaluated>>) -> Vec<Evaluated> {
    let mut all = Vec::new();
    let methods = variants.first().map_or(0, Vec::len);
    for method in 0..methods {
        let of_method: Vec<&Evaluated> = variants.iter().filter_map(|variant| variant.get(method)).collect();
        let is_shared = |one: &&Evaluated| one.without_divergence().eq(of_method[0].without_divergence());
        if of_method.iter().all(is_shared) {
            let divergence = of_method[0]
                .divergence
                .filter(|_| of_method.iter().all(|one| one.divergence == of_method[0].divergence));
            all.push(Evaluated { variant: String::new(), divergence, ..of_method[0].clone() });
        } else {
            all.extend(of_method.into_iter().cloned());
        }
    }
    all
}

/// The cell of that model, task and count in a variant's sweep.
fn same_cell<'a>(sweep: &'a Sweep, cell: Cell<'_>) -> Option<Cell<'a>> {
    let model = sweep.models.iter().find(|model| model.name == cell.model.name)?;
    let task = sweep.tasks.iter().find(|task| task.name == cell.task.name)?;
    Some(Cell { model, task, harmful_count: cell.harmful_count })
}

/// A cell's name with the variant's.
fn named(cell: Cell<'_>, variant: &str) -> String {
    if variant.is_empty() { cell.to_string() } else { format!("{cell} {variant}") }
}
