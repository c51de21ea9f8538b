//! Answers to prompts, kept as they come.

use std::path::PathBuf;
use std::time::Instant;

use evaluation::{Answer, AnswerRecord};
use files::Journal;
use model::Draw;
use model::generate::{Prompt, answer_each};
use prompts::{Sample, Tokenizer};
use serde::Serialize;

use crate::model::{LazyModel, Model};
use crate::reader::Reader;
use crate::{Error, Job, Result};

/// How an answer is decoded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct How {
    /// What it begins with.
    pub start: Option<Start>,
    /// How its ids are drawn; the most probable ones where it is none.
    pub draw: Option<Draw>,
}

/// The first words of an answer, which the model goes on from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// A text.
    pub text: String,
    /// How many of its tokens; all where it is none.
    pub tokens: Option<usize>,
    /// Whether they are part of the answer that is kept.
    pub kept: bool,
}

/// Greedy, from the first word.
static PLAIN: How = How { start: None, draw: None };

/// The model's answer to each sample, in order.
///
/// # Errors
/// When the template fails, or a prompt is longer than the model's positions; [`Error::Stopped`].
pub fn answers(model: &Model, samples: &[Sample], max_new_tokens: usize, job: &mut Job<'_>) -> Result<Vec<Answer>> {
    let (mut responses, mut done) = (vec![String::new(); samples.len()], 0);
    let asked: Vec<Asked<'_>> = samples.iter().map(|sample| Asked { sample, max_new_tokens, how: &PLAIN }).collect();
    respond(model, &asked, job.batch, &mut |index, response| {
        responses[index] = response;
        done += 1;
        job.step(done, samples.len(), "answers")
    })?;
    Ok(named(samples, responses))
}

/// A file of answers that is to be made.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The samples to be answered.
    pub samples: &'a [Sample],
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// How each sample is answered; greedily from the first word where it is empty.
    pub how: Vec<How>,
    /// The file.
    pub path: PathBuf,
}

impl Wanted<'_> {
    fn how(&self, index: usize) -> &How {
        self.how.get(index).unwrap_or(&PLAIN)
    }
}

/// The model's answers to the samples of several files, file by file and in order. All files share the batches of up to
/// `job.batch` prompts; what a prompt is answered with does not depend on it.
///
/// Each answer is kept as soon as it has ended, so that stopped work goes on from there; an answer is made again when the
/// model, `max_new_tokens` or its own prompt has changed. The model is read when the first answer is missing.
///
/// # Errors
/// As [`answers`]; when the model cannot be read, or a file cannot be read or written; [`Error::Stopped`].
pub fn answer_files(model: &mut LazyModel<'_>, wanted: &[Wanted<'_>], job: &mut Job<'_>) -> Result<Vec<Vec<Answer>>> {
    let mut open = wanted.iter().map(|wanted| Open::new(model, wanted, job)).collect::<Result<Vec<_>>>()?;
    let all = wanted.iter().map(|wanted| wanted.samples.len()).sum();
    let is_missing = |file: &Open, index: usize| !file.journal.has(&file.keys[index]);
    let places = |at: usize| (0..wanted[at].samples.len()).map(move |index| (at, index));
    let missing: Vec<(usize, usize)> =
        (0..wanted.len()).flat_map(places).filter(|&(at, index)| is_missing(&open[at], index)).collect();
    if !missing.is_empty() {
        let mut done = all - missing.len();
        let asked = |&(at, index): &(usize, usize)| Asked {
            sample: &wanted[at].samples[index],
            max_new_tokens: wanted[at].max_new_tokens,
            how: wanted[at].how(index),
        };
        let asked: Vec<Asked<'_>> = missing.iter().map(asked).collect();
        respond(model.load()?, &asked, job.batch, &mut |place, response| {
            let (at, index) = missing[place];
            let answer = answer(index, &wanted[at].samples[index], response);
            let key = open[at].keys[index].clone();
            open[at].journal.add(&AnswerRecord { answer, key })?;
            done += 1;
            job.step(done, all, "answers")
        })?;
    }
    open.into_iter().zip(wanted).map(|(file, wanted)| file.finish(wanted.samples)).collect()
}

/// A file of answers that is being added to.
struct Open {
    journal: Journal<AnswerRecord>,
    keys: Vec<String>,
}

impl Open {
    fn new(model: &LazyModel<'_>, wanted: &Wanted<'_>, job: &Job<'_>) -> Result<Self> {
        let identity = model.identity()?;
        let key = |(index, sample): (usize, &Sample)| -> Result<String> {
            let mut hash = files::Sha::default();
            hash.part(&identity).part(wanted.max_new_tokens.to_le_bytes()).part(&sample.prompt);
            if let Some(system) = &sample.system {
                hash.part("system").part(system);
            }
            if *wanted.how(index) != PLAIN {
                hash.part(serde_json::to_vec(wanted.how(index))?);
            }
            Ok(hash.finish()[..16].to_owned())
        };
        let mut journal = Journal::open(&wanted.path)?;
        if let Some(name) = wanted.path.file_name() {
            job.earlier.iter().for_each(|dir| journal.take_over(&dir.join(name)));
        }
        Ok(Self { journal, keys: wanted.samples.iter().enumerate().map(key).collect::<Result<_>>()? })
    }

    fn finish(self, samples: &[Sample]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(samples.len());
        let records = self.keys.iter().zip(samples).enumerate().map(|(index, (key, sample))| {
            let AnswerRecord { answer: found, key } = self.journal.record(key)?;
            let answer = answer(index, sample, found.response); // id, reference and category are those of the sample now
            answers.push(answer.clone());
            Ok::<_, Error>(AnswerRecord { answer, key })
        });
        self.journal.finish(records)?;
        Ok(answers)
    }
}

/// A prompt that is asked.
struct Asked<'a> {
    sample: &'a Sample,
    max_new_tokens: usize,
    how: &'a How,
}

impl Asked<'_> {
    /// The prompt's ids with those that the answer begins with, and how many of the last are kept.
    fn encode(&self, index: usize, reader: &Reader<'_>) -> Result<(Prompt, usize)> {
        let (max_new_tokens, draw) = (self.max_new_tokens, self.how.draw);
        let ids = reader.prompt(index, self.sample, max_new_tokens)?;
        let Some(start) = &self.how.start else { return Ok((Prompt { ids, max_new_tokens, draw }, 0)) };
        let tokenizer = reader.tokenizer;
        let whole = tokenizer.encode_begun(&self.sample.prompt, &start.text, self.sample.system.as_deref())?;
        let mut begun = match whole.strip_prefix(&ids[..]) {
            Some(begun) => begun.to_vec(),
            None => tokenizer.encode(&start.text)?,
        };
        begun.truncate(start.tokens.unwrap_or(usize::MAX));
        reader.check_ids(&begun)?;
        let kept = if start.kept { begun.len() } else { 0 };
        Ok((Prompt { ids: [ids, begun].concat(), max_new_tokens, draw }, kept))
    }

    /// What the template wrote of the model's thinking, which an answer goes on from and is told by; nothing where the text
    /// that it begins with ends the thinking.
    fn opened_thinking<'t>(&self, tokenizer: &'t Tokenizer) -> &'t str {
        let is_ended = self.how.start.as_ref().is_some_and(|start| start.text.contains("</think>"));
        if is_ended { "" } else { tokenizer.template().opened_thinking() }
    }
}

/// Answers each sample once; `answered` gets its index and the response as it ends.
fn respond(
    model: &Model,
    asked: &[Asked<'_>],
    batch: usize,
    answered: &mut dyn FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    let reader = model.reader();
    let encode = |(index, one): (usize, &Asked<'_>)| one.encode(index, &reader);
    let encoded = asked.iter().enumerate().map(encode).collect::<Result<Vec<_>>>()?;
    let (prompts, kept): (Vec<Prompt>, Vec<usize>) = encoded.into_iter().unzip();
    let (started, mut tokens) = (Instant::now(), 0);
    let eos = model.tokenizer.eos_ids();
    let decoded = answer_each(&model.decoder, &prompts, batch, &eos, &mut |index, ids| -> Result<(), Error> {
        tokens += ids.len();
        let begun = &prompts[index].ids[prompts[index].ids.len() - kept[index]..];
        let text = model.tokenizer.decode(&[begun, &ids].concat(), true)?;
        answered(index, asked[index].opened_thinking(&model.tokenizer).to_owned() + &text)
    });
    decoded.map_err(|error| match error {
        Error::Model(source @ model::Error::TooLong { index, .. }) => Error::too_long(asked[index].sample, source),
        other => other,
    })?;
    tracing::info!("{} answers, {tokens} tokens in {:.3} s", asked.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// The responses with the samples that they answer.
pub(crate) fn named(samples: &[Sample], responses: Vec<String>) -> Vec<Answer> {
    let pairs = samples.iter().zip(responses).enumerate();
    pairs.map(|(index, (sample, response))| answer(index, sample, response)).collect()
}

fn answer(index: usize, sample: &Sample, response: String) -> Answer {
    Answer {
        id: sample.id.clone().unwrap_or_else(|| (index + 1).to_string()),
        prompt: sample.prompt.clone(),
        response,
        reference: sample.response.clone(),
        category: sample.category.clone(),
    }
}
