//! Values of parameters on the host: on the CPU the tensors' own memory, read without a copy and written in place.

use burn::module::{Module as _, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use half::bf16;

use super::{Part, Path, WeightInfo, visit};
use crate::ops::{Shared, Writable, change, serves};
use crate::{Decoder, Error, Result};

/// The values of a parameter, row-major.
#[derive(Debug, Clone)]
pub struct Values(Held);

#[derive(Debug, Clone)]
enum Held {
    /// The tensor's own memory.
    Shared(Shared),
    /// A copy from another device, or of another type.
    Own(Vec<f32>),
}

impl Values {
    pub(super) fn of<const D: usize>(tensor: &Tensor<D>) -> Result<Self> {
        if is_held(tensor) {
            return Ok(Self(Held::Shared(Shared::new(tensor))));
        }
        let device = |error: &dyn std::fmt::Display| Error::Device(error.to_string());
        let data = tensor.clone().try_into_data_as::<f32>().map_err(|error| device(&error))?;
        Ok(Self(Held::Own(data.try_into_vec().map_err(|error| device(&error))?)))
    }

    /// The values as they are kept.
    #[must_use]
    pub fn part(&self) -> Part<'_> {
        match &self.0 {
            Held::Shared(shared) => shared.part(),
            Held::Own(values) => Part::F32(values),
        }
    }

    /// The values by themselves, in f32.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        match self.0 {
            Held::Shared(shared) => shared.part().wide().into_owned(),
            Held::Own(values) => values,
        }
    }
}

/// Whether a tensor's memory can be read and written where it is.
fn is_held<const D: usize>(tensor: &Tensor<D>) -> bool {
    serves(&tensor.device(), DType::F32) && matches!(tensor.dtype(), DType::F32 | DType::BF16)
}

/// The values of the parameters that `wanted` accepts, in order. While they are held, a change of the decoder copies them.
///
/// # Errors
/// When the device fails.
pub fn views(decoder: &Decoder, wanted: impl Fn(&WeightInfo) -> bool) -> Result<Vec<(WeightInfo, Values)>> {
    let mut found = Vec::new();
    visit(decoder, |weight| {
        if wanted(&weight.info) {
            found.push(weight);
        }
    });
    found.into_iter().map(|weight| Ok((weight.info.clone(), weight.view()?))).collect()
}

/// Some values of a parameter that become those of another tensor.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Flat indices.
    pub indices: &'a [u32],
    /// A tensor of the parameter's length, of which the values at the indices are taken.
    pub source: Part<'a>,
}

/// The decoder with some values of its parameters changed, in place where nobody else holds them.
///
/// # Errors
/// When the device fails.
///
/// # Panics
/// When an index is beyond a parameter or the source: an error of the caller.
pub fn set<'a>(decoder: Decoder, mut changes: impl FnMut(&WeightInfo) -> Option<Change<'a>>) -> Result<Decoder> {
    let mut set = Set { path: Path::default(), changes: &mut changes, failed: None };
    let decoder = decoder.map(&mut set);
    set.failed.map_or(Ok(decoder), Err)
}

struct Set<'a, 'b> {
    path: Path,
    changes: &'b mut dyn FnMut(&WeightInfo) -> Option<Change<'a>>,
    failed: Option<Error>,
}

impl ModuleMapper for Set<'_, '_> {
    keeps_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = WeightInfo::new(self.path.name(), param.dims().to_vec());
        let change = (self.changes)(&info).filter(|change| !change.indices.is_empty() && self.failed.is_none());
        let Some(change) = change else { return param };
        let failed = &mut self.failed;
        param.map(|old| match changed(&old, change) {
            Ok(None) => in_place(old, change),
            Ok(Some(new)) => new,
            Err(error) => {
                *failed = Some(error);
                old
            }
        })
    }
}

/// A new tensor where the old one cannot be written in place, or cannot hold the values.
fn changed<const D: usize>(old: &Tensor<D>, change: Change<'_>) -> Result<Option<Tensor<D>>> {
    let is_narrower = old.dtype() == DType::BF16 && matches!(change.source, Part::F32(_));
    if is_held(old) && !is_narrower {
        return Ok(None);
    }
    let mut values = Values::of(old)?.into_vec();
    write(Writable::F32(&mut values), change);
    let new = Tensor::from_data(TensorData::new(values, old.dims()), &old.device());
    Ok(Some(new.set_require_grad(old.is_require_grad())))
}

fn in_place<const D: usize>(old: Tensor<D>, with: Change<'_>) -> Tensor<D> {
    change(old, |values| write(values, with))
}

fn write(values: Writable<'_>, Change { indices, source }: Change<'_>) {
    let indices = indices.iter().map(|&index| index as usize);
    match values {
        Writable::F32(values) => indices.for_each(|index| values[index] = source.at(index)),
        Writable::Bf16(values) => indices.for_each(|index| values[index] = bf16::from_f32(source.at(index))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    const NAME: &str = "model.layers.1.mlp.up_proj.weight";

    fn of(decoder: &Decoder) -> Values {
        views(decoder, |info| info.name == NAME).unwrap().remove(0).1
    }

    #[test]
    fn a_change_leaves_other_holders_alone_and_copies_nothing_without_them() {
        let original = tiny();
        let mut decoder = super::super::track(original.clone(), |info| info.name == NAME);
        let source = vec![7.0; of(&original).part().len()];
        let change = |decoder: Decoder, indices: &[u32]| {
            set(decoder, |info| (info.name == NAME).then_some(Change { indices, source: source.as_slice().into() }))
                .unwrap()
        };
        decoder = change(decoder, &[3]);
        let place = of(&decoder).part().wide().as_ptr();
        decoder = change(decoder, &[0, 5]);
        assert_eq!(of(&decoder).part().wide().as_ptr(), place, "written in place");
        let (before, after) = (of(&original).into_vec(), of(&decoder).into_vec());
        let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        assert_eq!(changed, [0, 3, 5]);
        assert!(changed.iter().all(|&at| after[at] == 7.0));
        assert!(decoder.model.layers[1].mlp.up_proj.weight.val().is_require_grad());
        assert!(!decoder.model.layers[1].mlp.gate_proj.weight.val().is_require_grad());
    }
}
