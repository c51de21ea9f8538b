//! Hidden states at the last token and their mean.

use model::{Decoder, Packed, in_lanes};

use crate::{Error, Result, runs};

/// The residual stream after block `layer` at each row's last token, `[rows][hidden]`.
///
/// # Errors
/// When there is no row, the layer is not one of the model's, or the decoder refuses the ids.
pub fn hidden_states(decoder: &Decoder, rows: &[Vec<u32>], layer: usize) -> Result<Vec<Vec<f32>>> {
    check_layer(decoder, layer)?;
    if rows.is_empty() {
        return Err(Error::NoPrompts);
    }
    let width = decoder.config().hidden_size;
    let groups: Vec<&[Vec<u32>]> = rows.chunks(1).collect();
    let runs = runs(&groups, decoder.config().positions_at_once());
    let states = in_lanes(&decoder.device(), &runs, |_, run| {
        let packed = Packed::new(&run.concat())?;
        let hidden = decoder.hidden(&packed, layer, &packed.segments.last())?;
        let values: Vec<f32> = hidden.try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?;
        Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
    });
    Ok(states.into_iter().collect::<Result<Vec<Vec<_>>>>()?.concat())
}

/// The mean over the rows of the residual stream after block `layer` at the last token:
/// `d` for the aligned model and the recovery prompts, `b` for the fine-tuned model and the
/// task's prompts (METHOD.md section 2).
///
/// # Errors
/// As [`hidden_states`], and when the mean is not finite.
pub fn mean_direction(decoder: &Decoder, rows: &[Vec<u32>], layer: usize) -> Result<Vec<f32>> {
    let states = hidden_states(decoder, rows, layer)?;
    let mut sum = vec![0f64; decoder.config().hidden_size];
    for state in &states {
        for (sum, &value) in sum.iter_mut().zip(state) {
            *sum += f64::from(value);
        }
    }
    let mean: Vec<f32> = sum.iter().map(|sum| (sum / states.len() as f64) as f32).collect();
    if mean.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite { what: format!("the mean hidden state at layer {layer}") });
    }
    Ok(mean)
}

/// The refusal direction at block `layer`: the mean over harmful prompts less the mean over harmless ones (Arditi et al. 2024).
///
/// # Errors
/// As [`mean_direction`].
pub fn refusal_direction(
    decoder: &Decoder,
    harmful: &[Vec<u32>],
    harmless: &[Vec<u32>],
    layer: usize,
) -> Result<Vec<f32>> {
    let (harmful, harmless) = (mean_direction(decoder, harmful, layer)?, mean_direction(decoder, harmless, layer)?);
    Ok(harmful.iter().zip(harmless).map(|(harmful, harmless)| harmful - harmless).collect())
}

/// The cosine of the angle between two vectors of one length; 0 when either is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

/// An error unless `layer` is one of the model's.
///
/// # Errors
/// When it is 0 or above the number of blocks.
pub fn check_layer(decoder: &Decoder, layer: usize) -> Result<()> {
    let blocks = decoder.config().num_hidden_layers;
    if (1..=blocks).contains(&layer) { Ok(()) } else { Err(Error::Layer { layer, blocks }) }
}
