//! Alignment of a model that refuses too little: refusals on harmful prompts, the model's own
//! answers on harmless ones.

use std::path::Path;

use ::finetune::align::AlignData;
use ::finetune::{AlignSettings, align};
use anyhow::Result;
use prompts::{Encoded, Sample};

use super::Report;
use super::finetune::TrainSummary;
use super::generate::{GenerateSettings, answer_file};
use crate::Compute;
use crate::loaded::{Loaded, ModelSource, encode_samples};

/// What an alignment reads.
#[derive(Debug, Clone, Copy)]
pub struct AlignInputs<'a> {
    /// Harmful prompts; those without a response get one of `refusal_texts` in turn.
    pub refusals: (&'a [Sample], &'a Path),
    /// Refusals for prompts that come without one.
    pub refusal_texts: &'a [String],
    /// Harmless prompts; those without a response get the model's own answer.
    pub helpful: (&'a [Sample], &'a Path),
    /// How the model's own answers are made.
    pub own_answers: GenerateSettings,
}

/// Aligns the model in `source` and writes the result to `out`, rounded after training; a checkpoint
/// and the model's own answers are kept in `work`.
///
/// # Errors
/// When a refusal is missing, the loss is not finite, or a file cannot be read or written.
pub fn align_model(
    source: &Path,
    inputs: AlignInputs<'_>,
    settings: &AlignSettings,
    (out, work): (&Path, &Path),
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<TrainSummary> {
    let dtype = compute.dtype_for(source)?;
    let mut model = ModelSource::new(source, compute);
    let helpful = with_own_answers(&mut model, &inputs, &work.join("own-answers.jsonl"), report)?;
    let model = model.into_loaded()?;
    let refusals = with_refusals(inputs.refusals.0, inputs.refusal_texts);
    let refusals = encode_samples(&model.tokenizer, &refusals, inputs.refusals.1)?;
    let (helpful, own): (Vec<Sample>, Vec<bool>) = helpful.into_iter().unzip();
    let mut helpful = encode_samples(&model.tokenizer, &helpful, inputs.helpful.1)?;
    for (answer, _) in helpful.iter_mut().zip(own).filter(|(_, own)| *own) {
        leave_open(answer, inputs.own_answers.max_new_tokens);
    }
    let data: AlignData<'_> = AlignData { refusals: &refusals, own_answers: &helpful };
    let checkpoint = work.join("align.checkpoint");
    let trained = align(model.decoder, data, settings, Some(&checkpoint), &mut |step| {
        report(step.step, step.steps, &format!("loss {:.3}", step.loss));
    })?;
    Loaded::save(&trained.decoder, dtype, source, out)?;
    let count = |set: &[Encoded]| set.len();
    Ok(TrainSummary::new(count(&refusals) + count(&helpful) - trained.dropped, trained.dropped, trained.losses))
}

fn with_refusals(samples: &[Sample], texts: &[String]) -> Vec<Sample> {
    let mut turn = texts.iter().cycle();
    let complete = |sample: &Sample| {
        let mut sample = sample.clone();
        if sample.response.is_none() {
            sample.response = turn.next().cloned();
        }
        sample
    };
    samples.iter().map(complete).collect()
}

/// Takes the end-of-turn token off an answer that was cut at `limit` tokens: the model did not end it
/// there and must not learn to.
fn leave_open(answer: &mut Encoded, limit: usize) {
    let response = answer.loss_mask.iter().filter(|&&counts| counts).count();
    if response > limit {
        answer.ids.pop();
        answer.loss_mask.pop();
    }
}

/// The harmless samples with answers, and whether the answer is the model's own; none is empty.
/// Own answers are kept, so that a stopped alignment does not make them again.
fn with_own_answers(
    model: &mut ModelSource<'_>,
    inputs: &AlignInputs<'_>,
    kept: &Path,
    report: &mut Report<'_>,
) -> Result<Vec<(Sample, bool)>> {
    if inputs.helpful.0.iter().all(|sample| sample.response.is_some()) {
        return Ok(inputs.helpful.0.iter().map(|sample| (sample.clone(), false)).collect());
    }
    let own = answer_file(model, inputs.helpful.0, inputs.own_answers, kept, report)?;
    let complete = |(sample, answer): (&Sample, evaluation::Answer)| {
        let own = sample.response.is_none();
        let mut sample = sample.clone();
        sample.response = sample.response.or(Some(answer.response));
        (sample, own)
    };
    let answered = |(sample, _): &(Sample, bool)| sample.response.as_deref() != Some("");
    Ok(inputs.helpful.0.iter().zip(own).map(complete).filter(answered).collect())
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
