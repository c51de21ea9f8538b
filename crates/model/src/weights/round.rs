//! Parameters rounded to a precision.

use burn::module::{Module as _, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::Path;
use crate::{Decoder, Dtype, Error, Result};

/// Rounds every parameter; the first failure is kept, and nothing is changed after it.
struct Round {
    path: Path,
    dtype: Dtype,
    failed: Option<Error>,
}

impl Round {
    fn rounded<const D: usize>(&self, tensor: &Tensor<D>) -> Result<TensorData> {
        let device = |error: &dyn std::fmt::Display| Error::Device(error.to_string());
        let data = tensor.clone().try_into_data_as::<f32>().map_err(|error| device(&error))?;
        let mut values = data.try_into_vec::<f32>().map_err(|error| device(&error))?;
        self.dtype.round_all(&self.path.name(), &mut values)?;
        Ok(TensorData::new(values, tensor.dims()))
    }
}

impl ModuleMapper for Round {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.rounded(&param.val()) {
            Ok(data) => param.map(|old| {
                let tracked = old.is_require_grad();
                Tensor::from_data(data, &old.device()).set_require_grad(tracked)
            }),
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// The decoder with every parameter rounded to a precision; it still holds f32.
///
/// # Errors
/// When a value is too large for the precision, or the device fails.
pub fn round(decoder: Decoder, dtype: Dtype) -> Result<Decoder> {
    if dtype == Dtype::F32 {
        return Ok(decoder);
    }
    let mut round = Round { path: Path::default(), dtype, failed: None };
    let decoder = decoder.map(&mut round);
    round.failed.map_or(Ok(decoder), Err)
}
