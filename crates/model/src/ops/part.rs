//! Values in the precision in which they are kept.

use std::borrow::Cow;

use half::bf16;

/// Some values of a parameter, as they are kept.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// In 32 bits.
    F32(&'a [f32]),
    /// In bf16.
    Bf16(&'a [bf16]),
}

impl Default for Part<'_> {
    fn default() -> Self {
        Self::F32(&[])
    }
}

impl<'a> From<&'a [f32]> for Part<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> Part<'a> {
    /// Number of values.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One value.
    ///
    /// # Panics
    /// When there is no such value: an error of the caller.
    #[must_use]
    #[inline]
    pub fn at(self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => wide(values[index]),
        }
    }

    /// The values in f32, of those in bf16 a copy.
    #[must_use]
    pub fn wide(self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::Bf16(halves) => Cow::Owned(halves.iter().map(|&half| wide(half)).collect()),
        }
    }

    /// The first ones.
    ///
    /// # Panics
    /// When there are fewer: an error of the caller.
    #[must_use]
    pub fn first(self, count: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[..count]),
            Self::Bf16(values) => Self::Bf16(&values[..count]),
        }
    }

    /// Pieces of so many values.
    pub fn chunks(self, size: usize) -> impl Iterator<Item = Self> {
        (0..self.len()).step_by(size.max(1)).map(move |start| {
            let range = start..self.len().min(start + size);
            match self {
                Self::F32(values) => Self::F32(&values[range]),
                Self::Bf16(values) => Self::Bf16(&values[range]),
            }
        })
    }

    /// Whether the other part has the same values, to the bit, in whatever precision.
    #[must_use]
    pub fn is_same(self, other: Part<'_>) -> bool {
        let same = |(one, other): (Part<'_>, Part<'_>)| {
            one.wide().iter().map(|x| x.to_bits()).eq(other.wide().iter().map(|x| x.to_bits()))
        };
        self.len() == other.len() && self.chunks(1 << 16).zip(other.chunks(1 << 16)).all(same)
    }
}

/// The same value in f32.
#[inline]
pub(super) fn wide(half: bf16) -> f32 {
    f32::from_bits(u32::from(half.to_bits()) << 16)
}
