//! A repair as a set of restored weights: with the aligned and the fine-tuned model it is the repaired one, at a few
//! bytes per restored weight. Its file is a safetensors file with one tensor of `u32` indices for each tensor of the
//! model.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use model::weights::WeightInfo;
use safetensors::SafeTensors;

use crate::tensors::{Numbers, indices};
use crate::{Error, Result};

/// The key of a file's notes, one JSON object; one key keeps equal patches equal in bytes.
const NOTES: &str = "realign";

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

    /// Writes the patch with notes on where it comes from.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, notes: &BTreeMap<String, String>) -> Result<()> {
        let fail = |reason: String| Error::NoPatch { path: path.to_owned(), reason };
        let notes = serde_json::to_string(notes).map_err(|error| fail(error.to_string()))?;
        let tensors = self.tensors().map(|(name, indices)| (name, Numbers::from(indices)));
        let bytes = safetensors::serialize(tensors, Some(HashMap::from([(NOTES.to_owned(), notes)])));
        Ok(files::write_whole(path, &bytes.map_err(|error| fail(error.to_string()))?)?)
    }

    /// Reads a patch and its notes. Whether it fits a model is known when it is [applied](crate::Region::apply).
    ///
    /// # Errors
    /// When the file cannot be read or is not a patch.
    pub fn load(path: &Path) -> Result<(Self, BTreeMap<String, String>)> {
        let fail = |reason: String| Error::NoPatch { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(files::Error::io("read", path))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
        let notes = metadata.metadata().as_ref().and_then(|map| map.get(NOTES));
        let notes = notes.ok_or_else(|| fail(format!("it has no `{NOTES}` in its metadata")))?;
        let notes = serde_json::from_str(notes).map_err(|error| fail(format!("its `{NOTES}`: {error}")))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?.tensors() {
            let indices = indices(&view).ok_or_else(|| fail(format!("tensor `{name}` is not of type U32")))?;
            tensors.insert(name, indices);
        }
        Ok((Self::new(tensors), notes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn info(name: &str, length: usize) -> WeightInfo {
        WeightInfo { name: name.into(), shape: vec![length], layer: Some(0), is_norm: false }
    }

    #[test]
    fn a_saved_patch_reads_back_and_equal_patches_are_equal_files() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        let patch = Patch::new([("w".to_owned(), vec![0, 7]), ("a".to_owned(), vec![3]), ("n".to_owned(), vec![])]);
        let notes =
            BTreeMap::from(["method", "aligned", "fine_tuned"].map(|key| (key.to_owned(), format!("of {key}"))));
        patch.save(&first, &notes).unwrap();
        patch.save(&second, &notes).unwrap();
        assert_eq!(Patch::load(&first).unwrap(), (patch, notes));
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
        let whole = std::fs::read(&first).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&second, &bytes).unwrap();
            let _ = Patch::load(&second).map(|(patch, _)| patch.check(&[info("w", 8), info("a", 8)]));
        }
        assert!(Patch::load(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
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
