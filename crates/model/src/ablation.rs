//! A direction that is taken out of the residual stream (Arditi et al. 2024, "Refusal in Language Models Is Mediated by a
//! Single Direction"). It is computed with and not saved: a file of weights cannot say it where outputs are normed or the
//! head is the embedding.

use burn::tensor::{Tensor, TensorData};

use crate::{Decoder, Error, Result};

/// A direction of length 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ablation(Vec<f32>);

impl Ablation {
    /// The rows without their part along the direction.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`
    ///
    /// # Mathematical Definition
    /// `x - r (r . x)`
    pub fn of(&self, x: Tensor<2>) -> Tensor<2> {
        let [_, width] = x.dims();
        let row = Tensor::<2>::from_data(TensorData::new(self.0.clone(), [1, width]), &x.device());
        let along = (x.clone() * row.clone()).sum_dim(1);
        x - along * row
    }
}

impl Decoder {
    /// The decoder whose residual stream has no part along `direction`: before each block, after its attention and after
    /// its MLP.
    ///
    /// # Errors
    /// When the direction is not of the model's width, or has no length.
    pub fn without_direction(mut self, direction: &[f32]) -> Result<Self> {
        let width = self.config().hidden_size;
        if direction.len() != width {
            let found = direction.len();
            return Err(Error::Input(format!("a direction of {found} values on a model of the width {width}")));
        }
        let norm = direction.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if !(norm > 0.0 && norm.is_finite()) {
            return Err(Error::Input(format!("a direction of the length {norm} cannot be taken out")));
        }
        let unit: Vec<f32> = direction.iter().map(|&value| (f64::from(value) / norm) as f32).collect();
        for block in &mut self.model.layers {
            block.ablation = Some(Ablation(unit.clone()));
        }
        Ok(self)
    }
}
