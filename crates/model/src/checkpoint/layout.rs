//! Which tensors of a saved model are in which file, and in which precision each is.

use std::collections::BTreeMap;

use super::safetensors::Files;
use crate::{Decoder, Dtype, Result, weights};

/// The tensors of one file.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub names: Vec<String>,
    /// Bytes of the values.
    pub bytes: u64,
}

impl Shard {
    pub fn push(&mut self, name: String, bytes: u64) {
        self.names.push(name);
        self.bytes += bytes;
    }
}

/// The precision of each tensor of a decoder, in their order.
pub(super) type Precisions = Vec<(String, Dtype)>;

/// All tensors in one precision.
pub(super) fn uniform(decoder: &Decoder, dtype: Dtype) -> Precisions {
    weights::infos(decoder).into_iter().map(|info| (info.name, dtype)).collect()
}

/// Each tensor in the precision that it has in other files, where that holds all its values, else in f32.
pub(super) fn precisions_like(decoder: &Decoder, files: &Files) -> Result<Precisions> {
    let (mut found, mut outcome) = (Vec::new(), Ok(()));
    weights::visit(decoder, |weight| {
        let name = weight.info.name.clone();
        let stored = files.dtype(&name).unwrap_or(Dtype::F32);
        let is_exact =
            weight.view().map(|values| values.part().wide().iter().all(|&value| stored.round(value) == value));
        match is_exact {
            Ok(is_exact) => found.push((name, if is_exact { stored } else { Dtype::F32 })),
            Err(error) => outcome = Err(error),
        }
    });
    outcome.map(|()| found)
}

/// Divides tensors, in their order, among files with `most` bytes at most; a larger one has its own.
pub(super) fn divide(tensors: impl IntoIterator<Item = (String, u64)>, most: u64) -> Vec<Shard> {
    let mut shards = vec![Shard::default()];
    for (name, bytes) in tensors {
        if shards.last().is_some_and(|last| !last.names.is_empty() && last.bytes.saturating_add(bytes) > most) {
            shards.push(Shard::default());
        }
        if let Some(last) = shards.last_mut() {
            last.push(name, bytes);
        }
    }
    shards
}

/// Divides tensors as other files do; one that is in none of them goes to the last.
pub(super) fn divide_like(tensors: Vec<(String, u64)>, files: &Files) -> Vec<Shard> {
    let last = tensors.iter().filter_map(|(name, _)| files.file_of(name)).max();
    let mut shards = BTreeMap::<_, Shard>::new();
    for (name, bytes) in tensors {
        shards.entry(files.file_of(&name).or(last)).or_default().push(name, bytes);
    }
    shards.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_divided_in_their_order() {
        let sizes = [3, 3, 5, 1, 9, 1].into_iter().enumerate().map(|(at, bytes)| (at.to_string(), bytes));
        let shards = divide(sizes, 6);
        let names: Vec<String> = shards.iter().map(|shard| shard.names.join(" ")).collect();
        assert_eq!(names, ["0 1", "2 3", "4", "5"]);
        assert_eq!(shards.iter().map(|shard| shard.bytes).collect::<Vec<_>>(), [6, 6, 9, 1]);
    }
}
