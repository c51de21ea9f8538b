//! Import: a GGUF file or a Hugging Face directory becomes a directory that the other stages read.

use std::path::Path;

use model::Dtype;
use model::checkpoint::{self, gguf};
use prompts::GgufVocab;
use serde::Serialize;

use super::{MODEL, Stage};
use crate::error::invalid;
use crate::model::{Source, save};
use crate::{Artifact, Job, Result};

/// Reads a model and writes a Hugging Face directory; a GGUF file becomes f32 where nothing else is asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Import {
    /// The GGUF file or Hugging Face directory.
    pub source: Artifact,
    /// The model that the source is an adapter on, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Artifact>,
    /// The precision of the result; that of the source where it is none.
    pub dtype: Option<Dtype>,
}

impl Stage for Import {
    type Summary = ();

    fn kind(&self) -> &'static str {
        "import"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<()> {
        let (source, out) = (self.source.path.as_path(), out.join(MODEL));
        if source.is_dir() {
            let source = Source::with_base(source, self.base.as_ref().map(|base| base.path.as_path()))?;
            let dtype = source.dtype(self.dtype)?;
            return save(&source.decoder(Some(dtype), job.device)?, self.dtype, &source, job.max_shard, &out);
        }
        let vocab = vocab(source)?;
        vocab.notes().iter().for_each(|note| tracing::warn!("{}: {note}", source.display()));
        let decoder = gguf::load(source, job.device)?;
        checkpoint::save_as(
            &decoder,
            self.dtype.unwrap_or(Dtype::F32),
            job.max_shard.unwrap_or(checkpoint::MAX_SHARD),
            &out,
        )?;
        Ok(prompts::write_tokenizer(&vocab, &out)?)
    }
}

fn vocab(source: &Path) -> Result<GgufVocab> {
    let file = gguf::Gguf::open(source)?;
    let tokenizer = gguf::tokenizer(&file)?;
    let Ok(token_types) = tokenizer.token_type.into_iter().map(i32::try_from).collect() else {
        return invalid(format!("{}: tokenizer.ggml.token_type holds a value that is not one", source.display()));
    };
    Ok(GgufVocab {
        model: tokenizer.model,
        pre: tokenizer.pre,
        tokens: tokenizer.tokens,
        token_types,
        merges: tokenizer.merges,
        scores: tokenizer.scores,
        bos_id: tokenizer.bos_token_id,
        eos_id: tokenizer.eos_token_id,
        unk_id: tokenizer.unknown_token_id,
        pad_id: tokenizer.padding_token_id,
        add_bos: Some(tokenizer.add_bos_token),
        add_space_prefix: tokenizer.add_space_prefix,
        chat_template: tokenizer.chat_template,
    })
}
