//! The recovery patch: one file that makes the repaired model of the fine-tuned one, after any step of the repair, and
//! takes it back. It is bound to both models by a hash of each tensor.
//!
//! It is a safetensors file. A tensor `NAME` of the model in which a weight was ever restored has
//! - `NAME`: flat indices, U32, ascending; a weight is there once for each step that flips it,
//! - `NAME:step`: the step of each, from 1, U8 or U16; left out where there is one step in all,
//! - `NAME:aligned` and `NAME:fine_tuned`: the two values of each weight in the precision of the models.
//!
//! A weight that was restored once so takes 4 + 1 + 2 * 2 = 9 bytes of a bf16 model with up to 255 steps, and 13 of one in
//! f32. The metadata have one key, `realign`: JSON with what the file is bound to, how the repair was made, and the hash of
//! the file's content, by which damage is found. The hash of a tensor is the SHA-256 of its bytes as a safetensors file of
//! the models' precision holds them.

mod fit;
mod store;

use std::collections::BTreeMap;

use model::weights::{self, Weight, WeightInfo};
use model::{Decoder, Dtype};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Patch, Path, Result};

/// A repair's path, the values that it needs, and the two models that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchFile {
    /// The steps.
    pub path: Path,
    /// The precision of the models.
    pub dtype: Dtype,
    /// The method with its settings; null where it is not known.
    pub method: Value,
    /// What the method says of its steps.
    pub notes: Value,
    /// Every tensor of the fine-tuned model, by name.
    pub tensors: BTreeMap<String, BoundTensor>,
    values: BTreeMap<String, Values>,
}

/// What a patch is bound to in a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundTensor {
    /// Its dimensions in the fine-tuned model.
    pub shape: Vec<usize>,
    /// Hash of the fine-tuned model's values.
    pub fine_tuned: String,
    /// Hash of the aligned model's values, if it has such a tensor.
    pub aligned: Option<String>,
}

/// Both values of the weights of a tensor that were ever restored.
#[derive(Debug, Clone, Default, PartialEq)]
struct Values {
    indices: Vec<u32>,
    fine_tuned: Vec<f32>,
    aligned: Vec<f32>,
}

/// The two models of a repair, rounded to the precision of its result.
#[derive(Debug, Clone, Copy)]
pub struct Models<'a> {
    /// The aligned model.
    pub aligned: &'a Decoder,
    /// The fine-tuned model, an adapter merged.
    pub fine_tuned: &'a Decoder,
    /// The precision.
    pub dtype: Dtype,
}

impl PatchFile {
    /// The patch of a path between two models.
    ///
    /// # Errors
    /// When the path is not of these models, or the device fails.
    pub fn new(path: Path, models: Models<'_>, method: Value, notes: Value) -> Result<Self> {
        path.check(&weights::infos(models.fine_tuned))?;
        let mut aligned = by_name(models.aligned);
        let (mut tensors, mut values) = (BTreeMap::new(), BTreeMap::new());
        let mut touched = distinct(&path);
        for (name, weight) in by_name(models.fine_tuned) {
            let shape = weight.info.shape.clone();
            let fine_tuned = weight.values()?;
            let other = aligned.remove(&name).map(Weight::values).transpose()?;
            let hash = |values: &[f32]| files::hash_bytes(&models.dtype.encode(values));
            let hashes = (hash(&fine_tuned), other.as_deref().map(hash));
            if let Some(indices) = touched.remove(&name) {
                let of = Values::gather(&name, indices, &fine_tuned, other.as_deref().unwrap_or_default())?;
                values.insert(name.clone(), of);
            }
            tensors.insert(name, BoundTensor { shape, fine_tuned: hashes.0, aligned: hashes.1 });
        }
        Ok(Self { path, dtype: models.dtype, method, notes, tensors, values })
    }

    /// The patch of one step that makes `repaired` of the fine-tuned model.
    ///
    /// # Errors
    /// When a model has other tensors than the fine-tuned one, or a value of `repaired` is of neither model.
    pub fn between(models: Models<'_>, repaired: &Decoder) -> Result<Self> {
        let (mut aligned, mut found) = (by_name(models.aligned), by_name(repaired));
        let mut restored = Vec::new();
        for (name, weight) in by_name(models.fine_tuned) {
            let other = found.remove(&name).filter(|other| other.info == weight.info);
            let Some(other) = other else { return misfit(&name, "is not in the recovered model, or of another shape") };
            let own = aligned.remove(&name).map(Weight::values).transpose()?.unwrap_or_default();
            let indices = sides(&name, [&own, &weight.values()?, &other.values()?])?;
            restored.push((name, indices));
        }
        if let Some(name) = found.keys().next() {
            return misfit(name, "is in the recovered model alone");
        }
        Self::new(Path::once(Patch::new(restored)), models, Value::Null, Value::Null)
    }

    /// The hashes of the aligned and the fine-tuned model, each of the names and hashes of its tensors.
    #[must_use]
    pub fn model_hashes(&self) -> [String; 2] {
        let (mut aligned, mut fine_tuned) = (files::Sha::default(), files::Sha::default());
        for (name, bound) in &self.tensors {
            fine_tuned.part(name).part(&bound.fine_tuned);
            if let Some(hash) = &bound.aligned {
                aligned.part(name).part(hash);
            }
        }
        [aligned.finish(), fine_tuned.finish()]
    }

    /// Name and place of each tensor.
    #[must_use]
    pub fn infos(&self) -> Vec<WeightInfo> {
        self.tensors.iter().map(|(name, bound)| WeightInfo::new(name.clone(), bound.shape.clone())).collect()
    }
}

impl Values {
    /// The values at some indices, which must differ.
    fn gather(name: &str, indices: Vec<u32>, fine_tuned: &[f32], aligned: &[f32]) -> Result<Self> {
        let take = |values: &[f32]| indices.iter().map(|&index| values.get(index as usize).copied()).collect();
        let (Some(fine_tuned), Some(aligned)) = (take(fine_tuned), take(aligned)) else {
            return misfit(name, "has fewer weights in one of the models than the patch restores");
        };
        let values = Self { indices, fine_tuned, aligned };
        values.check(name)?;
        Ok(values)
    }

    /// An error unless the two values of each weight are finite and differ.
    fn check(&self, name: &str) -> Result<()> {
        if self.fine_tuned.len() != self.indices.len() || self.aligned.len() != self.indices.len() {
            return misfit(name, format!("has {} weights and not as many values", self.indices.len()));
        }
        for ((a, b), index) in self.fine_tuned.iter().zip(&self.aligned).zip(&self.indices) {
            if !a.is_finite() || !b.is_finite() || a.to_bits() == b.to_bits() {
                return misfit(name, format!("has the values {a} and {b} at index {index}, which cannot be"));
            }
        }
        Ok(())
    }
}

/// The weights of a tensor that hold the aligned value and not the fine-tuned one.
fn sides(name: &str, [aligned, fine_tuned, found]: [&[f32]; 3]) -> Result<Vec<u32>> {
    let (mut restored, mut neither) = (Vec::new(), 0);
    for (index, (own, found)) in (0u32..).zip(fine_tuned.iter().zip(found)) {
        if own.to_bits() == found.to_bits() {
            continue;
        }
        match aligned.get(index as usize) {
            Some(aligned) if aligned.to_bits() == found.to_bits() => restored.push(index),
            _ => neither += 1,
        }
    }
    if neither > 0 {
        let of = found.len();
        return misfit(
            name,
            format!("holds {neither} of {of} values in the recovered model that are of neither model"),
        );
    }
    Ok(restored)
}

/// The weights that any step flips, each once.
fn distinct(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (name, indices) in path.steps().iter().flat_map(Patch::tensors) {
        all.entry(name.to_owned()).or_default().extend(indices);
    }
    all.values_mut().for_each(|indices| {
        indices.sort_unstable();
        indices.dedup();
    });
    all
}

/// The tensors of a model, of which none is read yet.
fn by_name(decoder: &Decoder) -> BTreeMap<String, Weight> {
    let mut tensors = BTreeMap::new();
    weights::visit(decoder, |weight| drop(tensors.insert(weight.info.name.clone(), weight)));
    tensors
}

/// An error in a tensor.
fn misfit<T>(tensor: &str, reason: impl Into<String>) -> Result<T> {
    Err(Error::Patch { tensor: tensor.to_owned(), reason: reason.into() })
}
