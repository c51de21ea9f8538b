//! A training run's state in one safetensors file: parameters, moments, losses.
//!
//! Only what is trained is in it. The fingerprint ties it to its settings, samples and model.

use std::collections::HashMap;
use std::path::Path;

use model::{Decoder, weights};
use prompts::tokenizer::Encoded;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::optimizer::{AdamW, Slot};
use crate::{Error, Result, TrainSettings};

const FINGERPRINT: &str = "fingerprint";
const LOSSES: &str = "losses";

/// Hash of everything that decides a run: settings, objective, samples and start weights.
pub(crate) fn fingerprint(
    settings: &TrainSettings,
    seed: u64,
    objective: &str,
    examples: &[Encoded],
    decoder: &Decoder,
) -> Result<String> {
    let settings = TrainSettings { save_every: 1, ..settings.clone() }; // does not change the result
    let mut hash = files::Sha::default();
    hash.part(format!("finetune 2 {settings:?} {seed} {objective}"));
    for Encoded { ids, loss_mask } in examples {
        hash.numbers(ids.iter().map(|id| id.to_le_bytes())).numbers(loss_mask.iter().map(|&counts| [u8::from(counts)]));
    }
    hash_weights(decoder, &mut hash)?;
    Ok(hash.finish())
}

/// Takes names and values of all parameters into a hash.
pub(crate) fn hash_weights(decoder: &Decoder, hash: &mut files::Sha) -> Result<()> {
    let mut failed = None;
    weights::visit(decoder, |weight| {
        hash.part(&weight.info.name);
        match weight.values() {
            Ok(values) => drop(hash.numbers(values.iter().map(|value| value.to_le_bytes()))),
            Err(error) => failed = failed.take().or(Some(error)),
        }
    });
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Writes the state with a checksum; the file is replaced only when the new one is whole.
pub(crate) fn save(path: &Path, fingerprint: &str, optimizer: &AdamW, losses: &[f64]) -> Result<()> {
    let content = content(fingerprint, optimizer, losses).map_err(|error| failure(path, error))?;
    Ok(files::write_sealed(path, &content)?)
}

fn failure(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Checkpoint { path: path.into(), reason: reason.to_string() }
}

/// What is in the file before the checksum.
pub(crate) fn content(
    fingerprint: &str,
    optimizer: &AdamW,
    losses: &[f64],
) -> std::result::Result<Vec<u8>, SafeTensorError> {
    let mut data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, slot) in &optimizer.slots {
        for (kind, values) in [("value", &slot.value), ("moment1", &slot.moment1), ("moment2", &slot.moment2)] {
            data.push((format!("{kind}.{name}"), Dtype::F32, slot.shape.clone(), bytes_of(values)));
        }
    }
    data.push((LOSSES.into(), Dtype::F64, vec![losses.len()], losses.iter().flat_map(|x| x.to_le_bytes()).collect()));
    let views: Vec<(&str, TensorView<'_>)> = data
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<_, SafeTensorError>>()?;
    let metadata = HashMap::from([(FINGERPRINT.to_owned(), fingerprint.to_owned())]);
    safetensors::serialize(views, Some(metadata))
}

/// Puts the state at `path` into `optimizer` and returns the losses so far; none when there is no whole file.
pub(crate) fn load(path: &Path, fingerprint: &str, optimizer: &mut AdamW) -> Result<Vec<f64>> {
    let bytes = match files::read_sealed(path) {
        Err(files::Error::Damaged { reason, .. }) => {
            tracing::warn!("{}: {reason}; this training starts from the beginning", path.display());
            None
        }
        read => read?,
    };
    bytes.map_or(Ok(Vec::new()), |bytes| read(path, &bytes, fingerprint, optimizer))
}

/// Reads what is in the file before the checksum.
pub(crate) fn read(path: &Path, bytes: &[u8], fingerprint: &str, optimizer: &mut AdamW) -> Result<Vec<f64>> {
    let failure = |reason: String| failure(path, reason);
    let damaged = |error: SafeTensorError| failure(format!("damaged: {error}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    if header.metadata().as_ref().and_then(|metadata| metadata.get(FINGERPRINT)).map(String::as_str)
        != Some(fingerprint)
    {
        return Err(failure("belongs to a run with other settings, samples or weights".into()));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let values = |kind: &str, name: &str, slot: &Slot| {
        let tensor = tensors.tensor(&format!("{kind}.{name}")).map_err(damaged)?;
        match tensor.shape() == slot.shape && tensor.dtype() == Dtype::F32 {
            true => Ok(floats_of(tensor.data())),
            false => Err(failure(format!("`{kind}.{name}` is not f32 of shape {:?}", slot.shape))),
        }
    };
    let mut slots = optimizer.slots.clone();
    for (name, slot) in &mut slots {
        let [value, moment1, moment2] = ["value", "moment1", "moment2"].map(|kind| values(kind, name, slot));
        (slot.value, slot.moment1, slot.moment2) = (value?, moment1?, moment2?);
    }
    let losses = tensors.tensor(LOSSES).map_err(damaged)?;
    let losses: Vec<f64> = losses.data().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
    *optimizer = AdamW { slots, updates: losses.len() };
    Ok(losses)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}
