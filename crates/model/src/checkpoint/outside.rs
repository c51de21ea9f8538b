//! What two models have outside their blocks with other values: read tensor by tensor, no model in memory.

use std::path::Path;

use super::{expected, open};
use crate::weights::WeightInfo;
use crate::{Dtype, Result};

/// The number of parameters in those tensors outside the blocks (embedding, final norm, head) that two directories have in one
/// shape, and with other values once both are rounded to `dtype`.
///
/// # Errors
/// When a file is missing or damaged, or a tensor has another type than F32, F16 and BF16.
pub fn differing_outside_blocks(one: &Path, other: &Path, dtype: Dtype) -> Result<usize> {
    let [one, other] = [open(one)?, open(other)?];
    let shapes = other.files.shapes();
    let mut differing = 0;
    for (name, shape) in expected(&one.config) {
        let info = WeightInfo::new(name, shape);
        let is_shared = || expected(&other.config).any(|(name, _)| name == info.name);
        if info.layer.is_some() || shapes.get(&info.name) != Some(&info.shape) || !is_shared() {
            continue;
        }
        if one.files.differs(&other.files, &info.name, dtype)? {
            differing += info.len();
        }
    }
    Ok(differing)
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::super::tests::{config, numbered};
    use super::*;
    use crate::checkpoint::{MAX_SHARD, save_as};
    use crate::weights;

    #[test]
    fn tensors_of_other_values_are_counted_whole_and_those_of_blocks_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let decoder = numbered(&config("llama", false));
        let changed = |named: &'static str| {
            weights::replace(decoder.clone(), |info| {
                let values = vec![0.5f32; info.len()];
                info.name.contains(named).then(|| TensorData::new(values, info.shape.clone()))
            })
        };
        for (name, decoder, dtype) in [
            ("one", decoder.clone(), Dtype::F32),
            ("narrow", decoder.clone(), Dtype::Bf16),
            ("blocks", changed("layers"), Dtype::F32),
            ("head", changed("lm_head"), Dtype::F32),
            ("norms", changed("norm"), Dtype::F32),
            ("tied", numbered(&config("llama", true)), Dtype::F32),
        ] {
            save_as(&decoder, dtype, MAX_SHARD, &at(name)).unwrap();
        }
        let differing = |name: &str, dtype| differing_outside_blocks(&at("one"), &at(name), dtype).unwrap();
        assert_eq!([differing("blocks", Dtype::F32), differing("one", Dtype::F32)], [0, 0]);
        assert_eq!([differing("head", Dtype::F32), differing("norms", Dtype::F32)], [32 * 16, 16]);
        // What rounding makes equal does not differ.
        assert_eq!([differing("narrow", Dtype::Bf16), differing("narrow", Dtype::F32)], [0, 2 * 32 * 16 + 16]);
        assert_eq!(differing("tied", Dtype::F32), 0, "the head that one has alone");
    }
}
