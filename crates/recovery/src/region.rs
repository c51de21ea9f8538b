//! The region: weights of blocks 0..L-1, norms excluded (METHOD.md section 3).

use std::collections::HashMap;

use burn::tensor::TensorData;
use direction::{Layer, check_layer};
use model::Decoder;
use model::weights::{self, WeightInfo};
use rayon::prelude::*;

use crate::selection::{Candidates, Ties, select};
use crate::{Error, Outcome, Patch, Path, Repaired, Result};

/// Whether a parameter is in the region of direction layer `layer`.
pub fn is_in_region(info: &WeightInfo, layer: usize) -> bool {
    !info.is_norm && info.layer.is_some_and(|block| block < layer)
}

/// The region's values on the host: each is the fine-tuned or the aligned one.
#[derive(Debug)]
pub struct Region {
    /// The direction layer, counted from 1.
    pub layer: usize,
    /// Name and place of each tensor, in the checkpoint's order.
    pub infos: Vec<WeightInfo>,
    /// Current values.
    pub values: Vec<Vec<f32>>,
    /// The aligned model's values.
    pub aligned: Vec<Vec<f32>>,
    /// The fine-tuned model's values.
    pub fine_tuned: Vec<Vec<f32>>,
}

impl Region {
    /// Reads the region of both models.
    ///
    /// # Errors
    /// When the models are not of one shape, they have no such layer, or the device fails.
    pub fn new(aligned: &Decoder, fine_tuned: &Decoder, layer: Layer) -> Result<Self> {
        let in_blocks = |info: &WeightInfo| info.layer.is_some();
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), in_blocks)?;
        let layer = layer.of_blocks(fine_tuned.config().num_hidden_layers);
        check_layer(fine_tuned, layer)?;
        let read = |decoder| weights::read(decoder, |info| is_in_region(info, layer));
        let (infos, aligned): (Vec<_>, Vec<_>) = read(aligned)?.into_iter().unzip();
        let fine_tuned: Vec<Vec<f32>> = read(fine_tuned)?.into_iter().map(|(_, values)| values).collect();
        Ok(Self { layer, infos, values: fine_tuned.clone(), aligned, fine_tuned })
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.values.iter().map(Vec::len).sum()
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of weights that equal the aligned model's.
    pub fn equal(&self) -> usize {
        let same =
            |(a, b): (&Vec<f32>, &Vec<f32>)| a.par_iter().zip(b).with_min_len(1 << 14).filter(|(a, b)| a == b).count();
        self.values.iter().zip(&self.aligned).map(same).sum()
    }

    /// Whether the two models are one here, and nothing can be restored.
    pub fn is_same(&self) -> bool {
        self.fine_tuned == self.aligned
    }

    /// Goes back to the fine-tuned model.
    pub fn reset(&mut self) {
        self.values.clone_from(&self.fine_tuned);
    }

    /// The fine-tuned model with the patch's weights restored.
    ///
    /// # Errors
    /// When the patch is not of this region.
    pub fn apply(&mut self, patch: &Patch) -> Result<()> {
        patch.check(&self.infos)?;
        self.reset();
        let indices: Vec<_> = self.infos.iter().map(|info| patch.indices(&info.name)).collect();
        set(&mut self.values, &self.aligned, &indices);
        Ok(())
    }

    /// Indices by tensor, in the region's order, as a patch.
    pub(crate) fn named(&self, indices: Vec<Vec<u32>>) -> Patch {
        named(&self.infos, indices)
    }

    /// Sets the weights at these indices, by tensor, to the aligned model's values.
    pub(crate) fn restore(&mut self, indices: &[Vec<u32>]) {
        set(&mut self.values, &self.aligned, indices);
    }

    /// Sets the weights at these indices, by tensor, to the fine-tuned model's values.
    pub(crate) fn roll_back(&mut self, indices: &[Vec<u32>]) {
        set(&mut self.values, &self.fine_tuned, indices);
    }

    /// The tensors as candidates for the aligned model's values; one without a gradient has no candidate.
    pub(crate) fn candidates<'a>(&'a self, gradients: &'a HashMap<String, Vec<f32>>) -> Vec<Candidates<'a>> {
        candidates(&self.infos, &self.values, &self.aligned, gradients)
    }

    /// Fine-tuned minus aligned, to be used as gradients: every weight that differs is a candidate, ranked by its
    /// difference.
    pub(crate) fn differences(&self) -> HashMap<String, Vec<f32>> {
        let tensors = self.infos.iter().zip(self.fine_tuned.iter().zip(&self.aligned));
        let difference = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a - b).collect();
        tensors.map(|(info, pair)| (info.name.clone(), difference(pair))).collect()
    }

    /// The fine-tuned model with up to `count` candidates restored, those of the largest gradients.
    pub(crate) fn restore_largest(
        mut self,
        fine_tuned: &Decoder,
        gradients: &HashMap<String, Vec<f32>>,
        count: usize,
    ) -> Repaired {
        let selected = select(&self.candidates(gradients), count, Ties::Exact);
        let is_same = self.is_same();
        if count != usize::MAX && !is_same && selected.len() < count {
            tracing::warn!("only {} of {count} weights can be restored", selected.len());
        }
        self.restore(&selected.indices);
        Repaired {
            decoder: self.write(fine_tuned.clone()),
            restored: Some(selected.len()),
            path: Some(Path::once(self.named(selected.indices))),
            outcome: if is_same { Outcome::Nothing } else { Outcome::Changed },
            trace: None,
        }
    }

    /// `decoder` with the region's current values.
    pub fn write(&self, decoder: Decoder) -> Decoder {
        with_values(decoder, &self.infos, &self.values)
    }
}

/// Indices by tensor, in the order of `infos`, as a patch.
pub(crate) fn named(infos: &[WeightInfo], indices: Vec<Vec<u32>>) -> Patch {
    Patch::new(infos.iter().map(|info| info.name.clone()).zip(indices))
}

/// Tensors as candidates for the values in `target`; one without a gradient has no candidate.
pub(crate) fn candidates<'a>(
    infos: &[WeightInfo],
    values: &'a [Vec<f32>],
    target: &'a [Vec<f32>],
    gradients: &'a HashMap<String, Vec<f32>>,
) -> Vec<Candidates<'a>> {
    let candidates = |(info, (values, target)): (&WeightInfo, (&'a Vec<f32>, &'a Vec<f32>))| {
        gradients.get(&info.name).map_or_else(Candidates::default, |gradient| Candidates { values, target, gradient })
    };
    infos.iter().zip(values.iter().zip(target)).map(candidates).collect()
}

/// `decoder` with these values, by tensor in the checkpoint's order.
pub(crate) fn with_values(decoder: Decoder, infos: &[WeightInfo], values: &[Vec<f32>]) -> Decoder {
    let mut next = infos.iter().zip(values).peekable();
    weights::replace(decoder, |info| {
        let (_, values) = next.next_if(|(own, _)| own.name == info.name)?;
        Some(TensorData::new(values.clone(), info.shape.clone()))
    })
}

/// Sets the values at `indices` to those in `source`.
fn set(values: &mut [Vec<f32>], source: &[Vec<f32>], indices: &[impl AsRef<[u32]>]) {
    for ((values, source), indices) in values.iter_mut().zip(source).zip(indices) {
        for &index in indices.as_ref() {
            values[index as usize] = source[index as usize];
        }
    }
}

/// An error unless the two models, each with its name, have the same tensors, of those that are used.
pub(crate) fn check_same_shape(
    a: (&'static str, &Decoder),
    b: (&'static str, &Decoder),
    is_used: impl Fn(&WeightInfo) -> bool,
) -> Result<()> {
    let models = [a.0, b.0];
    let used = |decoder| -> Vec<WeightInfo> { weights::infos(decoder).into_iter().filter(&is_used).collect() };
    let (a, b) = (used(a.1), used(b.1));
    let reason = if a.len() != b.len() {
        format!("{} tensors against {}", a.len(), b.len())
    } else if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) {
        format!("tensor `{}` has shape {:?} against {:?} of `{}`", a.name, a.shape, b.shape, b.name)
    } else {
        return Ok(());
    };
    Err(Error::ShapesDiffer { models, reason })
}
