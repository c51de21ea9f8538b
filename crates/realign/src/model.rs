//! A model in memory: decoder, tokenizer and chat template; how it is read and written.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::checkpoint::{self, peft};
use model::{Decoder, Dtype, weights};
use prompts::{Encoded, Sample, Tokenizer};

use crate::error::Within as _;
use crate::{Artifact, Result};

/// A decoder with its tokenizer.
#[derive(Debug)]
pub struct Model {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
}

impl Model {
    /// Reads a Hugging Face directory, its weights rounded to `dtype`, or as they are.
    ///
    /// # Errors
    /// When a file is missing or damaged, or a weight is too large for `dtype`.
    pub fn open(dir: &Path, dtype: Option<Dtype>, device: &Device) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir).within(|| format!("tokenizer of {}", dir.display()))?;
        let weights = || format!("weights of {}", dir.display());
        let decoder = checkpoint::load(dir, device).within(weights)?;
        let decoder = match dtype {
            Some(dtype) => weights::round(decoder, dtype).within(weights)?,
            None => decoder,
        };
        Ok(Self { decoder, tokenizer })
    }

    /// Reads a model that was fine-tuned from the one in `base`: a Hugging Face directory of its own, or an
    /// adapter of peft, which is merged into `base`'s weights. The merged ones are rounded to `dtype`, too.
    ///
    /// # Errors
    /// When a file is missing or damaged, a weight is too large for `dtype`, or the adapter does not fit.
    pub fn open_fine_tuned(dir: &Path, base: &Path, dtype: Dtype, device: &Device) -> Result<Self> {
        if !peft::is_adapter(dir) {
            return Self::open(dir, Some(dtype), device);
        }
        let mut model = Self::open(base, Some(dtype), device)?;
        let adapter = || format!("adapter {} on {}", dir.display(), base.display());
        peft::load_adapter(&mut model.decoder, dir).within(adapter)?;
        let decoder = weights::round(finetune::lora::merge(model.decoder), dtype).within(adapter)?;
        Ok(Self { decoder, ..model })
    }

    /// The ids of each prompt in the model's template, ready for an answer.
    ///
    /// # Errors
    /// When the template fails.
    pub fn encode_prompts(&self, samples: &[Sample]) -> Result<Vec<Vec<u32>>> {
        samples.iter().map(|sample| Ok(self.tokenizer.encode_prompt(&sample.prompt, None)?)).collect()
    }

    /// The ids and loss mask of each sample; `source` is named where a response is missing.
    ///
    /// # Errors
    /// When a sample has no response, or the template fails.
    pub fn encode_samples(&self, samples: &[Sample], source: &Path) -> Result<Vec<Encoded>> {
        encode_samples(&self.tokenizer, samples, source)
    }
}

/// As [`Model::encode_samples`], by a tokenizer alone.
///
/// # Errors
/// When a sample has no response, or the template fails.
pub fn encode_samples(tokenizer: &Tokenizer, samples: &[Sample], source: &Path) -> Result<Vec<Encoded>> {
    let encode = |sample: &Sample| -> Result<Encoded> {
        Ok(tokenizer.encode_sample(&sample.prompt, sample.response_or_err(source)?, None)?)
    };
    samples.iter().map(encode).collect()
}

/// Writes `decoder` in `dtype` as a Hugging Face directory with the companions of `source`.
///
/// # Errors
/// When a weight is too large for `dtype`, or a file cannot be written.
pub fn save(decoder: &Decoder, dtype: Dtype, source: &Path, dir: &Path) -> Result<()> {
    checkpoint::save_as(decoder, dtype, dir)?;
    Ok(checkpoint::copy_companions(source, dir)?)
}

/// The directory that tells a fine-tuned model's tokenizer, precision and shape: its own, or that of the `base` whose
/// adapter it is.
#[must_use]
pub fn home_of_fine_tuned<'a>(dir: &'a Path, base: &'a Path) -> &'a Path {
    if peft::is_adapter(dir) { base } else { dir }
}

/// The precision of what is made from the model in `dir`: the one that is asked for, else the model's own.
///
/// # Errors
/// When none is asked for and the model's files are missing or damaged.
pub fn dtype_for(asked: Option<Dtype>, dir: &Path) -> Result<Dtype> {
    match asked {
        Some(dtype) => Ok(dtype),
        None => checkpoint::stored_dtype(dir).within(|| format!("weights of {}", dir.display())),
    }
}

/// A model that is read when it is first needed.
#[derive(Debug)]
pub struct LazyModel<'a> {
    path: PathBuf,
    key: String,
    dtype: Option<Dtype>,
    device: &'a Device,
    model: Option<Model>,
}

impl<'a> LazyModel<'a> {
    /// A model that is not read yet; without a precision its weights will be as they are.
    #[must_use]
    pub fn new(artifact: &Artifact, dtype: Option<Dtype>, device: &'a Device) -> Self {
        Self { path: artifact.path.clone(), key: artifact.key.clone(), dtype, device, model: None }
    }

    /// What decides the model's answers, but for the prompts and their settings.
    #[must_use]
    pub fn identity(&self) -> String {
        let dtype = self.dtype.filter(|&dtype| dtype != Dtype::F32); // rounding to f32 changes nothing
        format!("{} on {:?}, {}", self.key, self.device, dtype.map_or("as it is", Dtype::name))
    }

    /// The model, read now or before.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(&mut self) -> Result<&Model> {
        match &mut self.model {
            Some(model) => Ok(model),
            none => Ok(none.insert(Model::open(&self.path, self.dtype, self.device)?)),
        }
    }

    /// The model itself.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn into_model(self) -> Result<Model> {
        self.model.map_or_else(|| Model::open(&self.path, self.dtype, self.device), Ok)
    }
}
