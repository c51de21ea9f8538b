//! The method in order, numbered as in the paper's section IV and METHOD.md: what a sweep does with
//! each model, task and harmful count. What a stage computes is in `realign`; how results are kept
//! is in `store.rs`; which cells are gone through, and what is done with their rows, is in `run.rs`.
//!
//! With a store that only looks, nothing is computed: the same steps then say which stages there
//! are, and give the rows of what is finished.

use anyhow::{Context, Result};
use burn::tensor::Device;
use evaluation::{JudgeScores, JudgedRate};
use realign::stage::recover::RecoverySummary;

use crate::progress::Progress;
use crate::row::{ResultRow, note};
use crate::scores::StageScores;
use crate::stages::{self, Context as StageContext, SweepJudge};
use crate::store::{Stage, Store};
use crate::sweep::{Cell, Method, ModelSpec, Resolved, Sweep};

/// What the stages of a sweep need.
#[derive(Clone, Copy)]
pub struct Pipeline<'a> {
    /// The sweep; its seed is that of the aligned models, unless they are redrawn.
    pub sweep: &'a Sweep,
    /// Where results are kept, or looked for.
    pub store: &'a Store,
    /// Who judges, where the sweep says so.
    pub judges: &'a [SweepJudge],
    /// Where tensors are computed.
    pub device: &'a Device,
    /// Where finished stages are reported.
    pub progress: &'a Progress,
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

/// The first error of steps that do not need each other.
struct Failures(Result<()>);

impl Failures {
    fn keep<T>(&mut self, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                if self.0.is_ok() {
                    self.0 = Err(error);
                }
                None
            }
        }
    }
}

impl Pipeline<'_> {
    /// The aligned model of a seed, which the cells of a model share.
    ///
    /// # Errors
    /// When its source cannot be read or training fails.
    pub fn aligned(&self, model: &ModelSpec, seed: u64) -> Result<Stage> {
        // 1. The aligned model: imported or trained from nothing, then aligned where it must be.
        let sweep = Sweep { seed, ..self.sweep.clone() };
        let context = self.context(&sweep);
        let imported = stages::source(context, model)?;
        self.progress.finish("import", &model.name, "f32 weights", &imported);
        let Some(align) = &model.align else { return Ok(imported) };
        let aligned = stages::align(context, model, align, &imported)?;
        self.progress.finish("align", &model.name, &stages::training_figure(&aligned), &aligned);
        Ok(aligned)
    }

    /// A cell with one seed, in all variants; the rows of the models that are evaluated go to `rows`. A model that fails
    /// leaves the others as they are.
    ///
    /// # Errors
    /// The first one, when a stage fails or a file that it reads is missing.
    pub fn cell(
        &self,
        cell: Cell<'_>,
        variants: &[Resolved],
        aligned: &Stage,
        rows: &mut Vec<ResultRow>,
    ) -> Result<()> {
        let mut failures = Failures(Ok(()));
        for (i, variant) in variants.iter().enumerate() {
            let context = self.context(&variant.sweep);
            // 2. Fine-tuning on the task with injected harmful samples.
            let tuned = stages::finetune(context, cell, aligned)?;
            self.progress.finish("finetune", &cell.to_string(), &stages::training_figure(&tuned), &tuned);
            let mut models = vec![Evaluated::new(Method::Aligned, aligned), Evaluated::new(Method::FineTuned, &tuned)];
            models.extend(self.changed(cell, variant, (aligned, &tuned), &mut failures));
            // 4. Evaluation of all of them on the test splits; what all variants share is there once.
            let asked = |model: &&Evaluated| {
                self.sweep.methods.contains(&model.method) && (i == 0 || model.method.follows_recovery())
            };
            for model in models.iter().filter(asked) {
                rows.extend(failures.keep(self.evaluate(cell, variant, model)).flatten());
            }
        }
        failures.0
    }

    /// The models that come of a fine-tuned one.
    fn changed(
        &self,
        cell: Cell<'_>,
        variant: &Resolved,
        models: (&Stage, &Stage),
        failures: &mut Failures,
    ) -> Vec<Evaluated> {
        let context = self.context(&variant.sweep);
        let name = named(cell, &variant.variant);
        let asked = |method| self.sweep.methods.contains(&method);
        // 3. Recovery, decided on the validation split, the baselines and the control arms beside it.
        let recovery = asked(Method::Recovered).then(|| self.recovery(context, cell, &name, models));
        let recovery = recovery.and_then(|outcome| failures.keep(outcome));
        let soft = asked(Method::SoftSft).then(|| self.soft_sft(context, cell, models.0));
        let resta = asked(Method::Resta).then(|| self.resta(context, cell, models));
        let baselines = [soft, resta].into_iter().flatten();
        let mut changed: Vec<Evaluated> = baselines.filter_map(|outcome| failures.keep(outcome)).collect();
        // An arm that does not follow the recovery is one for all variants.
        let first = self.sweep.variants.first().is_none_or(|first| first.name == variant.variant);
        for &method in self.sweep.methods.iter().filter(|method| method.is_control()) {
            let possible = recovery.is_some() || !method.needs_recovery();
            if possible && (first || method.follows_recovery()) {
                let recovered = recovery.as_ref().map(|recovery| &recovery.stage);
                changed.extend(failures.keep(self.control(context, cell, (method, &name), models, recovered)));
            }
        }
        recovery.into_iter().chain(changed).collect()
    }

    fn recovery(
        &self,
        context: StageContext<'_>,
        cell: Cell<'_>,
        name: &str,
        (aligned, tuned): (&Stage, &Stage),
    ) -> Result<Evaluated> {
        let stage = stages::recover(context, cell, aligned, tuned)?;
        let mut model = Evaluated::new(Method::Recovered, &stage);
        if stage.finished {
            let summary: RecoverySummary = stage.summary()?;
            self.progress.finish("recover", name, &summary.note, &stage);
            model.restored = Some(summary.restored);
            model.note = if summary.recovered { String::new() } else { "not recovered".to_owned() };
        }
        Ok(model)
    }

    fn control(
        &self,
        context: StageContext<'_>,
        cell: Cell<'_>,
        (method, name): (Method, &str),
        models: (&Stage, &Stage),
        recovered: Option<&Stage>,
    ) -> Result<Evaluated> {
        let arm = stages::control(context, cell, method, models, recovered)?;
        let set: Option<usize> = if arm.finished { arm.summary()? } else { None };
        let figure = set.map_or("all weights moved".to_owned(), |set| format!("{set} weights restored"));
        self.progress.finish("control", &format!("{name} {method}"), &figure, &arm);
        Ok(Evaluated { restored: set, ..Evaluated::new(method, &arm) })
    }

    /// SoftSFT; what all cells of a task or a model share is made by the first of them.
    fn soft_sft(&self, context: StageContext<'_>, cell: Cell<'_>, aligned: &Stage) -> Result<Evaluated> {
        let model = &cell.model.name;
        let of_task = stages::task_reference(context, cell.task, aligned)?;
        let figure = |stage: &Stage| format!("aligned model on {} samples", stage.samples);
        self.progress.finish("reference", &format!("{model} {}", cell.task.name), &figure(&of_task), &of_task);
        let mut references = vec![of_task];
        if let Some(harmful) = stages::harmful_reference(context, cell, aligned)? {
            self.progress.finish("reference", &format!("{model} harmful"), &figure(&harmful), &harmful);
            references.push(harmful);
        }
        let soft = stages::soft_sft(context, cell, aligned, &references)?;
        self.progress.finish("softsft", &cell.to_string(), &stages::training_figure(&soft), &soft);
        Ok(Evaluated::new(Method::SoftSft, &soft))
    }

    /// RESTA; the unaligned model, which all cells of a model share, is made by the first of them.
    fn resta(
        &self,
        context: StageContext<'_>,
        cell: Cell<'_>,
        (aligned, tuned): (&Stage, &Stage),
    ) -> Result<Evaluated> {
        let model = &cell.model.name;
        let unaligned = stages::unaligned(context, cell.model, aligned)?;
        self.progress.finish("unaligned", model, &stages::training_figure(&unaligned), &unaligned);
        self.check_unaligned(context, model, &unaligned)?;
        let resta = stages::resta(context, cell, aligned, tuned, &unaligned)?;
        self.progress.finish("resta", &cell.to_string(), "safety vector added", &resta);
        Ok(Evaluated::new(Method::Resta, &resta))
    }

    /// Asks RESTA's unaligned model: what it did not lose, the safety vector cannot hold.
    fn check_unaligned(&self, context: StageContext<'_>, model: &str, unaligned: &Stage) -> Result<()> {
        let name = format!("{model} unaligned");
        let asked = stages::safety(context, &name, unaligned)?;
        let Some(scores) = self.scores("evaluate", &name, &asked)? else { return Ok(()) };
        let harmful = scores.harmful.and_then(|scores| scores.rate).map_or(0.0, |rate| rate.rate);
        if asked.fresh && harmful < 0.5 {
            tracing::warn!(
                "RESTA's unaligned model of {model}, seed {}, answers {:.1} % of the harmful prompts only: resta.epochs or \
                 resta.learning_rate may be too small",
                context.sweep.seed,
                100.0 * harmful
            );
        }
        Ok(())
    }

    /// The row of a model, none when it is only looked for and not there.
    fn evaluate(&self, cell: Cell<'_>, variant: &Resolved, model: &Evaluated) -> Result<Option<ResultRow>> {
        // The aligned model's answers serve all seeds that share it.
        let seed = variant.sweep.seed;
        let seed = if model.method == Method::Aligned { self.sweep.model_seed(seed) } else { seed };
        let sweep = Sweep { seed, ..variant.sweep.clone() };
        let context = self.context(&sweep);
        let name = format!("{} {}", named(cell, &variant.variant), model.method);
        let safety = stages::safety(context, &name, &model.stage)?;
        let phrases = self.scores("evaluate", &name, &safety)?;
        let task = stages::task(context, &name, cell.task, &model.stage)?;
        let scored = self.scores("evaluate", &name, &task)?;
        let verdicts = self.verdicts(context, &name, (&model.stage, &safety))?;
        let (Some(phrases), Some(scored), Some(verdicts)) = (phrases, scored, verdicts) else { return Ok(None) };
        let harmful = rate(verdicts.first().map_or(&phrases.harmful, |first| &first.1.harmful), &safety)?;
        // Only a judge that tells refusals says something of the harmless prompts.
        let refused = verdicts.iter().find_map(|(_, scores)| scores.over_refusal.is_some().then_some(scores));
        let refused = rate(&refused.unwrap_or(&phrases).over_refusal, &safety)?;
        let score = scored.task.context("the task was asked")?;
        let follows = model.method.follows_recovery();
        Ok(Some(ResultRow {
            model: cell.model.name.clone(),
            task: cell.task.name.clone(),
            harmful_count: cell.harmful_count,
            seed: variant.sweep.seed,
            variant: if follows { variant.variant.clone() } else { String::new() },
            method: model.method,
            harmful_rate: harmful.rate,
            harmful_low: harmful.interval.0,
            harmful_high: harmful.interval.1,
            over_refusal: refused.rate,
            task_score: score.value,
            task_low: score.interval.0,
            task_high: score.interval.1,
            restored: model.restored.map(|count| count as u64),
            seconds: model.stage.seconds,
            evaluation_seconds: safety.seconds
                + task.seconds
                + verdicts.iter().map(|(stage, _)| stage.seconds).sum::<f64>(),
            n: harmful.judged(),
            safety_stage: safety.key,
            task_stage: task.key,
            note: note(&model.note, harmful, refused),
        }))
    }

    /// What each of the sweep's judges says of a model's answers; none when a judge is only looked for and not there.
    fn verdicts(
        &self,
        context: StageContext<'_>,
        name: &str,
        answers: (&Stage, &Stage),
    ) -> Result<Option<Vec<(Stage, StageScores)>>> {
        let mut all = Some(Vec::new());
        for judge in self.judges {
            let stage = stages::judge(context, name, judge, answers)?;
            match (self.scores("judge", &format!("{name} {}", judge.name()), &stage)?, &mut all) {
                (Some(scores), Some(all)) => all.push((stage, scores)),
                _ => all = None,
            }
        }
        Ok(all)
    }

    /// The scores of a stage that is there.
    fn scores(&self, kind: &'static str, name: &str, stage: &Stage) -> Result<Option<StageScores>> {
        if !stage.finished {
            return Ok(None);
        }
        let scores: StageScores = stage.summary()?;
        self.progress.finish(kind, name, &stages::score_figure(&scores), stage);
        Ok(Some(scores))
    }

    fn context<'b>(&'b self, sweep: &'b Sweep) -> StageContext<'b> {
        StageContext { sweep, store: self.store, device: self.device, progress: self.progress }
    }
}

/// The rate that a judge gives the answers of a stage.
fn rate<'a>(scores: &'a Option<JudgeScores>, stage: &Stage) -> Result<&'a JudgedRate> {
    let scores = scores.as_ref().context("the prompts were asked")?;
    let (judge, n, dir) = (&scores.judge, scores.n, stage.dir.display());
    scores.rate.as_ref().with_context(|| format!("{dir}: {judge} can tell none of the {n} answers"))
}

/// A cell's name with the variant's.
fn named(cell: Cell<'_>, variant: &str) -> String {
    if variant.is_empty() { cell.to_string() } else { format!("{cell} {variant}") }
}
