//! `y = x W^T` without gradients: rows of the input against rows of the weight, both read as they lie.
//!
//! A general matrix product packs the weight first, which for the few rows of a decoding step costs
//! as much as it saves. Here nothing is packed, and every output is summed in one order that depends
//! on the depth alone: a row's result is the same bits in whatever batch it is computed.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;
use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::Tensor;
use half::bf16;
use pulp::{Simd, WithSimd};
#[cfg(target_arch = "x86_64")]
use pulp::{bytemuck::Pod, x86::V4};
use rayon::prelude::*;

use super::super::Part;
use super::kept::{Kept, Row as _, Singles};
use super::{Shared, constant, tensor, values, vectorized, zeros};

/// Input rows of one tile of sums that stays in registers.
const ROWS: usize = 4;
/// Weight rows of one tile where there are few registers.
const OUTS: usize = 3;
/// Weight rows of one tile where there are many.
const MANY: usize = 4;
/// Weight rows of one tile for a single input row, which waits for memory: it is read at so many places at a time.
const ALONE: usize = MANY * OUTS;
/// Input rows that stay in the first-level cache, at `DEPTH` values each.
const GROUP: usize = 3 * ROWS;
/// Weight rows of one parallel piece of work, whole tiles of them; they stay in the second-level cache.
const PANEL: usize = 4 * ALONE;
/// Values of a row that are summed at a time, at most.
const DEPTH: usize = 640;

/// # Shapes
/// - x: `[rows, depth]`, weight: `[outs, depth]`, output: `[rows, outs]`
pub fn product(x: &Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let ([rows, depth], [outs, _]) = (x.dims(), weight.dims());
    let (x, weight) = (constant(x), Shared::new(weight));
    let x = values(&x);
    let mut y = zeros(rows * outs);
    let mut panels: Vec<Vec<&mut [f32]>> = (0..outs.div_ceil(PANEL)).map(|_| Vec::with_capacity(rows)).collect();
    for row in y.chunks_mut(outs) {
        panels.iter_mut().zip(row.chunks_mut(PANEL)).for_each(|(panel, part)| panel.push(part));
    }
    let pieces: Vec<(Vec<&mut [f32]>, Part<'_>)> =
        panels.into_iter().zip(weight.part().chunks(PANEL * depth)).collect();
    pieces.into_par_iter().for_each(|(mut y, weight)| {
        match weight {
            Part::Bf16(weight) if rows <= ROWS && widening(Panel { x, weight, depth, y: &mut y }) => {}
            // What is read more than once is widened before.
            _ => vectorized(Panel { x, weight: &weight.wide(), depth, y: &mut y }),
        }
    });
    Tensor::from_primitive::<Flex>(tensor(y, [rows, outs]))
}

/// All rows of the input against some rows of the weight.
struct Panel<'a, 'b, T> {
    x: &'a [f32],
    weight: &'a [T],
    depth: usize,
    /// The outputs of each input row.
    y: &'a mut [&'b mut [f32]],
}

impl WithSimd for Panel<'_, '_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.run(simd);
    }
}

impl<T> Panel<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S)
    where
        T: Kept<S>,
    {
        let Self { x, weight, depth, y } = self;
        let block = depth.div_ceil(depth.div_ceil(DEPTH)).next_multiple_of(16);
        for start in (0..depth).step_by(block) {
            let part = start..depth.min(start + block);
            for (x, y) in x.chunks(GROUP * depth).zip(y.chunks_mut(GROUP)) {
                let outs = match y.len() {
                    1 => ALONE,
                    _ if S::REGISTER_COUNT < 32 => OUTS,
                    _ => MANY,
                };
                for (first, weight) in (0..).step_by(outs).zip(weight.chunks(outs * depth)) {
                    for (x, y) in x.chunks(ROWS * depth).zip(y.chunks_mut(ROWS)) {
                        let put = |row: usize, out: usize, sum: f32| y[row][first + out] += sum;
                        dots(
                            simd,
                            Strided { rows: x, stride: depth },
                            Strided { rows: weight, stride: depth },
                            part.clone(),
                            put,
                        );
                    }
                }
            }
        }
    }
}

/// A panel of few rows, with a weight that is widened in the registers; false where the processor has no such instruction.
fn widening(panel: Panel<'_, '_, bf16>) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            Simd::vectorize(
                simd,
                #[inline(always)]
                || panel.run(simd),
            );
            return true;
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            Simd::vectorize(
                simd,
                #[inline(always)]
                || panel.run(simd),
            );
            return true;
        }
    }
    let _ = panel; // of other processors
    false
}

/// Rows that begin `stride` values after one another.
#[derive(Clone, Copy)]
pub struct Strided<'a, T = f32> {
    /// The values; those of the last row may end before its stride does.
    pub rows: &'a [T],
    /// From the beginning of a row to that of the next.
    pub stride: usize,
}

impl<'a, T> Strided<'a, T> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.rows.len().div_ceil(self.stride)
    }

    #[inline(always)]
    fn row(&self, index: usize, part: &Range<usize>) -> &'a [T] {
        &self.rows[index * self.stride..][part.clone()]
    }
}

/// The products of up to [`ROWS`] rows with up to [`MANY`] others, or of one with up to [`ALONE`], over `part` of them; `put` gets
/// the indices of both rows and the sum.
#[inline(always)]
pub fn dots<S: Simd, T: Kept<S>>(
    simd: S,
    x: Strided<'_>,
    w: Strided<'_, T>,
    part: Range<usize>,
    put: impl FnMut(usize, usize, f32),
) {
    match (x.count(), w.count()) {
        (4, 4) => tile::<S, T, 4, 4>(simd, x, w, &part, put),
        (3, 4) => tile::<S, T, 3, 4>(simd, x, w, &part, put),
        (2, 4) => tile::<S, T, 2, 4>(simd, x, w, &part, put),
        (4, 3) => tile::<S, T, 4, 3>(simd, x, w, &part, put),
        (3, 3) => tile::<S, T, 3, 3>(simd, x, w, &part, put),
        (2, 3) => tile::<S, T, 2, 3>(simd, x, w, &part, put),
        (1, ALONE) => tile::<S, T, 1, ALONE>(simd, x, w, &part, put),
        (1, 3) => tile::<S, T, 1, 3>(simd, x, w, &part, put),
        (rows, outs) => singly(simd, (x, rows), (w, outs), &part, put),
    }
}

/// As [`dots`], one product at a time.
#[inline(always)]
fn singly<S: Simd, T: Kept<S>>(
    simd: S,
    (x, rows): (Strided<'_>, usize),
    (w, outs): (Strided<'_, T>, usize),
    part: &Range<usize>,
    mut put: impl FnMut(usize, usize, f32),
) {
    for row in 0..rows {
        for out in 0..outs {
            let x = Strided { rows: &x.rows[row * x.stride..], ..x };
            let w = Strided { rows: &w.rows[out * w.stride..], ..w };
            tile::<S, T, 1, 1>(simd, x, w, part, |_, _, sum| put(row, out, sum));
        }
    }
}

#[inline(always)]
fn tile<S: Simd, T: Kept<S>, const R: usize, const O: usize>(
    simd: S,
    x: Strided<'_>,
    w: Strided<'_, T>,
    part: &Range<usize>,
    mut put: impl FnMut(usize, usize, f32),
) {
    let len = part.len() / S::F32_LANES;
    // Of one length, so that the loop needs no checks.
    let x: [Singles<'_, S>; R] = std::array::from_fn(|row| f32::row(x.row(row, part)).first(len));
    let w: [T::Row<'_>; O] = std::array::from_fn(|out| T::row(w.row(out, part)).first(len));
    let mut sums = [[simd.splat_f32s(0.0); O]; R];
    for k in 0..len {
        let w: [S::f32s; O] = std::array::from_fn(|out| w[out].full(simd, k));
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = simd.mul_add_e_f32s(x.full[k], w, *sum);
            }
        }
    }
    let tailed = !part.len().is_multiple_of(S::F32_LANES);
    #[cfg(target_arch = "x86_64")]
    if !tailed && let Some(totals) = totals(sums) {
        for (out, totals) in totals.into_iter().enumerate() {
            for (row, total) in totals.into_iter().enumerate() {
                put(row, out, total);
            }
        }
        return;
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (out, mut sum) in sums.into_iter().enumerate() {
            if tailed {
                sum = simd.mul_add_e_f32s(x[row].rest(simd), w[out].rest(simd), sum);
            }
            put(row, out, simd.reduce_sum_f32s(sum));
        }
    }
}

/// The sums over the values of each of a tile's vectors, where these are [`ROWS`] times [`MANY`] of AVX-512; all are halved
/// together, with a fifth of the instructions that one after the other takes and in the same order: the first half and the
/// second, until one value is left.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn totals<V: Pod, const R: usize, const O: usize>(sums: [[V; O]; R]) -> Option<[[f32; ROWS]; MANY]> {
    if R != ROWS || O != MANY || size_of::<V>() != size_of::<__m512>() {
        return None;
    }
    let simd = V4::try_new()?;
    // No closures: they would not be compiled for these instructions.
    let a = eighths(simd, quarters(simd, sums[0]), quarters(simd, sums[1]));
    let b = eighths(simd, quarters(simd, sums[2]), quarters(simd, sums[3]));
    let simd = simd.avx512f;
    let all = simd._mm512_add_ps(simd._mm512_shuffle_ps::<0x88>(a, b), simd._mm512_shuffle_ps::<0xDD>(a, b));
    Some(pulp::bytemuck::cast(all))
}

/// Four values of each of four vectors, one vector after the other.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn quarters<V: Pod, const O: usize>(simd: V4, sums: [V; O]) -> __m512 {
    use pulp::bytemuck::cast;
    let simd = simd.avx512f;
    let (a, b, c, d): (__m512, __m512, __m512, __m512) = (cast(sums[0]), cast(sums[1]), cast(sums[2]), cast(sums[3]));
    let ab = simd._mm512_add_ps(simd._mm512_shuffle_f32x4::<0x44>(a, b), simd._mm512_shuffle_f32x4::<0xEE>(a, b));
    let cd = simd._mm512_add_ps(simd._mm512_shuffle_f32x4::<0x44>(c, d), simd._mm512_shuffle_f32x4::<0xEE>(c, d));
    simd._mm512_add_ps(simd._mm512_shuffle_f32x4::<0x88>(ab, cd), simd._mm512_shuffle_f32x4::<0xDD>(ab, cd))
}

/// Two values of each of eight vectors, of which both arguments have four values each: one of each argument in turns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn eighths(simd: V4, a: __m512, b: __m512) -> __m512 {
    let simd = simd.avx512f;
    let (a, b) = (simd._mm512_castps_pd(a), simd._mm512_castps_pd(b));
    let (low, high) = (simd._mm512_unpacklo_pd(a, b), simd._mm512_unpackhi_pd(a, b));
    simd._mm512_add_ps(simd._mm512_castpd_ps(low), simd._mm512_castpd_ps(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, Distribution};

    fn bits(x: Tensor<2>) -> Vec<u32> {
        x.into_data().iter::<f32>().map(f32::to_bits).collect()
    }

    #[test]
    fn products_are_those_of_the_general_matrix_product() {
        let device = Device::flex();
        device.seed(3);
        for (rows, depth, outs) in [(1, 5, 1), (4, 16, 3), (7, 64, 50), (13, 650, 7), (9, 1290, 97)] {
            let x = Tensor::<2>::random([rows, depth], Distribution::Normal(0.0, 1.0), &device);
            let w = Tensor::<2>::random([outs, depth], Distribution::Normal(0.0, 1.0), &device);
            let wanted = x.clone().matmul(w.clone().transpose());
            let off = (product(&x, &w) - wanted).abs().max().into_scalar::<f32>();
            // Sums of up to 1290 products of size 1 in another order.
            assert!(off < 2e-4, "{rows} x {depth} x {outs}: {off}");
        }
    }

    #[test]
    fn a_rows_product_is_the_same_bits_in_every_batch() {
        let device = Device::flex();
        device.seed(4);
        let x = Tensor::<2>::random([23, 700], Distribution::Normal(0.0, 1.0), &device);
        let w = Tensor::<2>::random([100, 700], Distribution::Normal(0.0, 1.0), &device);
        let all = product(&x, &w);
        for (start, rows) in [(0, 1), (5, 2), (3, 3), (1, 4), (7, 9), (22, 1)] {
            let some = product(&x.clone().narrow(0, start, rows), &w);
            assert_eq!(bits(some), bits(all.clone().narrow(0, start, rows)), "{rows} rows from {start}");
        }
    }

    #[test]
    fn products_with_a_weight_in_bf16_are_those_of_the_same_values_in_f32_to_the_bit() {
        let device = Device::flex();
        device.seed(5);
        for (rows, depth, outs) in [(1, 5, 1), (1, 700, 100), (2, 64, 50), (4, 33, 7), (5, 650, 49), (9, 1290, 13)] {
            let x = Tensor::<2>::random([rows, depth], Distribution::Normal(0.0, 1.0), &device);
            let halves = Tensor::<2>::random([outs, depth], Distribution::Normal(0.0, 1.0), &device).cast(DType::BF16);
            let [wanted, found] = [halves.clone().cast(DType::F32), halves]
                .map(|weight| product(&x, &weight).into_data().try_into_vec::<f32>());
            assert_eq!(found.unwrap(), wanted.unwrap(), "{rows} x {depth} x {outs}");
        }
    }
}
