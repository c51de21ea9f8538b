//! Numbers in safetensors files: `u32` indices, `u16` steps and `f32` values, in one dimension.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, TensorView};

/// A tensor to be written.
pub(crate) struct Numbers<'a> {
    shape: [usize; 1],
    values: Values<'a>,
}

enum Values<'a> {
    Indices(&'a [u32]),
    Steps(&'a [u16]),
    Floats(&'a [f32]),
}

impl<'a> From<&'a [u32]> for Numbers<'a> {
    fn from(values: &'a [u32]) -> Self {
        Self { shape: [values.len()], values: Values::Indices(values) }
    }
}

impl<'a> From<&'a [u16]> for Numbers<'a> {
    fn from(values: &'a [u16]) -> Self {
        Self { shape: [values.len()], values: Values::Steps(values) }
    }
}

impl<'a> From<&'a [f32]> for Numbers<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { shape: [values.len()], values: Values::Floats(values) }
    }
}

impl safetensors::View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Indices(_) => Dtype::U32,
            Values::Steps(_) => Dtype::U16,
            Values::Floats(_) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            Values::Indices(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::Steps(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self.values {
            Values::Indices(_) | Values::Floats(_) => 4 * self.shape[0],
            Values::Steps(_) => 2 * self.shape[0],
        }
    }
}

/// The indices of a tensor that was read; none when it is of another type.
pub(crate) fn indices(view: &TensorView<'_>) -> Option<Vec<u32>> {
    (view.dtype() == Dtype::U32).then(|| words(view).map(u32::from_le_bytes).collect())
}

/// The steps of a tensor that was read; none when it is of another type.
pub(crate) fn steps(view: &TensorView<'_>) -> Option<Vec<u16>> {
    (view.dtype() == Dtype::U16).then(|| words(view).map(u16::from_le_bytes).collect())
}

/// The values of a tensor that was read; none when it is of another type.
pub(crate) fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    (view.dtype() == Dtype::F32).then(|| words(view).map(f32::from_le_bytes).collect())
}

fn words<'a, const N: usize>(view: &'a TensorView<'_>) -> impl Iterator<Item = [u8; N]> + 'a {
    view.data().as_chunks().0.iter().copied()
}
