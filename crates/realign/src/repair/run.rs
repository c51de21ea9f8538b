//! The steps of a repair in order.

use std::path::Path;
use std::time::Instant;

use evaluation::PromptKind;
use evaluation::gate::Stored;
use recovery::{Layer, Method, Reference};

use super::comparison::Comparison;
use super::gather::{Asking, Found};
use super::measures::rate;
use super::opened::{Opened, models};
use super::plan::Plan;
use super::report::Verdict;
use super::{Recovered, Recovery, card, page, text};
use crate::error::invalid;
use crate::evidence::screened;
use crate::model::Source;
use crate::stage::{Aim, MODEL, OUTCOME, PATCH, Repair};
use crate::{Artifact, Job, LazyModel, Model, Result, Stage as _};

/// A repair under way.
struct Run<'a> {
    recovery: &'a Recovery,
    opened: Opened,
    work: &'a Path,
    aligned: Artifact,
    fine_tuned: Artifact,
    say: &'a mut dyn FnMut(&str),
    seconds: Vec<(String, f64)>,
    warnings: Vec<String>,
}

pub(super) fn run(recovery: &Recovery, work: &Path, job: &mut Job<'_>, say: &mut dyn FnMut(&str)) -> Result<Recovered> {
    let settings = recovery.settings();
    let opened = Opened::new(settings, &recovery.hashes)?;
    let plan = opened.plan(settings, job.device, settings.out.as_deref().unwrap_or(work));
    plan.check()?;
    let (aligned, fine_tuned) = models(settings)?;
    let artifact = |path: &Path| Artifact::model(path, &recovery.hashes);
    let (aligned, fine_tuned) = (artifact(aligned)?, artifact(fine_tuned)?);
    job.batch = settings.batch;
    let warnings = opened.pair.warnings.clone();
    let mut run = Run { recovery, opened, work, aligned, fine_tuned, say, seconds: Vec::new(), warnings };
    run.all(plan, job)
}

impl Run<'_> {
    fn all(&mut self, plan: Plan, job: &mut Job<'_>) -> Result<Recovered> {
        std::mem::take(&mut self.opened.warnings).into_iter().for_each(|warning| self.warn(warning));
        let comparison = self.timed("comparison", job, Self::compare)?;
        if self.recovery.settings().task.is_some() {
            self.timed("screening of the task", job, Self::screen)?;
        }
        let before = self.timed("measurement before", job, |run, job| {
            let model = run.lazy_fine_tuned(job)?;
            run.ask(model, "fine-tuned", job)
        })?;
        let aligned = self.timed("measurement of the aligned model", job, |run, job| {
            let model = run.lazy(&run.aligned, job);
            run.ask(model, "aligned", job)
        })?;
        self.suspect(&comparison, &aligned.stored, &before.stored);
        let stage = self.stage()?;
        // By its key, which has the version of the code in it: what another version began is not gone on with.
        let dir = self.work.join("repair").join(stage.key()?);
        let summary = self.timed("recovery", job, |_, job| match stage.finished(&dir)? {
            Some(summary) => Ok(summary),
            None => stage.run(&dir, job),
        })?;
        (self.say)(&summary.note);
        let is_recovered = summary.recovered;
        let model = dir.join(MODEL);
        let recovered = Artifact::model(&model, &files::Hashes::default())?;
        let after = self.timed("measurement after", job, |run, job| {
            let model = run.lazy(&recovered, job);
            run.ask(model, "recovered", job)
        })?;
        let found = Found {
            recovery: self.recovery,
            dir: &dir,
            aligned: &self.aligned,
            fine_tuned: &self.fine_tuned,
            recovered: &recovered,
            plan,
            comparison,
            summary,
            asked: [&aligned, &before, &after],
            seconds: std::mem::take(&mut self.seconds),
            warnings: std::mem::take(&mut self.warnings),
        };
        let report = found.report(job)?;
        let files = self.work.join("report");
        files::write_json(&files.join("report.json"), &report)?;
        files::write_whole(&files.join("report.md"), text::markdown(&report).as_bytes())?;
        files::write_whole(&files.join("report.html"), page::html(&report)?.as_bytes())?;
        files::write_whole(&model.join("README.md"), card::markdown(&report).as_bytes())?;
        note_verdict(&model.join(OUTCOME), is_recovered, &report.verdict)?;
        // A link, so that stopped work finds both.
        let patch = files.join(PATCH);
        files::remove(&patch)?;
        std::fs::hard_link(dir.join(PATCH), &patch)
            .or_else(|_| std::fs::copy(dir.join(PATCH), &patch).map(drop))
            .map_err(files::Error::io("write", &patch))?;
        Ok(Recovered { report, model, files, scratch: None })
    }

    /// Says a warning, which the report says, too.
    fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }

    /// Does a step and notes how long it took.
    fn timed<T>(
        &mut self,
        name: &str,
        job: &mut Job<'_>,
        step: impl FnOnce(&mut Self, &mut Job<'_>) -> Result<T>,
    ) -> Result<T> {
        job.step(0, 1, name)?;
        let started = Instant::now();
        let done = step(self, job)?;
        self.seconds.push((name.to_owned(), started.elapsed().as_secs_f64()));
        Ok(done)
    }

    fn lazy<'d>(&self, artifact: &Artifact, job: &Job<'d>) -> LazyModel<'d> {
        let thinking = self.recovery.settings().enable_thinking;
        LazyModel::new(artifact, Some(self.opened.dtype), job.device).thinking(thinking)
    }

    fn lazy_fine_tuned<'d>(&self, job: &Job<'d>) -> Result<LazyModel<'d>> {
        let source = Source::new(&self.fine_tuned.path, Some(&self.aligned.path))?;
        let base = (source.dirs.len() > 1).then_some(&self.aligned);
        Ok(self.lazy(&self.fine_tuned, job).on(base))
    }

    fn compare(&mut self, job: &mut Job<'_>) -> Result<Comparison> {
        let [aligned, fine_tuned]: [Model; 2] =
            [self.lazy(&self.aligned, job).into_model()?, self.lazy_fine_tuned(job)?.into_model()?];
        let all_tensors = self.recovery.settings().strong.all_tensors == Some(true);
        let comparison = Comparison::new(&aligned, &fine_tuned, &self.opened.shown(), all_tensors)?;
        (self.say)(&comparison.text());
        comparison.unrelated().into_iter().for_each(|warning| self.warn(warning));
        match comparison.restorable {
            0 if comparison.changed > 0 => invalid(
                "nothing to recover: the two models differ in norms, embedding or head alone, which recovery changes with \
                 `strong.all_tensors: true` in a settings file of `realign init`",
            ),
            0 => invalid(
                "nothing to recover: the two models do not differ in the weights that recovery changes, those of the blocks but \
                 for norms. Is one model named twice? A model alone is measured by `realign gate --model`",
            ),
            _ => Ok(comparison),
        }
    }

    /// Leaves out of the task's test part what the aligned model declines: that a repair does not keep, and is not to.
    fn screen(&mut self, job: &mut Job<'_>) -> Result<()> {
        let mut aligned = self.lazy(&self.aligned, job);
        let files = self.work.join("screen");
        let mut warnings = Vec::new();
        for (asked, samples) in &mut self.opened.questions.asked {
            if let Aim::Task(_) = asked.aim {
                let all = samples.len();
                let file = files.join(format!("{}.jsonl", asked.name));
                *samples = screened(&mut aligned, std::mem::take(samples), file, job)?;
                if samples.is_empty() {
                    return invalid(
                        "the aligned model declines every sample of the task's test part: leave --task out",
                    );
                }
                if samples.len() < all {
                    let left = all - samples.len();
                    warnings.push(format!(
                        "{left} of {all} test samples of the task are not scored: the aligned model declines them"
                    ));
                }
            }
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        Ok(())
    }

    fn ask(&mut self, mut model: LazyModel<'_>, name: &str, job: &mut Job<'_>) -> Result<Asking> {
        let stored = self.opened.questions.ask(&mut model, name, &self.work.join(name), job)?;
        let model = model.load()?;
        let layer = Layer::default().of_blocks(model.decoder.config().num_hidden_layers);
        let rows = model.encode_prompts(&self.opened.questions.prompts(PromptKind::Harmful))?;
        let direction = (layer, direction::mean_direction(&model.decoder, &rows, layer)?);
        (self.say)(&format!("{name}: {}", text::one_line(&stored)));
        Ok(Asking { stored, direction })
    }

    /// Notes what speaks against a repair of these models by these prompts.
    fn suspect(&mut self, comparison: &Comparison, aligned: &Stored, before: &Stored) {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let [harm_aligned, harm_before] =
            [aligned, before].map(|stored| rate(stored, |kind| kind == PromptKind::Harmful).unwrap_or(0.0));
        let refused = rate(aligned, |kind| kind != PromptKind::Harmful).unwrap_or(0.0);
        let mut warnings = Vec::new();
        if !comparison.templates_equal || !comparison.tokenizers_equal {
            warnings.push(
                "tokenizers or chat templates of the two models differ: each reads the prompts in its own".to_owned(),
            );
        }
        if harm_aligned > harm_before {
            warnings.push(format!(
                "the aligned model answers {} of the harmful prompts and the fine-tuned one {}: are the two swapped?",
                percent(harm_aligned),
                percent(harm_before)
            ));
        } else if harm_aligned > 0.5 {
            let share = percent(harm_aligned);
            warnings.push(format!(
                "the aligned model answers {share} of the harmful prompts; recovery needs prompts that it refuses"
            ));
        } else if harm_before < harm_aligned + 0.05 {
            let share = percent(harm_before);
            warnings.push(format!(
                "the fine-tuned model answers {share} of the harmful prompts, hardly more than the aligned one: there may be \
                 nothing to recover"
            ));
        }
        if refused > 0.2 && self.recovery.settings().reference == Reference::Aligned {
            let share = percent(refused);
            warnings.push(format!("the aligned model refuses {share} of the harmless prompts; --reference finetuned keeps the fine-tuned model's answers to them"));
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
    }

    fn stage(&self) -> Result<Repair> {
        let settings = self.recovery.settings();
        let evidence = self.opened.evidence(settings, &self.work.join("parts"), &self.recovery.hashes)?;
        Ok(Repair {
            method: Method::Strong(settings.strong.clone()),
            aligned: self.aligned.clone(),
            fine_tuned: self.fine_tuned.clone(),
            unaligned: None,
            base: None,
            safe: None,
            recovery: None,
            prompts: None,
            task: None,
            evidence: Some(evidence),
            answers: None,
            choose: None,
            gate: None,
            seed: settings.seed,
            dtype: Some(self.opened.dtype),
            thinking: settings.enable_thinking,
            probe: 0, // both models are measured
        })
    }
}

/// Writes into the file beside a model what the gate said of it: a model that misses a bound is not a recovered one.
fn note_verdict(path: &Path, is_recovered: bool, verdict: &Verdict) -> Result<()> {
    let mut outcome = files::read_json_value(path)?;
    outcome["summary"]["recovered"] = (is_recovered && verdict.passed).into();
    outcome["verdict"] = serde_json::json!({"passed": verdict.passed, "text": verdict.text});
    Ok(files::write_json(path, &outcome)?)
}
