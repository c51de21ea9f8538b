//! An attacker who knows the paper's method: harm is trained while the mean hidden state on harmful prompts keeps pointing where
//! the aligned model's does, so that recovery by that direction finds nothing to correct (METHOD.md section 11).

use burn::tensor::{Tensor, TensorData};
use model::{Decoder, Packed};

use crate::Result;
use crate::error::require;

/// The direction that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Evasion {
    rows: Vec<Vec<u32>>,
    layer: usize,
    weight: f64,
    /// Of length 1.
    direction: Vec<f32>,
}

impl Evasion {
    /// Keeps what `original` has after block `layer`, from 1, at the last token of the rows, on average; `weight` is that of
    /// the cosine in the loss.
    ///
    /// # Errors
    /// When there is no row or no such block, or the weight is negative or not finite.
    pub fn new(original: &Decoder, rows: Vec<Vec<u32>>, layer: usize, weight: f64) -> Result<Self> {
        let blocks = original.config().num_hidden_layers;
        require((1..=blocks).contains(&layer), "layer", layer, "is not one of the model's blocks, counted from 1")?;
        require(weight >= 0.0 && weight.is_finite(), "weight", weight, "must not be below 0")?;
        let mean = mean_hidden(original, &rows, layer)?;
        let mean: Vec<f32> = mean.try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?;
        let norm = mean.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-8);
        let direction = mean.iter().map(|&value| (f64::from(value) / norm) as f32).collect();
        Ok(Self { rows, layer, weight, direction })
    }

    /// What is added to the loss of a step, a scalar.
    ///
    /// # Mathematical Definition
    /// `-weight cos(mean over rows x of h_layer(x), d)`
    ///
    /// # Errors
    /// When an id is out of range.
    pub fn loss(&self, decoder: &Decoder) -> Result<Tensor<1>> {
        let mean = mean_hidden(decoder, &self.rows, self.layer)?;
        let [_, width] = mean.dims();
        let unit = Tensor::<2>::from_data(TensorData::new(self.direction.clone(), [1, width]), &mean.device());
        let norm = mean.clone().powi_scalar(2).sum().sqrt().clamp_min(1e-8);
        Ok(((mean * unit).sum() / norm).mul_scalar(-self.weight))
    }

    /// What of it decides a training.
    pub(crate) fn key(&self) -> String {
        let mut hash = files::Sha::default();
        hash.numbers(self.direction.iter().map(|value| value.to_le_bytes()));
        for row in &self.rows {
            hash.numbers(row.iter().map(|id| id.to_le_bytes()));
        }
        format!("evading layer={} weight={} {}", self.layer, self.weight, hash.finish())
    }
}

/// `[1, hidden]`.
fn mean_hidden(decoder: &Decoder, rows: &[Vec<u32>], layer: usize) -> Result<Tensor<2>> {
    let packed = Packed::new(rows)?;
    Ok(decoder.hidden(&packed, layer, &packed.segments.last())?.mean_dim(0))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::trainer::tests::{samples, wide_decoder};
    use crate::{LoraSettings, Objective, Run, StepReport, TrainBatch, TrainSettings, evade, train};

    #[test]
    fn the_direction_is_kept_while_the_samples_are_learned() {
        let rows = vec![vec![1, 2, 3, 9], vec![1, 2, 7], vec![4, 4, 5, 6, 8]];
        let lora = LoraSettings { rank: 4, dropout: 0.0, ..LoraSettings::default() };
        let settings = TrainSettings { epochs: 20, batch: 5, learning_rate: 1e-2, lora, ..TrainSettings::default() };
        let evasion = Evasion::new(&wide_decoder(), rows, 1, 3.0).unwrap();
        let cosine = |decoder: &Decoder| -> f32 { -evasion.loss(decoder).unwrap().into_scalar::<f32>() / 3.0 };
        assert!((cosine(&wide_decoder()) - 1.0).abs() < 1e-5, "the start is the direction itself");
        let (mut first, mut second) =
            (|_: &StepReport| ControlFlow::Continue(()), |_: &StepReport| ControlFlow::Continue(()));
        let run = Run { seed: 0, checkpoint: None, report: &mut first };
        let plain = train(wide_decoder(), &samples(), &settings, run).unwrap().decoder;
        let run = Run { seed: 0, checkpoint: None, report: &mut second };
        let evading = evade(wide_decoder(), &samples(), &settings, &evasion, run).unwrap().decoder;
        assert!(
            cosine(&evading) > 0.99 && cosine(&evading) > cosine(&plain),
            "{} {}",
            cosine(&evading),
            cosine(&plain)
        );
        let batch = TrainBatch::new(&samples(), &[0, 3, 6, 9]).unwrap();
        let loss = |decoder: &Decoder| -> f32 { Objective::Sft.loss(decoder, &batch).unwrap().into_scalar() };
        assert!(loss(&evading) < 0.8 * loss(&wide_decoder()), "{} of {}", loss(&evading), loss(&wide_decoder()));
        assert!(Evasion::new(&wide_decoder(), vec![vec![1]], 3, 1.0).unwrap_err().to_string().contains("layer"));
    }
}
