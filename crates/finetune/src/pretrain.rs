//! A decoder with random weights, to be trained from nothing with a rank of 0.

use burn::tensor::{Device, TensorData};
use model::{Decoder, DecoderConfig, weights};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Matrices normal with standard deviation `deviation` (transformers' `initializer_range`), norms
/// without effect, biases zero. The same `seed` gives the same weights on every device.
pub fn init_random(config: &DecoderConfig, deviation: f32, seed: u64, device: &Device) -> Decoder {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    weights::replace(Decoder::zeros(config, device), |info| {
        (info.shape.len() == 2).then(|| {
            let normal = StandardNormal.sample_iter(&mut rng).map(|x: f32| x * deviation);
            TensorData::new(normal.take(info.len()).collect::<Vec<f32>>(), info.shape.clone())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_start_without_effect_in_every_family() {
        for (model_type, weight) in [("llama", 1.0), ("gemma", 0.0), ("gemma3_text", 0.0), ("qwen3", 1.0)] {
            let json = serde_json::json!({"model_type": model_type, "vocab_size": 8, "hidden_size": 8,
                "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4});
            let config = DecoderConfig::from_json(&json, std::path::Path::new("tiny")).unwrap();
            let decoder = init_random(&config, 0.1, 1, &Device::default());
            for (info, values) in weights::read(&decoder, |info| info.is_norm).unwrap() {
                assert_eq!(values, vec![weight; info.len()], "{model_type} {}", info.name);
            }
        }
    }
}
