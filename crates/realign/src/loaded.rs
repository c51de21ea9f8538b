//! A model directory in memory: decoder and tokenizer.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use model::Decoder;
use model::checkpoint::{self, peft};
use prompts::{Encoded, Sample, Tokenizer};

/// A decoder with its tokenizer.
#[derive(Debug)]
pub struct Loaded {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
}

impl Loaded {
    /// Reads a Hugging Face directory.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path, device: &Device) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir).with_context(|| format!("tokenizer of {}", dir.display()))?;
        let decoder = checkpoint::load(dir, device).with_context(|| format!("weights of {}", dir.display()))?;
        Ok(Self { decoder, tokenizer })
    }

    /// Reads a model that was fine-tuned from the one in `base`: a Hugging Face directory of its own, or an
    /// adapter of peft, which is merged into `base`'s weights.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the adapter does not fit.
    pub fn open_fine_tuned(dir: &Path, base: &Path, device: &Device) -> Result<Self> {
        if !peft::is_adapter(dir) {
            return Self::open(dir, device);
        }
        let mut model = Self::open(base, device)?;
        let adapter = || format!("adapter {} on {}", dir.display(), base.display());
        peft::load_adapter(&mut model.decoder, dir).with_context(adapter)?;
        Ok(Self { decoder: finetune::lora::merge(model.decoder), ..model })
    }

    /// Writes `decoder` as a Hugging Face directory with the companions of `source`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(decoder: &Decoder, source: &Path, dir: &Path) -> Result<()> {
        checkpoint::save(decoder, dir)?;
        checkpoint::copy_companions(source, dir)?;
        Ok(())
    }
}

/// A model directory that is read when it is first needed.
#[derive(Debug)]
pub struct ModelSource<'a> {
    dir: &'a Path,
    device: &'a Device,
    loaded: Option<Loaded>,
}

impl<'a> ModelSource<'a> {
    /// The directory `dir`, not read yet.
    pub fn new(dir: &'a Path, device: &'a Device) -> Self {
        Self { dir, device, loaded: None }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir
    }

    /// The device that the model is computed on.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// The model, read now or before.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(&mut self) -> Result<&Loaded> {
        match &mut self.loaded {
            Some(loaded) => Ok(loaded),
            none => Ok(none.insert(Loaded::open(self.dir, self.device)?)),
        }
    }

    /// The model itself.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn into_loaded(self) -> Result<Loaded> {
        self.loaded.map_or_else(|| Loaded::open(self.dir, self.device), Ok)
    }
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
