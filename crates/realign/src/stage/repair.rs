//! A method of [`recovery`]'s registry on model directories.

mod check;
mod read;
mod summary;

use std::cell::RefCell;
use std::path::Path;

use evaluation::Metric;
use model::{Decoder, Dtype};
use recovery::{Knob, Method, Outcome, Point, Repaired};
use serde::Serialize;

use self::check::Probe;
pub(crate) use self::check::compare;
use self::read::Read;
pub use self::summary::RepairSummary;
pub(super) use self::summary::summary;
use super::{MODEL, Stage};
use crate::answers::answers;
use crate::error::Within as _;
use crate::model::{Model, save};
use crate::{Artifact, Error, Evidence, Job, Progress, Result, Samples};

/// Applies a method to a fine-tuned model. Both models are rounded to the precision of the result, so that a restored
/// weight is exactly the aligned model's.
#[derive(Debug, Clone, Serialize)]
pub struct Repair {
    /// The method and its settings.
    pub method: Method,
    /// The aligned model.
    pub aligned: Artifact,
    /// The fine-tuned model, or a peft adapter on the aligned one.
    pub fine_tuned: Artifact,
    /// The aligned model after fine-tuning on harmful samples alone, or an adapter, where the method needs it.
    pub unaligned: Option<Artifact>,
    /// The model before alignment, where the method needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Artifact>,
    /// The aligned model after fine-tuning on safe samples, where the method needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe: Option<Artifact>,
    /// The directory of the [`Repair`] whose number of restored weights the method takes, where it needs it.
    pub recovery: Option<Artifact>,
    /// Recovery prompts, where the method needs them.
    pub prompts: Option<Samples>,
    /// The task's training prompts, where the method uses them.
    pub task: Option<Samples>,
    /// Answered prompts, where the method needs them or is chosen by them.
    pub evidence: Option<Evidence>,
    /// The directory of [`OwnAnswers`](super::OwnAnswers) that may hold answers of the aligned model.
    #[serde(skip)]
    pub answers: Option<Artifact>,
    /// The method's knob, where its value is chosen by merit on the held-out part of the evidence.
    pub choose: Option<Knob>,
    /// What decides rollback and the answer.
    pub gate: Option<Gate>,
    /// Decides what is random in the method.
    pub seed: u64,
    /// The precision of the result; that of the fine-tuned model where it is none.
    pub dtype: Option<Dtype>,
    /// What the templates see as `enable_thinking`; without it they decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
    /// How many recovery prompts both models are asked before, for a warning where they answer as if recovery were out of
    /// place, and the result after, which is no recovery where it declines no more of them.
    #[serde(skip)]
    pub probe: usize,
}

/// The task's score on samples that are not reported.
#[derive(Debug, Clone, Serialize)]
pub struct Gate {
    /// Samples with the right answers.
    pub samples: Samples,
    /// How they are scored.
    pub metric: Metric,
    /// Length of an answer.
    pub max_new_tokens: usize,
}

impl Stage for Repair {
    type Summary = RepairSummary;

    fn kind(&self) -> &'static str {
        self.method.word()
    }

    fn version(&self) -> u32 {
        let gated = u32::from(self.gate.is_some()); // a fine-tuned score of 0 cannot gate
        3 + gated + self.method.repair().version()
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<RepairSummary> {
        self.method.repair().check()?;
        let read = Read::of(self, out, job)?;
        let _named = tracing::warn_span!("recover", fine_tuned = %self.fine_tuned.path.display()).entered();
        let checkpoint = out.join("recovery.checkpoint");
        let (repaired, points) = self.apply(&read, &checkpoint, out, job)?;
        let changed = || Model { decoder: repaired.decoder.clone(), tokenizer: read.fine_tuned.tokenizer.clone() };
        let probed = match &read.probe {
            Some(probe) => Some((probe, probe.again(&changed(), job)?)),
            None => None,
        };
        let summary = self.write(&read, (&repaired, &points), probed, out, job.max_shard)?;
        files::remove(&checkpoint)?; // after the last work that can fail
        Ok(summary)
    }
}

impl Repair {
    /// What came of it, where it has been run to its end in a directory.
    pub(crate) fn finished(&self, out: &Path) -> Result<Option<RepairSummary>> {
        let file = out.join(RepairSummary::FILE); // which is written last
        if file.is_file() { Ok(Some(files::read_json(&file)?)) } else { Ok(None) }
    }

    /// Applies the method to what was read, at each of its points where one is chosen; the result has the precision that it is
    /// written in.
    fn apply(
        &self,
        read: &Read<'_>,
        checkpoint: &Path,
        out: &Path,
        job: &mut Job<'_>,
    ) -> Result<(Repaired, Vec<Point>)> {
        job.step(0, 1, "directions")?;
        let (batch, max_shard, device) = (job.batch, job.max_shard, job.device);
        // The method and the gate take turns to report, and either can be stopped.
        let report = RefCell::new(&mut *job.report);
        let mut score = |decoder: &Decoder| -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
            let Some(gate) = &read.gate else { return Ok(f64::NAN) };
            let model = Model { decoder: decoder.clone(), tokenizer: read.fine_tuned.tokenizer.clone() };
            let mut own = |progress: Progress<'_>| (report.borrow_mut())(progress);
            let mut job = Job { device, batch, max_shard, earlier: Vec::new(), report: &mut own };
            let found = match answers(&model, &gate.samples, gate.max_new_tokens, &mut job) {
                Err(Error::Stopped) => return Err(recovery::Error::Stopped.into()),
                found => found?,
            };
            Ok(gate.metric.score(&found)?.value)
        };
        let mut inputs = recovery::Inputs {
            aligned: &read.aligned.decoder,
            fine_tuned: &read.fine_tuned.decoder,
            unaligned: read.unaligned.as_ref(),
            base: read.base.as_ref(),
            safe: read.safe.as_ref(),
            prompts: read.prompts.clone(),
            aligned_prompts: read.aligned_prompts.clone(),
            task_prompts: read.task_prompts.clone(),
            recovered: read.recovered,
            evidence: read.evidence.as_ref(),
            seed: self.seed,
            gate: None,
            checkpoint: Some(checkpoint.to_owned()),
            report: &mut |done, all, word| (report.borrow_mut())(Progress { done, all, word }),
        };
        if let Some(gate) = &read.gate {
            inputs.gate = Some(recovery::Gate { measure: &mut score, by: gate.name.clone() });
        }
        let what = || format!("{} of {}", self.method.label(), self.fine_tuned.path.display());
        let (repaired, points) = if self.choose.is_some() {
            let (repaired, points) = recovery::choose(&self.method, inputs).within(what)?;
            files::write_json(&out.join("points.json"), &points)?;
            (repaired, points)
        } else {
            (self.method.repair().apply(inputs).within(what)?, Vec::new())
        };
        Ok((Repaired { decoder: model::weights::round(repaired.decoder, read.dtype)?, ..repaired }, points))
    }

    /// Writes the model, its patch, its trace and what came of the method.
    fn write(
        &self,
        read: &Read<'_>,
        (repaired, points): (&Repaired, &[Point]),
        probed: Option<(&Probe, usize)>,
        out: &Path,
        max_shard: Option<u64>,
    ) -> Result<RepairSummary> {
        if let Some(trace) = &repaired.trace {
            files::write_json(&out.join("trace.json"), trace)?;
        }
        save(&repaired.decoder, self.dtype, &read.source, max_shard, &out.join(MODEL))?;
        let (aligned, fine_tuned) = (&read.aligned.decoder, &read.fine_tuned.decoder);
        let models = recovery::Models { aligned, fine_tuned, dtype: read.dtype };
        super::patch::write(&out.join(super::PATCH), repaired, models, &self.method)?;
        let by = read.gate.as_ref().map_or("nothing", |gate| gate.name.as_str());
        let damage = recovery::damage(fine_tuned, &repaired.decoder, &[])?;
        let summary = summary(repaired, points, by, damage, read.declined);
        let summary = match probed {
            Some((probe, changed)) => probe.told(changed, &repaired.outcome, summary),
            None => summary,
        };
        let mut made =
            serde_json::json!({"outcome": repaired.outcome, "summary": &summary, "stage": self.kind(), "value": self});
        if let Some((probe, changed)) = probed {
            made["probe"] = probe.json(changed);
        }
        if !read.warnings.is_empty() {
            made["warnings"] = serde_json::json!(read.warnings);
        }
        files::write_json(&out.join(MODEL).join(super::OUTCOME), &made)?;
        if repaired.outcome == Outcome::Nothing {
            tracing::warn!("{}", summary.note);
        }
        files::write_json(&out.join(RepairSummary::FILE), &summary)?;
        Ok(summary)
    }
}
