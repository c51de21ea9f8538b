//! What a method reads.

use std::path::Path;

use burn::tensor::Device;
use evaluation::Metric;
use model::{Decoder, DecoderConfig, Dtype, weights};
use prompts::Sample;

use super::check::{self, Probe};
use super::{Gate, Repair, RepairSummary};
use crate::answers::named;
use crate::error::{Within as _, invalid};
use crate::evidence::Pair;
use crate::model::{Model, Source};
use crate::{Artifact, Error, Job, Result, Samples};

/// The models, prompts and answers of a repair, checked against each other.
pub(super) struct Read<'a> {
    /// The fine-tuned model's files.
    pub source: Source<'a>,
    /// The precision of the result.
    pub dtype: Dtype,
    pub aligned: Model,
    pub fine_tuned: Model,
    pub unaligned: Option<Decoder>,
    pub base: Option<Decoder>,
    pub safe: Option<Decoder>,
    pub prompts: Vec<Vec<u32>>,
    /// As in [`recovery::Inputs`]: empty where both models read the prompts alike.
    pub aligned_prompts: Vec<Vec<u32>>,
    pub task_prompts: Vec<Vec<u32>>,
    pub recovered: Option<usize>,
    pub evidence: Option<recovery::Evidence>,
    /// The number of the task's samples that the evidence leaves out.
    pub declined: usize,
    pub gate: Option<OpenGate>,
    /// What both models answer to some of the prompts, where they were asked.
    pub probe: Option<Probe>,
    /// What looks wrong.
    pub warnings: Vec<String>,
}

impl<'a> Read<'a> {
    pub fn of(repair: &'a Repair, out: &Path, job: &mut Job<'_>) -> Result<Self> {
        let gate = repair.gate.as_ref().map(Gate::open).transpose()?;
        let (aligned_dir, tuned) = (repair.aligned.path.as_path(), repair.fine_tuned.path.as_path());
        let (source, of_aligned) = (Source::new(tuned, Some(aligned_dir))?, Source::new(aligned_dir, None)?);
        let config = |source: &Source<'_>| DecoderConfig::from_dir(source.home());
        let mut warnings: Vec<String> = check::compare(&config(&of_aligned)?, &config(&source)?)?.into_iter().collect();
        let dtype = source.dtype(repair.dtype)?;
        // A vector of differences is made in f32 whatever is written: what an adapter adds is small, and its difference
        // rounded is mostly rounding.
        let needs = repair.method.repair().needs();
        let in_memory = if needs.unaligned || needs.base { Dtype::F32 } else { dtype };
        job.step(0, 1, "reading the models")?;
        let open = Open { aligned_dir, in_memory, thinking: repair.thinking, device: job.device };
        let (fine_tuned, aligned) = (open.model(source.clone())?, open.model(of_aligned)?);
        let aligned = Model { decoder: weights::share(aligned.decoder, &fine_tuned.decoder)?, ..aligned };
        let (unaligned, base) = (open.weights(&repair.unaligned)?, open.weights(&repair.base)?);
        let safe = open.weights(&repair.safe)?;
        let (prompts, task_prompts) = (rows(&fine_tuned, &repair.prompts)?, rows(&fine_tuned, &repair.task)?);
        let mut aligned_prompts = rows(&aligned, &repair.prompts)?;
        if let (Some(open), Some(given)) = (&gate, &repair.gate) {
            let fits = fine_tuned.reader().check_prompts(&open.samples, open.max_new_tokens);
            fits.map_err(|error| error.located(&[&given.samples.file]))?;
        }
        if aligned_prompts == prompts {
            aligned_prompts.clear();
        } else {
            warnings.push(format!(
                "{} and {} have different chat templates or tokenizers: each model reads the prompts in its own",
                aligned_dir.display(),
                tuned.display()
            ));
        }
        let probed = repair.prompts.as_ref().filter(|_| repair.probe > 0);
        let probe = probed.map(|samples| Probe::of([&aligned, &fine_tuned], samples, repair.probe, job)).transpose()?;
        warnings.extend(probe.as_ref().and_then(Probe::warning));
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let (evidence, declined) = evidence(repair, [&aligned, &fine_tuned], out, job)?.unzip();
        Ok(Self {
            declined: declined.unwrap_or(0),
            unaligned,
            base,
            safe,
            recovered: repair.recovery.as_ref().map(restored_by).transpose()?,
            evidence,
            source,
            dtype,
            aligned,
            fine_tuned,
            prompts,
            aligned_prompts,
            task_prompts,
            gate,
            probe,
            warnings,
        })
    }
}

/// How the models of a repair are opened.
struct Open<'a> {
    aligned_dir: &'a Path,
    in_memory: Dtype,
    thinking: Option<bool>,
    device: &'a Device,
}

impl Open<'_> {
    fn model(&self, source: Source<'_>) -> Result<Model> {
        let model = source.open(Some(self.in_memory), self.device)?;
        Ok(Model { tokenizer: model.tokenizer.with_thinking(self.thinking)?, ..model })
    }

    fn weights(&self, artifact: &Option<Artifact>) -> Result<Option<Decoder>> {
        let Some(artifact) = artifact else { return Ok(None) };
        Source::new(&artifact.path, Some(self.aligned_dir))?.decoder(Some(self.in_memory), self.device).map(Some)
    }
}

/// The ids of prompts; none of none.
fn rows(model: &Model, samples: &Option<Samples>) -> Result<Vec<Vec<u32>>> {
    let Some(samples) = samples else { return Ok(Vec::new()) };
    model.encode_prompts(&samples.read()?).map_err(|error| error.located(&[&samples.file]))
}

/// The evidence, where it is read.
fn evidence(
    repair: &Repair,
    [aligned, fine_tuned]: [&Model; 2],
    out: &Path,
    job: &mut Job<'_>,
) -> Result<Option<(recovery::Evidence, usize)>> {
    if !repair.method.repair().needs().evidence && repair.choose.is_none() {
        return Ok(None);
    }
    let Some(evidence) = &repair.evidence else {
        return invalid(format!("{} needs harmful, harmless and task prompts with answers", repair.method.word()));
    };
    let models = Pair { aligned: (aligned, &repair.aligned), fine_tuned: (fine_tuned, &repair.fine_tuned) };
    let earlier = repair.answers.iter().map(|artifact| artifact.path.clone()).collect();
    let mut own =
        Job { device: job.device, batch: job.batch, max_shard: job.max_shard, earlier, report: &mut *job.report };
    evidence.read(&models, out, &mut own).map(Some)
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
pub(super) struct OpenGate {
    /// What the gate decides by, for people and for a checkpoint, beside which the samples are the same: they are in the stage's key.
    pub name: String,
    pub samples: Vec<Sample>,
    pub metric: Metric,
    pub max_new_tokens: usize,
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
