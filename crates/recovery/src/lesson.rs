//! Loss of a model on answered prompts: how far it is from a teacher's next-token distributions, or how unlikely the
//! answers are to it. Where one of the two has more tokens, both distributions are over the tokens that both have.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};
use model::weights::Sums;
use model::{Decoder, DecoderConfig, Packed, in_lanes, ops};
use rayon::prelude::*;

use crate::evidence::Answered;
use crate::{Error, Result};

/// Answered prompts, packed for the decoder, with what is aimed at.
#[derive(Debug)]
pub(crate) struct Lesson {
    passes: Vec<Pass>,
    /// Number of answer tokens.
    tokens: usize,
}

/// Prompts that go through the decoder together.
#[derive(Debug)]
struct Pass {
    packed: Packed,
    /// Positions from which answer tokens are predicted.
    positions: Vec<usize>,
    /// The answer tokens.
    targets: Vec<u32>,
    /// What is aimed at; none where the answers themselves are.
    taught: Option<Taught>,
}

/// A teacher's distributions over the answer tokens.
#[derive(Debug)]
struct Taught {
    teacher: Decoder,
    /// Its hidden states, `[tokens, hidden]`: the logits are made of them each time, since they take as much more memory as
    /// a vocabulary is larger than a hidden state.
    states: Tensor<2>,
}

impl Lesson {
    /// With the answers as the aim, for models of this shape: the loss is their negative log-likelihood.
    pub fn of_answers<'a>(config: &DecoderConfig, rows: impl IntoIterator<Item = &'a Answered>) -> Result<Self> {
        let rows: Vec<&Answered> = rows.into_iter().collect();
        let pass = |range: Range<usize>| Pass::new(&rows[range.clone()], range.start);
        let passes = at_once(config, &rows).into_iter().map(pass).collect::<Result<Vec<_>>>()?;
        let tokens = passes.iter().map(|pass| pass.targets.len()).sum();
        Ok(Self { passes, tokens })
    }

    /// With a teacher's distributions over the answers' tokens as the aim: the loss is KL(teacher || model) over the
    /// tokens that both have.
    pub fn of_teacher<'a>(teacher: &Decoder, rows: impl IntoIterator<Item = &'a Answered>) -> Result<Self> {
        let mut lesson = Self::of_answers(teacher.config(), rows)?;
        let last = teacher.config().num_hidden_layers;
        let states =
            in_lanes(&teacher.device(), &lesson.passes, |_, pass| teacher.hidden(&pass.packed, last, &pass.positions));
        for (pass, states) in lesson.passes.iter_mut().zip(states) {
            pass.taught = Some(Taught { teacher: teacher.clone(), states: states? });
        }
        Ok(lesson)
    }

    /// Number of answer tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether there is no prompt.
    pub fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    /// The mean loss of a model per answer token, summed in f64; no gradient is tracked.
    pub fn loss(&self, decoder: &Decoder) -> Result<f64> {
        let sums =
            in_lanes(&decoder.device(), &self.passes, |_, pass| Ok(pass.losses(decoder)?.into_iter().sum::<f64>()));
        let sum: f64 = sums.into_iter().sum::<Result<_>>()?;
        let mean = sum / self.tokens.max(1) as f64;
        if mean.is_finite() { Ok(mean) } else { Err(Error::NotFinite { what: "a loss on held-out prompts" }) }
    }

    /// Adds the gradient of `weight` (not 0) times the mean loss to `sums`, by parameter; returns the mean loss.
    pub fn accumulate(&self, decoder: &Decoder, weight: f64, sums: &mut HashMap<String, Vec<f32>>) -> Result<f64> {
        let mut added = Sums::new(decoder, std::mem::take(sums));
        let found = added.add(&self.passes, |decoder, _, pass| {
            let (sum, entropy) = pass.sum(decoder)?;
            let loss = sum.mul_scalar(weight / self.tokens as f64);
            let value: f32 = loss.clone().try_into_scalar().map_err(|error| model::Error::Device(error.to_string()))?;
            match value.is_finite() {
                true => Ok((loss, (f64::from(value), entropy / self.tokens as f64))),
                false => Err(Error::NotFinite { what: "a loss on training prompts" }),
            }
        });
        *sums = added.finish();
        let (total, constant) = found?.into_iter().fold((0.0, 0.0), |sum, pass| (sum.0 + pass.0, sum.1 + pass.1));
        Ok(total / weight - constant)
    }

    /// Adds `weight` times an estimate of the diagonal of the Fisher information, summed over the answer tokens, to `sums`, by
    /// parameter: the square of the gradient of the likelihood of one token for each, which is drawn from the model's own
    /// distribution over the tokens that `teacher` has too. Its mean over the draws is right however many tokens there are, as
    /// each token's gradient has the mean 0. `uniform` gives the number from 0 to 1 of each token by its place.
    pub fn add_fisher(
        &self,
        decoder: &Decoder,
        teacher: &Decoder,
        weight: f32,
        uniform: impl Fn(usize) -> f64 + Sync,
        sums: &mut HashMap<String, Vec<f32>>,
    ) -> Result<()> {
        let vocab = common(decoder, teacher);
        let firsts = self.passes.iter().scan(0, |next, pass| {
            let first = *next;
            *next += pass.targets.len();
            Some((first, pass))
        });
        let mut gradients = Sums::new(decoder, HashMap::new());
        gradients.add(&firsts.collect::<Vec<_>>(), |decoder, _, (first, pass)| {
            let logits = cut(decoder.logits(&pass.packed, &pass.positions)?, vocab);
            let mut own = to_vec(logits.clone())?;
            let tokens = own.par_chunks_mut(vocab).enumerate();
            let drawn: Vec<u32> = tokens.map(|(at, logits)| drawn(logits, uniform(first + at))).collect();
            Ok::<_, Error>((ops::negative_log_likelihood(logits, &drawn).sum(), ()))
        })?;
        for (name, gradient) in gradients.finish() {
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; gradient.len()]);
            let places = sum.par_iter_mut().zip(gradient).with_min_len(1 << 14);
            places.for_each(|(sum, value)| *sum += weight * value * value);
        }
        Ok(())
    }
}

impl Pass {
    fn new(rows: &[&Answered], first: usize) -> Result<Self> {
        let limit = rows.iter().map(|row| row.start.saturating_sub(1)).min().unwrap_or(0);
        let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
        let packed = Packed::with_prefix_limit(&ids, limit)?;
        let mut pass = Self { packed, positions: vec![], targets: vec![], taught: None };
        for (row, answered) in rows.iter().enumerate() {
            if answered.start == 0 || answered.start >= answered.ids.len() {
                return Err(Error::NoAnswer { row: first + row });
            }
            for at in answered.start..answered.ids.len() {
                pass.positions.push(pass.packed.index(row, at - 1));
                pass.targets.push(answered.ids[at]);
            }
        }
        Ok(pass)
    }

    /// The loss of each answer token.
    fn losses(&self, decoder: &Decoder) -> Result<Vec<f64>> {
        let logits = self.logits(decoder)?;
        let [_, vocab] = logits.dims();
        let mut logits = to_vec(logits)?;
        let rows = logits.par_chunks_mut(vocab);
        Ok(match &self.taught {
            None => rows
                .zip(&self.targets)
                .map(|(own, &target)| {
                    to_log_probabilities(own);
                    -f64::from(own[target as usize])
                })
                .collect(),
            Some(taught) => rows
                .zip(taught.log_probabilities(vocab)?.par_chunks(vocab))
                .map(|(own, aim)| {
                    to_log_probabilities(own);
                    divergence(aim, own)
                })
                .collect(),
        })
    }

    /// Logits of the tokens that the teacher has too, where there is one.
    fn logits(&self, decoder: &Decoder) -> Result<Tensor<2>> {
        let logits = decoder.logits(&self.packed, &self.positions)?;
        Ok(match &self.taught {
            None => logits,
            Some(taught) => cut(logits, common(decoder, &taught.teacher)),
        })
    }

    /// The sum of the losses, with gradients tracked, up to what does not depend on the model, and that: the sum of the
    /// teacher's entropies.
    fn sum(&self, decoder: &Decoder) -> Result<(Tensor<1>, f64)> {
        let logits = self.logits(decoder)?;
        let Some(taught) = &self.taught else {
            return Ok((ops::negative_log_likelihood(logits, &self.targets).sum(), 0.0));
        };
        let [_, vocab] = logits.dims();
        let mut aim = taught.log_probabilities(vocab)?;
        let entropies: Vec<f64> = aim.par_chunks(vocab).map(entropy).collect();
        aim.par_iter_mut().for_each(|log| *log = log.exp());
        let probabilities = Tensor::from_data(TensorData::new(aim, logits.dims()), &logits.device());
        Ok(((log_softmax(logits, 1) * probabilities).sum().neg(), entropies.iter().sum()))
    }
}

impl Taught {
    /// The teacher's logarithmic probabilities over the first `vocab` tokens, `[tokens, vocab]`.
    fn log_probabilities(&self, vocab: usize) -> Result<Vec<f32>> {
        let mut logits = to_vec(cut(self.teacher.head(self.states.clone()), vocab))?;
        logits.par_chunks_mut(vocab).for_each(to_log_probabilities);
        Ok(logits)
    }
}

/// Number of tokens that two models both have: what one has more comes last.
fn common(one: &Decoder, other: &Decoder) -> usize {
    one.config().vocab_size.min(other.config().vocab_size)
}

/// The logits of the first `vocab` tokens.
fn cut(logits: Tensor<2>, vocab: usize) -> Tensor<2> {
    if logits.dims()[1] == vocab { logits } else { logits.narrow(1, 0, vocab) }
}

fn to_vec(tensor: Tensor<2>) -> Result<Vec<f32>> {
    Ok(tensor.try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?)
}

fn to_log_probabilities(logits: &mut [f32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    let shift = f64::from(largest) + sum.ln();
    logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - shift) as f32);
}

/// The first token up to which the probabilities sum to more than `uniform`.
fn drawn(logits: &mut [f32], uniform: f64) -> u32 {
    to_log_probabilities(logits);
    let mut sum = 0.0;
    let below = logits.iter().take_while(|&&log| {
        sum += f64::from(log).exp();
        sum <= uniform
    });
    below.count().min(logits.len() - 1) as u32 // rounding may leave the whole sum below 1
}

/// Runs of rows of which each goes through a decoder of this shape at once.
pub(crate) fn at_once(config: &DecoderConfig, rows: &[&Answered]) -> Vec<Range<usize>> {
    let most = (config.positions_at_once(), config.answers_at_once());
    let (mut runs, mut start, mut held) = (Vec::new(), 0, (0, 0));
    for (at, row) in rows.iter().enumerate() {
        let own = (row.ids.len(), row.ids.len().saturating_sub(row.start));
        if at > start && (held.0 + own.0 > most.0 || held.1 + own.1 > most.1) {
            runs.push(start..at);
            (start, held) = (at, (0, 0));
        }
        held = (held.0 + own.0, held.1 + own.1);
    }
    if start < rows.len() {
        runs.push(start..rows.len());
    }
    runs
}

/// Of logarithmic probabilities.
fn entropy(p: &[f32]) -> f64 {
    -p.iter().map(|&log| f64::from(log).exp() * f64::from(log)).sum::<f64>()
}

/// KL(p || q) of logarithmic probabilities.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let term = |(&p, &q): (&f32, &f32)| f64::from(p).exp() * (f64::from(p) - f64::from(q));
    p.iter().zip(q).map(term).sum()
}
