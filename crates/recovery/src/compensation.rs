//! Optimal brain surgery (Hassibi and Stork 1993), column by column as in GPTQ and SparseGPT (Frantar and others 2023):
//! what a changed weight does to the outputs of its projection is made up for by the later columns of its row.

use std::ops::Range;

use rayon::prelude::*;

use crate::{Error, Result};

/// What is added to the diagonal, as a share of its mean.
const DAMPING: f64 = 0.01;

/// `H`, the sum of `x x'` over the inputs of a projection, up to a factor that cancels out of everything here.
#[derive(Debug, Clone)]
pub(crate) struct Gram {
    width: usize,
    sums: Vec<f64>,
}

/// `U`, upper triangular, with `H^-1 = U' U`.
#[derive(Debug, Clone)]
pub(crate) struct Factor {
    /// Each row from its diagonal on.
    rows: Vec<Vec<f64>>,
}

impl Gram {
    /// Of no input yet.
    pub fn new(width: usize) -> Self {
        Self { width, sums: vec![0.0; width * width] }
    }

    /// Adds that of more inputs, `[in, in]`.
    pub fn add(&mut self, more: &[f32]) {
        self.sums.par_iter_mut().zip(more).for_each(|(sum, &more)| *sum += f64::from(more));
    }

    /// Whether an input is always 0.
    pub fn is_dead(&self, column: usize) -> bool {
        self.sums[column * self.width + column] == 0.0
    }

    /// The factor of the inverse of `H + 0.01 mean(diag H) I`, where a 0 on the diagonal of `H` is 1.
    ///
    /// # Mathematical Definition
    /// `H = R R'` with `R` upper triangular (Cholesky's decomposition from the last column on), and `U = R^-1`.
    pub fn factor(&self) -> Result<Factor> {
        let n = self.width;
        let diagonal = |j: usize| if self.is_dead(j) { 1.0 } else { self.sums[j * n + j] };
        let damping = DAMPING * (0..n).map(diagonal).sum::<f64>() / n.max(1) as f64;
        let turned = |i: usize, j: usize| match i == j {
            true => diagonal(n - 1 - i) + damping,
            false => self.sums[(n - 1 - i) * n + n - 1 - j],
        };
        let mut lower: Vec<Vec<f64>> = (0..n).map(|i| (0..=i).map(|j| turned(i, j)).collect()).collect();
        decompose(&mut lower)?;
        let columns: Vec<Vec<f64>> = (0..n).into_par_iter().map(|column| inverse_column(&lower, column)).collect();
        let row = |j: usize| (j..n).map(|k| columns[n - 1 - k][k - j]).collect();
        Ok(Factor { rows: (0..n).into_par_iter().map(row).collect() })
    }
}

/// Cholesky's decomposition of the lower half of a symmetric matrix, in place.
fn decompose(lower: &mut [Vec<f64>]) -> Result<()> {
    for j in 0..lower.len() {
        let (done, rest) = lower.split_at_mut(j + 1);
        let pivot = &mut done[j];
        let square = pivot[j] - dot(&pivot[..j], &pivot[..j]);
        if !square.is_finite() || square <= 0.0 {
            return Err(Error::NotFinite { what: "the covariance of a projection's inputs" });
        }
        pivot[j] = square.sqrt();
        let eliminate = |row: &mut Vec<f64>| row[j] = (row[j] - dot(&row[..j], &pivot[..j])) / pivot[j];
        rest.par_iter_mut().with_min_len(64).for_each(eliminate);
    }
    Ok(())
}

/// A column of the inverse of a lower triangular matrix, from its diagonal on.
fn inverse_column(lower: &[Vec<f64>], column: usize) -> Vec<f64> {
    let mut inverse = vec![1.0 / lower[column][column]];
    for (at, row) in lower.iter().enumerate().skip(column + 1) {
        inverse.push(-dot(&row[column..at], &inverse) / row[at]);
    }
    inverse
}

/// In eight sums, which a processor can do at once.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f64>()
}

impl Factor {
    /// Number of columns.
    pub fn width(&self) -> usize {
        self.rows.len()
    }

    /// `U_jj`.
    pub fn diagonal(&self, j: usize) -> f64 {
        self.rows[j][0]
    }

    /// Sets entries of some columns of `w`, row-major, to what `value` gives for row and column, where it gives something;
    /// the later columns of the row make up for it. Columns go `together` at a time, and do not make up for each other
    /// among these.
    ///
    /// # Mathematical Definition
    /// For the columns `S` that go together: `err = (w_S - value) / d_S`, `w_S = value`, `w_L -= err U[S, L]` for all later
    /// columns `L`.
    pub fn settle(
        &self,
        w: &mut [f64],
        columns: Range<usize>,
        together: usize,
        value: impl Fn(usize, usize) -> Option<f64> + Sync,
    ) {
        w.par_chunks_mut(self.width()).enumerate().for_each(|(row, w)| {
            for first in columns.clone().step_by(together) {
                let end = (first + together).min(columns.end);
                for j in first..end {
                    let Some(value) = value(row, j) else { continue };
                    let error = (w[j] - value) / self.diagonal(j);
                    w[j] = value;
                    for (w, u) in w[end..].iter_mut().zip(&self.rows[j][end - j..]) {
                        *w -= error * u;
                    }
                }
            }
        });
    }
}

/// Runs of so many columns.
pub(crate) fn column_blocks(columns: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..columns).step_by(width).map(move |first| first..(first + width).min(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Gram matrix of more inputs than columns, with a dead one.
    fn gram(n: usize) -> Gram {
        let x = |token: usize, j: usize| if j == 2 { 0.0 } else { ((token * 31 + j * 17) % 29) as f32 / 29.0 - 0.4 };
        let mut gram = Gram::new(n);
        for token in 0..3 * n {
            let products: Vec<f32> = (0..n * n).map(|at| x(token, at / n) * x(token, at % n)).collect();
            gram.add(&products);
        }
        gram
    }

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let (n, gram) = (11, gram(11));
        let u = gram.factor().unwrap();
        let at = |i: usize, j: usize| if j < i { 0.0 } else { u.rows[i][j - i] };
        let inverse = |i: usize, j: usize| (0..n).map(|k| at(k, i) * at(k, j)).sum::<f64>();
        let diagonal = |j: usize| if gram.is_dead(j) { 1.0 } else { gram.sums[j * n + j] };
        let damping = 0.01 * (0..n).map(diagonal).sum::<f64>() / n as f64;
        let damped = |i: usize, j: usize| if i == j { diagonal(i) + damping } else { gram.sums[i * n + j] };
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n).map(|k| inverse(i, k) * damped(k, j)).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-10, "{i} {j}: {product}");
            }
        }
        assert!(gram.is_dead(2) && !gram.is_dead(3));
    }

    /// With all entries of a column set, what is left is the least-squares fit: `w_L + H_LL^-1 H_Lj (w_j - q)`.
    #[test]
    fn later_columns_make_up_for_a_change() {
        let (n, gram) = (2, {
            let mut gram = Gram::new(2);
            gram.add(&[4.0, 2.0, 2.0, 4.0]);
            gram
        });
        let mut w = [1.0, 1.0, 3.0, 5.0];
        gram.factor().unwrap().settle(&mut w, 0..n, 1, |row, column| (row == 1 && column == 0).then_some(0.0));
        assert_eq!(w[..3], [1.0, 1.0, 0.0]);
        assert!((w[3] - (5.0 + 2.0 / 4.04 * 3.0)).abs() < 1e-12, "{}", w[3]);
    }

    #[test]
    fn inputs_that_are_no_numbers_are_an_error() {
        let mut gram = Gram::new(1);
        gram.add(&[f32::NAN]);
        assert!(gram.factor().is_err());
    }
}
