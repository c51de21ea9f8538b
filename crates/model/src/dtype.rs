//! The precisions in which weights are kept, on disk and, rounded, in memory.
//!
//! Recovery copies values of one model into another (METHOD.md section 3), so that with two bf16 models a bf16 file
//! loses nothing. Arithmetic is f32 whatever the weights are kept in: those in bf16 are widened, exactly, where they are read.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A precision of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits: the range of f32, 8 bits of precision.
    Bf16,
    /// 16 bits: up to 65504, 11 bits of precision.
    F16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The name in `config.json`, which is torch's.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// burn's name.
    pub(crate) fn in_burn(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The nearest value of this precision, of two equally near ones the even one; infinite beyond the largest one.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => half::bf16::from_f32(value).to_f32(),
            Self::F16 => half::f16::from_f32(value).to_f32(),
        }
    }

    /// The values, rounded, as a safetensors file holds them.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    /// The values that a safetensors file holds; what is left over of a value is passed over.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|&bytes| half::f16::from_le_bytes(bytes).to_f32()).collect(),
        }
    }

    /// Rounds the values of the tensor `name`.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn round_all(self, name: &str, values: &mut [f32]) -> Result<()> {
        self.check(name, values)?;
        if self != Self::F32 {
            values.iter_mut().for_each(|value| *value = self.round(*value));
        }
        Ok(())
    }

    /// Checks that this precision can hold the values of the tensor `name`.
    ///
    /// # Errors
    /// When one is not finite or too large.
    pub(crate) fn check(self, name: &str, values: &[f32]) -> Result<()> {
        let Some(index) = values.iter().position(|&value| !self.round(value).is_finite()) else { return Ok(()) };
        let value = values[index];
        let what = match self {
            _ if !value.is_finite() => {
                "and weights must be finite; what made it has a setting or a scale that is too large"
            }
            Self::F16 => "which f16 cannot hold; take bf16 or f32",
            _ => "which bf16 cannot hold; take f32",
        };
        Err(Error::Input(format!("tensor `{name}` holds {value} at element {index}, {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_too_large_is_refused_by_name_and_never_becomes_infinite() {
        for (dtype, value, wanted) in [
            (Dtype::F16, 65520.0, "tensor `w` holds 65520 at element 1, which f16 cannot hold; take bf16 or f32"),
            (Dtype::Bf16, f32::MAX, "which bf16 cannot hold; take f32"),
        ] {
            let message = dtype.round_all("w", &mut [1.0, value]).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
        let mut values = [65519.0, f32::MAX];
        assert!(Dtype::F32.round_all("w", &mut values).is_ok());
        for (dtype, value) in Dtype::ALL.into_iter().zip([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]) {
            let message = dtype.round_all("w", &mut [1.0, value]).unwrap_err().to_string();
            assert!(message.contains("`w` holds") && message.contains("must be finite"), "{message}");
        }
        Dtype::F16.round_all("w", &mut values[..1]).unwrap();
        assert_eq!(values, [65504.0, f32::MAX]);
    }

    #[test]
    fn what_was_rounded_once_stays_and_is_what_bytes_hold() {
        for dtype in Dtype::ALL {
            for value in [0.1_f32, -3.3, 1e-7, 1e-40, 0.0, -0.0] {
                let once = dtype.round(value);
                assert_eq!(dtype.round(once).to_bits(), once.to_bits(), "{dtype:?} {value}");
                let read = dtype.decode(&dtype.encode(&[1.0, value]));
                assert_eq!((read.len(), read[1].to_bits()), (2, once.to_bits()), "{dtype:?} {value}");
            }
        }
    }
}
