//! What both sides read: models, token ids, settings.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use burn::tensor::{Device, TensorData};
use model::weights::{self, WeightInfo};
use model::{Decoder, DecoderConfig, Dtype, checkpoint};
use prompts::{Encoded, Sample, Tokenizer, read_jsonl_first};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use realign::stage::{Import, MODEL};
use realign::{Artifact, Job, Progress, Stage as _};
use serde::{Deserialize, Serialize};

use crate::Args;

/// Prompts of a recovery step, a direction and a batch of answers.
const PROMPTS: usize = 64;
/// Samples of a LoRA step.
const SAMPLES: usize = 8;

/// What both sides do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Directory of the aligned model.
    pub aligned: PathBuf,
    /// Directory of the fine-tuned model.
    pub tuned: PathBuf,
    /// Token ids of the prompts.
    pub rows: Vec<Vec<u32>>,
    /// Token ids of the samples.
    pub samples: Vec<Vec<u32>>,
    /// Where the response of each sample begins.
    pub starts: Vec<usize>,
    /// Lengths of the tensors that are selected from: the projections of all blocks.
    pub sizes: Vec<usize>,
    /// Bytes of a weight.
    pub weight_bytes: usize,
    /// Blocks of the model.
    pub blocks: usize,
    /// Direction layer, from 1.
    pub layer: usize,
    /// Prompts per batch of the cosine loss.
    pub batch: usize,
    /// Share of the hidden layers' weights restored per step.
    pub rate: f64,
    /// Length of an answer.
    pub new_tokens: usize,
    /// Threads of either side.
    pub threads: usize,
    /// Turns that are counted.
    pub turns: usize,
}

impl Plan {
    /// Makes the models where they are missing, and writes the plan; returns its path.
    pub fn make(args: &Args) -> Result<PathBuf> {
        let Args { gguf, prompts, samples, work, .. } = args;
        let imported = work.join("imported");
        let (mut aligned, mut tuned) = (imported.join(MODEL), work.join("tuned"));
        if !aligned.join("config.json").exists() {
            ensure!(gguf.exists(), "{} is missing: run scripts/fetch-smollm2.sh", gguf.display());
            import(gguf, &imported).with_context(|| format!("{} could not be imported", gguf.display()))?;
        }
        let tokenizer = Tokenizer::from_dirs(&[&aligned])?;
        let mut dtype = Dtype::F32;
        if let Some(shape) = &args.shape {
            let name = shape.file_stem().context("--shape names no file")?;
            (aligned, tuned, dtype) = (work.join(name).join("aligned"), work.join(name).join("tuned"), Dtype::Bf16);
            let json = files::json_value(&std::fs::read(shape).with_context(|| shape.display().to_string())?)?;
            let config = DecoderConfig::from_json(&json, shape)?;
            if !aligned.join("config.json").exists() {
                checkpoint::save_as(&drawn(&config), dtype, checkpoint::MAX_SHARD, &aligned)?;
            }
            let place = aligned.display();
            ensure!(DecoderConfig::from_dir(&aligned)? == config, "{place} is of another shape: remove it");
        }
        let decoder = checkpoint::load(&aligned, &Device::flex())?;
        if !tuned.join("config.json").exists() {
            checkpoint::save_as(&fine_tuned(&decoder)?, dtype, checkpoint::MAX_SHARD, &tuned)?;
        }
        let read = |path: &Path, count| -> Result<Vec<Sample>> {
            let found = read_jsonl_first(path, count)?;
            ensure!(found.len() == count, "{}: {count} lines are needed", path.display());
            Ok(found)
        };
        let encode = |sample: Sample| -> Result<Encoded> {
            Ok(tokenizer.encode_sample(&sample.prompt, sample.response_or_err(samples)?, None)?)
        };
        let encoded = read(samples, SAMPLES)?.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
        let start = |sample: &Encoded| sample.loss_mask.iter().position(|&counts| counts).context("no response");
        let ids = |sample: Sample| -> Result<Vec<u32>> { Ok(tokenizer.encode_prompt(&sample.prompt, None)?) };
        let config = decoder.config();
        let settings = recovery::Recover::default();
        let plan = Self {
            rows: read(prompts, PROMPTS)?.into_iter().map(ids).collect::<Result<_>>()?,
            starts: encoded.iter().map(start).collect::<Result<_>>()?,
            samples: encoded.into_iter().map(|sample| sample.ids).collect(),
            sizes: weights::infos(&decoder)
                .iter()
                .filter(|info| info.layer.is_some() && !info.is_norm)
                .map(|info| info.len())
                .collect(),
            weight_bytes: if dtype == Dtype::Bf16 { 2 } else { 4 },
            blocks: config.num_hidden_layers,
            layer: settings.layer.of_blocks(config.num_hidden_layers),
            batch: settings.batch,
            rate: settings.rate,
            new_tokens: 32,
            threads: std::thread::available_parallelism()?.get(),
            turns: args.turns,
            aligned,
            tuned,
        };
        let path = work.join("plan.json");
        files::write_json(&path, &plan)?;
        Ok(path)
    }
}

/// As `realign import`.
fn import(gguf: &Path, out: &Path) -> Result<()> {
    let source = Artifact::model(gguf, &files::Hashes::default())?;
    let device = Device::flex();
    let mut report = |_: Progress<'_>| ControlFlow::Continue(());
    let mut job = Job { device: &device, batch: 1, max_shard: None, earlier: Vec::new(), report: &mut report };
    Import { source, base: None, dtype: None }.run(out, &mut job)?;
    Ok(())
}

/// Random weights, as a model has them before training.
fn drawn(config: &DecoderConfig) -> Decoder {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    weights::replace(Decoder::zeros(config, &Device::flex()), |info| {
        let draw = |_| 0.035 * random.random_range(-1.0f32..1.0); // a standard deviation of 0.02
        (!info.is_norm).then(|| TensorData::new((0..info.len()).map(draw).collect::<Vec<_>>(), info.shape.clone()))
    })
}

/// Every projection moved by up to a hundredth of its typical weight, as a fine-tuning would.
fn fine_tuned(decoder: &Decoder) -> Result<Decoder> {
    let moved = |info: &WeightInfo| info.layer.is_some() && !info.is_norm;
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let mut values = weights::read(decoder, moved)?.into_iter().map(|(_, mut values)| {
        let typical = values.iter().map(|value| value.abs()).sum::<f32>() / values.len() as f32;
        values.iter_mut().for_each(|value| *value += 0.01 * typical * random.random_range(-1.0f32..1.0));
        values
    });
    Ok(weights::replace(decoder.clone(), |info| {
        moved(info).then(|| values.next()).flatten().map(|values| TensorData::new(values, info.shape.clone()))
    }))
}
