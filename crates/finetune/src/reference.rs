//! What the aligned model gives to the response tokens of samples: computed once, kept in one file.
//!
//! SoftSFT needs it (METHOD.md section 5). A sample is found by its content, so one file serves every
//! harmful count, epoch and order. What the values are used for is not known here.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::Decoder;
use prompts::tokenizer::Encoded;
use serde::{Deserialize, Serialize};

use crate::batch::first_target;
use crate::checkpoint::hash_weights;
use crate::{Error, Result, TrainBatch};

/// Samples of one pass.
const BATCH: usize = 16;

/// Log-probabilities of the response tokens of samples under one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLogProbs {
    /// Hash of the model's weights.
    model: String,
    /// By the hash of the sample.
    values: BTreeMap<String, Vec<f32>>,
}

/// The same in a file: floats by their bits, because JSON has no infinity.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    model: String,
    bits: BTreeMap<String, Vec<u32>>,
}

impl ReferenceLogProbs {
    /// Those of `examples` that have at most `max_len` tokens, under `aligned`; no gradient is tracked.
    ///
    /// `report` hears of the samples done and of all; on a break nothing is kept.
    ///
    /// # Errors
    /// When a sample has no response, an id is out of range, the device fails, or `report` breaks.
    pub fn new(
        aligned: &Decoder,
        examples: &[Encoded],
        max_len: usize,
        report: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        let mut distinct: BTreeMap<String, usize> = BTreeMap::new();
        for (index, example) in examples.iter().enumerate().filter(|(_, example)| example.ids.len() <= max_len) {
            first_target(index, example)?;
            distinct.entry(key_of(example)).or_insert(index);
        }
        let (keys, indices): (Vec<String>, Vec<usize>) = distinct.into_iter().unzip();
        let lengths: Vec<usize> = indices.iter().map(|&index| examples[index].ids.len()).collect();
        let mut values: HashMap<usize, Vec<f32>> = HashMap::new();
        for bucket in prompts::length_buckets(&lengths, BATCH) {
            let batch: Vec<usize> = bucket.iter().map(|&at| indices[at]).collect();
            let batch = TrainBatch::new(examples, &batch)?;
            let losses = aligned.negative_log_likelihood(&batch.packed, &batch.positions, &batch.targets)?;
            let losses: Vec<f32> = losses.try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?;
            for (&sample, loss) in batch.sample_of.iter().zip(losses) {
                values.entry(sample).or_default().push(-loss);
            }
            if report(values.len(), indices.len()).is_break() {
                return Err(Error::Stopped);
            }
        }
        let values = keys.into_iter().zip(indices.iter().filter_map(|index| values.remove(index))).collect();
        Ok(Self { model: fingerprint(aligned)?, values })
    }

    /// The values of a sample, one per response token.
    pub fn get(&self, example: &Encoded) -> Option<&[f32]> {
        self.values.get(&key_of(example)).map(Vec::as_slice)
    }

    /// Number of distinct samples.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bits = |values: &Vec<f32>| values.iter().map(|value| value.to_bits()).collect();
        let bits = self.values.iter().map(|(key, values)| (key.clone(), bits(values))).collect();
        let bytes = serde_json::to_vec(&Stored { model: self.model.clone(), bits });
        let bytes = bytes.map_err(|error| Error::Reference { path: path.into(), reason: error.to_string() })?;
        Ok(files::write_sealed(path, &bytes)?)
    }

    /// Reads and joins files that were computed under `aligned`.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or was computed under another model.
    pub fn read(paths: &[PathBuf], aligned: &Decoder) -> Result<Self> {
        let mut joined = Self { model: fingerprint(aligned)?, values: BTreeMap::new() };
        for path in paths {
            let wrong = |reason: String| Error::Reference { path: path.into(), reason };
            let bytes = files::read_sealed(path)?.ok_or_else(|| wrong("is not there".into()))?;
            let found: Stored = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            if found.model != joined.model {
                return Err(wrong("was computed under another model".into()));
            }
            let values = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect();
            joined.values.extend(found.bits.into_iter().map(|(key, bits)| (key, values(bits))));
        }
        Ok(joined)
    }
}

/// The hash of a sample. The order of these decides which samples share a pass.
fn key_of(example: &Encoded) -> String {
    let mut bytes = (example.ids.len() as u64).to_le_bytes().to_vec();
    bytes.extend(example.ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(example.loss_mask.iter().map(|&counts| u8::from(counts)));
    files::hash_bytes(&bytes)
}

fn fingerprint(decoder: &Decoder) -> Result<String> {
    let mut hash = files::Sha::default();
    hash_weights(decoder, &mut hash)?;
    Ok(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tests::{decoder, sample, samples, wide_decoder};
    use crate::{Run, SoftSft, SoftSftSettings, TrainSettings, soft_sft};

    fn computed(examples: &[Encoded], max_len: usize) -> ReferenceLogProbs {
        ReferenceLogProbs::new(&wide_decoder(), examples, max_len, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn a_sample_has_one_value_per_response_token_whatever_stands_beside_it() {
        let (all, last) = (samples(), samples().len() - 1);
        let [together, alone] = [computed(&all, 512), computed(&all[last..], 512)];
        let [a, b] = [&together, &alone].map(|values| values.get(&all[last]).unwrap());
        assert_eq!(a.len(), all[last].loss_mask.iter().filter(|&&counts| counts).count());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 && *a < 0.0), "{a:?} {b:?}");
        assert!(together.get(&sample(&[1, 2, 3], 2)).is_none());
        let twice = computed(&[all.clone(), all.clone()].concat(), 512);
        assert_eq!((twice.len(), &twice), (all.len(), &together), "a sample is computed once");
    }

    #[test]
    fn a_file_gives_back_what_was_written_and_files_are_joined() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        let all = samples();
        computed(&all[..4], 512).write(&paths[0]).unwrap();
        computed(&all[4..], 512).write(&paths[1]).unwrap();
        let joined = ReferenceLogProbs::read(&paths, &wide_decoder()).unwrap();
        assert_eq!(joined.len(), all.len());
        assert_eq!(joined.get(&all[1]), computed(&all[..4], 512).get(&all[1]));
        let error = ReferenceLogProbs::read(&paths, &decoder()).unwrap_err().to_string();
        assert!(error.contains("another model") && error.contains(paths[0].to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reference");
        let refused = || {
            let error = ReferenceLogProbs::read(std::slice::from_ref(&path), &wide_decoder()).unwrap_err().to_string();
            assert!(error.contains("reference"), "{error}");
            error
        };
        assert!(refused().contains("is not there"));
        computed(&samples(), 512).write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(refused().contains("checksum"));
        }
        files::write_sealed(&path, b"{}").unwrap();
        assert!(refused().contains("missing field"));
    }

    #[test]
    fn a_stopped_computation_keeps_nothing() {
        let (all, mut calls) = (samples(), 0);
        let stopped = ReferenceLogProbs::new(&wide_decoder(), &all, 512, &mut |_, _| {
            calls += 1;
            ControlFlow::Break(())
        });
        assert!(matches!((stopped, calls), (Err(Error::Stopped), 1)));
    }

    #[test]
    fn a_sample_that_is_trained_on_needs_its_values_and_one_that_is_too_long_does_not() {
        let (all, soft) = (samples(), SoftSftSettings::default());
        let settings = TrainSettings { max_len: 7, ..TrainSettings::default() };
        let run = |examples: &[Encoded], references: &ReferenceLogProbs| {
            let run = Run { seed: 0, checkpoint: None, report: &mut |_| ControlFlow::Continue(()) };
            soft_sft(wide_decoder(), examples, &settings, SoftSft { settings: &soft, references }, run)
        };
        let references = computed(&all, settings.max_len);
        assert_eq!(all.len() - references.len(), run(&all, &references).unwrap().dropped);
        let error = run(&all, &computed(&all[..1], 512)).unwrap_err().to_string();
        assert!(error.contains("sample 1 ") && error.contains("aligned model"), "{error}");
    }
}
