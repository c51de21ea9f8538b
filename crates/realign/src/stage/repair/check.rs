//! Whether two models are those before and after fine-tuning, and whether recovery is in place.

use model::DecoderConfig;

use crate::answers::answers;
use crate::error::invalid;
use crate::model::Model;
use crate::refusal::Refusals;
use crate::{Job, Result, Samples};

/// Asks the aligned and the fine-tuned model some recovery prompts, and warns where the first does not refuse or the
/// second does.
pub(super) fn probe(models: [&Model; 2], samples: &Samples, count: usize, job: &mut Job<'_>) -> Result<()> {
    let mut asked = samples.read()?;
    asked.truncate(count);
    job.step(0, 1, "asking both models")?;
    let refusals = Refusals::new();
    let limit = models.map(|model| model.decoder.config().max_position_embeddings).into_iter().min().unwrap_or(0);
    let mut refused = [0; 2];
    for (model, refused) in models.into_iter().zip(&mut refused) {
        let found = answers(model, &asked, Refusals::tokens(model, &asked, limit)?, job)?;
        *refused = found.iter().filter(|answer| refusals.has(answer)).count();
    }
    let ([by_aligned, by_tuned], all, file) = (refused, asked.len(), samples.file.display());
    if by_tuned > by_aligned {
        tracing::warn!(
            "the fine-tuned model refuses {by_tuned} of {all} prompts of {file} and the aligned one {by_aligned}: are \
             the two models swapped?"
        );
    } else if 2 * by_aligned < all {
        tracing::warn!(
            "the aligned model refuses {by_aligned} of {all} prompts of {file}: recovery needs prompts that it refuses"
        );
    } else if by_tuned == by_aligned {
        tracing::warn!("the fine-tuned model refuses {by_tuned} of {all} prompts of {file}, as the aligned one does");
    }
    Ok(())
}

/// An error where two models cannot be one before and after fine-tuning, and a warning where they may not be. Their
/// vocabularies may differ, which recovery does not touch.
pub(crate) fn compare(aligned: &DecoderConfig, fine_tuned: &DecoderConfig) -> Result<Option<String>> {
    if aligned.model_type != fine_tuned.model_type {
        let [aligned, tuned] = [aligned, fine_tuned].map(|config| config.model_type.name());
        return invalid(format!(
            "the aligned model is of type {aligned} and the fine-tuned one of type {tuned}; name the model that was \
             fine-tuned as --aligned"
        ));
    }
    let sizes = |config: &DecoderConfig| {
        [
            ("num_hidden_layers", config.num_hidden_layers),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("attention_bias", usize::from(config.qkv_bias) + usize::from(config.o_bias)),
        ]
    };
    let differing = sizes(aligned).into_iter().zip(sizes(fine_tuned)).find(|(one, other)| one != other);
    if let Some(((key, one), (_, other))) = differing {
        return invalid(format!(
            "the aligned and the fine-tuned model differ: {key} is {one} and {other}; both must be of one shape: name the model \
             that was fine-tuned as --aligned"
        ));
    }
    let same = DecoderConfig {
        vocab_size: fine_tuned.vocab_size,
        max_position_embeddings: fine_tuned.max_position_embeddings,
        tie_word_embeddings: fine_tuned.tie_word_embeddings,
        ..aligned.clone()
    };
    let text = "config.json of the two models asks for different arithmetic (rotary base, norms or attention)";
    Ok((same != *fine_tuned).then(|| text.to_owned()))
}
