//! Parameters rounded to a precision.

use burn::tensor::TensorData;
use half::bf16;

use super::{Part, keeps_halves, replace, views, visit};
use crate::{Decoder, Dtype, Result};

/// The decoder with every parameter rounded to a precision. On the CPU matrices in bf16 are kept so, all else in f32.
///
/// # Errors
/// When a value is not finite or too large for the precision, or the device fails.
pub fn round(decoder: Decoder, dtype: Dtype) -> Result<Decoder> {
    if dtype == Dtype::F32 {
        return check(&decoder, dtype).map(|()| decoder);
    }
    let (mut views, mut outcome) = (views(&decoder, |_| true)?.into_iter(), Ok(()));
    let device = decoder.device();
    let decoder = replace(decoder, |info| {
        let (_, values) = views.next().filter(|_| outcome.is_ok())?;
        if dtype == Dtype::Bf16 && matches!(values.part(), Part::Bf16(_)) {
            return None;
        }
        let mut values = values.into_vec();
        outcome = dtype.round_all(&info.name, &mut values);
        let shape = info.shape.clone();
        Some(match dtype {
            Dtype::Bf16 if keeps_halves(info, &device) => {
                TensorData::new(values.into_iter().map(bf16::from_f32).collect::<Vec<_>>(), shape)
            }
            _ => TensorData::new(values, shape),
        })
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
            outcome = weight.view().and_then(|values| dtype.check(&name, &values.part().wide()));
        }
    });
    outcome
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::super::tests::tiny;
    use super::super::{Change, Sums, WeightInfo, read, set, track};
    use super::*;
    use crate::{Packed, checkpoint};

    /// The same weights kept in bf16 and in f32.
    fn twins() -> (Decoder, Decoder) {
        let halves = round(tiny(), Dtype::Bf16).unwrap();
        let mut values = read(&halves, |_| true).unwrap().into_iter();
        let wide = replace(halves.clone(), |info| Some(TensorData::new(values.next()?.1, info.shape.clone())));
        (halves, wide)
    }

    fn kept(decoder: &Decoder) -> Vec<(WeightInfo, bool)> {
        let all = views(decoder, |_| true).unwrap().into_iter();
        all.map(|(info, values)| (info, matches!(values.part(), Part::Bf16(_)))).collect()
    }

    fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
        x.into_data().iter::<f32>().map(f32::to_bits).collect()
    }

    #[test]
    fn matrices_in_bf16_are_kept_so_and_read_so() {
        let (halves, wide) = twins();
        assert!(kept(&halves).iter().all(|(info, halves)| *halves != info.is_norm));
        assert!(kept(&wide).iter().all(|(_, halves)| !halves));
        let dir = tempfile::tempdir().unwrap();
        for decoder in [&halves, &wide] {
            let dir = dir.path().join(if kept(decoder)[0].1 { "halves" } else { "wide" });
            checkpoint::save_as(decoder, Dtype::Bf16, u64::MAX, &dir).unwrap();
            let loaded = checkpoint::load(&dir, &decoder.device()).unwrap();
            assert_eq!(kept(&loaded), kept(&halves));
            assert_eq!(read(&loaded, |_| true).unwrap(), read(&wide, |_| true).unwrap());
        }
    }

    #[test]
    fn they_compute_what_the_same_weights_in_f32_do() {
        let (halves, wide) = twins();
        let packed = Packed::new(&[&[1u32, 2, 3, 9][..], &[4, 5][..]]).unwrap();
        let results = [&halves, &wide].map(|decoder| {
            let positions = [3, 5];
            let logits = decoder.head(decoder.hidden(&packed, 2, &positions).unwrap());
            let tracked = track(decoder.clone(), |info| info.layer.is_some() && !info.is_norm);
            let mut sums = Sums::new(&tracked, Default::default());
            let loss = |decoder: &Decoder, _, packed: &Packed| -> Result<_> {
                Ok((decoder.head(decoder.hidden(packed, 2, &positions)?).powi_scalar(2).sum(), ()))
            };
            sums.add(std::slice::from_ref(&packed), loss).unwrap();
            let mut sums: Vec<_> = sums.finish().into_iter().collect();
            sums.sort_by(|one, other| one.0.cmp(&other.0));
            assert_eq!(sums.len(), 14);
            (bits(logits), sums)
        });
        assert_eq!(results[0], results[1]);
        assert!(results[0].0.iter().any(|&bits| bits != 0));
    }

    #[test]
    fn a_value_that_bf16_cannot_hold_makes_its_matrix_one_in_f32() {
        let (decoder, _) = twins();
        let name = "model.layers.1.mlp.up_proj.weight";
        let change = |decoder: Decoder, source: Part<'_>| {
            let decoder = set(decoder, |info| (info.name == name).then_some(Change { indices: &[3], source })).unwrap();
            let values = views(&decoder, |info| info.name == name).unwrap().remove(0).1;
            (decoder, values)
        };
        let (exact, third) = (vec![bf16::from_f32(0.5); 24 * 16], vec![1.0 / 3.0; 24 * 16]);
        let (decoder, values) = change(decoder, Part::Bf16(&exact));
        assert!(matches!(values.part(), Part::Bf16(_)) && values.part().at(3) == 0.5);
        drop(values);
        let (_, values) = change(decoder, third.as_slice().into());
        assert!(matches!(values.part(), Part::F32(_)) && values.part().at(3) == 1.0 / 3.0);
    }
}
