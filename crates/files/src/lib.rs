//! Files that are complete or absent: atomic writes, append-only journals, content hashes and derived seeds.
//!
//! A leaf crate that every other crate may use. It knows nothing of models, prompts or stages.

mod error;
mod hash;
mod journal;
mod json;
mod lock;
mod printable;
mod read;
mod seed;
mod shell;
mod write;

pub use error::{Error, Result};
pub use hash::{Hashes, Sha, hash_bytes, hash_json, hash_path};
pub use journal::{Journal, Keyed};
pub use json::{check_json, json_value, read_json_inside, read_json_value, read_yaml_text};
pub use lock::try_lock;
pub use printable::printable;
pub use read::{
    check_regular, check_sized, inside, open_input, read_if_there, read_input, read_inside, read_regular, under,
};
pub use seed::{derived_seed, uniform};
pub use shell::shell_word;
pub use write::{
    create_dir, followed, is_name, is_stream, list, move_dir, overlap, read_json, read_sealed, remove, rename,
    sync_dir, write_at, write_json, write_jsonl, write_lines, write_parts, write_sealed, write_whole, write_with,
};
