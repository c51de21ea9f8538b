//! General products of matrices, written where they are to be.
//!
//! burn-flex asks for cleared memory for each product and copies it once more to be aligned, which took a tenth of a recovery step.

use burn::backend::flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::{dims, tensor, values, zeros};

/// Rows or columns of an output below which another thread does not pay.
const LEAST: usize = 32;

/// A contiguous tensor of two axes.
pub fn matrix(x: &FlexTensor) -> MatRef<'_, f32> {
    let [rows, columns] = dims(x);
    MatRef::from_row_major_slice(values(x), rows, columns)
}

/// The heads of a contiguous tensor of three axes, the first of which counts them.
pub fn per_head(x: &FlexTensor) -> impl Iterator<Item = MatRef<'_, f32>> {
    let [_, rows, columns] = dims(x);
    let parts = values(x).chunks_exact((rows * columns).max(1));
    parts.map(move |part| MatRef::from_row_major_slice(part, rows, columns))
}

/// `a b` of each head.
pub fn multiply_heads<'a>(
    a: impl Iterator<Item = MatRef<'a, f32>>,
    b: impl Iterator<Item = MatRef<'a, f32>>,
) -> FlexTensor {
    let pairs: Vec<_> = a.zip(b).collect();
    let [rows, columns] = pairs.first().map_or([0, 0], |(a, b)| [a.nrows(), b.ncols()]);
    let mut output = zeros(pairs.len() * rows * columns);
    for (output, (a, b)) in output.chunks_exact_mut((rows * columns).max(1)).zip(&pairs) {
        let place = MatMut::from_row_major_slice_mut(output, rows, columns);
        matmul(place, Accum::Replace, a, b, 1.0, Par::Seq);
    }
    tensor(output, [pairs.len(), rows, columns])
}

/// `a b`.
pub fn multiply(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> FlexTensor {
    tensor(values_of(a, b), [a.nrows(), b.ncols()])
}

/// `a b + c d`.
pub fn multiply_both([a, b]: [MatRef<'_, f32>; 2], [c, d]: [MatRef<'_, f32>; 2]) -> FlexTensor {
    let shape = [a.nrows(), b.ncols()];
    let mut sum = values_of(a, b);
    pieces(MatMut::from_row_major_slice_mut(&mut sum, shape[0], shape[1]), Accum::Add, c, d, threads());
    tensor(sum, shape)
}

/// `a b`, row-major.
pub fn values_of(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Vec<f32> {
    let mut output = zeros(a.nrows() * b.ncols());
    let place = MatMut::from_row_major_slice_mut(&mut output, a.nrows(), b.ncols());
    pieces(place, Accum::Replace, a, b, threads());
    output
}

fn threads() -> usize {
    rayon::current_num_threads()
}

/// A product in so many pieces of its output, the longer side of which is halved; every value is summed in the same order in
/// whatever piece it is.
fn pieces(output: MatMut<'_, f32>, how: Accum, a: MatRef<'_, f32>, b: MatRef<'_, f32>, count: usize) {
    let (rows, columns) = (output.nrows(), output.ncols());
    let half = count / 2;
    // A side is cut at a multiple of what a kernel takes at a time.
    let cut = |side: usize| (side * half / count).next_multiple_of(LEAST / 2);
    if count < 2 || rows.max(columns) < 2 * LEAST {
        return matmul(output, how, a, b, 1.0, Par::Seq);
    }
    if rows >= columns {
        let at = cut(rows);
        let ((top, bottom), (above, below)) = (output.split_at_row_mut(at), a.split_at_row(at));
        rayon::join(|| pieces(top, how, above, b, half), || pieces(bottom, how, below, b, count - half));
    } else {
        let at = cut(columns);
        let ((left, right), (before, behind)) = (output.split_at_col_mut(at), b.split_at_col(at));
        rayon::join(|| pieces(left, how, a, before, half), || pieces(right, how, a, behind, count - half));
    }
}
