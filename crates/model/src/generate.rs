//! Batched decoding, greedy or drawn: ids in, ids out.
//!
//! On the CPU an answer does not depend on the rows decoded beside it, not in one bit, so that
//! batches may be of any size and a row that has ended makes room for the next prompt at once.
//! Other devices sum in an order that depends on the batch; there the next batch begins when one
//! has ended.

use std::cmp::Reverse;

use burn::tensor::Tensor;

use crate::cache::KvCache;
use crate::{Decoder, Draw, Error, Packed, Result};

/// Prompts join a batch when this fraction of it, one in so many rows, is free.
const JOINING: usize = 8;

/// What is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The ids that the model reads.
    pub ids: Vec<u32>,
    /// Number of new ids at most.
    pub max_new_tokens: usize,
    /// How its ids are drawn; the most probable ones where it is none.
    pub draw: Option<Draw>,
}

/// Greedy answers to `prompts`, decoded together, of up to `max_new_tokens` ids each. An id of
/// `eos` ends an answer and is not part of it; a row that has ended leaves the batch.
///
/// # Errors
/// When a prompt is empty, has an id outside the vocabulary, or prompt and answer together are
/// longer than the model's positions.
pub fn greedy(decoder: &Decoder, prompts: &[Vec<u32>], max_new_tokens: usize, eos: &[u32]) -> Result<Vec<Vec<u32>>> {
    let prompts = together(prompts, max_new_tokens);
    Decoding::new(decoder, &prompts, prompts.len(), eos).answers()
}

/// An answer, and what its first id was taken from.
#[derive(Debug, Clone, PartialEq)]
pub struct WithLogits {
    /// The answer's ids.
    pub answer: Vec<u32>,
    /// The logits after the prompt, `[vocab]`.
    pub first: Vec<f32>,
}

/// As [`greedy`], with the logits of each answer's first id, which are computed anyway.
///
/// # Errors
/// As [`greedy`].
pub fn greedy_with_logits(
    decoder: &Decoder,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    eos: &[u32],
) -> Result<Vec<WithLogits>> {
    let prompts = together(prompts, max_new_tokens);
    let mut decoding = Decoding::new(decoder, &prompts, prompts.len(), eos);
    decoding.first = Some(vec![Vec::new(); prompts.len()]);
    let answers = decoding.answers()?;
    let first = decoding.first.unwrap_or_default();
    Ok(answers.into_iter().zip(first).map(|(answer, first)| WithLogits { answer, first }).collect())
}

fn together(prompts: &[Vec<u32>], max_new_tokens: usize) -> Vec<Prompt> {
    prompts.iter().map(|ids| Prompt { ids: ids.clone(), max_new_tokens, draw: None }).collect()
}

/// Answers to `prompts`, up to `batch` decoded at a time, those with the longest answers and
/// of these the longest prompts first; `answered` is handed the index of a prompt and its answer as
/// soon as that has ended.
///
/// # Errors
/// As [`greedy`], before anything is decoded; and those of `answered`, which stop the decoding.
pub fn answer_each<E: From<Error>>(
    decoder: &Decoder,
    prompts: &[Prompt],
    batch: usize,
    eos: &[u32],
    answered: &mut dyn FnMut(usize, Vec<u32>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    Decoding::new(decoder, prompts, batch, eos).run(answered)
}

/// Refuses prompts before any is decoded.
fn check(decoder: &Decoder, prompts: &[Prompt]) -> Result<()> {
    let limit = decoder.config().max_position_embeddings;
    let is_too_long = |one: &Prompt| one.ids.len().saturating_add(one.max_new_tokens) > limit;
    match prompts.iter().position(is_too_long) {
        Some(index) => {
            let Prompt { ids, max_new_tokens, .. } = &prompts[index];
            Err(Error::TooLong { index, tokens: ids.len(), new_tokens: *max_new_tokens, limit })
        }
        None => Ok(()),
    }
}

/// The rows being decoded.
struct Decoding<'a> {
    decoder: &'a Decoder,
    prompts: &'a [Prompt],
    /// Ids that end a row.
    eos: &'a [u32],
    /// Number of rows at most.
    batch: usize,
    rows: Vec<Row>,
    /// Keys and values of the rows, in their order; none without rows.
    cache: Option<KvCache>,
    /// The logits of each prompt's first id, where they are asked for.
    first: Option<Vec<Vec<f32>>>,
}

struct Row {
    /// Index of the prompt.
    prompt: usize,
    answer: Vec<u32>,
    /// The id after the answer so far, until it is looked at.
    next: Option<u32>,
}

impl<'a> Decoding<'a> {
    fn new(decoder: &'a Decoder, prompts: &'a [Prompt], batch: usize, eos: &'a [u32]) -> Self {
        Self { decoder, prompts, eos, batch: batch.max(1), rows: Vec::new(), cache: None, first: None }
    }

    /// The answers of all prompts, in order.
    fn answers(&mut self) -> Result<Vec<Vec<u32>>> {
        let mut answers = vec![Vec::new(); self.prompts.len()];
        self.run::<Error>(&mut |prompt, answer| {
            answers[prompt] = answer;
            Ok(())
        })?;
        Ok(answers)
    }

    fn run<E: From<Error>>(
        &mut self,
        answered: &mut dyn FnMut(usize, Vec<u32>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let prompts = self.prompts;
        check(self.decoder, prompts)?;
        let (none, mut waiting): (Vec<usize>, Vec<usize>) =
            (0..prompts.len()).partition(|&prompt| prompts[prompt].max_new_tokens == 0);
        none.into_iter().try_for_each(|prompt| answered(prompt, Vec::new()))?;
        waiting.sort_by_key(|&prompt| (prompts[prompt].max_new_tokens, prompts[prompt].ids.len(), Reverse(prompt)));
        loop {
            let room = self.room().min(waiting.len());
            if room > 0 {
                self.begin(&waiting.split_off(waiting.len() - room))?;
            } else if self.rows.is_empty() {
                return Ok(());
            } else {
                self.step()?;
            }
            self.settle(answered)?;
        }
    }

    /// How many rows may begin now. New rows cost a pass of their own, so some wait for each other.
    fn room(&self) -> usize {
        let free = self.batch - self.rows.len();
        match &self.cache {
            Some(cache) if !cache.takes_rows() || free < self.batch.div_ceil(JOINING) => 0,
            _ => free,
        }
    }

    /// Computes the prompts' keys, values and first ids, and adds them to the batch.
    fn begin(&mut self, chosen: &[usize]) -> Result<()> {
        let prompts: Vec<&Prompt> = chosen.iter().map(|&prompt| &self.prompts[prompt]).collect();
        let packed = Packed::new(&prompts.iter().map(|prompt| &prompt.ids).collect::<Vec<_>>())?;
        let new_tokens = prompts.iter().map(|prompt| prompt.max_new_tokens).max().unwrap_or(0);
        let mut cache = KvCache::new(&packed, new_tokens, self.decoder.config(), &self.decoder.device());
        let logits = self.decoder.prefill(&packed, &mut cache)?;
        if let Some(first) = &mut self.first {
            let [_, vocab] = logits.dims();
            let values: Vec<f32> =
                logits.clone().try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
            chosen.iter().zip(values.chunks(vocab)).for_each(|(&prompt, row)| first[prompt] = row.to_vec());
        }
        let next = next_ids(logits, prompts.iter().map(|prompt| (prompt.draw, 0)))?;
        let row = |(&prompt, id)| Row { prompt, answer: Vec::new(), next: Some(id) };
        self.rows.extend(chosen.iter().zip(next).map(row));
        match &mut self.cache {
            Some(all) => all.join(cache),
            none => *none = Some(cache),
        }
        Ok(())
    }

    /// Computes the next id of each row.
    fn step(&mut self) -> Result<()> {
        let Some(cache) = &mut self.cache else { return Ok(()) };
        let last = |row: &Row| row.answer[row.answer.len() - 1];
        let ids: Vec<u32> = self.rows.iter().map(last).collect();
        let position = |row: &Row| (self.prompts[row.prompt].ids.len() + row.answer.len() - 1) as u32;
        let positions: Vec<u32> = self.rows.iter().map(position).collect();
        let place = |row: &Row| (self.prompts[row.prompt].draw, row.answer.len());
        let next = next_ids(self.decoder.step(&ids, &positions, cache), self.rows.iter().map(place))?;
        self.rows.iter_mut().zip(next).for_each(|(row, id)| row.next = Some(id));
        Ok(())
    }

    /// Adds each row's next id to its answer; rows that end leave.
    fn settle<E>(
        &mut self,
        answered: &mut dyn FnMut(usize, Vec<u32>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (mut going, mut slots) = (Vec::new(), Vec::new());
        let before = self.rows.len();
        for (slot, mut row) in self.rows.drain(..).enumerate() {
            let next = row.next.take();
            let stops = next.is_some_and(|id| self.eos.contains(&id));
            row.answer.extend(next.filter(|_| !stops));
            if stops || row.answer.len() == self.prompts[row.prompt].max_new_tokens {
                answered(row.prompt, row.answer)?;
            } else {
                going.push(row);
                slots.push(slot);
            }
        }
        self.rows = going;
        match &mut self.cache {
            Some(_) if slots.is_empty() => self.cache = None,
            Some(cache) if slots.len() < before => cache.keep(&slots),
            _ => {}
        }
        Ok(())
    }
}

/// The next id of each row, by its draw and the place of the id in the answer.
fn next_ids(logits: Tensor<2>, rows: impl Iterator<Item = (Option<Draw>, usize)>) -> Result<Vec<u32>> {
    let [_, vocab] = logits.dims();
    let mut ids = argmax(logits.clone())?;
    let drawn: Vec<(usize, Draw, usize)> =
        rows.enumerate().filter_map(|(row, (draw, place))| Some((row, draw?, place))).collect();
    if drawn.is_empty() {
        return Ok(ids);
    }
    let values: Vec<f32> = logits.try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
    for (row, draw, place) in drawn {
        ids[row] = draw.id(&values[row * vocab..][..vocab], place);
    }
    Ok(ids)
}

/// The index of the largest logit of each row.
fn argmax(logits: Tensor<2>) -> Result<Vec<u32>> {
    let [rows, _] = logits.dims();
    let sums: Vec<f32> =
        logits.clone().sum_dim(1).try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
    if let Some(sum) = sums.into_iter().find(|sum| !sum.is_finite()) {
        let reason = "a weight, or a number of config.json, is too large or too small for f32";
        return Err(Error::Input(format!("the logits are not finite (their sum is {sum}): {reason}")));
    }
    let ids = logits.argmax(1).reshape([rows]);
    let ids: Vec<i32> = ids.try_into_vec_as().map_err(|error| Error::Device(error.to_string()))?;
    Ok(ids.into_iter().map(|id| id as u32).collect())
}
