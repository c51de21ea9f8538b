//! Greedy answers to prompts.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use evaluation::Answer;
use model::generate::{Stop, greedy_each};
use prompts::Sample;

use super::Report;
use super::kept::{AnswerStore, answer_key, model_key};
use crate::loaded::{Loaded, ModelSource};

/// Prompts answered at a time where nothing else is asked for: a guess, `scripts/bench_generate.py` has not compared
/// sizes on a quiet machine yet.
pub const DEFAULT_BATCH: usize = 64;

/// How answers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateSettings {
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// Prompts answered at a time; it changes the speed alone.
    pub batch: usize,
}

/// The model's answer to each sample, in order.
///
/// # Errors
/// When the template fails, or a prompt is longer than the model's positions.
pub fn answers(
    model: &Loaded,
    samples: &[Sample],
    settings: GenerateSettings,
    report: &mut Report<'_>,
) -> Result<Vec<Answer>> {
    let mut responses = vec![String::new(); samples.len()];
    let mut done = 0;
    respond(model, &samples.iter().collect::<Vec<_>>(), settings, &mut |index, response| {
        responses[index] = response;
        done += 1;
        report(done, samples.len(), "answers");
        Ok(())
    })?;
    Ok(named(samples, responses))
}

/// The model's answer to each sample, in order, as the file at `path` holds them in the end.
///
/// Each answer is kept as soon as it has ended, so that a stopped run goes on from there; an answer
/// is made again when the model, `max_new_tokens` or its own prompt has changed. The model is read
/// when the first answer is missing.
///
/// # Errors
/// As [`answers`]; when the model cannot be read, or a file cannot be read or written.
pub fn answer_file(
    model: &mut ModelSource<'_>,
    samples: &[Sample],
    settings: GenerateSettings,
    path: &Path,
    report: &mut Report<'_>,
) -> Result<Vec<Answer>> {
    let decided_by = format!("{} new tokens on {}", settings.max_new_tokens, model.compute_in_words());
    let model_key = model_key(model.dir(), &decided_by)?;
    let keys: Vec<String> = samples.iter().map(|sample| answer_key(&model_key, &sample.prompt)).collect();
    let store = AnswerStore::open(path)?;
    let mut responses: Vec<Option<String>> = keys.iter().map(|key| store.get(key).map(str::to_owned)).collect();
    let missing: Vec<usize> = (0..samples.len()).filter(|&index| responses[index].is_none()).collect();
    if !missing.is_empty() {
        let asked: Vec<&Sample> = missing.iter().map(|&index| &samples[index]).collect();
        let model = model.load()?;
        let mut appender = store.append()?;
        let mut done = samples.len() - missing.len();
        respond(model, &asked, settings, &mut |index, response| {
            let index = missing[index];
            appender.add(&keys[index], &response)?;
            responses[index] = Some(response);
            done += 1;
            report(done, samples.len(), "answers");
            Ok(())
        })?;
    }
    let found = named(samples, responses.into_iter().flatten().collect());
    store.finish(&found, &keys)?;
    Ok(found)
}

/// Answers each sample once; `answered` gets its index and the response as it ends.
fn respond(
    model: &Loaded,
    samples: &[&Sample],
    settings: GenerateSettings,
    answered: &mut dyn FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    let encode = |sample: &&Sample| -> Result<Vec<u32>> { Ok(model.tokenizer.encode_prompt(&sample.prompt, None)?) };
    let rows = samples.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let stop = Stop { max_new_tokens: settings.max_new_tokens, eos: model.tokenizer.eos_ids() };
    let (started, mut tokens) = (Instant::now(), 0);
    greedy_each(&model.decoder, &rows, settings.batch, &stop, &mut |index, ids| -> Result<()> {
        tokens += ids.len();
        answered(index, model.tokenizer.decode(&ids, true)?)
    })?;
    tracing::info!("{} answers, {tokens} tokens in {:.3} s", samples.len(), started.elapsed().as_secs_f64());
    Ok(())
}

fn named(samples: &[Sample], responses: Vec<String>) -> Vec<Answer> {
    let answer = |(index, (sample, response)): (usize, (&Sample, String))| Answer {
        id: sample.id.clone().unwrap_or_else(|| (index + 1).to_string()),
        prompt: sample.prompt.clone(),
        response,
        reference: sample.response.clone(),
        category: sample.category.clone(),
    };
    samples.iter().zip(responses).enumerate().map(answer).collect()
}
