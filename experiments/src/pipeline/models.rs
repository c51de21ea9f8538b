//! The models that a sweep starts from (METHOD.md section 1).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use realign::stage::{Align, Import, MODEL, Pretrain};
use realign::{Artifact, Pick};

use super::{At, Builder, DTYPE};
use crate::config::{ModelSpec, PromptSet, Source};

impl Builder<'_> {
    /// 1. The aligned model of a seed: imported or trained from nothing, then aligned where it must be.
    pub(super) fn aligned(&mut self, model: &ModelSpec, seed: u64) -> Result<usize> {
        let imported = self.source(&model.name, &model.source, seed)?;
        let Some(align) = &model.align else { return Ok(imported) };
        let set = |set: &PromptSet| self.samples(self.sweep.prompts_of(set));
        let stage = Align {
            model: self.artifact(imported, MODEL),
            refusals: set(&align.refusals)?,
            refusal_texts: align.refusal_texts.clone(),
            helpful: align.helpful.iter().map(set).collect::<Result<_>>()?,
            helpful_max_new_tokens: align.helpful_max_new_tokens,
            settings: align.settings.clone(),
            seed,
            dtype: DTYPE,
        };
        self.add(model.name.clone(), stage, &[imported])
    }

    pub(super) fn source(&mut self, name: &str, source: &Source, seed: u64) -> Result<usize> {
        let sweep = self.sweep;
        let import =
            |path: PathBuf| Ok(Import { source: Artifact::model(&path, &self.hashes)?, base: None, dtype: DTYPE });
        let stage = match source {
            Source::Pretrain(pretrain) => {
                let training = &pretrain.training;
                let vocabulary = prompts::Tokenizer::from_dir(&sweep.data_file(&training.tokenizer))?.vocab_size();
                let stage = Pretrain {
                    config: pretrain.config.decoder(Some(vocabulary))?,
                    tokenizer: Artifact::model(&sweep.data_file(&training.tokenizer), &self.hashes)?,
                    corpus: self.samples((sweep.data_file(&training.corpus), Pick::answered()))?,
                    initializer_range: training.initializer_range,
                    settings: training.train.clone(),
                    seed,
                };
                return self.add(name.to_owned(), stage, &[]);
            }
            Source::Dir(dir) => import(sweep.root_file(dir)),
            Source::Gguf(gguf) => import(sweep.root_file(&gguf.file)),
            Source::Hub(hub) => import(sweep.root_file(&hub.dir)).with_context(|| {
                format!("the weights of {} must be there; get them with {}", hub.id, hub.how_to_get())
            }),
        };
        self.add(name.to_owned(), stage?, &[])
    }

    /// The model before alignment.
    pub(super) fn base(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        match (&at.cell.model.base, &at.cell.model.align) {
            (Some(source), _) => self.source(&at.cell.model.name, source, self.sweep.model_seed(at.seed)),
            (None, Some(_)) => Ok(self.graph.nodes[aligned].parents[0]),
            (None, None) => anyhow::bail!("models: {} needs `base`, the model before alignment", at.cell.model.name),
        }
    }
}
