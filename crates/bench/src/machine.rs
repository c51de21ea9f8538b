//! What the machine reaches: a large product and a large copy.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use rayon::prelude::*;

/// Operations and bytes per second.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// Multiplications and additions of f32.
    pub operations: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

/// Rows and columns of the product.
const SIDE: usize = 2048;
/// Values of the copy.
const VALUES: usize = 1 << 26;

impl Peak {
    /// The best of five of each.
    pub fn measure() -> Self {
        let device = Device::flex();
        let [a, b] = [0; 2].map(|_| Tensor::<2>::random([SIDE, SIDE], Distribution::Default, &device));
        let product = best(|| drop(a.clone().matmul(b.clone()).into_data()));
        let (from, mut to) = (vec![1f32; VALUES], vec![0f32; VALUES]);
        let copy = best(|| {
            let pieces = to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20));
            pieces.for_each(|(to, from)| to.copy_from_slice(from));
        });
        Self { operations: 2.0 * (SIDE as f64).powi(3) / product, bytes: 8.0 * VALUES as f64 / copy }
    }
}

fn best(mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..5).map(time).fold(f64::INFINITY, f64::min)
}
