//! Reading `model.safetensors`, or the shards that `model.safetensors.index.json` names.
//!
//! A header is read whole and checked; a tensor is read when it is asked for. Files are not mapped into memory: one that
//! another process shortens meanwhile is an error then, and not the end of this one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

pub(super) use files::inside;
use half::bf16;
use safetensors::tensor::Dtype as Stored;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::{Dtype, Error, Result};

/// The weights of a model in one file.
pub const SINGLE: &str = "model.safetensors";
/// Which tensor is in which of several files.
pub const INDEX: &str = "model.safetensors.index.json";
/// An index may have this many bytes.
const MAX_INDEX: u64 = 64 << 20;
/// A header may have this many bytes; those of the largest models have two million.
const MAX_HEADER: u64 = 32 << 20;

/// A tensor that is still on disk.
struct Tensor {
    file: PathBuf,
    dtype: Stored,
    shape: Vec<usize>,
    /// The place of its first byte in the file.
    start: u64,
    bytes: usize,
}

/// All tensors of a checkpoint, still on disk.
pub(super) struct Files {
    /// The single file or the index.
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    /// What looks wrong in them.
    notes: Vec<String>,
}

impl Files {
    /// Opens the files of a model directory; as in transformers, a single file goes before an index.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            inside(dir, SINGLE).map_err(|reason| Error::checkpoint(&single, reason))?;
            Self::open_file(&single)
        } else if index.exists() {
            Self::open_index(dir, index)
        } else {
            let hint = if holds_pickled(dir) { pickled_hint(dir) } else { other_hint(dir) };
            Err(Error::checkpoint(dir, format!("holds neither {SINGLE} nor {INDEX}{hint}")))
        }
    }

    /// Whether a directory has either.
    pub(super) fn is_in(dir: &Path) -> bool {
        dir.join(SINGLE).exists() || dir.join(INDEX).exists()
    }

    /// Opens one file.
    pub(super) fn open_file(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), tensors: open(path)?, notes: Vec::new() })
    }

    fn open_index(dir: &Path, path: PathBuf) -> Result<Self> {
        inside(dir, INDEX).map_err(|reason| Error::checkpoint(&path, reason))?;
        let map = weight_map(&path)?;
        let mut shards = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (name, file) in &map {
            let entry = || format!("weight_map entry `{name}`: {file}");
            let wrong = |reason: &str| Error::checkpoint(&path, format!("{} {reason}", entry()));
            let file = file.as_str().ok_or_else(|| wrong("is not a file name"))?;
            if !shards.contains_key(file) {
                let shard = inside(dir, file).map_err(|reason| wrong(&reason))?;
                shards.insert(file.to_owned(), open(&shard)?);
            }
            let Some(found) = shards.get_mut(file) else { continue };
            let tensor = found.remove(name).ok_or_else(|| wrong("is a file without that tensor"))?;
            tensors.insert(name.clone(), tensor);
        }
        // transformers reads whole shards.
        let mut notes = Vec::new();
        for (file, left) in shards.into_iter().filter(|(_, left)| !left.is_empty()) {
            let (twice, new): (Vec<_>, Vec<_>) = left.into_iter().partition(|(name, _)| tensors.contains_key(name));
            let note = |found: &[(String, Tensor)], what: &str| {
                let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
                format!("{}: {what}: {}", dir.join(&file).display(), super::named(&names))
            };
            if !new.is_empty() {
                notes.push(note(&new, "holds tensors that the index does not name; they are read with it"));
            }
            if !twice.is_empty() {
                notes.push(note(&twice, "holds tensors that the index names in another file; they are left out"));
            }
            tensors.extend(new);
        }
        Ok(Self { path, tensors, notes })
    }

    /// What looks wrong in the files.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The single file or the index.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The shape of each tensor.
    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect()
    }

    /// The file that holds a tensor.
    pub(super) fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|tensor| tensor.file.as_path())
    }

    /// The precision of a tensor.
    pub(super) fn dtype(&self, name: &str) -> Result<Dtype> {
        let stored = self.stored(name)?;
        match stored.dtype {
            Stored::F32 => Ok(Dtype::F32),
            Stored::F16 => Ok(Dtype::F16),
            Stored::BF16 => Ok(Dtype::Bf16),
            other => {
                let reason = format!("tensor `{name}` is {other:?}; supported are F32, F16 and BF16");
                Err(Error::checkpoint(&stored.file, reason))
            }
        }
    }

    fn stored(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| super::missing(&self.path, name))
    }

    /// Checks that a tensor is there, with a shape and in a precision that is read.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = &self.stored(name)?.shape;
        if found != shape {
            let reason = format!("tensor `{name}` has shape {found:?}, but model and rank ask for {shape:?}");
            return Err(Error::checkpoint(&self.path, reason));
        }
        self.dtype(name).map(drop)
    }

    /// The values of a tensor, row-major.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.dtype(name)?.decode(&self.bytes(name)?))
    }

    /// The values of a tensor in bf16, row-major.
    pub(super) fn read_halves(&self, name: &str) -> Result<Vec<bf16>> {
        Ok(self.bytes(name)?.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes)).collect())
    }

    /// Whether a tensor has other values in `other` once both are rounded to `dtype`.
    pub(super) fn differs(&self, other: &Self, name: &str, dtype: Dtype) -> Result<bool> {
        let kept = [self.dtype(name)?, other.dtype(name)?];
        let [one, other] = [self.bytes(name)?, other.bytes(name)?];
        if kept[0] == kept[1] && one == other {
            return Ok(false);
        }
        let rounded = |kept: Dtype, bytes: &[u8]| kept.decode(bytes).into_iter().map(move |value| dtype.round(value));
        Ok(!rounded(kept[0], &one).eq(rounded(kept[1], &other)))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let stored = self.stored(name)?;
        let mut bytes = Vec::new();
        let read = File::open(&stored.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(stored.start))?;
            bytes.reserve_exact(stored.bytes);
            file.take(stored.bytes as u64).read_to_end(&mut bytes)
        });
        let found = read.map_err(|source| Error::io(&stored.file, source))?;
        if found < stored.bytes {
            let reason = format!("tensor `{name}` has lost its end: has the file been changed since it was opened?");
            return Err(Error::checkpoint(&stored.file, reason));
        }
        Ok(bytes)
    }
}

/// Whether a directory has weights in PyTorch's own format.
fn holds_pickled(dir: &Path) -> bool {
    let is_pickled = |name: &str| {
        let is_weights = ["pytorch_model", "model", "consolidated"].iter().any(|start| name.starts_with(start));
        is_weights && [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end))
    };
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| is_pickled(&entry.file_name().to_string_lossy())))
    })
}

/// What to do with weights under another name.
fn other_hint(dir: &Path) -> String {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_weights = |name: &String| name.ends_with(".safetensors") && !name.starts_with("adapter_");
    let Some(name) = names.filter_map(|name| name.into_string().ok()).filter(is_weights).min() else {
        return String::new();
    };
    match name.as_str() {
        shard if shard.contains("-of-") => format!(", but {shard}, a part of the weights: fetch {INDEX}, too"),
        own if own.starts_with("consolidated") => {
            format!(", but {own}, which is in Mistral's own format: fetch the files of the transformers format")
        }
        other => format!(", but {other}: if that is the whole model, rename it to {SINGLE}"),
    }
}

/// What to do with weights in PyTorch's own format.
fn pickled_hint(dir: &Path) -> String {
    format!(
        ", but weights in PyTorch's own format, which can run code when it is read: convert them in a place that you trust, \
         with python -c \"import sys; from transformers import AutoModelForCausalLM as M; d = sys.argv[1]; \
         M.from_pretrained(d).save_pretrained(d, safe_serialization=True)\" {}",
        files::shell_word(dir)
    )
}

/// The names of the files that an index names.
///
/// # Errors
/// When it cannot be read, or is no index.
pub fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let map = weight_map(index)?;
    Ok(map.values().map(|file| file.as_str().unwrap_or_default().to_owned()).collect())
}

/// From names of tensors to files.
fn weight_map(path: &Path) -> Result<serde_json::Map<String, Value>> {
    let json = files::json_value(&files::read_regular(path, MAX_INDEX)?)
        .map_err(|error| Error::checkpoint(path, format!("not a safetensors index: {error}")))?;
    match json {
        Value::Object(mut json) => match json.remove("weight_map") {
            Some(Value::Object(map)) => Some(map),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| Error::checkpoint(path, "has no object `weight_map` from tensors to files"))
}

/// A tensor of a header.
#[derive(Deserialize)]
struct Entry {
    dtype: Stored,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry {
    /// What is wrong with it in a file with `room` bytes of data.
    fn problem(&self, room: u64) -> Option<String> {
        let (start, end) = self.data_offsets;
        if start > end || end > room {
            return Some(format!("lies at {start}..{end} of {room} bytes of data; is the file truncated?"));
        }
        let bits = self.shape.iter().try_fold(self.dtype.bitsize(), |product, &size| product.checked_mul(size));
        if bits.is_none_or(|bits| bits.div_ceil(8) as u64 != end - start) {
            let Self { dtype, shape, .. } = self;
            return Some(format!("is {dtype:?} of shape {shape:?} and has {} bytes, which do not fit", end - start));
        }
        None
    }
}

/// A header: its tensors, each there once. What its maker noted is not kept.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let wrong = |error: A::Error| A::Error::custom(format!("tensor `{name}`: {error}"));
                    let entry = map.next_value().map_err(wrong)?;
                    if entries.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor `{name}` is there twice")));
                    }
                    entries.insert(name, entry);
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The tensors of one file, unread.
fn open(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    files::check_regular(path, u64::MAX)?;
    let wrong = |reason: String| Error::checkpoint(path, format!("not a safetensors file: {reason}"));
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let (header, data, room) = read_header(file, path)?;
    let Header(entries) = serde_json::from_slice(&header)
        .map_err(|error| wrong(format!("the header is not as it should be: {error}")))?;
    let mut spans: Vec<(u64, u64, &str)> = Vec::new();
    for (name, entry) in &entries {
        if let Some(problem) = entry.problem(room) {
            return Err(wrong(format!("tensor `{name}` {problem}")));
        }
        spans.push((entry.data_offsets.0, entry.data_offsets.1, name));
    }
    spans.sort_unstable();
    let mut end = 0;
    for (start, stop, name) in spans {
        if start != end {
            return Err(wrong(format!("tensor `{name}` begins at {start}, and the one before it ends at {end}")));
        }
        end = stop;
    }
    if end != room {
        return Err(wrong(format!("its tensors have {end} bytes, and it has {room} bytes of data")));
    }
    let tensor = |entry: Entry| Tensor {
        file: path.to_path_buf(),
        dtype: entry.dtype,
        shape: entry.shape,
        start: data + entry.data_offsets.0,
        bytes: (entry.data_offsets.1 - entry.data_offsets.0) as usize,
    };
    Ok(entries.into_iter().map(|(name, entry)| (name, tensor(entry))).collect())
}

/// The header of a file, where its data begin, and how many bytes of data there are.
fn read_header(mut file: File, path: &Path) -> Result<(Vec<u8>, u64, u64)> {
    let io = |source| Error::io(path, source);
    let wrong = |reason: String| Error::checkpoint(path, format!("not a safetensors file: {reason}"));
    let size = file.metadata().map_err(io)?.len();
    if size < 8 {
        return Err(wrong(format!("it has {size} bytes, but the header's length alone takes 8; is it truncated?")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size - 8) {
        return Err(wrong(format!(
            "the first 8 bytes give a header of {length} bytes, but the file has {size} and the limit is {MAX_HEADER}"
        )));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    Ok((header, 8 + length, size - 8 - length))
}

#[cfg(test)]
mod tests;
