//! A model in memory: decoder, tokenizer and chat template; how it is read and written.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::checkpoint::{self, Contents, peft};
use model::{Decoder, Dtype, weights};
use prompts::{Encoded, Sample, Tokenizer};
use serde_json::Value;

use crate::error::{Within as _, invalid};
use crate::{Artifact, Error, Result};

/// A decoder with its tokenizer.
#[derive(Debug, Clone)]
pub struct Model {
    /// The decoder.
    pub decoder: Decoder,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
}

/// Where a model is: a directory of its own, or a peft adapter on a base.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Where a file of the model is looked for: the adapter's directory before the base's.
    pub dirs: Vec<&'a Path>,
}

impl<'a> Source<'a> {
    /// Decides what `dir` is; each command that reads a model asks here. A directory with a whole model and an adapter is
    /// an adapter, as for transformers where peft is installed.
    ///
    /// # Errors
    /// When it is an adapter and there is no base, or a file.
    pub fn new(dir: &'a Path, base: Option<&'a Path>) -> Result<Self> {
        [Some(dir), base].into_iter().flatten().try_for_each(check_directory)?;
        let (shown, contents) = (dir.display(), checkpoint::contents(dir));
        let whole = match contents {
            Contents::Model | Contents::Neither => return Ok(Self { dirs: vec![dir] }),
            Contents::Adapter => "",
            Contents::Both => " beside a whole model",
        };
        let Some(base) = base else {
            let or = if whole.is_empty() { "" } else { ", or remove its adapter_config.json to read the whole model" };
            return invalid(format!(
                "{shown} is an adapter of peft{whole}: name the model that it was trained on{} with --base, or merge it first \
                 with `realign import --from {shown} --base MODEL --out MERGED`{or}",
                base_name(dir).map_or(String::new(), |name| format!(" (`{name}`)"))
            ));
        };
        if contents == Contents::Both {
            tracing::warn!(
                "{shown} holds an adapter beside a whole model; as by transformers with peft, the adapter is read, on {}; \
                 remove its adapter_config.json to read the whole model",
                base.display()
            );
        }
        Ok(Self { dirs: vec![dir, base] })
    }

    /// The directory of the whole model.
    #[must_use]
    pub fn home(&self) -> &'a Path {
        self.dirs[self.dirs.len() - 1]
    }

    /// The precision of what is made of the model: the one that is asked for, else the model's own.
    ///
    /// # Errors
    /// When none is asked for and the model's files are missing or damaged.
    pub fn dtype(&self, asked: Option<Dtype>) -> Result<Dtype> {
        match asked {
            Some(dtype) => Ok(dtype),
            None => checkpoint::stored_dtype(self.home()).within(|| format!("weights of {}", self.home().display())),
        }
    }

    /// Reads the model, its weights rounded to `dtype`, or as they are; an adapter is merged and what it makes rounded.
    ///
    /// # Errors
    /// When a file is missing or damaged, a weight is too large for `dtype`, or the adapter does not fit.
    pub fn open(&self, dtype: Option<Dtype>, device: &Device) -> Result<Model> {
        let dir = self.dirs[0];
        let tokenizer = Tokenizer::from_dirs(&self.dirs).within(|| format!("tokenizer of {}", dir.display()))?;
        if !tokenizer.heads_answers().unwrap_or(true) {
            tracing::warn!(
                "the chat template of {} writes no head of the answer with add_generation_prompt: the model goes on with \
                 nobody's turn",
                dir.display()
            );
        }
        Ok(Model { decoder: self.decoder(dtype, device)?, tokenizer })
    }

    /// The weights alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn decoder(&self, dtype: Option<Dtype>, device: &Device) -> Result<Decoder> {
        let (dir, home) = (self.dirs[0], self.home());
        let weights = || format!("weights of {}", home.display());
        let mut decoder = checkpoint::load(home, device).within(weights)?;
        if let Some(dtype) = dtype {
            decoder = weights::round(decoder, dtype).within(weights)?;
        }
        if self.dirs.len() > 1 {
            self.check_base();
            let adapter = || format!("adapter {} on {}", dir.display(), home.display());
            peft::load_adapter(&mut decoder, dir).within(adapter)?;
            decoder = weights::round(finetune::lora::merge(decoder), self.dtype(dtype)?).within(adapter)?;
        }
        Ok(decoder)
    }

    /// Warns when an adapter names another base than the one it is put on.
    fn check_base(&self) {
        let Some(name) = base_name(self.dirs[0]) else { return };
        let home = self.home();
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase());
        let is_path_of = |part: &str| {
            let part = part.trim_start_matches("models--").rsplit("--").next().unwrap_or(part).to_lowercase();
            Some(part) == last(Path::new(&name))
        };
        let home_is = std::fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
        let config: Value = files::read_json(&home.join("config.json")).unwrap_or_default();
        let is_same = config["_name_or_path"] == name.as_str()
            || std::fs::canonicalize(&name).is_ok_and(|path| path == home_is)
            || home_is.components().any(|part| is_path_of(&part.as_os_str().to_string_lossy()));
        if !is_same {
            tracing::warn!(
                "the adapter {} was trained on `{name}` and is put on {}: check that it is the same model",
                self.dirs[0].display(),
                home.display()
            );
        }
    }
}

/// Checks that a model is not a file, which GGUF is.
fn check_directory(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let shown = path.display();
    match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
        true => invalid(format!(
            "{shown} is a GGUF file: make a directory of it with `realign import --from {shown} --out MODEL`, and name that"
        )),
        false => invalid(format!("{shown} is a file: name the directory of a model")),
    }
}

/// The model that an adapter says it was trained on.
fn base_name(adapter: &Path) -> Option<String> {
    let config: Value = files::read_json(&adapter.join("adapter_config.json")).ok()?;
    config["base_model_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

impl Model {
    /// Reads a Hugging Face directory, its weights rounded to `dtype`, or as they are.
    ///
    /// # Errors
    /// As [`Source::open`], and when it is an adapter.
    pub fn open(dir: &Path, dtype: Option<Dtype>, device: &Device) -> Result<Self> {
        Source::new(dir, None)?.open(dtype, device)
    }

    /// The ids of each prompt in the model's template, ready for an answer.
    ///
    /// # Errors
    /// When the template fails, or a prompt is longer than the model's positions.
    pub fn encode_prompts(&self, samples: &[Sample]) -> Result<Vec<Vec<u32>>> {
        let limit = self.decoder.config().max_position_embeddings;
        let encode = |(index, sample): (usize, &Sample)| {
            let ids = self.tokenizer.encode_prompt(&sample.prompt, None)?;
            match ids.len() > limit {
                true => Err(Error::too_long(
                    sample,
                    model::Error::TooLong { index, tokens: ids.len(), new_tokens: 0, limit },
                )),
                false => Ok(ids),
            }
        };
        samples.iter().enumerate().map(encode).collect()
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

/// Writes `decoder` in `dtype` as a Hugging Face directory with the companions of `source`; a file has `max_shard` bytes of
/// weights at most.
///
/// # Errors
/// When a weight is too large for `dtype`, or a file cannot be written.
pub fn save(decoder: &Decoder, dtype: Dtype, source: &Source<'_>, max_shard: u64, dir: &Path) -> Result<()> {
    checkpoint::save_as(decoder, dtype, max_shard, dir)?;
    Ok(checkpoint::copy_companions_of(&source.dirs, dir)?)
}

/// A model that is read when it is first needed.
#[derive(Debug)]
pub struct LazyModel<'a> {
    path: PathBuf,
    key: String,
    base: Option<PathBuf>,
    thinking: Option<bool>,
    dtype: Option<Dtype>,
    device: &'a Device,
    model: Option<Model>,
}

impl<'a> LazyModel<'a> {
    /// A model that is not read yet; without a precision its weights will be as they are.
    #[must_use]
    pub fn new(artifact: &Artifact, dtype: Option<Dtype>, device: &'a Device) -> Self {
        let (path, key) = (artifact.path.clone(), artifact.key.clone());
        Self { path, key, base: None, thinking: None, dtype, device, model: None }
    }

    /// With the model that it is an adapter on, if it is one.
    #[must_use]
    pub fn on(mut self, base: Option<&Artifact>) -> Self {
        if let Some(base) = base {
            self.key += &format!(" on {}", base.key);
            self.base = Some(base.path.clone());
        }
        self
    }

    /// With the model itself, which was read from the same place.
    #[must_use]
    pub(crate) fn opened(mut self, model: Model) -> Self {
        self.model = Some(model);
        self
    }

    /// With what its template sees as `enable_thinking`.
    #[must_use]
    pub fn thinking(mut self, thinking: Option<bool>) -> Self {
        self.thinking = thinking;
        self
    }

    /// What decides the model's answers, but for the prompts and their settings.
    #[must_use]
    pub fn identity(&self) -> String {
        let dtype = self.dtype.filter(|&dtype| dtype != Dtype::F32); // rounding to f32 changes nothing
        let thinking = self.thinking.map_or(String::new(), |thinking| format!(", enable_thinking {thinking}"));
        format!("{} on {:?}, {}{thinking}", self.key, self.device, dtype.map_or("as it is", Dtype::name))
    }

    /// The model, read now or before.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(&mut self) -> Result<&Model> {
        let model = match self.model.take() {
            Some(model) => model,
            None => self.open()?,
        };
        Ok(self.model.insert(model))
    }

    /// The model itself.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn into_model(self) -> Result<Model> {
        match self.model {
            Some(model) => Ok(model),
            None => self.open(),
        }
    }

    fn open(&self) -> Result<Model> {
        let mut model = Source::new(&self.path, self.base.as_deref())?.open(self.dtype, self.device)?;
        model.tokenizer = model.tokenizer.with_thinking(self.thinking);
        Ok(model)
    }
}
