//! A repair as a set of restored weights: with the aligned and the fine-tuned model it is the repaired one.

use model::weights::WeightInfo;
use std::collections::{BTreeMap, HashMap};

use crate::{Error, Result};

/// Flat indices of restored weights, by tensor name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch(BTreeMap<String, Vec<u32>>);

impl Patch {
    /// A patch of ascending indices by tensor.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<u32>)>) -> Self {
        Self(tensors.into_iter().filter(|(_, indices)| !indices.is_empty()).collect())
    }

    /// The restored indices of a tensor.
    pub fn indices(&self, name: &str) -> &[u32] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Tensors with a restored weight, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.0.iter().map(|(name, indices)| (name.as_str(), indices.as_slice()))
    }

    /// Number of restored weights.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether nothing is restored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of weights of a tensor that are restored in both patches.
    pub fn common(&self, other: &Self, name: &str) -> usize {
        let other = other.indices(name);
        self.indices(name).iter().filter(|index| other.binary_search(index).is_ok()).count()
    }

    /// An error unless every index is one of these tensors', and a tensor's indices ascend.
    ///
    /// # Errors
    /// Names the first tensor that does not fit.
    pub fn check(&self, infos: &[WeightInfo]) -> Result<()> {
        let lengths: HashMap<&str, usize> = infos.iter().map(|info| (info.name.as_str(), info.len())).collect();
        for (name, indices) in self.tensors() {
            let error = |reason| Err(Error::Patch { tensor: name.to_owned(), reason });
            let Some(&length) = lengths.get(name) else { return error("is not one that can be restored".into()) };
            if let Some(index) = indices.iter().find(|&&index| index as usize >= length) {
                return error(format!("has {length} weights, and index {index} is not one of them"));
            }
            if !indices.is_sorted_by(|a, b| a < b) {
                return error("has indices that do not ascend".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, length: usize) -> WeightInfo {
        WeightInfo { name: name.into(), shape: vec![length], layer: Some(0), is_norm: false }
    }

    #[test]
    fn weights_of_two_patches_are_counted_once() {
        let patch = |tensors: &[(&str, &[u32])]| {
            Patch::new(tensors.iter().map(|(name, indices)| ((*name).to_owned(), indices.to_vec())))
        };
        let (a, b) = (patch(&[("v", &[1]), ("w", &[0, 3, 7])]), patch(&[("u", &[1]), ("w", &[3, 4, 7, 9])]));
        assert_eq!((a.common(&b, "w"), b.common(&a, "w"), a.common(&b, "v"), a.common(&b, "u")), (2, 2, 0, 0));
    }

    #[test]
    fn a_patch_of_another_model_is_refused() {
        let message = |indices: &[u32]| {
            let patch = Patch::new([("w".to_owned(), indices.to_vec())]);
            patch.check(&[info("w", 8)]).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(message(&[0, 3, 7]), "");
        assert!(message(&[0, 8]).contains("`w` has 8 weights, and index 8"));
        assert!(message(&[3, 3]).contains("do not ascend"));
        let other = Patch::new([("v".to_owned(), vec![0])]);
        assert!(other.check(&[info("w", 8)]).unwrap_err().to_string().contains("`v` is not one"));
    }
}
