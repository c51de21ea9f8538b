//! Text to token ids and back: prompt files, chat templates, the tokenizer, batches of rows.
//!
//! Paper section III-B (how prompts are rendered before a hidden state is read) and IV-A (loss on the
//! response tokens only). Knows nothing of models or tensors: ids go out, ids come in.

mod added;
pub mod batch;
mod caught;
pub mod chat;
mod config;
pub mod error;
pub mod gguf_vocab;
mod growth;
pub mod rows;
pub mod sample;
pub mod template;
pub mod tokenizer;

pub use batch::{length_buckets, shuffled_order};
pub use chat::{ChatTemplate, Message, Role};
pub use error::{Error, Result};
pub use gguf_vocab::{GgufVocab, write_tokenizer};
pub use rows::{Row, rows};
pub use sample::{Sample, Turns, read_jsonl, read_jsonl_first, read_training_jsonl};
pub use tokenizer::{Encoded, Tokenizer};
