//! A patch on a model: after which steps the model is what it is, and how it becomes that after another.

use burn::tensor::TensorData;
use model::Decoder;
use model::weights::{self, Weight};

use super::{BoundTensor, PatchFile, Values, by_name, misfit};
use crate::path::Flips;
use crate::{Error, Result};

impl PatchFile {
    /// The steps after which the model is this one, ascending: 0 is the fine-tuned model, and a step that flips nothing
    /// is as the one before it. Every value of the model is looked at.
    ///
    /// # Errors
    /// When there is none: names the first tensor that does not fit.
    pub fn steps_of(&self, decoder: &Decoder) -> Result<Vec<usize>> {
        let (mut found, flips) = (by_name(decoder), self.path.flips()?);
        let mut steps: Vec<usize> = (0..=self.path.len()).collect();
        for (name, bound) in &self.tensors {
            let Some(weight) = found.remove(name) else { return misfit(name, "is missing in the model") };
            let restored = self.restored(name, bound, weight)?;
            let Some(flips) = flips.get(name.as_str()) else { continue };
            let fits = fits(flips, &restored, self.path.len());
            steps.retain(|&step| fits[step]);
            if steps.is_empty() {
                return misfit(name, "is after no step of the patch that the tensors before it are after");
            }
        }
        match found.keys().next() {
            Some(name) => misfit(name, "is not one of the fine-tuned model"),
            None => Ok(steps),
        }
    }

    /// Checks that a model is the aligned one, in each tensor that the fine-tuned one has, too.
    ///
    /// # Errors
    /// Names the first tensor that is not.
    pub fn check_aligned(&self, decoder: &Decoder) -> Result<()> {
        let mut found = by_name(decoder);
        for (name, bound) in &self.tensors {
            let values = found.remove(name).map(Weight::values).transpose()?;
            if values.map(|values| self.hash(&values)) != bound.aligned {
                return misfit(name, "is not the aligned model's, which the patch is bound to");
            }
        }
        Ok(())
    }

    /// Makes of the model after a step the one after another step; step 0 is the fine-tuned model.
    ///
    /// # Errors
    /// As [`steps_of`](Self::steps_of), when the model is not the one after the first step, or there is no such step.
    pub fn rewrite(&self, decoder: Decoder, from: usize, to: usize) -> Result<Decoder> {
        let last = self.path.len();
        if let Some(step) = [from, to].into_iter().find(|&step| step > last) {
            return Err(Error::Path { reason: format!("there is no step {step}; the last one is {last}") });
        }
        let found = self.steps_of(&decoder)?;
        if !found.contains(&from) {
            let name =
                |step| if step == 0 { "the fine-tuned one".into() } else { format!("the one after step {step}") };
            let hint = match (found[0], from) {
                (step @ 1.., 1..) => format!(": take that one back, with --step {step}"),
                _ => String::new(),
            };
            let reason = format!("the model is {} and not {}{hint}", name(found[0]), name(from));
            return Err(Error::Path { reason });
        }
        let (restored, mut tensors) = (self.path.at(to), by_name(&decoder));
        let mut failed = None;
        let decoder = weights::replace(decoder, |info| {
            let (of, weight) = (self.values.get(&info.name)?, tensors.remove(&info.name)?);
            let values = weight.values().map_err(|error| failed = Some(error)).ok()?;
            Some(TensorData::new(of.set(values, restored.indices(&info.name)), info.shape.clone()))
        });
        failed.map_or(Ok(decoder), |error| Err(error.into()))
    }

    /// Which of the weights that were ever restored are restored in a tensor, whose others must be the fine-tuned ones.
    fn restored(&self, name: &str, bound: &BoundTensor, weight: Weight) -> Result<Vec<bool>> {
        if weight.info.shape != bound.shape {
            let reason = format!("has shape {:?} and not {:?}", weight.info.shape, bound.shape);
            return misfit(name, reason);
        }
        let mut values = weight.values()?;
        let mut restored = Vec::new();
        if let Some(of) = self.values.get(name) {
            restored = of.restored(name, &values)?;
            values = of.set(values, &[]);
        }
        match self.hash(&values) == bound.fine_tuned {
            true => Ok(restored),
            false => misfit(name, "is not the fine-tuned model's, which the patch is bound to"),
        }
    }

    fn hash(&self, values: &[f32]) -> String {
        files::hash_bytes(&self.dtype.encode(values))
    }
}

impl Values {
    /// Which of the weights hold the aligned value.
    fn restored(&self, name: &str, values: &[f32]) -> Result<Vec<bool>> {
        let pairs = self.fine_tuned.iter().zip(&self.aligned).zip(&self.indices);
        let is_restored = |((fine_tuned, aligned), &index): ((&f32, &f32), &u32)| {
            let found = values[index as usize];
            match found.to_bits() {
                bits if bits == aligned.to_bits() => Ok(true),
                bits if bits == fine_tuned.to_bits() => Ok(false),
                _ => misfit(name, format!("holds {found} at index {index}, and not {fine_tuned} or {aligned}")),
            }
        };
        pairs.map(is_restored).collect()
    }

    /// The values with some weights restored, of those that ever were, and the others not.
    fn set(&self, mut values: Vec<f32>, restored: &[u32]) -> Vec<f32> {
        let mut restored = restored.iter().peekable();
        for ((fine_tuned, aligned), index) in self.fine_tuned.iter().zip(&self.aligned).zip(&self.indices) {
            let is_restored = restored.next_if_eq(&index).is_some();
            values[*index as usize] = if is_restored { *aligned } else { *fine_tuned };
        }
        values
    }
}

/// For each of so many steps and the start, whether a tensor's weights are then restored as found.
fn fits(flips: &Flips, restored: &[bool], steps: usize) -> Vec<bool> {
    let mut starts = vec![0_i64; steps + 2]; // how many more weights fit from a step on
    let pairs: Vec<(u32, u16)> = flips.indices.iter().copied().zip(flips.steps.iter().copied()).collect();
    for (flips, &found) in pairs.chunk_by(|a, b| a.0 == b.0).zip(restored) {
        let ends = flips.iter().map(|&(_, step)| usize::from(step)).chain([steps + 1]);
        let (mut start, mut side) = (0, false);
        for end in ends {
            if side == found {
                starts[start] += 1;
                starts[end] -= 1;
            }
            (start, side) = (end, !side);
        }
    }
    let fit = starts[..=steps].iter().scan(0, |fit, more| {
        *fit += more;
        Some(*fit)
    });
    fit.map(|fit| fit == restored.len() as i64).collect()
}
