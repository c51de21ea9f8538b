//! A model in memory: decoder, tokenizer and chat template; how it is read and written.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::checkpoint::{self, Contents, peft};
use model::{Decoder, DecoderConfig, Dtype, weights};
use prompts::{ChatTemplate, Encoded, Sample, Tokenizer};

use crate::error::{Within as _, invalid};
use crate::reader::Reader;
pub use crate::reader::encode_samples;
use crate::{Artifact, Result, notes};

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
    /// When it is an adapter and there is no base, a file, or not there.
    pub fn new(dir: &'a Path, base: Option<&'a Path>) -> Result<Self> {
        Self::of(dir, base, false)
    }

    /// The same for a command that takes the base as `--base`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_base(dir: &'a Path, base: Option<&'a Path>) -> Result<Self> {
        Self::of(dir, base, true)
    }

    fn of(dir: &'a Path, base: Option<&'a Path>, takes_base: bool) -> Result<Self> {
        [Some(dir), base].into_iter().flatten().try_for_each(check_directory)?;
        let (shown, contents) = (dir.display(), checkpoint::contents(dir));
        let whole = match contents {
            Contents::Neither => return check_below(dir).map(|()| Self { dirs: vec![dir] }),
            Contents::Model => return Ok(Self { dirs: vec![dir] }),
            Contents::Adapter => "",
            Contents::Both => " beside a whole model",
        };
        let Some(base) = base else {
            let or = if whole.is_empty() { "" } else { ", or remove its adapter_config.json to read the whole model" };
            let name = notes::base_name(dir).map_or(String::new(), |name| format!(" (`{name}`)"));
            let merge = format!("`realign import --from {} --base MODEL --out MERGED`", files::shell_word(dir));
            return invalid(match takes_base {
                true => format!(
                    "{shown} is an adapter of peft{whole}: name the model that it was trained on{name} with --base, or merge it \
                     first with {merge}{or}"
                ),
                false => format!(
                    "{shown} is an adapter of peft{whole}, and a whole model is needed here: merge it first with {merge}, where \
                     MODEL is the one that it was trained on{name}, and name MERGED{or}"
                ),
            });
        };
        Ok(Self { dirs: vec![dir, base] })
    }

    /// Whether it is an adapter on a base.
    #[must_use]
    pub fn is_adapter(&self) -> bool {
        self.dirs.len() > 1
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

    /// Reads tokenizer and configuration, and checks an adapter's shapes: all but the weights.
    ///
    /// # Errors
    /// Names what is missing or damaged, or does not fit.
    pub(crate) fn without_weights(&self) -> Result<(Tokenizer, DecoderConfig)> {
        let dir = self.dirs[0];
        if self.is_adapter() {
            let adapter = || format!("adapter {} on {}", dir.display(), self.home().display());
            peft::check_adapter(dir, self.home()).within(adapter)?;
        }
        let tokenizer = Tokenizer::from_dirs(&self.dirs).within(|| format!("tokenizer of {}", dir.display()))?;
        Ok((tokenizer, DecoderConfig::from_dir(self.home())?))
    }

    /// The number of parameters in those tensors outside the blocks that are not the ones of a whole model, both rounded to `dtype`.
    pub(crate) fn differing_outside_blocks(&self, other: &Path, dtype: Dtype) -> Result<usize> {
        let dir = self.dirs[0];
        let differing = match self.is_adapter() {
            true => peft::changed_outside_blocks(dir, self.home()),
            false => checkpoint::differing_outside_blocks(dir, other, dtype),
        };
        differing.within(|| format!("weights of {}", dir.display()))
    }

    /// Checks what is there without the weights, and the heads of these, before hours of other work.
    ///
    /// # Errors
    /// Names what is missing or damaged.
    pub fn check(&self) -> Result<()> {
        self.without_weights()?;
        self.dtype(None).map(drop)
    }

    /// Reads the model, its weights rounded to `dtype`, or as they are; an adapter is merged and what it makes rounded.
    ///
    /// # Errors
    /// When a file is missing or damaged, a weight is too large for `dtype`, or the adapter does not fit.
    pub fn open(&self, dtype: Option<Dtype>, device: &Device) -> Result<Model> {
        let dir = self.dirs[0];
        let tokenizer = Tokenizer::from_dirs(&self.dirs).within(|| format!("tokenizer of {}", dir.display()))?;
        notes::on_text(&self.dirs, &tokenizer).iter().for_each(|note| tracing::warn!("{note}"));
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
        if self.is_adapter() {
            notes::on_adapter(&self.dirs).iter().for_each(|note| tracing::warn!("{note}"));
            let adapter = || format!("adapter {} on {}", dir.display(), home.display());
            peft::load_adapter(&mut decoder, dir).within(adapter)?;
            decoder = weights::round(finetune::lora::merge(decoder), self.dtype(dtype)?).within(adapter)?;
        }
        Ok(decoder)
    }
}

/// Checks that a model is there and not a file, which GGUF is.
fn check_directory(path: &Path) -> Result<()> {
    let shown = path.display();
    let ends_with = |end: &str| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(end));
    match path.is_file() {
        false if path.exists() => Ok(()),
        false => invalid(format!("{shown}: there is no such directory; name that of a model")),
        true if ends_with("gguf") => invalid(format!(
            "{shown} is a GGUF file: make a directory of it with `realign import --from {} --out MODEL`, and name that",
            files::shell_word(path)
        )),
        true => invalid(format!("{shown} is a file: name the directory of a model")),
    }
}

/// Checks of a directory without a model that none is in a directory of it, where trainings put theirs.
fn check_below(dir: &Path) -> Result<()> {
    if dir.join("config.json").exists() {
        return Ok(()); // it is one that lacks a file
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut below: Vec<PathBuf> = entries.filter(|path| checkpoint::contents(path) != Contents::Neither).collect();
    below.sort();
    let shown: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
    match shown.is_empty() {
        true => Ok(()),
        false => {
            invalid(format!("{} holds no model itself; name a directory in it: {}", dir.display(), shown.join(", ")))
        }
    }
}

impl Model {
    /// Reads a Hugging Face directory, its weights rounded to `dtype`, or as they are.
    ///
    /// # Errors
    /// As [`Source::open`], and when it is an adapter.
    pub fn open(dir: &Path, dtype: Option<Dtype>, device: &Device) -> Result<Self> {
        Source::new(dir, None)?.open(dtype, device)
    }

    /// What reads its prompts.
    pub(crate) fn reader(&self) -> Reader<'_> {
        let config = self.decoder.config();
        Reader { tokenizer: &self.tokenizer, limit: config.max_position_embeddings, vocabulary: config.vocab_size }
    }

    /// The ids of each prompt in the model's template, ready for an answer.
    ///
    /// # Errors
    /// When the template fails, a prompt is longer than the model's positions, or an id is not the model's.
    pub fn encode_prompts(&self, samples: &[Sample]) -> Result<Vec<Vec<u32>>> {
        let reader = self.reader();
        samples.iter().enumerate().map(|(index, sample)| reader.prompt(index, sample, 0)).collect()
    }

    /// The ids and loss mask of each sample; `source` is named where a response is missing.
    ///
    /// # Errors
    /// When a sample has no response, the template fails, or an id is not the model's.
    pub fn encode_samples(&self, samples: &[Sample], source: &Path) -> Result<Vec<Encoded>> {
        let encoded = encode_samples(&self.tokenizer, samples, source)?;
        self.check_ids(&encoded)?;
        Ok(encoded)
    }

    /// Checks samples before a training on those of `max_len` tokens at most: that the model knows their ids and has so many
    /// positions.
    ///
    /// # Errors
    /// Says what does not fit and what to do.
    pub(crate) fn check_examples(&self, encoded: &[Encoded], max_len: usize) -> Result<()> {
        self.check_ids(encoded)?;
        let limit = self.decoder.config().max_position_embeddings;
        let longest = encoded.iter().map(|one| one.ids.len()).filter(|&tokens| tokens <= max_len).max().unwrap_or(0);
        match longest > limit {
            true => invalid(format!(
                "a sample of {longest} tokens is longer than the model's {limit} positions (max_position_embeddings): lower \
                 max_len (--max-len) to {limit}, which leaves out what is longer"
            )),
            false => Ok(()),
        }
    }

    /// Checks that the model knows all ids.
    ///
    /// # Errors
    /// Names the first that it does not, and the tokenizer.
    pub(crate) fn check_ids(&self, encoded: &[Encoded]) -> Result<()> {
        let reader = self.reader();
        encoded.iter().try_for_each(|one| reader.check_ids(&one.ids))
    }
}

/// Writes `decoder` as a Hugging Face directory with the companions of `source`; precisions and files that are not asked for
/// are those of `source`.
///
/// # Errors
/// When a weight is too large for the precision, or a file cannot be written.
pub fn save(
    decoder: &Decoder,
    dtype: Option<Dtype>,
    source: &Source<'_>,
    max_shard: Option<u64>,
    dir: &Path,
) -> Result<()> {
    checkpoint::save_like(decoder, source.home(), dtype, max_shard, dir)?;
    Ok(checkpoint::copy_companions_of(&source.dirs, dir)?)
}

/// A model that is read when it is first needed.
#[derive(Debug)]
pub struct LazyModel<'a> {
    path: PathBuf,
    key: String,
    base: Option<PathBuf>,
    takes_base: bool,
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
        Self { path, key, base: None, takes_base: false, thinking: None, dtype, device, model: None }
    }

    /// With the model that it is an adapter on, if it is one, as `--base` names it.
    #[must_use]
    pub fn on(mut self, base: Option<&Artifact>) -> Self {
        self.takes_base = true;
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
    ///
    /// # Errors
    /// When its template cannot be read, or takes too long.
    pub fn identity(&self) -> Result<String> {
        let dtype = self.dtype.filter(|&dtype| dtype != Dtype::F32); // rounding to f32 changes nothing
        let thinking = self.thinking.map_or(String::new(), |thinking| format!(", enable_thinking {thinking}"));
        let rendered = self.rendered()?;
        Ok(format!("{} on {:?}, {}{thinking}{rendered}", self.key, self.device, dtype.map_or("as it is", Dtype::name)))
    }

    /// What decides the answers besides the model's files: what its template makes of the date, and what it begins an answer
    /// with. Empty for most templates, and where there is none.
    fn rendered(&self) -> Result<String> {
        let read = || {
            let source = self.source().ok()?;
            Some(ChatTemplate::from_dirs(&source.dirs).and_then(|template| template.with_thinking(self.thinking)))
        };
        let template = match &self.model {
            Some(model) => model.tokenizer.template().clone(),
            None => match read() {
                Some(Ok(template)) => template,
                Some(Err(error @ prompts::Error::Template { .. })) => return Err(error.into()),
                Some(Err(_)) | None => return Ok(String::new()),
            },
        };
        let dated = template.dated().ok().flatten();
        let mut text = dated.map_or(String::new(), |text| format!(", rendered {}", files::hash_bytes(text.as_bytes())));
        if !template.opened_thinking().is_empty() {
            text += &format!(", after {:?}", template.opened_thinking());
        }
        Ok(text)
    }

    fn source(&self) -> Result<Source<'_>> {
        Source::of(&self.path, self.base.as_deref(), self.takes_base)
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
        let mut model = self.source()?.open(self.dtype, self.device)?;
        model.tokenizer = model.tokenizer.with_thinking(self.thinking)?;
        Ok(model)
    }
}
