//! A method of [`recovery`]'s registry on model directories.

use std::path::Path;

use evaluation::Metric;
use model::{Decoder, Dtype};
use prompts::Sample;
use recovery::{Method, Outcome};
use serde::{Deserialize, Serialize};

use super::{MODEL, Stage};
use crate::answers::{answers, named};
use crate::error::{Within as _, invalid};
use crate::model::{Model, dtype_for, home_of_fine_tuned, save};
use crate::{Artifact, Error, Job, Result, Samples};

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
    /// The directory of the [`Repair`] whose number of restored weights the method takes, where it needs it.
    pub recovery: Option<Artifact>,
    /// Recovery prompts, where the method needs them.
    pub prompts: Option<Samples>,
    /// The task's training prompts, where the method uses them.
    pub task: Option<Samples>,
    /// What decides rollback and the answer.
    pub gate: Option<Gate>,
    /// Decides what is random in the method.
    pub seed: u64,
    /// The precision of the result; that of the fine-tuned model where it is none.
    pub dtype: Option<Dtype>,
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

/// What came of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairSummary {
    /// Weights set to the aligned value; none where all weights are moved.
    pub restored: Option<usize>,
    /// Whether the result is what the method is to make; else it is the fine-tuned model.
    pub recovered: bool,
    /// One sentence for people.
    pub note: String,
}

impl RepairSummary {
    /// The file of a summary in a stage's directory, for a stage that reads the number of restored weights.
    pub const FILE: &str = "repair.json";
}

impl Stage for Repair {
    type Summary = RepairSummary;

    fn kind(&self) -> &'static str {
        self.method.word()
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<RepairSummary> {
        let method = self.method.repair();
        method.check()?;
        let gate = self.gate.as_ref().map(Gate::open).transpose()?;
        let (base, tuned) = (self.aligned.path.as_path(), self.fine_tuned.path.as_path());
        let home = home_of_fine_tuned(tuned, base);
        let dtype = dtype_for(self.dtype, home)?;
        // A vector of differences is made in f32 whatever is written: what an adapter adds is small, and its difference
        // rounded is mostly rounding.
        let in_memory = if method.needs().unaligned { Dtype::F32 } else { dtype };
        let open = |dir: &Path| Model::open_fine_tuned(dir, base, in_memory, job.device);
        let (fine_tuned, aligned) = (open(tuned)?, Model::open(base, Some(in_memory), job.device)?);
        let unaligned = self.unaligned.as_ref().map(|artifact| open(&artifact.path)).transpose()?;
        let rows = |samples: &Option<Samples>| match samples {
            Some(samples) => fine_tuned.encode_prompts(&samples.read()?),
            None => Ok(Vec::new()),
        };
        let (prompts, task_prompts) = (rows(&self.prompts)?, rows(&self.task)?);
        let (checkpoint, batch, device) = (out.join("recovery.checkpoint"), job.batch, job.device);
        let mut score = |decoder: &Decoder| -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
            let Some(gate) = &gate else { return Ok(f64::NAN) };
            let model = Model { decoder: decoder.clone(), tokenizer: fine_tuned.tokenizer.clone() };
            let mut quiet = |_: crate::Progress<'_>| std::ops::ControlFlow::Continue(());
            let mut job = Job { device, batch, earlier: Vec::new(), report: &mut quiet };
            let found = answers(&model, &gate.samples, gate.max_new_tokens, &mut job)?;
            Ok(gate.metric.score(&found)?.value)
        };
        let mut inputs = recovery::Inputs {
            aligned: &aligned.decoder,
            fine_tuned: &fine_tuned.decoder,
            unaligned: unaligned.as_ref().map(|model| &model.decoder),
            prompts,
            task_prompts,
            recovered: self.recovery.as_ref().map(restored_by).transpose()?,
            seed: self.seed,
            gate: None,
            checkpoint: Some(checkpoint.clone()),
            report: &mut |step, steps| {
                let word = format!("loss {:.4}, restored {}", step.loss, step.restored);
                job.report(step.step + 1, steps, &word)
            },
        };
        if let Some(gate) = &gate {
            inputs.gate = Some(recovery::Gate { measure: &mut score, by: gate.name.clone() });
        }
        let _named = tracing::warn_span!("recover", fine_tuned = %tuned.display()).entered();
        let repaired = method.apply(inputs).within(|| format!("{} of {}", self.method.label(), tuned.display()))?;
        if let Some(trace) = &repaired.trace {
            files::write_json(&out.join("trace.json"), trace)?;
        }
        save(&repaired.decoder, dtype, home, &out.join(MODEL))?;
        files::remove(&checkpoint)?;
        let by = self.gate.as_ref().map_or("nothing", |gate| gate.metric.name());
        let summary = summary(&repaired, by);
        files::write_json(&out.join(RepairSummary::FILE), &summary)?;
        Ok(summary)
    }
}

/// How many weights a finished stage restored.
fn restored_by(stage: &Artifact) -> Result<usize> {
    let path = stage.path.join(RepairSummary::FILE);
    let summary: RepairSummary = files::read_json(&path)?;
    summary
        .restored
        .ok_or_else(|| Error::Invalid(format!("{}: this method counts no restored weights", path.display())))
}

/// A gate with its samples read.
struct OpenGate {
    /// What the gate decides by, for people and for a checkpoint: gates of one name give the same scores.
    name: String,
    samples: Vec<Sample>,
    metric: Metric,
    max_new_tokens: usize,
}

impl Gate {
    fn open(&self) -> Result<OpenGate> {
        let samples = self.samples.read()?;
        let name = format!("{} on {} samples", self.metric.name(), samples.len());
        if samples.is_empty() {
            return invalid(format!("{}: no sample is held out to decide by", self.samples.file.display()));
        }
        let responses = samples.iter().map(|sample| sample.response.clone().unwrap_or_default()).collect();
        self.metric
            .score(&named(&samples, responses))
            .within(|| format!("the gate cannot score the right answers themselves by {name}"))?;
        Ok(OpenGate { name, samples, metric: self.metric, max_new_tokens: self.max_new_tokens })
    }
}

fn summary(repaired: &recovery::Repaired, by: &str) -> RepairSummary {
    let restored = repaired.restored;
    let count = restored.map_or("all weights moved".to_owned(), |count| format!("{count} weights restored"));
    let (recovered, note) = match repaired.outcome {
        Outcome::Changed => (true, count),
        Outcome::Recovered { steps, rollback } => {
            (true, format!("recovered after {steps} steps, rollback {}", if rollback { "on" } else { "off" }))
        }
        Outcome::NotRecovered { base, score, floor } => {
            (false, format!("not recovered: {by} fell from {base:.3} to {score:.3}, and {floor:.3} is allowed"))
        }
    };
    RepairSummary { restored, recovered, note }
}
