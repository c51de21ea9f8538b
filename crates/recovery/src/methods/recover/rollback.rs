//! Rollback: some of a step's restored weights go back to the fine-tuned value
//! (paper section IV-C; METHOD.md section 3).

use std::collections::HashMap;

use model::weights::Part;

use crate::{Candidates, Region, Result, Selected, Ties, select};

/// Selects, among the weights `restored` in this step, those that a descent step on the task's
/// loss would move towards the fine-tuned value, and takes the top
/// `ceil(rate * their number)` by absolute gradient. Indices are those of the region.
pub(crate) fn select_rollback(
    region: &Region,
    restored: &[Vec<u32>],
    gradients: &HashMap<String, Vec<f32>>,
    rate: f64,
    ties: Ties,
) -> Result<Selected> {
    let values = region.values()?;
    // The few restored weights, gathered; positions in them are mapped back below.
    let gather = |all: Part<'_>, indices: &[u32]| -> Vec<f32> { indices.iter().map(|&i| all.at(i as usize)).collect() };
    let gathered: Vec<[Vec<f32>; 3]> = restored
        .iter()
        .enumerate()
        .map(|(tensor, indices)| {
            let gradient = gradients.get(&region.infos[tensor].name).map_or(&[][..], Vec::as_slice);
            let indices = if gradient.is_empty() { &[][..] } else { indices };
            let (values, fine_tuned) = (values[tensor].part(), region.fine_tuned[tensor].part());
            [gather(values, indices), gather(fine_tuned, indices), gather(gradient.into(), indices)]
        })
        .collect();
    let tensors = gathered.iter().map(|[values, target, gradient]| Candidates {
        values: values.as_slice().into(),
        target: target.as_slice().into(),
        gradient,
    });
    let tensors: Vec<Candidates<'_>> = tensors.collect();
    let number = select(&tensors, usize::MAX, Ties::Exact).len();
    let mut selected = select(&tensors, (number as f64 * rate).ceil() as usize, ties);
    for (positions, indices) in selected.indices.iter_mut().zip(restored) {
        positions.iter_mut().for_each(|position| *position = indices[*position as usize]);
    }
    Ok(selected)
}
