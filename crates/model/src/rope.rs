//! Rotary position embedding: the tables of cosines and sines for the positions of a pack.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{DecoderConfig, LayerType, RopeScaling};
pub use crate::ops::Rope;

impl Rope {
    /// The tables for `positions` in layers of the given type, computed in f32 as the reference does.
    ///
    /// # Mathematical Definition
    /// `angle[p, i] = p * scaled(theta^(-2 i / head_dim))`, the scaling being the configuration's
    pub fn new(config: &DecoderConfig, layer_type: LayerType, positions: &[u32], device: &Device) -> Self {
        let frequencies = frequencies(config, layer_type);
        let angles: Vec<f32> = positions.iter().flat_map(|&p| frequencies.iter().map(move |f| p as f32 * f)).collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle)).collect();
            Tensor::from_data(TensorData::new(values, [positions.len(), frequencies.len()]), device)
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }
}

fn frequencies(config: &DecoderConfig, layer_type: LayerType) -> Vec<f32> {
    let (theta, scaling) = match (layer_type, config.rope_local_base_freq) {
        (LayerType::SlidingAttention, Some(local)) => (local, RopeScaling::None),
        _ => (config.rope_theta, config.rope_scaling),
    };
    let exponent = |i: usize| (2 * i) as f32 / config.head_dim as f32;
    (0..config.head_dim / 2).map(|i| scaled(1.0 / (theta as f32).powf(exponent(i)), scaling)).collect()
}

/// Whether these are the frequencies of a block, or of all blocks where none is named; older versions of transformers saved
/// them before the configuration's scaling, and in 16 bits with the weights.
pub(crate) fn are_frequencies(config: &DecoderConfig, block: Option<usize>, values: &[f32]) -> bool {
    let layer_type = block.and_then(|block| config.layer_types.get(block)).copied().unwrap_or(LayerType::FullAttention);
    let plain = DecoderConfig { rope_scaling: RopeScaling::None, ..config.clone() };
    [config, &plain].into_iter().any(|config| {
        let wanted = frequencies(config, layer_type);
        let is_near = |(value, wanted): (&f32, &f32)| (value - wanted).abs() <= 0.01 * wanted.abs();
        values.len() == wanted.len() && values.iter().zip(&wanted).all(is_near)
    })
}

/// One frequency, changed as the configuration says.
fn scaled(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let (factor, low, high) = (factor as f32, low_freq_factor as f32, high_freq_factor as f32);
            let length = original_max_position_embeddings as f32;
            let wavelength = std::f32::consts::TAU / frequency;
            if wavelength < length / high {
                frequency
            } else if wavelength > length / low {
                frequency / factor
            } else {
                let smooth = (length / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_frequencies_divides_low_ones_and_interpolates_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        // Wavelengths: below 16 is high, above 64 is low.
        let of_wavelength = |wavelength: f32| std::f32::consts::TAU / wavelength;
        assert_eq!(scaled(of_wavelength(15.0), scaling), of_wavelength(15.0));
        assert_eq!(scaled(of_wavelength(65.0), scaling), of_wavelength(65.0) / 8.0);
        // At a wavelength of 32 a third of the way is gone: (64 / 32 - 1) / (4 - 1).
        let wanted = of_wavelength(32.0) * (1.0 / 3.0 + 2.0 / 3.0 / 8.0);
        assert!((scaled(of_wavelength(32.0), scaling) - wanted).abs() < 1e-7);
    }
}
