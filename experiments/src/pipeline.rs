//! The method in order, numbered as in the paper's section IV and METHOD.md: what a sweep does with each model, task and
//! harmful count, as a graph of stage values. Nothing is run here; a run, a plan and the tables walk the graph.

mod attacks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use evaluation::{Metric, PromptKind};
use files::Hashes;
use finetune::TrainSettings;
use model::Dtype;
use realign::stage::{
    Aim, Align, AnswerFile, Evaluate, Finetune, Gate, Import, Inject, Judge, MODEL, Objective, OwnAnswers, Pretrain,
    Question, REFERENCE, Reference, Repair, TrainingSet,
};
use realign::{Artifact, Evidence, Parts, Pick, Samples, Stage};
use recovery::{MeritSettings, Method, Recover, Rollback};

use crate::config::{
    AnswerSet, Compared, EvadingSpec, ModelSpec, OneShot, PromptSet, Resolved, SafeInstruct, Source, Sweep, What,
};
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
            let node = builder.aligned(model, seed).map_err(|error| format!("{error:#}"));
            aligned.insert((&model.name, seed), node);
        }
    }
    builder.graph.models = (0..builder.graph.nodes.len()).collect();
    for &index in chosen {
        let mut stages = CellStages::default();
        if let Err(error) = builder.cell(cells[index], &aligned, &mut stages) {
            stages.unknown = Some(format!("{error:#}"));
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
        self.roots.place(node.kind, &node.key)
    }

    fn artifact(&self, node: usize, file: &str) -> Artifact {
        Artifact { key: self.graph.nodes[node].key.clone(), path: self.dir(node).join(file) }
    }

    fn samples(&self, (file, pick): (PathBuf, Pick)) -> Result<Samples> {
        Ok(Samples::of(&file, pick, &self.hashes)?)
    }

    /// 1. The aligned model of a seed: imported or trained from nothing, then aligned where it must be.
    fn aligned(&mut self, model: &ModelSpec, seed: u64) -> Result<usize> {
        let imported = self.source(&model.name, &model.source, seed)?;
        let Some(align) = &model.align else { return Ok(imported) };
        let set = |set: &PromptSet| self.samples(self.sweep.prompts_of(set));
        let stage = Align {
            model: self.artifact(imported, MODEL),
            refusals: set(&align.refusals)?,
            refusal_texts: align.refusal_texts.clone(),
            helpful: align.helpful.iter().map(set).collect::<Result<_>>()?,
            helpful_max_new_tokens: align.helpful_max_new_tokens,
            settings: align.settings.clone(),
            seed,
            dtype: DTYPE,
        };
        self.add(model.name.clone(), stage, &[imported])
    }

    fn source(&mut self, name: &str, source: &Source, seed: u64) -> Result<usize> {
        let sweep = self.sweep;
        let import =
            |path: PathBuf| Ok(Import { source: Artifact::model(&path, &self.hashes)?, base: None, dtype: DTYPE });
        let stage = match source {
            Source::Pretrain(pretrain) => {
                let training = &pretrain.training;
                let vocabulary = prompts::Tokenizer::from_dir(&sweep.data_file(&training.tokenizer))?.vocab_size();
                let stage = Pretrain {
                    config: pretrain.config.decoder(Some(vocabulary))?,
                    tokenizer: Artifact::model(&sweep.data_file(&training.tokenizer), &self.hashes)?,
                    corpus: self.samples((sweep.data_file(&training.corpus), Pick::answered()))?,
                    initializer_range: training.initializer_range,
                    settings: training.train.clone(),
                    seed,
                };
                return self.add(name.to_owned(), stage, &[]);
            }
            Source::Dir(dir) => import(sweep.root_file(dir)),
            Source::Gguf(gguf) => import(sweep.root_file(&gguf.file)),
            Source::Hub(hub) => import(sweep.root_file(&hub.dir)).with_context(|| {
                format!("the weights of {} must be there; get them with {}", hub.id, hub.how_to_get())
            }),
        };
        self.add(name.to_owned(), stage?, &[])
    }

    /// 2. to 4. of a cell with all its seeds and variants.
    fn cell(
        &mut self,
        cell: Cell<'_>,
        aligned: &BTreeMap<(&str, u64), Result<usize, String>>,
        stages: &mut CellStages,
    ) -> Result<()> {
        for seed in self.sweep.cell_seeds() {
            let of_seed = &aligned[&(cell.model.name.as_str(), self.sweep.model_seed(seed))];
            let aligned = *of_seed.as_ref().map_err(|error| anyhow!("{error}"))?;
            let mut compared: Vec<Vec<Evaluated>> = Vec::new();
            for Resolved { variant, sweep } in &self.sweep.resolved(seed) {
                let Some(cell) = same_cell(sweep, cell) else { continue };
                let at = At { sweep, cell, seed };
                compared.push(self.compare(&at, aligned, variant)?);
            }
            stages.stages.extend(compared.iter().flatten().flat_map(Evaluated::nodes));
            stages.evaluated.extend(shared_once(compared));
        }
        Ok(())
    }

    /// What is compared in a cell with one seed and variant.
    fn compare(&mut self, at: &At<'_>, aligned: usize, variant: &str) -> Result<Vec<Evaluated>> {
        // 2. Fine-tuning on the task with injected harmful samples.
        let tuned = self.tune(at, aligned)?;
        // 3. Recovery, decided on the validation split, the baselines and the control arms beside it.
        let mut recovery = None;
        if let Some(compared) = at.sweep.methods.iter().find(|one| is_recovery(one)) {
            recovery = Some(self.model(at, compared, (aligned, tuned), None)?);
        }
        let mut all = Vec::new();
        for compared in &at.sweep.methods {
            let model = self.model(at, compared, (aligned, tuned), recovery)?;
            // 4. Evaluation on the test splits.
            let name = format!("{} {}", named(at.cell, variant), compared.name);
            all.push(self.evaluate(at, name, compared, model, variant)?);
        }
        Ok(all)
    }

    /// The stage that makes a model to be compared.
    fn model(
        &mut self,
        at: &At<'_>,
        compared: &Compared,
        (aligned, tuned): (usize, usize),
        recovery: Option<usize>,
    ) -> Result<usize> {
        match &compared.what {
            What::Aligned => Ok(aligned),
            What::FineTuned => Ok(tuned),
            What::SafeInstruct(SafeInstruct { share }) => {
                let (file, pick) = at.sweep.train_samples(at.cell.task);
                let pairs = (pick.read(&file)?.len() as f64 * share).ceil() as usize;
                let (safe, answers) = self.own_pairs(at, aligned, pairs, false)?;
                let data = TrainingSet { safe: Some(safe), ..self.training_set(at)? };
                self.finetune(at, compared, aligned, data, Objective::Sft, &[answers])
            }
            What::OneShot(OneShot { pairs, harmless }) => {
                let (safe, answers) = self.own_pairs(at, aligned, *pairs, *harmless)?;
                let data = TrainingSet { task: None, inject: None, safe: Some(safe) };
                self.finetune(at, compared, tuned, data, Objective::Sft, &[answers])
            }
            What::SoftSft(settings) => {
                let nodes = self.references(at, aligned)?;
                let references = nodes.iter().map(|&node| self.artifact(node, REFERENCE)).collect();
                let objective = Objective::SoftSft { settings: *settings, references };
                let data = self.training_set(at)?;
                self.finetune(at, compared, aligned, data, objective, &nodes)
            }
            What::Repair(method) => {
                let method = at.decided(method);
                let needs = method.repair().needs();
                let reads_task = needs.task_prompts && at.sweep.recovery.trust_task;
                let mut parents = vec![aligned, tuned];
                let unaligned = if needs.unaligned { Some(self.unaligned(at, aligned)?) } else { None };
                let counted = match (needs.recovery, recovery) {
                    (true, None) => anyhow::bail!("methods: {} needs `recover` among the methods", compared.name),
                    (needed, recovery) => recovery.filter(|_| needed),
                };
                let base = if needs.base { Some(self.base(at, aligned)?) } else { None };
                let safe = if needs.safe { Some(self.safe(at, aligned)?) } else { None };
                parents.extend(unaligned.iter().chain(&counted).chain(&base).chain(&safe));
                let evidence = if compared.reads_evidence() { Some(self.evidence(at)?) } else { None };
                let answers = match &evidence {
                    Some(evidence) => Some(self.own_answers(at, aligned, evidence.clone())?),
                    None => None,
                };
                parents.extend(answers);
                let with = |needed: bool, from| if needed { self.samples(from).map(Some) } else { Ok(None) };
                let stage = Repair {
                    method: method.clone(),
                    aligned: self.artifact(aligned, MODEL),
                    fine_tuned: self.artifact(tuned, MODEL),
                    unaligned: unaligned.map(|node| self.artifact(node, MODEL)),
                    base: base.map(|node| self.artifact(node, MODEL)),
                    safe: safe.map(|node| self.artifact(node, MODEL)),
                    recovery: counted.map(|node| self.artifact(node, "")),
                    prompts: with(needs.prompts, at.sweep.recovery_prompts())?,
                    task: with(reads_task, at.sweep.task_prompts(at.cell.task))?,
                    evidence,
                    answers: answers.map(|node| self.artifact(node, "")),
                    choose: method.repair().knob().filter(|_| compared.by_merit),
                    gate: if reads_task && !compared.by_merit { Some(self.gate(at)?) } else { None },
                    seed: at.seed,
                    dtype: DTYPE,
                    thinking: None,
                    probe: 0,
                };
                self.add(format!("{} {}", at.cell, compared.name), stage, &parents)
            }
        }
    }

    /// What strong recovery reads and methods are chosen by.
    fn evidence(&self, at: &At<'_>) -> Result<Evidence> {
        let spec = at.sweep.recovery.evidence.as_ref().ok_or_else(|| anyhow!("`recovery.evidence` is missing"))?;
        let prompts = |file: &Path| -> Result<Parts> {
            let part = |held_out| self.samples(at.sweep.evidence_prompts(spec, file, held_out));
            Ok(Parts { train: part(false)?, held_out: part(true)? })
        };
        let samples = |held_out| self.samples(at.sweep.evidence_samples(spec, at.cell.task, held_out));
        Ok(Evidence {
            harmful: prompts(&at.sweep.recovery.prompts)?,
            harmless: prompts(&spec.harmless)?,
            task: match at.sweep.recovery.trust_task {
                true => Some(Parts { train: samples(false)?, held_out: samples(true)? }),
                false => None,
            },
            max_new_tokens: spec.max_new_tokens,
            reference: spec.reference,
            merit: spec.merit,
        })
    }

    /// The aligned model's own answers to the evidence, which all tasks and counts share.
    fn own_answers(&mut self, at: &At<'_>, aligned: usize, evidence: Evidence) -> Result<usize> {
        let merit = MeritSettings::default();
        let evidence = Evidence { task: None, reference: recovery::Reference::Aligned, merit, ..evidence };
        let stage = OwnAnswers { aligned: self.artifact(aligned, MODEL), evidence, dtype: None };
        self.add(at.cell.model.name.clone(), stage, &[aligned])
    }

    /// The score that decides: on samples that are held out of training, or, as the released code has it, on those that
    /// are reported.
    fn gate(&self, at: &At<'_>) -> Result<Gate> {
        let task = at.cell.task;
        let samples = self.samples(at.sweep.deciding_samples(task))?;
        Ok(Gate { samples, metric: task.metric, max_new_tokens: task.max_new_tokens })
    }

    /// The usual fine-tuning of a cell.
    fn tune(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let (data, settings) = (self.training_set(at)?, at.sweep.finetune.clone());
        let objective = match &at.sweep.evading {
            None => Objective::Sft,
            Some(EvadingSpec { prompts, layer, weight }) => {
                let prompts = self.samples(at.sweep.prompts_of(prompts))?;
                Objective::Evading { prompts, layer: *layer, weight: *weight }
            }
        };
        self.trained(at, "finetune", aligned, data, (objective, settings), &[])
    }

    /// A model that a method trains.
    fn finetune(
        &mut self,
        at: &At<'_>,
        compared: &Compared,
        start: usize,
        data: TrainingSet,
        objective: Objective,
        others: &[usize],
    ) -> Result<usize> {
        let settings = compared.training(&at.sweep.finetune).map_err(|error| anyhow!("{}: {error}", compared.name))?;
        let kind = match compared.what {
            What::SafeInstruct(_) => "safe_instruct",
            What::OneShot(_) => "one_shot",
            _ => "soft_sft",
        };
        self.trained(at, kind, start, data, (objective, settings), others)
    }

    fn trained(
        &mut self,
        at: &At<'_>,
        kind: &'static str,
        start: usize,
        data: TrainingSet,
        (objective, settings): (Objective, TrainSettings),
        others: &[usize],
    ) -> Result<usize> {
        let (model, seed) = (self.artifact(start, MODEL), at.seed);
        let stage = Finetune { model, data, objective, settings, seed, dtype: DTYPE, kind };
        self.add(at.cell.to_string(), stage, &[&[start], others].concat())
    }

    /// What a cell's models are fine-tuned on.
    fn training_set(&self, at: &At<'_>) -> Result<TrainingSet> {
        let task = self.samples(at.sweep.train_samples(at.cell.task))?;
        Ok(TrainingSet { task: Some(task), inject: Some(self.inject(at, at.cell.harmful_count, 0)?), safe: None })
    }

    /// Prompts of the evidence with the aligned model's own answers, and the stage that asks it.
    fn own_pairs(&mut self, at: &At<'_>, aligned: usize, count: usize, harmless: bool) -> Result<(Samples, usize)> {
        let evidence = self.evidence(at)?;
        let node = self.own_answers(at, aligned, evidence)?;
        let answers = self.artifact(node, OwnAnswers::file(harmless));
        let pick = Pick { count: Some(count), responses: true, ..Pick::default() };
        let content = format!("{}/{}", answers.key, OwnAnswers::file(harmless));
        Ok((Samples { file: answers.path, content, pick }, node))
    }

    fn inject(&self, at: &At<'_>, count: usize, pass_over: usize) -> Result<Inject> {
        let samples = self.samples((at.sweep.data_file(&at.sweep.inject), Pick::answered()))?;
        Ok(Inject { samples, count, pass_over, seed: at.seed })
    }

    /// What the aligned model gives to the task's samples, which all counts of a task share, and to the harmful samples of
    /// the largest count, which all tasks and counts share.
    fn references(&mut self, at: &At<'_>, aligned: usize) -> Result<Vec<usize>> {
        let (model, max_len, seed) = (self.artifact(aligned, MODEL), at.sweep.finetune.max_len, at.seed);
        let task = self.samples(at.sweep.train_samples(at.cell.task))?;
        let data = TrainingSet { task: Some(task), inject: None, safe: None };
        let name = format!("{} {}", at.cell.model.name, at.cell.task.name);
        let stage = Reference { model: model.clone(), data, max_len, seed, dtype: DTYPE };
        let mut nodes = vec![self.add(name, stage, &[aligned])?];
        if at.cell.harmful_count > 0 {
            let largest = at.sweep.largest_count(self.harmful_samples(at)?);
            let inject = Some(self.inject(at, largest, 0)?);
            let name = format!("{} harmful samples", at.cell.model.name);
            let data = TrainingSet { task: None, inject, safe: None };
            nodes.push(self.add(name, Reference { model, data, max_len, seed, dtype: DTYPE }, &[aligned])?);
        }
        Ok(nodes)
    }

    /// How many harmful samples there are to inject; each file is counted once.
    fn harmful_samples(&mut self, at: &At<'_>) -> Result<usize> {
        let file = at.sweep.data_file(&at.sweep.inject);
        if let Some(&count) = self.counted.get(&file) {
            return Ok(count);
        }
        let count = prompts::read_training_jsonl(&file)?.len();
        self.counted.insert(file, count);
        Ok(count)
    }

    /// The model before alignment.
    fn base(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        match (&at.cell.model.base, &at.cell.model.align) {
            (Some(source), _) => self.source(&at.cell.model.name, source, self.sweep.model_seed(at.seed)),
            (None, Some(_)) => Ok(self.graph.nodes[aligned].parents[0]),
            (None, None) => anyhow::bail!("models: {} needs `base`, the model before alignment", at.cell.model.name),
        }
    }

    /// The safe model of SafeMERGE: the aligned one fine-tuned on its own answers to the evidence, refusals and others.
    fn safe(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let spec = at.sweep.recovery.evidence.as_ref().ok_or_else(|| anyhow!("`recovery.evidence` is missing"))?;
        let (refusals, answers) = self.own_pairs(at, aligned, spec.part(false), false)?;
        let (others, _) = self.own_pairs(at, aligned, spec.part(false), true)?;
        let data = TrainingSet { task: Some(others), inject: None, safe: Some(refusals) };
        let settings = at.sweep.finetune.clone();
        let (model, objective) = (self.artifact(aligned, MODEL), Objective::Sft);
        let stage = Finetune { model, data, objective, settings, seed: at.seed, dtype: DTYPE, kind: "safe" };
        self.add(at.cell.model.name.clone(), stage, &[aligned, answers])
    }

    /// The verdicts of the sweep's judges on some files of answers, with their names.
    fn judges(&mut self, name: &str, answers: usize, asked: &[AnswerFile]) -> Result<Vec<(String, usize)>> {
        let mut judges = Vec::new();
        for judge in &self.sweep.judges {
            let stage = Judge::new(judge, self.artifact(answers, ""), asked.to_vec(), &self.hashes)?;
            judges.push((judge.name().to_owned(), self.add(format!("{name} {}", judge.name()), stage, &[answers])?));
        }
        Ok(judges)
    }

    /// The unaligned model: the aligned one fine-tuned on harmful samples alone, on none that a cell injects and from
    /// another start, so that a safety vector knows nothing of the fine-tuning that it repairs.
    fn unaligned(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let unaligned = &at.sweep.unaligned;
        let pass_over = at.sweep.passed_over(self.harmful_samples(at)?);
        let settings = at.sweep.finetune.clone();
        let learning_rate = unaligned.learning_rate.unwrap_or(settings.learning_rate);
        let stage = Finetune {
            model: self.artifact(aligned, MODEL),
            data: TrainingSet { task: None, inject: Some(self.inject(at, unaligned.samples, pass_over)?), safe: None },
            objective: Objective::Sft,
            settings: TrainSettings { epochs: unaligned.epochs, learning_rate, ..settings },
            seed: !at.seed,
            dtype: DTYPE,
            kind: "unaligned",
        };
        self.add(at.cell.model.name.clone(), stage, &[aligned])
    }

    fn evaluate(
        &mut self,
        at: &At<'_>,
        name: String,
        compared: &Compared,
        model: usize,
        variant: &str,
    ) -> Result<Evaluated> {
        let safety = self.safety(at, name.clone(), model)?;
        let task = at.cell.task;
        let samples = self.samples(at.sweep.test_samples(task))?;
        let question = Question { asked: task_set(task.metric), samples, max_new_tokens: task.max_new_tokens };
        let scored = self.ask(name.clone(), model, vec![question])?;
        let judges = self.judges(&name, safety, &prompt_sets())?;
        // What an unaligned model did not lose, a safety vector made with it cannot hold: its answers belong to the record.
        let reads_unaligned = |parent: &&usize| self.graph.nodes[**parent].kind == "unaligned";
        let unaligned = self.graph.nodes[model].parents.iter().find(reads_unaligned).copied();
        let unaligned = match unaligned {
            Some(node) => Some(self.safety(at, format!("{} unaligned", at.cell.model.name), node)?),
            None => None,
        };
        let (variant, method) = (variant.to_owned(), (compared.name.clone(), compared.label.clone()));
        let attacks = self.attacks(at, &name, model)?;
        Ok(Evaluated { seed: at.seed, variant, method, model, safety, task: scored, judges, unaligned, attacks })
    }

    fn safety(&mut self, at: &At<'_>, name: String, model: usize) -> Result<usize> {
        let question = |(asked, set): (AnswerFile, &AnswerSet)| {
            let samples = self.samples(at.sweep.asked(set))?;
            Ok(Question { asked, samples, max_new_tokens: set.max_new_tokens })
        };
        let sets = [&at.sweep.evaluation.harmful, &at.sweep.evaluation.harmless];
        let questions = prompt_sets().into_iter().zip(sets).map(question).collect::<Result<_>>()?;
        self.ask(name, model, questions)
    }

    fn ask(&mut self, name: String, model: usize, questions: Vec<Question>) -> Result<usize> {
        let phrases = evaluation::Judge::phrases().identity();
        let stage = Evaluate { model: self.artifact(model, MODEL), questions, phrases, dtype: None };
        self.add(name, stage, &[model])
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
fn shared_once(variants: Vec<Vec<Evaluated>>) -> Vec<Evaluated> {
    let mut all = Vec::new();
    let methods = variants.first().map_or(0, Vec::len);
    for method in 0..methods {
        let of_method: Vec<&Evaluated> = variants.iter().filter_map(|variant| variant.get(method)).collect();
        if of_method.iter().all(|one| one.nodes().eq(of_method[0].nodes())) {
            all.push(Evaluated { variant: String::new(), ..of_method[0].clone() });
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

/// Whether the control arms of a cell restore as many weights as this method does.
fn is_recovery(compared: &Compared) -> bool {
    matches!(&compared.what, What::Repair(Method::Recover(_)))
}

/// The prompt sets of a sweep, by their names in files.
#[must_use]
pub fn prompt_sets() -> [AnswerFile; 2] {
    [("harmful", PromptKind::Harmful), ("harmless", PromptKind::Harmless)]
        .map(|(name, kind)| AnswerFile { name: name.to_owned(), aim: Aim::Prompts(kind) })
}

fn task_set(metric: Metric) -> AnswerFile {
    AnswerFile { name: "task".to_owned(), aim: Aim::Task(vec![metric]) }
}

/// A cell's name with the variant's.
fn named(cell: Cell<'_>, variant: &str) -> String {
    if variant.is_empty() { cell.to_string() } else { format!("{cell} {variant}") }
}
