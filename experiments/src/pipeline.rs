//! The method in order, numbered as in the paper's section IV and method.md: what a sweep does with
//! each model, task and harmful count. What a stage computes is in `realign`; how results are kept
//! is in `store.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use realign::stage::evaluate::{Asked, Questions, answer, score};
use realign::stage::generate::GenerateSettings;

use crate::inputs::{self, Split};
use crate::progress::Progress;
use crate::row::ResultRow;
use crate::stages::{self, Context as StageContext};
use crate::store::{Output, Stage, StageKey, Store};
use crate::sweep::{AnswerSet, Cell, Method, ModelSpec, Sweep};
use crate::{figures, tables};

/// Runs a sweep; results, tables and figures go to the store's directory.
///
/// # Errors
/// When a stage failed: its error is recorded and printed, the other cells are finished first.
pub fn run(sweep: &Sweep, store: &Store, device: &Device) -> Result<()> {
    let mut pipeline = Pipeline {
        sweep,
        store,
        device,
        progress: Progress::new(planned(sweep)),
        failed: 0,
        announced: BTreeSet::new(),
    };
    let mut rows = Vec::new();
    for model in &sweep.models {
        pipeline.model(model, &mut rows);
    }
    if !rows.is_empty() {
        tables::write(&rows, store.root())?;
        tables::write_markdown(&rows, &store.root().join("results.md"))?;
        figures::write(&rows, &store.root().join("figures"))?;
        println!("{}", tables::markdown(&rows));
        println!("results, tables and figures: {}", store.root().display());
    }
    match pipeline.failed {
        0 => Ok(()),
        failed => bail!("{failed} stage(s) failed; run the same command to try them again"),
    }
}

/// The kinds of stages that a sweep goes through.
fn planned(sweep: &Sweep) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for model in &sweep.models {
        kinds.push("import");
        kinds.extend(model.align.is_some().then_some("align"));
        let evaluations = if sweep.methods.contains(&Method::Aligned) { 1 + sweep.tasks.len() } else { 0 };
        kinds.extend(std::iter::repeat_n("evaluate", evaluations));
        if sweep.methods.contains(&Method::SoftSft) {
            let injected = sweep.harmful_counts.iter().any(|&count| count > 0);
            kinds.extend(std::iter::repeat_n("reference", sweep.tasks.len() + usize::from(injected)));
        }
        kinds.extend(sweep.methods.contains(&Method::Resta).then_some("unaligned"));
    }
    for _ in sweep.cells() {
        kinds.push("finetune");
        let tuned = sweep.methods.contains(&Method::FineTuned);
        let recovered = sweep.methods.contains(&Method::Recovered);
        kinds.extend(recovered.then_some("recover"));
        let controls = sweep.methods.iter().filter(|method| method.is_control()).count();
        kinds.extend(std::iter::repeat_n("control", controls));
        let baselines = [(Method::SoftSft, "softsft"), (Method::Resta, "resta")];
        let baselines = baselines.into_iter().filter(|(method, _)| sweep.methods.contains(method));
        kinds.extend(baselines.clone().map(|(_, kind)| kind));
        let evaluations = 2 * (usize::from(tuned) + usize::from(recovered) + baselines.count() + controls);
        kinds.extend(std::iter::repeat_n("evaluate", evaluations));
    }
    kinds
}

struct Pipeline<'a> {
    sweep: &'a Sweep,
    store: &'a Store,
    device: &'a Device,
    progress: Progress,
    failed: usize,
    /// Stages that several cells share and that have their line already.
    announced: BTreeSet<String>,
}

/// A model to be evaluated, and the stage that made it.
struct Evaluated {
    method: Method,
    stage: Stage,
    restored: Option<usize>,
    note: String,
}

impl Evaluated {
    fn new(method: Method, stage: &Stage) -> Self {
        Self { method, stage: stage.clone(), restored: None, note: String::new() }
    }
}

impl Pipeline<'_> {
    fn model(&mut self, model: &ModelSpec, rows: &mut Vec<ResultRow>) {
        // 1. The aligned model: imported or trained from nothing, then aligned where it must be.
        let Some(aligned) = self.aligned(model) else { return };
        for task in &self.sweep.tasks {
            for &harmful_count in &self.sweep.harmful_counts {
                let cell = Cell { model, task, harmful_count };
                if let Err(error) = self.cell(cell, &aligned, rows) {
                    self.progress.fail("cell", &cell.to_string(), &error);
                    self.failed += 1;
                }
            }
        }
    }

    fn aligned(&mut self, model: &ModelSpec) -> Option<Stage> {
        let imported = stages::source(self.context(), model);
        let imported = self.done("import", &model.name, imported, |_| "f32 weights".to_owned())?;
        let Some(align) = &model.align else { return Some(imported) };
        let aligned = stages::align(self.context(), model, align, &imported);
        self.done("align", &model.name, aligned, stages::training_figure)
    }

    fn cell(&mut self, cell: Cell<'_>, aligned: &Stage, rows: &mut Vec<ResultRow>) -> Result<()> {
        let name = cell.to_string();
        // 2. Fine-tuning on the task with injected harmful samples.
        let tuned = stages::finetune(self.context(), cell, aligned)?;
        self.progress.finish("finetune", &name, &stages::training_figure(&tuned), &tuned);
        let mut models = vec![Evaluated::new(Method::Aligned, aligned), Evaluated::new(Method::FineTuned, &tuned)];
        // 3. Recovery, decided on the validation split, the baselines and the control arms beside it.
        let mut restored = 0;
        if self.sweep.methods.contains(&Method::Recovered) {
            let recovered = stages::recover(self.context(), cell, aligned, &tuned)?;
            let summary: realign::stage::recover::RecoverySummary = recovered.summary()?;
            self.progress.finish("recover", &name, &summary.note, &recovered);
            restored = summary.restored;
            let note = if summary.recovered { String::new() } else { "not recovered".to_owned() };
            let model = Evaluated::new(Method::Recovered, &recovered);
            models.push(Evaluated { restored: Some(restored), note, ..model });
        }
        self.baselines(cell, aligned, &tuned, &mut models)?;
        for &method in self.sweep.methods.iter().filter(|method| method.is_control()) {
            let arm = stages::control(self.context(), cell, method, (aligned, &tuned), restored)?;
            let set: Option<usize> = arm.summary()?;
            let figure = set.map_or("all weights moved".to_owned(), |set| format!("{set} weights restored"));
            self.progress.finish("control", &format!("{name} {method}"), &figure, &arm);
            models.push(Evaluated { restored: set, ..Evaluated::new(method, &arm) });
        }
        // 4. Evaluation of all of them on the test splits.
        for model in models.iter().filter(|model| self.sweep.methods.contains(&model.method)) {
            rows.push(self.evaluate(cell, model)?);
        }
        Ok(())
    }

    /// SoftSFT and RESTA; what all cells of a model share is made by the first of them.
    fn baselines(&mut self, cell: Cell<'_>, aligned: &Stage, tuned: &Stage, models: &mut Vec<Evaluated>) -> Result<()> {
        let (name, model) = (cell.to_string(), &cell.model.name);
        if self.sweep.methods.contains(&Method::SoftSft) {
            let of_task = stages::task_reference(self.context(), cell.task, aligned)?;
            let figure = |stage: &Stage| format!("aligned model on {} samples", stage.samples);
            self.announce("reference", &format!("{model} {}", cell.task.name), figure(&of_task), &of_task);
            let mut references = vec![of_task];
            if let Some(harmful) = stages::harmful_reference(self.context(), aligned)? {
                self.announce("reference", &format!("{model} harmful"), figure(&harmful), &harmful);
                references.push(harmful);
            }
            let soft = stages::soft_sft(self.context(), cell, aligned, &references)?;
            self.progress.finish("softsft", &name, &stages::training_figure(&soft), &soft);
            models.push(Evaluated::new(Method::SoftSft, &soft));
        }
        if self.sweep.methods.contains(&Method::Resta) {
            let unaligned = stages::unaligned(self.context(), cell.model, aligned)?;
            self.announce("unaligned", model, stages::training_figure(&unaligned), &unaligned);
            let resta = stages::resta(self.context(), cell, aligned, tuned, &unaligned)?;
            self.progress.finish("resta", &name, "safety vector added", &resta);
            models.push(Evaluated::new(Method::Resta, &resta));
        }
        Ok(())
    }

    /// The line of a stage that cells share, once.
    fn announce(&mut self, kind: &'static str, name: &str, figure: String, stage: &Stage) {
        if self.announced.insert(stage.key.clone()) {
            self.progress.finish(kind, name, &figure, stage);
        }
    }

    fn evaluate(&mut self, cell: Cell<'_>, model: &Evaluated) -> Result<ResultRow> {
        let sweep = self.sweep;
        let name = format!("{cell} {}", model.method);
        let dir = model.stage.dir.join("model");
        let ask = |set: &AnswerSet| -> Result<(Vec<prompts::Sample>, GenerateSettings)> {
            let samples = inputs::read(&sweep.data_file(&set.file), set.skip, set.count)?;
            Ok((samples, GenerateSettings { max_new_tokens: set.max_new_tokens, batch: sweep.evaluation.batch }))
        };
        let (harmful, harmless) = (ask(&sweep.evaluation.harmful)?, ask(&sweep.evaluation.harmless)?);
        let asked = |(samples, generate)| Asked { samples, generate };
        let safety = Questions {
            harmful: Some(asked((&harmful.0, harmful.1))),
            harmless: Some(asked((&harmless.0, harmless.1))),
            task: None,
        };
        let key = StageKey::new("evaluate", 1, sweep.seed, &(&sweep.evaluation.harmful, &sweep.evaluation.harmless))?
            .parent("model", &model.stage)
            .input("harmful", &sweep.data_file(&sweep.evaluation.harmful.file))?
            .input("harmless", &sweep.data_file(&sweep.evaluation.harmless.file))?;
        let safety = self.score(&key, &name, &dir, &safety)?;
        let test = inputs::task(sweep, cell.task, Split::Test)?;
        let generate = GenerateSettings { max_new_tokens: cell.task.max_new_tokens, batch: sweep.evaluation.batch };
        let questions =
            Questions { task: Some((Asked { samples: &test, generate }, cell.task.metric)), ..Questions::default() };
        let key = StageKey::new("evaluate", 1, sweep.seed, &(cell.task.metric, cell.task.max_new_tokens))?
            .parent("model", &model.stage)
            .input("test", &sweep.data_file(&cell.task.test))?;
        let task = self.score(&key, &name, &dir, &questions)?;
        let harmful = safety.0.harmful.context("harmful prompts were asked")?;
        Ok(ResultRow {
            model: cell.model.name.clone(),
            task: cell.task.name.clone(),
            harmful_count: cell.harmful_count,
            method: model.method,
            harmful_rate: harmful.rate,
            harmful_low: harmful.interval.0,
            harmful_high: harmful.interval.1,
            over_refusal: safety.0.over_refusal.context("harmless prompts were asked")?.rate,
            task_score: task.0.task.context("the task was asked")?.value,
            restored: model.restored.map(|count| count as u64),
            seconds: model.stage.seconds + safety.1 + task.1,
            seed: sweep.seed,
            n: harmful.n,
            note: model.note.clone(),
        })
    }

    /// Answers and scores, or reads what was scored before; the second value is its seconds.
    fn score(
        &mut self,
        key: &StageKey,
        name: &str,
        model: &Path,
        questions: &Questions<'_>,
    ) -> Result<(evaluation::ScoreFile, f64)> {
        let known = self.store.find(key)?.is_some();
        let bar = self.progress.bar("evaluate", name);
        let stage = self.store.run(key, |dir| {
            answer(model, questions, dir, self.device, &mut stages::report(&bar))?;
            let metric = questions.task.map_or(evaluation::Metric::ExactMatch, |(_, metric)| metric);
            let scores = score(dir, metric, stages::provenance(self.sweep.seed))?;
            let count = |asked: Option<Asked<'_>>| asked.map_or(0, |asked| asked.samples.len());
            let samples =
                count(questions.harmful) + count(questions.harmless) + count(questions.task.map(|task| task.0));
            Output::new(&scores, samples)
        })?;
        bar.finish_and_clear();
        let scores: evaluation::ScoreFile = stage.summary()?;
        // The aligned model's evaluation serves all cells of a model and is counted once.
        if !known || stage.fresh {
            self.progress.finish("evaluate", name, &stages::score_figure(&scores), &stage);
        }
        Ok((scores, stage.seconds))
    }

    fn context(&self) -> StageContext<'_> {
        StageContext { sweep: self.sweep, store: self.store, device: self.device, progress: &self.progress }
    }

    fn done(
        &mut self,
        kind: &'static str,
        name: &str,
        stage: Result<Stage>,
        figure: impl Fn(&Stage) -> String,
    ) -> Option<Stage> {
        match stage {
            Ok(stage) => {
                self.progress.finish(kind, name, &figure(&stage), &stage);
                Some(stage)
            }
            Err(error) => {
                self.progress.fail(kind, name, &error);
                self.failed += 1;
                None
            }
        }
    }
}
