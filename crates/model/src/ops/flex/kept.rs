//! Rows of values as vectors in f32, whatever the precision in which they are kept.

use half::bf16;
use pulp::Simd;

use super::super::part;

/// A precision in which values are kept, and from which instructions read f32.
pub trait Kept<S: Simd>: Copy {
    /// A row of them as vectors.
    type Row<'a>: Row<S>
    where
        Self: 'a;

    /// The values as vectors.
    fn row(values: &[Self]) -> Self::Row<'_>;
}

/// A row as vectors in f32.
pub trait Row<S: Simd>: Copy {
    /// The first `count` full vectors alone.
    fn first(self, count: usize) -> Self;

    /// One of the full vectors.
    fn full(self, simd: S, index: usize) -> S::f32s;

    /// What is behind the full vectors, and zeros.
    fn rest(self, simd: S) -> S::f32s;
}

/// A row in f32.
#[derive(Clone, Copy)]
pub struct Singles<'a, S: Simd> {
    /// The full vectors.
    pub full: &'a [S::f32s],
    rest: &'a [f32],
}

impl<S: Simd> Kept<S> for f32 {
    type Row<'a> = Singles<'a, S>;

    #[inline(always)]
    fn row(values: &[Self]) -> Self::Row<'_> {
        let (full, rest) = S::as_simd_f32s(values);
        Singles { full, rest }
    }
}

impl<S: Simd> Row<S> for Singles<'_, S> {
    #[inline(always)]
    fn first(self, count: usize) -> Self {
        Self { full: &self.full[..count], ..self }
    }

    #[inline(always)]
    fn full(self, _: S, index: usize) -> S::f32s {
        self.full[index]
    }

    #[inline(always)]
    fn rest(self, simd: S) -> S::f32s {
        simd.partial_load_f32s(self.rest)
    }
}

/// Instructions that read bf16 as f32.
pub trait Widen: Simd {
    /// As many values as a vector has.
    fn widen(self, halves: &[bf16]) -> Self::f32s;
}

#[cfg(target_arch = "x86_64")]
impl Widen for pulp::x86::V4 {
    #[inline(always)]
    fn widen(self, halves: &[bf16]) -> Self::f32s {
        let halves: [u16; 16] = std::array::from_fn(|i| halves[i].to_bits());
        let wide = self.convert_u16x16_to_u32x16(pulp::cast(halves));
        pulp::cast(self.shl_const_u32x16::<16>(wide))
    }
}

#[cfg(target_arch = "x86_64")]
impl Widen for pulp::x86::V3 {
    #[inline(always)]
    fn widen(self, halves: &[bf16]) -> Self::f32s {
        let halves: [u16; 8] = std::array::from_fn(|i| halves[i].to_bits());
        let wide = self.convert_u16x8_to_u32x8(pulp::cast(halves));
        pulp::cast(self.shl_const_u32x8::<16>(wide))
    }
}

/// A row in bf16.
#[derive(Clone, Copy)]
pub struct Halves<'a> {
    full: &'a [bf16],
    rest: &'a [bf16],
}

impl<S: Widen> Kept<S> for bf16 {
    type Row<'a> = Halves<'a>;

    #[inline(always)]
    fn row(values: &[Self]) -> Self::Row<'_> {
        let (full, rest) = values.split_at(values.len() / S::F32_LANES * S::F32_LANES);
        Halves { full, rest }
    }
}

impl<S: Widen> Row<S> for Halves<'_> {
    #[inline(always)]
    fn first(self, count: usize) -> Self {
        Self { full: &self.full[..count * S::F32_LANES], ..self }
    }

    #[inline(always)]
    fn full(self, simd: S, index: usize) -> S::f32s {
        simd.widen(&self.full[index * S::F32_LANES..][..S::F32_LANES])
    }

    #[inline(always)]
    fn rest(self, simd: S) -> S::f32s {
        let mut wide = [0.0; 16];
        wide.iter_mut().zip(self.rest).for_each(|(value, &half)| *value = part::wide(half));
        simd.partial_load_f32s(&wide[..self.rest.len()])
    }
}
