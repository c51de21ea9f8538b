//! Greedy answers to prompts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use evaluation::Answer;
use model::generate::{Prompt, greedy_each};
use prompts::Sample;

use super::Report;
use super::kept::{AnswerStore, Appender, answer_key, model_key};
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
    let asked: Vec<(&Sample, usize)> = samples.iter().map(|sample| (sample, settings.max_new_tokens)).collect();
    respond(model, &asked, settings.batch, &mut |index, response| {
        responses[index] = response;
        done += 1;
        report(done, samples.len(), "answers");
        Ok(())
    })?;
    Ok(named(samples, responses))
}

/// The model's answer to each sample, in order, as the file at `path` holds them in the end; see [`answer_files`].
///
/// # Errors
/// As [`answer_files`].
pub fn answer_file(
    model: &mut ModelSource<'_>,
    samples: &[Sample],
    settings: GenerateSettings,
    path: &Path,
    report: &mut Report<'_>,
) -> Result<Vec<Answer>> {
    let wanted = Wanted { samples, max_new_tokens: settings.max_new_tokens, path: path.to_path_buf() };
    Ok(answer_files(model, &[wanted], settings.batch, report)?.remove(0))
}

/// A file of answers that is asked for.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The samples to be answered.
    pub samples: &'a [Sample],
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// The file.
    pub path: PathBuf,
}

/// The model's answers to the samples of several files, file by file and in order. All files share the batches of up to
/// `batch` prompts; what a prompt is answered with does not depend on it.
///
/// Each answer is kept as soon as it has ended, so that a stopped run goes on from there; an answer
/// is made again when the model, `max_new_tokens` or its own prompt has changed. The model is read
/// when the first answer is missing.
///
/// # Errors
/// As [`answers`]; when the model cannot be read, or a file cannot be read or written.
pub fn answer_files(
    model: &mut ModelSource<'_>,
    wanted: &[Wanted<'_>],
    batch: usize,
    report: &mut Report<'_>,
) -> Result<Vec<Vec<Answer>>> {
    let mut files = wanted.iter().map(|wanted| Kept::open(model, wanted)).collect::<Result<Vec<_>>>()?;
    let all = wanted.iter().map(|wanted| wanted.samples.len()).sum();
    let mut missing = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let open = file.responses.iter().enumerate().filter(|(_, response)| response.is_none());
        missing.extend(open.map(|(index, _)| (at, index)));
    }
    if !missing.is_empty() {
        let mut done = all - missing.len();
        let asked = |&(at, index): &(usize, usize)| (&wanted[at].samples[index], wanted[at].max_new_tokens);
        let asked: Vec<(&Sample, usize)> = missing.iter().map(asked).collect();
        respond(model.load()?, &asked, batch, &mut |place, response| {
            let (at, index) = missing[place];
            files[at].add(index, response)?;
            done += 1;
            report(done, all, "answers");
            Ok(())
        })?;
    }
    files.into_iter().zip(wanted).map(|(file, wanted)| file.finish(wanted.samples)).collect()
}

/// A file of answers with what is kept of it.
struct Kept {
    store: AnswerStore,
    keys: Vec<String>,
    responses: Vec<Option<String>>,
    /// Opened with the first answer that is added.
    appender: Option<Appender>,
}

impl Kept {
    fn open(model: &ModelSource<'_>, wanted: &Wanted<'_>) -> Result<Self> {
        let decided_by = format!("{} new tokens on {}", wanted.max_new_tokens, model.compute_in_words());
        let model_key = model_key(model.dir(), &decided_by)?;
        let keys: Vec<String> = wanted.samples.iter().map(|sample| answer_key(&model_key, &sample.prompt)).collect();
        let store = AnswerStore::open(&wanted.path)?;
        let responses = keys.iter().map(|key| store.get(key).map(str::to_owned)).collect();
        Ok(Self { store, keys, responses, appender: None })
    }

    fn add(&mut self, index: usize, response: String) -> Result<()> {
        let appender = match &mut self.appender {
            Some(appender) => appender,
            none => none.insert(self.store.append()?),
        };
        appender.add(&self.keys[index], &response)?;
        self.responses[index] = Some(response);
        Ok(())
    }

    fn finish(self, samples: &[Sample]) -> Result<Vec<Answer>> {
        let found = named(samples, self.responses.into_iter().flatten().collect());
        self.store.finish(&found, &self.keys)?;
        Ok(found)
    }
}

/// Answers each sample once, with so many new tokens at most; `answered` gets its index and the response as it ends.
fn respond(
    model: &Loaded,
    samples: &[(&Sample, usize)],
    batch: usize,
    answered: &mut dyn FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    let prompt = |&(sample, max_new_tokens): &(&Sample, usize)| -> Result<Prompt> {
        Ok(Prompt { ids: model.tokenizer.encode_prompt(&sample.prompt, None)?, max_new_tokens })
    };
    let prompts = samples.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    let (started, mut tokens) = (Instant::now(), 0);
    greedy_each(&model.decoder, &prompts, batch, &model.tokenizer.eos_ids(), &mut |index, ids| -> Result<()> {
        tokens += ids.len();
        answered(index, model.tokenizer.decode(&ids, true)?)
    })?;
    tracing::info!("{} answers, {tokens} tokens in {:.3} s", samples.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// The responses with the samples that they answer.
pub(super) fn named(samples: &[Sample], responses: Vec<String>) -> Vec<Answer> {
    let answer = |(index, (sample, response)): (usize, (&Sample, String))| Answer {
        id: sample.id.clone().unwrap_or_else(|| (index + 1).to_string()),
        prompt: sample.prompt.clone(),
        response,
        reference: sample.response.clone(),
        category: sample.category.clone(),
    };
    samples.iter().zip(responses).enumerate().map(answer).collect()
}
