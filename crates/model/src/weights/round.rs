//! Parameters rounded to a precision.

use burn::tensor::TensorData;

use super::{replace, views, visit};
use crate::{Decoder, Dtype, Result};

/// The decoder with every parameter rounded to a precision; it still holds f32.
///
/// # Errors
/// When a value is not finite or too large for the precision, or the device fails.
pub fn round(decoder: Decoder, dtype: Dtype) -> Result<Decoder> {
    if dtype == Dtype::F32 {
        return check(&decoder, dtype).map(|()| decoder);
    }
    let (mut views, mut outcome) = (views(&decoder, |_| true)?.into_iter(), Ok(()));
    let decoder = replace(decoder, |info| {
        let (_, values) = views.next().filter(|_| outcome.is_ok())?;
        let mut values = values.into_vec();
        outcome = dtype.round_all(&info.name, &mut values);
        Some(TensorData::new(values, info.shape.clone()))
    });
    outcome.map(|()| decoder)
}

/// Checks that a precision can hold every parameter.
///
/// # Errors
/// As [`round`].
pub fn check(decoder: &Decoder, dtype: Dtype) -> Result<()> {
    let mut outcome = Ok(());
    visit(decoder, |weight| {
        if outcome.is_ok() {
            let name = weight.info.name.clone();
            outcome = weight.view().and_then(|values| dtype.check(&name, &values));
        }
    });
    outcome
}
