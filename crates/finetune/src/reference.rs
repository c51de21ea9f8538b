//! What the aligned model gives to the response tokens of samples: computed once, kept in one file.
//!
//! SoftSFT needs it (METHOD.md section 5). A sample is found by its content, so one file serves every
//! harmful count, epoch and order. What the values are used for is not known here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use model::Decoder;
use prompts::tokenizer::Encoded;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::batch::first_target;
use crate::checkpoint::{bytes_of, floats_of, hash_weights};
use crate::{Error, Result, TrainBatch};

/// Samples of one pass.
const BATCH: usize = 16;
const MODEL: &str = "model";
const KEYS: &str = "keys";
const LENGTHS: &str = "lengths";
const VALUES: &str = "log_probs";

type SampleKey = [u8; 32];

/// Log-probabilities of the response tokens of samples under one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLogProbs {
    /// Hash of the model's weights.
    model: String,
    values: BTreeMap<SampleKey, Vec<f32>>,
}

impl ReferenceLogProbs {
    /// Those of `examples` that have at most `max_len` tokens, under `aligned`; no gradient is tracked.
    ///
    /// # Errors
    /// When a sample has no response, an id is out of range, or the device fails.
    pub fn new(
        aligned: &Decoder,
        examples: &[Encoded],
        max_len: usize,
        report: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut distinct: BTreeMap<SampleKey, usize> = BTreeMap::new();
        for (index, example) in examples.iter().enumerate().filter(|(_, example)| example.ids.len() <= max_len) {
            first_target(index, example)?;
            distinct.entry(key_of(example)).or_insert(index);
        }
        let (keys, indices): (Vec<SampleKey>, Vec<usize>) = distinct.into_iter().unzip();
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
            report(values.len(), indices.len());
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
        let keys: Vec<u8> = self.values.keys().flatten().copied().collect();
        let lengths: Vec<u8> = self.values.values().flat_map(|values| (values.len() as u64).to_le_bytes()).collect();
        let values: Vec<f32> = self.values.values().flatten().copied().collect();
        let bytes = bytes_of(&values);
        let write = || {
            let views = [
                (KEYS, TensorView::new(Dtype::U8, vec![self.len(), size_of::<SampleKey>()], &keys)?),
                (LENGTHS, TensorView::new(Dtype::U64, vec![self.len()], &lengths)?),
                (VALUES, TensorView::new(Dtype::F32, vec![values.len()], &bytes)?),
            ];
            safetensors::serialize(views, Some(HashMap::from([(MODEL.to_owned(), self.model.clone())])))
        };
        let file = write().map_err(|error| damaged(path, error.to_string()))?;
        Ok(prompts::sample::write_whole(path, &file)?)
    }

    /// Reads and joins files that were computed under `aligned`.
    ///
    /// # Errors
    /// When a file cannot be read, is damaged, or was computed under another model.
    pub fn read(paths: &[PathBuf], aligned: &Decoder) -> Result<Self> {
        let mut joined = Self { model: fingerprint(aligned)?, values: BTreeMap::new() };
        for path in paths {
            let bytes = std::fs::read(path).map_err(|error| damaged(path, error.to_string()))?;
            let found = parse(&bytes).map_err(|reason| damaged(path, reason))?;
            if found.model != joined.model {
                return Err(damaged(path, "was computed under another model".into()));
            }
            joined.values.extend(found.values);
        }
        Ok(joined)
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<ReferenceLogProbs, String> {
    let text = |error: safetensors::SafeTensorError| format!("damaged: {error}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
    let model = header.metadata().as_ref().and_then(|metadata| metadata.get(MODEL)).cloned();
    let model = model.ok_or("damaged: no model is named in it")?;
    let tensors = SafeTensors::deserialize(bytes).map_err(text)?;
    let data = |name: &str, dtype: Dtype| {
        let tensor = tensors.tensor(name).map_err(text)?;
        if tensor.dtype() == dtype { Ok(tensor.data()) } else { Err(format!("damaged: `{name}` is not {dtype:?}")) }
    };
    let (keys, odd) = data(KEYS, Dtype::U8)?.as_chunks::<{ size_of::<SampleKey>() }>();
    let lengths = data(LENGTHS, Dtype::U64)?.as_chunks().0;
    let all = floats_of(data(VALUES, Dtype::F32)?);
    if !odd.is_empty() || keys.len() != lengths.len() {
        return Err(format!("damaged: {} samples but {} lengths", keys.len(), lengths.len()));
    }
    let (mut rest, mut values) = (all.as_slice(), BTreeMap::new());
    for (&key, &length) in keys.iter().zip(lengths) {
        let length = usize::try_from(u64::from_le_bytes(length)).ok();
        let (own, others) = length.and_then(|length| rest.split_at_checked(length)).ok_or("damaged: too few values")?;
        values.insert(key, own.to_vec());
        rest = others;
    }
    if rest.is_empty() {
        Ok(ReferenceLogProbs { model, values })
    } else {
        Err(format!("damaged: {} values too many", rest.len()))
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Reference { path: path.into(), reason }
}

fn key_of(example: &Encoded) -> SampleKey {
    let mut hash = Sha256::new();
    hash.update((example.ids.len() as u64).to_le_bytes());
    hash.update(example.ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    hash.update(example.loss_mask.iter().map(|&counts| u8::from(counts)).collect::<Vec<u8>>());
    hash.finalize().into()
}

fn fingerprint(decoder: &Decoder) -> Result<String> {
    let mut hash = Sha256::new();
    hash_weights(decoder, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::trainer::tests::{decoder, sample, samples, wide_decoder};
    use crate::{SoftSftSettings, TrainSettings, soft_sft};

    fn computed(examples: &[Encoded], max_len: usize) -> ReferenceLogProbs {
        ReferenceLogProbs::new(&wide_decoder(), examples, max_len, &mut |_, _| {}).unwrap()
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
        computed(&samples(), 512).write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = ReferenceLogProbs::read(std::slice::from_ref(&path), &wide_decoder()).unwrap_err().to_string();
            assert!(error.contains("reference: damaged"), "{error}");
        }
        // Lengths that promise more, or fewer, values than there are.
        let values = computed(&samples(), 512);
        for wrong in [u64::MAX, 0] {
            let mut bytes = bytes.clone();
            let length = (values.values.values().next().unwrap().len() as u64).to_le_bytes();
            let at = bytes.windows(8).rposition(|window| window == length).unwrap();
            bytes[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
            assert!(parse(&bytes).unwrap_err().contains("values"));
        }
    }

    #[test]
    fn a_sample_that_is_trained_on_needs_its_values_and_one_that_is_too_long_does_not() {
        let (all, soft) = (samples(), SoftSftSettings::default());
        let settings = TrainSettings { max_len: 7, ..TrainSettings::default() };
        let run = |examples: &[Encoded], references: &ReferenceLogProbs| {
            soft_sft(wide_decoder(), examples, (&settings, &soft), references, None, &mut |_| {})
        };
        let references = computed(&all, settings.max_len);
        assert_eq!(all.len() - references.len(), run(&all, &references).unwrap().dropped);
        let error = run(&all, &computed(&all[..1], 512)).unwrap_err().to_string();
        assert!(error.contains("sample 1 ") && error.contains("aligned model"), "{error}");
    }
}
