//! A model of the Hugging Face hub: its id, the directory that it is put into, and its shape, by which a plan says what
//! it needs before a byte of it is there. Nothing is downloaded here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A model of the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// Its id: `owner/name`.
    pub id: String,
    /// The directory that holds its files; `~/` is the home directory, anything else is relative to the repository.
    pub dir: PathBuf,
    /// Its shape, for plans; a run reads the directory's `config.json`.
    pub shape: HubShape,
}

impl Hub {
    /// How the directory is filled.
    #[must_use]
    pub fn how_to_get(&self) -> String {
        format!(
            "`hf download {} --local-dir {}`, after its licence is accepted on the hub",
            self.id,
            self.dir.display()
        )
    }
}

/// What decides the number of a decoder's parameters, with the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubShape {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head; `hidden_size / num_attention_heads` when not given.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
}
