//! A model directory in memory: decoder and tokenizer.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use model::checkpoint::{self, peft};
use model::{Decoder, Dtype, weights};
use prompts::{Encoded, Sample, Tokenizer};

use crate::Compute;

/// A decoder with its tokenizer.
#[derive(Debug)]
pub struct Loaded {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
}

impl Loaded {
    /// Reads a Hugging Face directory, its weights as they are.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path, device: &Device) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir).with_context(|| format!("tokenizer of {}", dir.display()))?;
        let decoder = checkpoint::load(dir, device).with_context(|| format!("weights of {}", dir.display()))?;
        Ok(Self { decoder, tokenizer })
    }

    /// Reads a Hugging Face directory, its weights rounded to `dtype`.
    ///
    /// # Errors
    /// When a file is missing or damaged, or a weight is too large for `dtype`.
    pub fn open_as(dir: &Path, dtype: Dtype, device: &Device) -> Result<Self> {
        let model = Self::open(dir, device)?;
        let decoder = weights::round(model.decoder, dtype).with_context(|| format!("weights of {}", dir.display()))?;
        Ok(Self { decoder, ..model })
    }

    /// Reads a model that was fine-tuned from the one in `base`: a Hugging Face directory of its own, or an
    /// adapter of peft, which is merged into `base`'s weights. The merged ones are rounded to `dtype`, too.
    ///
    /// # Errors
    /// When a file is missing or damaged, a weight is too large for `dtype`, or the adapter does not fit.
    pub fn open_fine_tuned(dir: &Path, base: &Path, dtype: Dtype, device: &Device) -> Result<Self> {
        if !peft::is_adapter(dir) {
            return Self::open_as(dir, dtype, device);
        }
        let mut model = Self::open_as(base, dtype, device)?;
        let adapter = || format!("adapter {} on {}", dir.display(), base.display());
        peft::load_adapter(&mut model.decoder, dir).with_context(adapter)?;
        let decoder = weights::round(finetune::lora::merge(model.decoder), dtype).with_context(adapter)?;
        Ok(Self { decoder, ..model })
    }

    /// Writes `decoder` in `dtype` as a Hugging Face directory with the companions of `source`.
    ///
    /// # Errors
    /// When a weight is too large for `dtype`, or a file cannot be written.
    pub fn save(decoder: &Decoder, dtype: Dtype, source: &Path, dir: &Path) -> Result<()> {
        checkpoint::save_as(decoder, dtype, dir)?;
        checkpoint::copy_companions(source, dir)?;
        Ok(())
    }
}

/// The directory that tells a fine-tuned model's tokenizer, precision and shape: its own, or that of the `base` whose
/// adapter it is.
pub fn home_of_fine_tuned<'a>(dir: &'a Path, base: &'a Path) -> &'a Path {
    if peft::is_adapter(dir) { base } else { dir }
}

/// A model directory that is read when it is first needed.
#[derive(Debug)]
pub struct ModelSource<'a> {
    dir: &'a Path,
    compute: Compute<'a>,
    loaded: Option<Loaded>,
}

impl<'a> ModelSource<'a> {
    /// The directory `dir`, not read yet; without a precision its weights will be as they are.
    pub fn new(dir: &'a Path, compute: impl Into<Compute<'a>>) -> Self {
        Self { dir, compute: compute.into(), loaded: None }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir
    }

    /// What decides the model's answers besides its directory, in words.
    pub fn compute_in_words(&self) -> String {
        let device = format!("{:?}", self.compute.device);
        match self.compute.dtype {
            // Rounding to f32 changes nothing.
            None | Some(Dtype::F32) => device,
            Some(dtype) => format!("{device}, weights in {}", dtype.name()),
        }
    }

    /// The model, read now or before.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(&mut self) -> Result<&Loaded> {
        match &mut self.loaded {
            Some(loaded) => Ok(loaded),
            none => Ok(none.insert(open(self.dir, self.compute)?)),
        }
    }

    /// The model itself.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn into_loaded(self) -> Result<Loaded> {
        self.loaded.map_or_else(|| open(self.dir, self.compute), Ok)
    }
}

fn open(dir: &Path, compute: Compute<'_>) -> Result<Loaded> {
    Loaded::open_as(dir, compute.dtype.unwrap_or(Dtype::F32), compute.device)
}

/// The ids of each prompt in the model's template, ready for an answer.
///
/// # Errors
/// When the template fails.
pub fn encode_prompts(tokenizer: &Tokenizer, samples: &[Sample]) -> Result<Vec<Vec<u32>>> {
    samples.iter().map(|sample| Ok(tokenizer.encode_prompt(&sample.prompt, None)?)).collect()
}

/// The ids and loss mask of each sample; `source` is named where a response is missing.
///
/// # Errors
/// When a sample has no response, or the template fails.
pub fn encode_samples(tokenizer: &Tokenizer, samples: &[Sample], source: &Path) -> Result<Vec<Encoded>> {
    let encode = |sample: &Sample| -> Result<Encoded> {
        Ok(tokenizer.encode_sample(&sample.prompt, sample.response_or_err(source)?, None)?)
    };
    samples.iter().map(encode).collect()
}
