//! What gradients are of: harm, over-refusal and the task together, on prompts that are drawn for each step.

use std::collections::HashMap;

use files::derived_seed;
use model::{Decoder, weights};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::evidence::{Answered, Evidence};
use crate::lesson::Lesson;
use crate::region::is_in_region;
use crate::{Losses, Result};

/// `H + mu R + lambda T`: KL(aligned || model) on harmful prompts, KL(reference || model) on harmless ones, and
/// KL(fine-tuned || model) on the task's samples, each a mean over its answer tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective<'a> {
    /// The prompts, of which the train parts are used, and mu.
    pub evidence: &'a Evidence,
    pub aligned: &'a Decoder,
    pub fine_tuned: &'a Decoder,
    /// Weight of the task's divergence.
    pub lambda: f64,
    /// Harmful prompts of a step, and as many harmless ones; twice as many samples of the task.
    pub prompts: usize,
    /// Decides which are drawn.
    pub seed: u64,
}

impl Objective<'_> {
    /// The gradient by the weights of all blocks, norms excluded, and the losses.
    pub fn gradient(&self, decoder: Decoder, step: usize) -> Result<(HashMap<String, Vec<f32>>, Losses)> {
        let blocks = decoder.config().num_hidden_layers;
        let decoder = weights::track(decoder, |info| is_in_region(info, blocks));
        let Self { evidence, aligned, fine_tuned, lambda, prompts, .. } = *self;
        let Evidence { harmful, harmless, task, merit, .. } = evidence;
        let (mut gradients, mut losses) = (HashMap::new(), Losses::default());
        let rows = self.draw(&harmful.train, prompts, step, 0);
        losses.harmful = Lesson::of_teacher(aligned, rows)?.accumulate(&decoder, 1.0, &mut gradients)?;
        let rows = self.draw(&harmless.train, prompts, step, 1);
        if merit.mu > 0.0 && !rows.is_empty() {
            let teacher = evidence.harmless_teacher(aligned, fine_tuned);
            losses.harmless = Lesson::of_teacher(teacher, rows)?.accumulate(&decoder, merit.mu, &mut gradients)?;
        }
        let rows = self.draw(&task.train, 2 * prompts, step, 2);
        if lambda > 0.0 && !rows.is_empty() {
            let lesson = Lesson::of_teacher(fine_tuned, rows)?;
            losses.task = lesson.accumulate(&decoder, lambda, &mut gradients)?;
        }
        losses.loss = losses.harmful + merit.mu * losses.harmless + lambda * losses.task;
        Ok((gradients, losses))
    }

    fn draw<'r>(&self, rows: &'r [Answered], number: usize, step: usize, kind: u64) -> Vec<&'r Answered> {
        let order = drawn(rows.len(), number, step, derived_seed(self.seed, kind));
        order.into_iter().map(|at| &rows[at]).collect()
    }
}

/// The rows of a step: so many of an order that goes on from step to step, and is drawn anew when it is through.
fn drawn(rows: usize, number: usize, step: usize, seed: u64) -> Vec<usize> {
    if rows == 0 {
        return Vec::new();
    }
    let number = number.min(rows);
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
