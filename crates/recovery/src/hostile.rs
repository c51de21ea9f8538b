//! The reader of checkpoints by itself, for the test below and for `fuzz/`.

use std::collections::HashMap;

use model::weights::WeightInfo;

use crate::checkpoint::{Checkpoint, Origin};
use crate::methods::Progress;
use crate::{Patch, Path, Recover, Result, TraceStep};

fn checkpoint() -> Checkpoint<Recover> {
    let origin = Origin { settings: Recover::default(), inputs: "inputs".into(), decided_by: "nothing".into() };
    Checkpoint { path: "checkpoint".into(), origin }
}

/// The content of a whole checkpoint.
///
/// # Errors
/// When it cannot be written as safetensors.
pub fn sound_checkpoint() -> Result<Vec<u8>> {
    let mut path = Path::default();
    for (name, indices) in [("a", vec![0, 7]), ("b", vec![3]), ("a", vec![7])] {
        path.push(Patch::new([(name.to_owned(), indices)]));
    }
    let step = TraceStep {
        step: 2,
        loss: 0.5,
        threshold: Some(0.25),
        restored: 1,
        grad_s: 0.125,
        select_s: 0.0,
        rolled_back: None,
        rollback_threshold: None,
        equal: 1,
        score: Some(0.75),
    };
    let progress = Progress { step: 3, base_score: Some(0.5), steps: vec![step; 3], ..Progress::default() };
    let gradients = HashMap::from([("a".to_owned(), vec![0.5; 8]), ("b".to_owned(), vec![-0.0; 4])]);
    checkpoint().content(&progress, &path, &gradients)
}

/// Reads the content of a checkpoint.
///
/// # Errors
/// What it is refused for.
pub fn read_checkpoint(bytes: &[u8]) -> Result<()> {
    let info =
        |name: &str, length| WeightInfo { name: name.into(), shape: vec![length], layer: Some(0), is_norm: false };
    checkpoint().read::<Progress>(bytes, &[info("a", 8), info("b", 4)]).map(drop)
}

#[test]
#[allow(clippy::unwrap_used)]
fn checkpoints_survive() {
    mutate::survive("recovery checkpoint", &[sound_checkpoint().unwrap()], 10_000, |bytes| {
        read_checkpoint(bytes).map_err(|error| error.to_string())
    });
}
