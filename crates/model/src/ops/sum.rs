//! Where the gradients of a weight are added up.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

/// A sum of a weight's gradients, row-major; empty before the first.
#[derive(Debug, Clone)]
pub(crate) struct Sum(Arc<Mutex<Vec<f32>>>);

impl Sum {
    pub fn new(earlier: Vec<f32>) -> Self {
        Self(Arc::new(Mutex::new(earlier)))
    }

    pub fn add(&self, gradient: &[f32]) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sum.is_empty() {
            *sum = gradient.to_vec();
        } else {
            sum.par_iter_mut().zip(gradient).with_min_len(1 << 14).for_each(|(sum, value)| *sum += value);
        }
    }

    /// The sum, and begins anew.
    pub fn take(&self) -> Vec<f32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
