//! The reader of checkpoints by itself, for the test below and for `fuzz/`.

use std::path::Path;

use crate::optimizer::{AdamW, Slot};
use crate::{Result, checkpoint};

const FINGERPRINT: &str = "fingerprint";

fn optimizer() -> AdamW {
    let slots = [("a", vec![2, 3], vec![0.5; 6]), ("b", vec![1], vec![2.0])];
    AdamW { slots: slots.map(|(name, shape, value)| (name.into(), Slot::new(shape, value))).into(), updates: 2 }
}

/// The content of a whole checkpoint.
///
/// # Errors
/// When it cannot be written as safetensors.
pub fn sound_checkpoint() -> std::result::Result<Vec<u8>, safetensors::SafeTensorError> {
    checkpoint::content(FINGERPRINT, &optimizer(), &[1.5, 1.25])
}

/// Reads the content of a checkpoint.
///
/// # Errors
/// What it is refused for.
pub fn read_checkpoint(bytes: &[u8]) -> Result<()> {
    checkpoint::read(Path::new("train.checkpoint"), bytes, FINGERPRINT, &mut optimizer()).map(drop)
}

#[test]
#[allow(clippy::unwrap_used)]
fn checkpoints_survive() {
    mutate::survive("training checkpoint", &[sound_checkpoint().unwrap()], 10_000, |bytes| {
        read_checkpoint(bytes).map_err(|error| error.to_string())
    });
}
