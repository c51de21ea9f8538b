//! Import: a GGUF file or a Hugging Face directory becomes a directory that the other stages read.

use std::path::Path;

use anyhow::{Context, Result};
use model::Dtype;
use model::checkpoint::{self, gguf};
use prompts::GgufVocab;

use crate::Compute;

/// Reads `source` and writes a Hugging Face directory to `out`; a GGUF file becomes f32 where nothing else is asked for.
///
/// # Errors
/// When the source is damaged or of an unsupported kind, a weight is too large for the precision, or `out` cannot be
/// written.
pub fn import(source: &Path, out: &Path, compute: Compute<'_>) -> Result<()> {
    if source.is_dir() {
        let decoder = checkpoint::load(source, compute.device)?;
        checkpoint::save_as(&decoder, compute.dtype_for(source)?, out)?;
        checkpoint::copy_companions(source, out)?;
        return Ok(());
    }
    let file = gguf::Gguf::open(source)?;
    let tokenizer = gguf::tokenizer(&file)?;
    let vocab = GgufVocab {
        model: tokenizer.model,
        pre: tokenizer.pre,
        tokens: tokenizer.tokens,
        token_types: tokenizer.token_type.into_iter().map(i32::try_from).collect::<Result<_, _>>().with_context(
            || format!("{}: tokenizer.ggml.token_type holds a value that is not one", source.display()),
        )?,
        merges: tokenizer.merges,
        scores: Vec::new(),
        bos_id: tokenizer.bos_token_id,
        eos_id: tokenizer.eos_token_id,
        unk_id: tokenizer.unknown_token_id,
        pad_id: tokenizer.padding_token_id,
        add_bos: Some(tokenizer.add_bos_token),
        chat_template: tokenizer.chat_template,
    };
    let decoder = gguf::load(source, compute.device)?;
    checkpoint::save_as(&decoder, compute.dtype.unwrap_or(Dtype::F32), out)?;
    prompts::write_tokenizer(&vocab, out)?;
    Ok(())
}
