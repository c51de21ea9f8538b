//! Eigenvalues and eigenvectors of a symmetric matrix in f64: reduction to tridiagonal form by Householder reflections, then
//! QR steps with Wilkinson's shift (Golub and Van Loan, Matrix Computations, 8.3).

use crate::compensation::dot;
use crate::{Error, Result};

/// QR steps for each eigenvalue at most; two are usual.
const MOST_STEPS: usize = 60;

/// Eigenvalues, largest first, each with its eigenvector of length 1, of a symmetric matrix (row-major, `n x n`).
///
/// # Errors
/// When a value is not finite.
pub(crate) fn eigen(matrix: Vec<f64>, n: usize) -> Result<Vec<(f64, Vec<f64>)>> {
    let mut rows: Vec<Vec<f64>> = matrix.chunks(n.max(1)).map(<[f64]>::to_vec).collect();
    let reflections = tridiagonal(&mut rows);
    let diagonal: Vec<f64> = (0..n).map(|i| rows[i][i]).collect();
    let beside: Vec<f64> = (1..n).map(|i| rows[i][i - 1]).collect();
    let mut vectors = product(&reflections, n);
    let values = diagonalize(diagonal, beside, &mut vectors)?;
    let mut pairs: Vec<(f64, Vec<f64>)> = values.into_iter().zip(vectors).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(pairs)
}

/// Makes the matrix tridiagonal. The reflection `k` is `I - 2 v v'`, with `v` over the coordinates from `k + 1` on; empty
/// where there is nothing to reflect.
fn tridiagonal(rows: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
    let n = rows.len();
    let mut reflections = Vec::new();
    for k in 0..n.saturating_sub(2) {
        let mut v: Vec<f64> = rows[k + 1..].iter().map(|row| row[k]).collect();
        let norm = dot(&v, &v).sqrt();
        let target = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= target;
        let length = dot(&v, &v).sqrt();
        if length == 0.0 {
            reflections.push(Vec::new());
            continue;
        }
        v.iter_mut().for_each(|x| *x /= length);
        rows[k + 1][k] = target;
        // H A H = A - v w' - w v' with w = 2 (A v - (v' A v) v).
        let mut w: Vec<f64> = rows[k + 1..].iter().map(|row| dot(&row[k + 1..], &v)).collect();
        let along = dot(&v, &w);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w = 2.0 * (*w - along * v));
        for (i, row) in rows[k + 1..].iter_mut().enumerate() {
            let (vi, wi) = (v[i], w[i]);
            row[k + 1..].iter_mut().zip(v.iter().zip(&w)).for_each(|(x, (v, w))| *x -= vi * w + wi * v);
        }
        reflections.push(v);
    }
    reflections
}

/// The transposed product of the reflections.
fn product(reflections: &[Vec<f64>], n: usize) -> Vec<Vec<f64>> {
    let unit = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    let mut rows: Vec<Vec<f64>> = (0..n).map(unit).collect();
    for (k, v) in reflections.iter().enumerate().rev().filter(|(_, v)| !v.is_empty()) {
        for row in &mut rows[k + 1..] {
            let twice = 2.0 * dot(&row[k + 1..], v);
            row[k + 1..].iter_mut().zip(v).for_each(|(x, v)| *x -= twice * v);
        }
    }
    rows
}

/// The eigenvalues of a tridiagonal matrix; the rotations that lead there are done to the rows of `vectors`, too.
fn diagonalize(mut d: Vec<f64>, mut e: Vec<f64>, vectors: &mut [Vec<f64>]) -> Result<Vec<f64>> {
    let mut end = e.len(); // the last row that is not done
    for _ in 0..MOST_STEPS * d.len().max(1) {
        for i in 0..end {
            if e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs()) {
                e[i] = 0.0;
            }
        }
        while end > 0 && e[end - 1] == 0.0 {
            end -= 1;
        }
        if end == 0 {
            let finite = d.iter().all(|value| value.is_finite());
            return if finite { Ok(d) } else { Err(damaged()) };
        }
        let start = (0..end).rev().find(|&i| e[i] == 0.0).map_or(0, |i| i + 1);
        step(&mut d, &mut e, start, end, vectors);
    }
    Err(damaged())
}

fn damaged() -> Error {
    Error::NotFinite { what: "the difference of two models" }
}

/// One QR step on the rows `start..=end`, none of whose neighbours is 0.
fn step(d: &mut [f64], e: &mut [f64], start: usize, end: usize, vectors: &mut [Vec<f64>]) {
    let half = (d[end - 1] - d[end]) / 2.0;
    let last = e[end - 1];
    let shift = d[end] - last * last / (half + half.hypot(last).copysign(half));
    let (mut x, mut z) = (d[start] - shift, e[start]);
    for k in start..end {
        let r = x.hypot(z);
        let (c, s) = if r == 0.0 { (1.0, 0.0) } else { (x / r, z / r) };
        if k > start {
            e[k - 1] = r;
        }
        let (first, second, beside) = (d[k], d[k + 1], e[k]);
        d[k] = c * c * first + 2.0 * c * s * beside + s * s * second;
        d[k + 1] = s * s * first - 2.0 * c * s * beside + c * c * second;
        e[k] = c * s * (second - first) + (c * c - s * s) * beside;
        if k + 1 < end {
            (x, z) = (e[k], s * e[k + 1]);
            e[k + 1] *= c;
        }
        let (above, below) = vectors.split_at_mut(k + 1);
        for (a, b) in above[k].iter_mut().zip(&mut below[0]) {
            (*a, *b) = (c * *a + s * *b, c * *b - s * *a);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// `B B'` of a random `B` with so many columns.
    fn gram(n: usize, columns: usize) -> Vec<f64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let rows: Vec<Vec<f64>> = (0..n).map(|_| (0..columns).map(|_| rng.random_range(-1.0..1.0)).collect()).collect();
        rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect()
    }

    #[test]
    fn the_matrix_is_the_sum_of_its_pairs_and_the_vectors_are_orthonormal() {
        let zeros = vec![0.0; 9];
        let diagonal = vec![2.0, 0.0, 0.0, 3.0];
        let swap = vec![0.0, 1.0, 1.0, 0.0];
        for (matrix, n) in [(gram(70, 90), 70), (gram(70, 5), 70), (zeros, 3), (diagonal, 2), (swap, 2), (vec![4.0], 1)]
        {
            let pairs = eigen(matrix.clone(), n).unwrap();
            assert!(pairs.is_sorted_by(|a, b| a.0 >= b.0));
            let largest = pairs[0].0.abs().max(1e-300);
            for i in 0..n {
                for j in 0..n {
                    let sum: f64 = pairs.iter().map(|(value, vector)| value * vector[i] * vector[j]).sum();
                    assert!((sum - matrix[i * n + j]).abs() < 1e-13 * largest.max(1.0), "{n}: {i}, {j}");
                    let product = dot(&pairs[i].1, &pairs[j].1);
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-13, "{n}: {product}");
                }
            }
        }
    }

    #[test]
    fn the_rank_is_seen_and_damage_is_an_error() {
        let pairs = eigen(gram(70, 5), 70).unwrap();
        assert!(pairs[4].0 > 1e-3 * pairs[0].0 && pairs[5].0 < 1e-14 * pairs[0].0);
        for value in [f64::NAN, f64::INFINITY] {
            let mut matrix = gram(8, 9);
            matrix[3] = value;
            matrix[24] = value;
            assert!(eigen(matrix, 8).is_err());
        }
    }
}
