//! Alignment of a model that refuses too little: refusals on harmful prompts, the model's own answers on harmless ones.

use std::path::Path;

use ::finetune::{AlignData, AlignSettings, Run, StepReport};
use model::Dtype;
use prompts::Sample;
use serde::Serialize;

use super::{MODEL, Stage, TrainSummary};
use crate::answers::{Wanted, answer_files};
use crate::model::{LazyModel, Source, save};
use crate::reader::leave_open;
use crate::{Artifact, Job, Result, Samples};

/// Aligns a model; the result is rounded after training.
#[derive(Debug, Clone, Serialize)]
pub struct Align {
    /// The model.
    pub model: Artifact,
    /// Harmful prompts; those without a response get one of `refusal_texts` in turn.
    pub refusals: Samples,
    /// Refusals for prompts that come without one.
    pub refusal_texts: Vec<String>,
    /// Harmless prompts; those without a response get the model's own greedy answer.
    pub helpful: Vec<Samples>,
    /// Length of the model's own answers.
    pub helpful_max_new_tokens: usize,
    /// How it is trained.
    pub settings: AlignSettings,
    /// Decides the order of the samples, the adapters' start and the dropout.
    pub seed: u64,
    /// The precision of the result; that of the model where it is none.
    pub dtype: Option<Dtype>,
}

impl Stage for Align {
    type Summary = TrainSummary;

    fn kind(&self) -> &'static str {
        "align"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<TrainSummary> {
        let source = Source::new(&self.model.path, None)?;
        let dtype = source.dtype(self.dtype)?;
        let mut model = LazyModel::new(&self.model, Some(dtype), job.device);
        let helpful = self.with_own_answers(&mut model, &out.join("own-answers.jsonl"), job)?;
        let model = model.into_model()?;
        let refusals = with_refusals(self.refusals.read()?, &self.refusal_texts);
        let refusals = model.encode_samples(&refusals, &self.refusals.file)?;
        let (helpful, own): (Vec<Sample>, Vec<bool>) = helpful.into_iter().unzip();
        let helpful_file = self.helpful.first().map_or(source.home(), |samples| &samples.file);
        let mut helpful = model.encode_samples(&helpful, helpful_file)?;
        for (answer, _) in helpful.iter_mut().zip(own).filter(|(_, own)| *own) {
            leave_open(answer, self.helpful_max_new_tokens);
        }
        for examples in [&refusals, &helpful] {
            model.check_examples(examples, self.settings.train.max_len)?;
        }
        let data = AlignData { refusals: &refusals, own_answers: &helpful };
        let checkpoint = out.join("align.checkpoint");
        let mut report = |step: &StepReport| job.report(step.step, step.steps, &format!("loss {:.3}", step.loss));
        let run = Run { seed: self.seed, checkpoint: Some(&checkpoint), report: &mut report };
        let trained = ::finetune::align(model.decoder, data, &self.settings, run)?;
        save(&trained.decoder, self.dtype, &source, job.max_shard, &out.join(MODEL))?;
        files::remove(&checkpoint)?;
        Ok(TrainSummary::new(refusals.len() + helpful.len(), trained))
    }
}

impl Align {
    /// The harmless samples with answers, and whether the answer is the model's own, which is not empty then. Own answers are
    /// kept, so that a stopped alignment does not make them again.
    fn with_own_answers(
        &self,
        model: &mut LazyModel<'_>,
        kept: &Path,
        job: &mut Job<'_>,
    ) -> Result<Vec<(Sample, bool)>> {
        let mut samples = Vec::new();
        for set in &self.helpful {
            samples.extend(set.read()?);
        }
        let open: Vec<Sample> = samples.iter().filter(|sample| sample.response.is_none()).cloned().collect();
        if open.is_empty() {
            return Ok(samples.into_iter().map(|sample| (sample, false)).collect());
        }
        let wanted = Wanted {
            samples: &open,
            max_new_tokens: self.helpful_max_new_tokens,
            how: Vec::new(),
            path: kept.to_path_buf(),
        };
        let mut answers = answer_files(model, &[wanted], job)?.remove(0).into_iter();
        let complete = |mut sample: Sample| {
            let own = sample.response.is_none();
            sample.response = sample.response.or_else(|| answers.next().map(|answer| answer.response));
            (sample, own)
        };
        let is_answered = |(sample, own): &(Sample, bool)| !own || sample.response.as_deref() != Some("");
        Ok(samples.into_iter().map(complete).filter(is_answered).collect())
    }
}

fn with_refusals(mut samples: Vec<Sample>, texts: &[String]) -> Vec<Sample> {
    let mut turn = texts.iter().cycle();
    for sample in samples.iter_mut().filter(|sample| sample.response.is_none()) {
        sample.response = turn.next().cloned();
    }
    samples
}
