//! The steps of a repair: which weights change side at each, and which step is the answer.

use std::collections::BTreeMap;

use model::weights::WeightInfo;

use crate::{Error, Patch, Result};

/// The way from the fine-tuned model to a repaired one. A weight that a step flips is restored, or given back where it was
/// restored already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Patch>,
    chosen: usize,
}

/// The flips of one tensor, ascending by index and then by step; both lists are of one length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flips {
    /// Flat indices.
    pub indices: Vec<u32>,
    /// The step of each, from 1.
    pub steps: Vec<u16>,
}

impl Path {
    /// Steps that a file can hold.
    pub const MAX_STEPS: usize = u16::MAX as usize;

    /// A path of one step.
    #[must_use]
    pub fn once(restored: Patch) -> Self {
        Self { steps: vec![restored], chosen: 1 }
    }

    /// Adds a step, which becomes the answer.
    pub fn push(&mut self, flips: Patch) {
        self.steps.push(flips);
        self.chosen = self.steps.len();
    }

    /// Makes an earlier step the answer, or the last one where there are fewer; 0 is the fine-tuned model.
    pub fn choose(&mut self, step: usize) {
        self.chosen = step.min(self.len());
    }

    /// The step that is the answer.
    #[must_use]
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The weights that each step flips, in order.
    #[must_use]
    pub fn steps(&self) -> &[Patch] {
        &self.steps
    }

    /// The weights restored after a step; none after step 0.
    #[must_use]
    pub fn at(&self, step: usize) -> Patch {
        let odd = |(name, flips): (&str, Vec<(u32, usize)>)| {
            let weights = flips.chunk_by(is_same_weight).filter(|flips| flips.len() % 2 == 1);
            (name.to_owned(), weights.map(|flips| flips[0].0).collect())
        };
        Patch::new(by_tensor(&self.steps[..step.min(self.len())]).into_iter().map(odd))
    }

    /// How many weights are restored at the start, which is none, and after each step.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        let (mut more, mut fewer) = (vec![0; self.len() + 1], vec![0; self.len() + 1]);
        for flips in by_tensor(&self.steps).values().flat_map(|flips| flips.chunk_by(is_same_weight)) {
            for (nth, &(_, step)) in flips.iter().enumerate() {
                *if nth % 2 == 0 { &mut more[step] } else { &mut fewer[step] } += 1;
            }
        }
        let count = |count: &mut usize, (more, fewer): (usize, usize)| {
            *count = *count + more - fewer;
            Some(*count)
        };
        more.into_iter().zip(fewer).scan(0, count).collect()
    }

    /// The weights restored after all steps.
    #[must_use]
    pub fn last(&self) -> Patch {
        self.at(self.len())
    }

    /// The weights restored in the answer.
    #[must_use]
    pub fn answer(&self) -> Patch {
        self.at(self.chosen)
    }

    /// An error unless the indices of every step are these tensors', and ascend.
    ///
    /// # Errors
    /// Names the first tensor that does not fit.
    pub fn check(&self, infos: &[WeightInfo]) -> Result<()> {
        self.steps.iter().try_for_each(|flips| flips.check(infos))
    }

    /// The flips by tensor.
    ///
    /// # Errors
    /// When there are more steps than a file can hold.
    pub(crate) fn flips(&self) -> Result<BTreeMap<&str, Flips>> {
        if self.len() > Self::MAX_STEPS {
            let reason = format!("{} steps are too many for a file; at most {}", self.len(), Self::MAX_STEPS);
            return Err(Error::Path { reason });
        }
        let split = |(name, flips): (_, Vec<(u32, usize)>)| {
            let (indices, steps) = flips.into_iter().map(|(index, step)| (index, step as u16)).unzip();
            (name, Flips { indices, steps })
        };
        Ok(by_tensor(&self.steps).into_iter().map(split).collect())
    }

    /// The path of these flips.
    ///
    /// # Errors
    /// When the numbers of steps make no sense, a tensor's flips do not ascend or are of no step.
    pub(crate) fn of_flips(len: usize, chosen: usize, tensors: &BTreeMap<String, Flips>) -> Result<Self> {
        if len > Self::MAX_STEPS || chosen > len {
            return Err(Error::Path { reason: format!("step {chosen} of {len} steps cannot be") });
        }
        let mut steps: Vec<BTreeMap<&str, Vec<u32>>> = vec![BTreeMap::new(); len];
        for (name, Flips { indices, steps: of }) in tensors {
            let error = |reason: String| Err(Error::Patch { tensor: name.clone(), reason });
            if indices.len() != of.len() {
                return error(format!("has {} indices and {} steps", indices.len(), of.len()));
            }
            let mut before = None;
            for (&index, &step) in indices.iter().zip(of) {
                if before.is_some_and(|before| before >= (index, step)) {
                    return error("has indices that do not ascend".into());
                }
                before = Some((index, step));
                let flips = usize::from(step).checked_sub(1).and_then(|at| steps.get_mut(at));
                let Some(flips) = flips else { return error(format!("has a step {step}, and there are {len}")) };
                flips.entry(name).or_default().push(index);
            }
        }
        let named = |flips: BTreeMap<&str, Vec<u32>>| {
            Patch::new(flips.into_iter().map(|(name, indices)| (name.to_owned(), indices)))
        };
        Ok(Self { steps: steps.into_iter().map(named).collect(), chosen })
    }
}

/// The weight and the step of each flip, from step 1, ascending.
fn by_tensor(steps: &[Patch]) -> BTreeMap<&str, Vec<(u32, usize)>> {
    let mut tensors: BTreeMap<&str, Vec<(u32, usize)>> = BTreeMap::new();
    for (step, flips) in (1..).zip(steps) {
        for (name, indices) in flips.tensors() {
            tensors.entry(name).or_default().extend(indices.iter().map(|&index| (index, step)));
        }
    }
    tensors.values_mut().for_each(|flips| flips.sort_unstable());
    tensors
}

fn is_same_weight(a: &(u32, usize), b: &(u32, usize)) -> bool {
    a.0 == b.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(a: &[u32], b: &[u32]) -> Patch {
        Patch::new([("a".to_owned(), a.to_vec()), ("b".to_owned(), b.to_vec())])
    }

    /// Weight 2 of `a` is restored, given back and restored again; the third step flips nothing.
    fn path() -> Path {
        let mut path = Path::default();
        for (a, b) in [(&[2, 5][..], &[][..]), (&[2], &[0]), (&[], &[]), (&[1, 2], &[0])] {
            path.push(patch(a, b));
        }
        path
    }

    #[test]
    fn a_weight_is_restored_after_an_odd_number_of_flips() {
        let mut path = path();
        let wanted =
            [patch(&[], &[]), patch(&[2, 5], &[]), patch(&[5], &[0]), patch(&[5], &[0]), patch(&[1, 2, 5], &[])];
        for (step, wanted) in wanted.iter().enumerate() {
            assert_eq!(path.at(step), *wanted, "step {step}");
        }
        assert_eq!(path.counts(), [0, 2, 2, 2, 3]);
        assert_eq!((path.last(), path.answer()), (path.at(4), path.at(4)));
        path.choose(1);
        assert_eq!((path.chosen(), path.answer()), (1, path.at(1)));
        path.choose(9);
        assert_eq!(path.chosen(), 4);
    }

    #[test]
    fn flips_by_tensor_give_the_path_back_and_wrong_ones_are_refused() {
        let path = path();
        let owned = |path: &Path| -> BTreeMap<String, Flips> {
            path.flips().unwrap().into_iter().map(|(name, flips)| (name.to_owned(), flips)).collect()
        };
        let flips = owned(&path);
        assert_eq!(flips["a"].indices, [1, 2, 2, 2, 5]);
        assert_eq!(flips["a"].steps, [4, 1, 2, 4, 1]);
        assert_eq!(Path::of_flips(4, 4, &flips).unwrap(), path);
        let wrong = |len, chosen, indices: &[u32], steps: &[u16]| {
            let flips = Flips { indices: indices.to_vec(), steps: steps.to_vec() };
            Path::of_flips(len, chosen, &BTreeMap::from([("w".to_owned(), flips)])).unwrap_err().to_string()
        };
        assert!(wrong(4, 5, &[], &[]).contains("step 5 of 4 steps"));
        assert!(wrong(usize::MAX, 1, &[], &[]).contains("cannot be"));
        assert!(wrong(4, 1, &[1, 2], &[1]).contains("`w` has 2 indices and 1 steps"));
        assert!(wrong(4, 1, &[1], &[0]).contains("a step 0, and there are 4"));
        assert!(wrong(4, 1, &[1], &[5]).contains("a step 5, and there are 4"));
        for (indices, steps) in [([2, 1], [1, 1]), ([1, 1], [1, 1]), ([1, 1], [2, 1])] {
            assert!(wrong(4, 1, &indices, &steps).contains("do not ascend"));
        }
        let mut long = Path::default();
        (0..=Path::MAX_STEPS).for_each(|_| long.push(Patch::default()));
        assert!(long.flips().unwrap_err().to_string().contains("65536 steps are too many"));
    }
}
