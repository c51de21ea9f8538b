//! Parameters that two decoders have in common, kept in memory once.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::{Path, Values};
use crate::{Decoder, Result};

/// The decoder, with its parameters in the memory of those of `other` that have the same name, shape and values; a change of
/// either decoder copies them first. Fine-tuning by adapters leaves embeddings and norms as they were, and often the head.
///
/// # Errors
/// When the device fails.
pub fn share(decoder: Decoder, other: &Decoder) -> Result<Decoder> {
    let mut theirs = Theirs::default();
    other.visit(&mut theirs);
    let mut share = Share { path: Path::default(), theirs: theirs.tensors, outcome: Ok(()) };
    let decoder = decoder.map(&mut share);
    share.outcome.map(|()| decoder)
}

/// The parameters of a decoder, tensors of one, two or more dimensions alike.
#[derive(Default)]
struct Theirs {
    path: Path,
    tensors: HashMap<String, Box<dyn Any>>,
}

impl ModuleVisitor for Theirs {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.insert(self.path.name(), Box::new(param.val()));
    }
}

struct Share {
    path: Path,
    theirs: HashMap<String, Box<dyn Any>>,
    outcome: Result<()>,
}

impl Share {
    /// Their tensor of the present name, where it is the same.
    fn same<const D: usize>(&self, own: &Tensor<D>) -> Result<Option<Tensor<D>>> {
        let theirs = self.theirs.get(&self.path.name()).and_then(|tensor| tensor.downcast_ref::<Tensor<D>>());
        let Some(theirs) = theirs.filter(|theirs| theirs.dims() == own.dims()) else { return Ok(None) };
        let (one, other) = (Values::of(own)?, Values::of(theirs)?);
        Ok(one.part().is_same(other.part()).then(|| theirs.clone()))
    }
}

impl ModuleMapper for Share {
    keeps_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.outcome.is_err() {
            return param;
        }
        match self.same(&param.val()) {
            Ok(Some(theirs)) => param.map(|own| theirs.set_require_grad(own.is_require_grad())),
            Ok(None) => param,
            Err(error) => {
                self.outcome = Err(error);
                param
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::super::tests::tiny;
    use super::super::{Change, replace, set, views};
    use super::*;

    #[test]
    fn equal_parameters_have_one_memory_and_a_change_parts_them() {
        let base = tiny();
        let before = views(&base, |_| true).unwrap();
        let mut copies = before.iter();
        let own = replace(base.clone(), |info| {
            Some(TensorData::new(copies.next()?.1.clone().into_vec(), info.shape.clone()))
        });
        let other = replace(base, |info| {
            info.name.ends_with("0.mlp.up_proj.weight").then(|| TensorData::zeros::<f32, _>(info.shape.clone()))
        });
        let together = |own: &Decoder| -> Vec<bool> {
            let (own, other) = (views(own, |_| true).unwrap(), views(&other, |_| true).unwrap());
            let place = |values: &Values| values.part().wide().as_ptr();
            own.iter().zip(&other).map(|((_, own), (_, other))| place(own) == place(other)).collect()
        };
        assert!(together(&own).iter().all(|shared| !shared));
        let own = share(own, &other).unwrap();
        let shared = together(&own);
        let differing: Vec<&str> =
            before.iter().zip(&shared).filter(|(_, shared)| !**shared).map(|((info, _), _)| &*info.name).collect();
        assert_eq!(differing, ["model.layers.0.mlp.up_proj.weight"]);
        let values = |decoder: &Decoder| -> Vec<Vec<f32>> {
            views(decoder, |_| true).unwrap().into_iter().map(|(_, values)| values.into_vec()).collect()
        };
        let (mine, theirs) = (values(&own), values(&other));
        assert_eq!(mine, before.iter().map(|(_, values)| values.clone().into_vec()).collect::<Vec<_>>());
        drop(before);
        let zero = vec![0.0; 24 * 16];
        let name = "model.layers.1.mlp.up_proj.weight";
        let change = Change { indices: &[3], source: zero.as_slice().into() };
        let own = set(own, |info| (info.name == name).then_some(change)).unwrap();
        assert_eq!(values(&other), theirs);
        assert_eq!(together(&own).iter().filter(|shared| !**shared).count(), 2);
    }
}
