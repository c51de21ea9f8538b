//! What gradients are of: harm, over-refusal and the task together, on prompts that are drawn for each step.

use std::collections::HashMap;

use files::{derived_seed, uniform};
use model::Decoder;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::evidence::{Answered, Evidence, Parts};
use crate::lesson::Lesson;
use crate::region::Members;
use crate::{Inputs, Losses, Result};

/// `H + mu R + lambda T`: KL(aligned || model) on harmful prompts, KL(reference || model) on harmless ones, and
/// KL(fine-tuned || model) on the task's samples, each a mean over its answer tokens.
#[derive(Debug)]
pub(crate) struct Objective<'a> {
    terms: [Term<'a>; 3],
    /// By what the gradients are.
    members: Members,
}

/// One of the three.
#[derive(Debug)]
struct Term<'a> {
    teacher: &'a Decoder,
    rows: &'a [Answered],
    weight: f64,
    /// Rows of a step.
    number: usize,
    /// Decides which are drawn.
    seed: u64,
    /// The lesson of all rows, where a step takes them all.
    kept: Option<Lesson>,
}

impl<'a> Objective<'a> {
    /// On the parts of the evidence that give gradients. A step takes `number` harmful prompts and as many harmless ones, and
    /// twice as many samples of the task.
    pub fn new(inputs: &Inputs<'a>, evidence: &'a Evidence, members: Members, lambda: f64, number: usize) -> Self {
        let (aligned, fine_tuned, merit) = (inputs.aligned, inputs.fine_tuned, evidence.merit);
        let teacher = evidence.harmless_teacher(aligned, fine_tuned);
        let term = |kind, teacher, rows: &'a Parts, weight, number| {
            let seed = derived_seed(inputs.seed, kind);
            Term { teacher, rows: &rows.train, weight, number, seed, kept: None }
        };
        let harmful = term(0, aligned, &evidence.harmful, 1.0, number);
        let harmless = term(1, teacher, &evidence.harmless, merit.mu, number);
        let task = term(2, fine_tuned, &evidence.task, lambda, number.saturating_mul(2));
        Self { terms: [harmful, harmless, task], members }
    }

    /// The gradient by the weights of the members, and the losses.
    pub fn gradient(&mut self, decoder: Decoder, step: usize) -> Result<(HashMap<String, Vec<f32>>, Losses)> {
        let decoder = self.members.track(decoder)?;
        let mut gradients = HashMap::new();
        let mut found = [0.0; 3];
        for (term, found) in self.terms.iter_mut().zip(&mut found) {
            *found = term.accumulate(&decoder, step, &mut gradients)?;
        }
        let loss = self.terms.iter().zip(found).map(|(term, found)| term.weight * found).sum();
        let [harmful, harmless, task] = found;
        Ok((gradients, Losses { loss, harmful, harmless, task }))
    }

    /// An estimate of the diagonal of the Fisher information of the same weights, which is that of the objective's second
    /// derivative where the model is its own teacher: at all answer tokens of the parts that give gradients, each term with
    /// its weight.
    pub fn fisher(&self, decoder: &Decoder) -> Result<HashMap<String, Vec<f32>>> {
        let decoder = self.members.track(decoder.clone())?;
        let mut sums = HashMap::new();
        for term in &self.terms {
            term.add_fisher(&decoder, &mut sums)?;
        }
        Ok(sums)
    }
}

/// Squares that a term's estimate is made of.
const DRAWS: usize = 16;

impl Term<'_> {
    fn add_fisher(&self, decoder: &Decoder, sums: &mut HashMap<String, Vec<f32>>) -> Result<()> {
        if self.weight == 0.0 || self.rows.is_empty() {
            return Ok(());
        }
        let tokens: usize = self.rows.iter().map(|row| row.ids.len() - row.start).sum();
        let weight = (self.weight / tokens as f64) as f32;
        let mut before = 0;
        for rows in self.rows.chunks(self.rows.len().div_ceil(DRAWS)) {
            let lesson = Lesson::of_answers(decoder.config(), rows)?;
            lesson.add_fisher(decoder, self.teacher, weight, |at| uniform(self.seed, (before + at) as u64), sums)?;
            before += lesson.tokens();
        }
        Ok(())
    }

    fn accumulate(&mut self, decoder: &Decoder, step: usize, sums: &mut HashMap<String, Vec<f32>>) -> Result<f64> {
        if self.weight == 0.0 || self.rows.is_empty() {
            return Ok(0.0);
        }
        let lesson = match self.kept.take() {
            Some(lesson) => lesson,
            None => {
                let order = drawn(self.rows.len(), self.number, step, self.seed);
                Lesson::of_teacher(self.teacher, order.into_iter().map(|at| &self.rows[at]))?
            }
        };
        let loss = lesson.accumulate(decoder, self.weight, sums)?;
        self.kept = (self.number >= self.rows.len()).then_some(lesson);
        Ok(loss)
    }
}

/// The rows of a step: all, or so many of an order that goes on from step to step and is drawn again when it is used up.
fn drawn(rows: usize, number: usize, step: usize, seed: u64) -> Vec<usize> {
    if number >= rows {
        return (0..rows).collect();
    }
    let (from, to) = (step * number, (step + 1) * number);
    let passes = from / rows..=(to - 1) / rows;
    let orders = passes.flat_map(|pass| shuffled(rows, derived_seed(seed, pass as u64)));
    orders.skip(from % rows).take(number).collect()
}

fn shuffled(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}
