//! A decoder with random weights, to be trained from nothing with [`Method::Full`](crate::Method).

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
