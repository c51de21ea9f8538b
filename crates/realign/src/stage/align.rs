//! Alignment of a model that refuses too little: refusals on harmful prompts, the model's own answers on harmless ones.

use std::path::Path;

use ::finetune::{AlignData, AlignSettings, Run, StepReport};
use model::Dtype;
use prompts::{Encoded, Sample};
use serde::Serialize;

use super::{MODEL, Stage, TrainSummary};
use crate::answers::{Wanted, answer_files};
use crate::model::{LazyModel, Source, save};
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
        save(&trained.decoder, dtype, &source, job.max_shard, &out.join(MODEL))?;
        files::remove(&checkpoint)?;
        Ok(TrainSummary::new(refusals.len() + helpful.len(), trained))
    }
}

impl Align {
    /// The harmless samples with answers, and whether the answer is the model's own; no answer is empty. Own answers are
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
        if samples.iter().all(|sample| sample.response.is_some()) {
            return Ok(samples.into_iter().map(|sample| (sample, false)).collect());
        }
        let wanted = Wanted {
            samples: &samples,
            max_new_tokens: self.helpful_max_new_tokens,
            how: Vec::new(),
            path: kept.to_path_buf(),
        };
        let answers = answer_files(model, &[wanted], job)?.remove(0);
        let complete = |(sample, answer): (&Sample, evaluation::Answer)| {
            let own = sample.response.is_none();
            let mut sample = sample.clone();
            sample.response = sample.response.or(Some(answer.response));
            (sample, own)
        };
        let answered = |(sample, _): &(Sample, bool)| sample.response.as_deref() != Some("");
        Ok(samples.iter().zip(answers).map(complete).filter(answered).collect())
    }
}

fn with_refusals(mut samples: Vec<Sample>, texts: &[String]) -> Vec<Sample> {
    let mut turn = texts.iter().cycle();
    for sample in samples.iter_mut().filter(|sample| sample.response.is_none()) {
        sample.response = turn.next().cloned();
    }
    samples
}

/// Takes the end-of-turn token off an answer that was cut at `limit` tokens: the model did not end it there and must not
/// learn to.
fn leave_open(answer: &mut Encoded, limit: usize) {
    let response = answer.loss_mask.iter().filter(|&&counts| counts).count();
    if response > limit {
        answer.ids.pop();
        answer.loss_mask.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_does_not_teach_to_stop() {
        let answer = |tokens: usize| Encoded {
            ids: vec![7; 3 + tokens],
            loss_mask: [vec![false; 3], vec![true; tokens]].concat(),
        };
        // Four tokens of text and the end-of-turn token.
        let (mut cut, mut whole) = (answer(5), answer(5));
        leave_open(&mut cut, 4);
        leave_open(&mut whole, 5);
        assert_eq!((cut, whole), (answer(4), answer(5)));
    }
}
