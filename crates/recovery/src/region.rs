//! The region: weights of blocks 0..L-1, norms excluded (METHOD.md section 3).

use std::collections::{BTreeSet, HashMap};

use burn::tensor::TensorData;
use direction::{Layer, check_layer};
use model::Decoder;
use model::weights::{self, Change, Part, Values, WeightInfo};
use rayon::prelude::*;

use crate::selection::{Candidates, Selected, Ties, select};
use crate::{Error, Outcome, Patch, Path, Repaired, Result};

/// Whether a parameter is in the region of direction layer `layer`.
pub fn is_in_region(info: &WeightInfo, layer: usize) -> bool {
    !info.is_norm && info.layer.is_some_and(|block| block < layer)
}

/// The tensors that a method may restore.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    /// Those in the region of this direction layer.
    layer: usize,
    /// And those of these names.
    others: BTreeSet<String>,
}

impl Members {
    /// The region of direction layer `layer`.
    pub fn of_region(layer: usize) -> Self {
        Self { layer, others: BTreeSet::new() }
    }

    /// The weights of all blocks, norms excluded.
    pub fn of_all_blocks(decoder: &Decoder) -> Self {
        Self::of_region(decoder.config().num_hidden_layers)
    }

    /// Those, and whatever else differs: norms, the embedding and the head, where both models have them in one shape.
    pub fn all_that_differ(aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        let blocks = Self::of_all_blocks(fine_tuned);
        let others = |decoder| weights::views(decoder, |info| !blocks.has(info));
        let aligned: HashMap<_, _> =
            others(aligned)?.into_iter().map(|(info, values)| (info.name.clone(), (info, values))).collect();
        let differs = |(info, values): &(WeightInfo, Values)| {
            aligned
                .get(&info.name)
                .is_some_and(|(other, aligned)| other == info && !aligned.part().is_same(values.part()))
        };
        let others = others(fine_tuned)?.into_iter().filter(differs).map(|(info, _)| info.name).collect();
        Ok(Self { others, ..blocks })
    }

    /// Whether a tensor is one of them.
    pub fn has(&self, info: &WeightInfo) -> bool {
        is_in_region(info, self.layer) || self.others.contains(&info.name)
    }

    /// The decoder with gradients on for them and off for all other weights. An embedding that is kept in bf16 becomes f32, as
    /// its gradient is.
    pub fn track(&self, decoder: Decoder) -> Result<Decoder> {
        let others = weights::views(&decoder, |info| self.others.contains(&info.name))?;
        let mut wide: HashMap<_, _> = others
            .into_iter()
            .filter(|(_, values)| matches!(values.part(), Part::Bf16(_)))
            .map(|(info, values)| (info.name, values.into_vec()))
            .collect();
        let decoder = weights::replace(decoder, |info| {
            wide.remove(&info.name).map(|values| TensorData::new(values, info.shape.clone()))
        });
        Ok(weights::track(decoder, |info| self.has(info)))
    }
}

/// A model in which weights of the region change between the fine-tuned and the aligned value. Both models' values are
/// read where they are; what is held besides are the tensors that have changed.
#[derive(Debug)]
pub struct Region {
    members: Members,
    /// Name and place of each tensor, in the checkpoint's order.
    pub infos: Vec<WeightInfo>,
    /// The aligned model's values.
    pub aligned: Vec<Values>,
    /// The fine-tuned model's values.
    pub fine_tuned: Vec<Values>,
    /// The fine-tuned model.
    original: Decoder,
    /// The model as it is.
    decoder: Decoder,
    /// Number of weights that equal the aligned model's.
    equal: usize,
    /// The same of the fine-tuned model.
    equal_before: usize,
}

impl Region {
    /// Reads the region of both models.
    ///
    /// # Errors
    /// When the models are not of one shape, they have no such layer, or the device fails.
    pub fn new(aligned: &Decoder, fine_tuned: &Decoder, layer: Layer) -> Result<Self> {
        let layer = layer.of_blocks(fine_tuned.config().num_hidden_layers);
        Self::of(Members::of_region(layer), aligned, fine_tuned)
    }

    /// Reads these tensors of both models.
    pub(crate) fn of(members: Members, aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        let in_blocks = |info: &WeightInfo| info.layer.is_some();
        check_same_shape(("aligned", aligned), ("fine-tuned", fine_tuned), in_blocks)?;
        check_layer(fine_tuned, members.layer)?;
        let read = |decoder| weights::views(decoder, |info| members.has(info));
        let (infos, aligned): (Vec<_>, Vec<_>) = read(aligned)?.into_iter().unzip();
        let (original, decoder) = (fine_tuned.clone(), fine_tuned.clone());
        let fine_tuned: Vec<Values> = read(fine_tuned)?.into_iter().map(|(_, values)| values).collect();
        let equal = same(&fine_tuned, &aligned);
        Ok(Self { members, infos, aligned, fine_tuned, original, decoder, equal, equal_before: equal })
    }

    /// The same with gradients on for the region and off for all other weights.
    #[must_use]
    pub fn tracked(mut self) -> Self {
        self.original = weights::track(self.original, |info| self.members.has(info));
        self.decoder = weights::track(self.decoder, |info| self.members.has(info));
        self
    }

    /// The direction layer, counted from 1.
    pub fn layer(&self) -> usize {
        self.members.layer
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.infos.iter().map(WeightInfo::len).sum()
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The model as it is.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Number of weights that equal the aligned model's.
    pub fn equal(&self) -> usize {
        self.equal
    }

    /// Whether the two models are one here, and nothing can be restored.
    pub fn is_same(&self) -> bool {
        self.equal_before == self.len()
    }

    /// Goes back to the fine-tuned model.
    pub fn reset(&mut self) {
        self.decoder = self.original.clone();
        self.equal = self.equal_before;
    }

    /// The fine-tuned model with the patch's weights restored.
    ///
    /// # Errors
    /// When the patch is not of this region, or the device fails.
    pub fn apply(&mut self, patch: &Patch) -> Result<()> {
        patch.check(&self.infos)?;
        self.reset();
        let indices: Vec<_> = self.infos.iter().map(|info| patch.indices(&info.name)).collect();
        self.set(Side::Aligned, &indices)?;
        self.equal = same(&self.values()?, &self.aligned);
        Ok(())
    }

    /// Indices by tensor, in the region's order, as a patch.
    pub(crate) fn named(&self, indices: Vec<Vec<u32>>) -> Patch {
        named(&self.infos, indices)
    }

    /// Restores up to `k` of the weights that a descent step moves towards the aligned value, those of the largest
    /// gradients.
    ///
    /// # Errors
    /// When the device fails.
    pub fn restore_largest(&mut self, gradients: &HashMap<String, Vec<f32>>, k: usize, ties: Ties) -> Result<Selected> {
        let values = self.values()?;
        let selected = select(&candidates(&self.infos, &values, &self.aligned, gradients), k, ties);
        // The tensors are changed in place where nobody else holds them.
        drop(values);
        self.restore(&selected.indices)?;
        Ok(selected)
    }

    /// Restores weights that have the fine-tuned value, and differ between the models: indices by tensor.
    pub(crate) fn restore(&mut self, indices: &[Vec<u32>]) -> Result<()> {
        self.set(Side::Aligned, indices)?;
        self.equal += indices.iter().map(Vec::len).sum::<usize>();
        Ok(())
    }

    /// Gives restored weights, which differ between the models, back: indices by tensor.
    pub(crate) fn roll_back(&mut self, indices: &[Vec<u32>]) -> Result<()> {
        self.set(Side::FineTuned, indices)?;
        self.equal -= indices.iter().map(Vec::len).sum::<usize>();
        Ok(())
    }

    /// Sets the weights at `indices`, by tensor, to the values of one of the models.
    fn set(&mut self, side: Side, indices: &[impl AsRef<[u32]>]) -> Result<()> {
        let source = match side {
            Side::Aligned => &self.aligned,
            Side::FineTuned => &self.fine_tuned,
        };
        let mut next = self.infos.iter().zip(source.iter().zip(indices)).peekable();
        // What nobody else holds is written in place.
        let decoder = std::mem::replace(&mut self.decoder, self.original.clone());
        self.decoder = weights::set(decoder, |info| {
            let (_, (source, indices)) = next.next_if(|(own, _)| own.name == info.name)?;
            Some(Change { indices: indices.as_ref(), source: source.part() })
        })?;
        Ok(())
    }

    /// The values as they are.
    pub(crate) fn values(&self) -> Result<Vec<Values>> {
        let views = weights::views(&self.decoder, |info| self.members.has(info))?;
        Ok(views.into_iter().map(|(_, values)| values).collect())
    }

    /// Fine-tuned minus aligned, to be used as gradients: every weight that differs is a candidate, ranked by its
    /// difference.
    pub(crate) fn differences(&self) -> HashMap<String, Vec<f32>> {
        let tensors = self.infos.iter().zip(self.fine_tuned.iter().zip(&self.aligned));
        let difference =
            |(a, b): (&Values, &Values)| a.part().wide().iter().zip(&*b.part().wide()).map(|(a, b)| a - b).collect();
        tensors.map(|(info, pair)| (info.name.clone(), difference(pair))).collect()
    }

    /// The fine-tuned model with up to `count` candidates restored, those of the largest gradients.
    pub(crate) fn repaired(mut self, gradients: &HashMap<String, Vec<f32>>, count: usize) -> Result<Repaired> {
        let is_same = self.is_same();
        let selected = self.restore_largest(gradients, count, Ties::Exact)?;
        if count != usize::MAX && !is_same && selected.len() < count {
            tracing::warn!("only {} of {count} weights can be restored", selected.len());
        }
        Ok(Repaired {
            restored: Some(selected.len()),
            path: Some(Path::once(self.named(selected.indices))),
            outcome: if is_same { Outcome::Nothing } else { Outcome::Changed },
            trace: None,
            decoder: self.decoder,
        })
    }
}

/// One of the two models.
#[derive(Debug, Clone, Copy)]
enum Side {
    Aligned,
    FineTuned,
}

/// Number of weights that are equal.
fn same(one: &[Values], other: &[Values]) -> usize {
    let same = |(a, b): (&Values, &Values)| {
        let chunks: Vec<_> = a.part().chunks(1 << 16).zip(b.part().chunks(1 << 16)).collect();
        let equal = |(a, b): (Part<'_>, Part<'_>)| a.wide().iter().zip(&*b.wide()).filter(|(a, b)| a == b).count();
        chunks.into_par_iter().map(equal).sum::<usize>()
    };
    one.iter().zip(other).map(same).sum()
}

/// Indices by tensor, in the order of `infos`, as a patch.
pub(crate) fn named(infos: &[WeightInfo], indices: Vec<Vec<u32>>) -> Patch {
    Patch::new(infos.iter().map(|info| info.name.clone()).zip(indices))
}

/// Tensors as candidates for the values in `target`; one without a gradient has no candidate.
pub(crate) fn candidates<'a>(
    infos: &[WeightInfo],
    values: &'a [Values],
    target: &'a [Values],
    gradients: &'a HashMap<String, Vec<f32>>,
) -> Vec<Candidates<'a>> {
    let candidates = |info: &WeightInfo, values: Part<'a>, target: Part<'a>| {
        gradients.get(&info.name).map_or_else(Candidates::default, |gradient| Candidates { values, target, gradient })
    };
    let tensors = infos.iter().zip(values.iter().zip(target));
    tensors.map(|(info, (values, target))| candidates(info, values.part(), target.part())).collect()
}

/// The values of all tensors of a model, in the order of another's tensors. The two, each with its name, may differ in their
/// vocabulary, so that the embedding and the head are longer or shorter, and the first may have its embedding for a head.
pub(crate) fn read_like(
    one: (&'static str, &Decoder),
    other: (&'static str, &Decoder),
) -> Result<Vec<(WeightInfo, Vec<f32>)>> {
    check_same_shape(one, other, |info| info.layer.is_some())?;
    let mut tensors = weights::read(one.1, |_| true)?;
    match (one.1.lm_head.is_some(), other.1.lm_head.is_some()) {
        (true, false) => {
            let reason = format!("only the {} one has a head of its own", one.0);
            return Err(Error::ShapesDiffer { models: [one.0, other.0], reason });
        }
        (false, true) => {
            // The embedding is the first tensor, and a head the last.
            let head = weights::infos(other.1).pop().zip(tensors.first());
            tensors.extend(head.map(|(info, (_, embedding))| (info, embedding.clone())));
        }
        _ => (),
    }
    Ok(tensors)
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
