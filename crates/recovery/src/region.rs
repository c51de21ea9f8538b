//! The region: weights of blocks 0..L-1, norms excluded (METHOD.md section 3).

use burn::tensor::TensorData;
use model::Decoder;
use model::weights::{self, WeightInfo};
use rayon::prelude::*;

use crate::{Error, Patch, Result};

/// Whether a parameter is in the region of direction layer `layer`.
pub fn is_in_region(info: &WeightInfo, layer: usize) -> bool {
    !info.is_norm && info.layer.is_some_and(|block| block < layer)
}

/// The region's values on the host: each is the fine-tuned or the aligned one.
#[derive(Debug)]
pub struct Region {
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
    /// When the models are not of one shape, or the device fails.
    pub fn new(aligned: &Decoder, fine_tuned: &Decoder, layer: usize) -> Result<Self> {
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned))?;
        let read = |decoder| weights::read(decoder, |info| is_in_region(info, layer));
        let (infos, aligned): (Vec<_>, Vec<_>) = read(aligned)?.into_iter().unzip();
        let fine_tuned: Vec<Vec<f32>> = read(fine_tuned)?.into_iter().map(|(_, values)| values).collect();
        Ok(Self { infos, values: fine_tuned.clone(), aligned, fine_tuned })
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

    /// Goes back to the fine-tuned model.
    pub fn reset(&mut self) {
        self.values.clone_from(&self.fine_tuned);
    }

    /// Which weights hold the aligned model's value where the two models differ.
    pub fn patch(&self) -> Patch {
        let differs = |tensor: usize, index: usize| self.values[tensor][index] != self.fine_tuned[tensor][index];
        Patch::new(self.infos.iter().enumerate().map(|(tensor, info)| {
            let indices = (0..info.len()).filter(|&index| differs(tensor, index)).map(|index| index as u32);
            (info.name.clone(), indices.collect())
        }))
    }

    /// The fine-tuned model with the patch's weights restored.
    pub fn apply(&mut self, patch: &Patch) {
        self.reset();
        for (tensor, info) in self.infos.iter().enumerate() {
            for &index in patch.indices(&info.name) {
                self.values[tensor][index as usize] = self.aligned[tensor][index as usize];
            }
        }
    }

    /// `decoder` with the region's current values.
    pub fn write(&self, decoder: Decoder) -> Decoder {
        let mut next = self.infos.iter().zip(&self.values).peekable();
        weights::replace(decoder, |info| {
            let (_, values) = next.next_if(|(own, _)| own.name == info.name)?;
            Some(TensorData::new(values.clone(), info.shape.clone()))
        })
    }
}

/// An error unless the two models, each with its name, have the same tensors.
pub(crate) fn check_same_shape(a: (&'static str, &Decoder), b: (&'static str, &Decoder)) -> Result<()> {
    let models = [a.0, b.0];
    let (a, b) = (weights::infos(a.1), weights::infos(b.1));
    let reason = if a.len() != b.len() {
        format!("{} tensors against {}", a.len(), b.len())
    } else if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) {
        format!("tensor `{}` has shape {:?} against {:?} of `{}`", a.name, a.shape, b.shape, b.name)
    } else {
        return Ok(());
    };
    Err(Error::ShapesDiffer { models, reason })
}
