//! Where the gradients of a weight are added up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

/// A sum of a weight's gradients, row-major; empty before the first. It is of one order, whichever pass comes first: a gradient
/// whose turn has not come is kept until it has.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    shared: Arc<Mutex<Shared>>,
    /// Turn of the pass that adds.
    turn: usize,
}

#[derive(Debug, Default)]
struct Shared {
    sum: Vec<f32>,
    /// Whose turn it is.
    next: usize,
    early: BTreeMap<usize, Vec<f32>>,
}

impl Sum {
    pub fn new(earlier: Vec<f32>) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { sum: earlier, ..Shared::default() })), turn: 0 }
    }

    /// The same sum, to be added to once, by the pass of this turn, counted from 0.
    pub fn of_turn(&self, turn: usize) -> Self {
        Self { shared: self.shared.clone(), turn }
    }

    pub fn add(&self, gradient: Vec<f32>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.early.insert(self.turn, gradient);
        while let Some(gradient) = {
            let next = shared.next;
            shared.early.remove(&next)
        } {
            shared.add(gradient);
            shared.next += 1;
        }
    }

    /// The sum, and begins anew.
    pub fn take(&self) -> Vec<f32> {
        let shared = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all = Shared { sum: shared.sum, ..Shared::default() };
        shared.early.into_values().for_each(|gradient| all.add(gradient));
        all.sum
    }
}

impl Shared {
    fn add(&mut self, gradient: Vec<f32>) {
        if self.sum.is_empty() {
            self.sum = gradient;
        } else {
            let places = self.sum.par_iter_mut().zip(&gradient).with_min_len(1 << 14);
            places.for_each(|(sum, value)| *sum += value);
        }
    }
}
