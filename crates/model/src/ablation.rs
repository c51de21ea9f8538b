//! A direction that is taken out of the residual stream (Arditi et al. 2024, "Refusal in Language Models Is Mediated by a
//! Single Direction"). It is computed with and not saved: a file of weights cannot say it where outputs are normed or the
//! head is the embedding.

use burn::tensor::{Tensor, TensorData};

use crate::{Error, Result};

/// A direction of length 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ablation(Vec<f32>);

impl Ablation {
    /// Takes out `direction`, in a model of some width.
    ///
    /// # Errors
    /// When the direction is not of that width, or has no length.
    pub fn new(direction: &[f32], width: usize) -> Result<Self> {
        if direction.len() != width {
            let found = direction.len();
            return Err(Error::Input(format!("a direction of {found} values on a model of the width {width}")));
        }
        let norm = direction.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if !(norm > 0.0 && norm.is_finite()) {
            return Err(Error::Input(format!("a direction of the length {norm} cannot be taken out")));
        }
        Ok(Self(direction.iter().map(|&value| (f64::from(value) / norm) as f32).collect()))
    }

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
