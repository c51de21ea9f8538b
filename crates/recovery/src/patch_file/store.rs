//! The file of a patch. It comes from anywhere: every number in it is checked before it is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use model::Dtype;
use safetensors::tensor::{Dtype as Type, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BoundTensor, PatchFile, Values, misfit};
use crate::path::Flips;
use crate::{Error, Path, Result};

/// The key of the metadata; one key keeps equal patches equal in bytes.
const KEY: &str = "realign";
/// Raised when the form of the file changes.
const VERSION: u64 = 1;
/// The names and metadata of the tensors may have this many bytes.
const MAX_HEADER: u64 = 32 << 20;

/// The metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    dtype: Dtype,
    steps: usize,
    chosen: usize,
    method: Value,
    notes: Value,
    tensors: BTreeMap<String, BoundTensor>,
    /// Hash of all of the above and of the file's tensors.
    content: String,
}

/// The tensors of a file by name: type and bytes.
type Parts<'a> = BTreeMap<String, (Type, Cow<'a, [u8]>)>;

impl PatchFile {
    /// The file's content. The same patch is the same bytes.
    ///
    /// # Errors
    /// When there are too many steps for a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let header = Header {
            version: VERSION,
            dtype: self.dtype,
            steps: self.path.len(),
            chosen: self.path.chosen(),
            method: self.method.clone(),
            notes: self.notes.clone(),
            tensors: self.tensors.clone(),
            content: String::new(),
        };
        write(header, &self.parts()?).map_err(|reason| Error::Path { reason })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no patch, or is damaged.
    pub fn load(path: &std::path::Path) -> Result<Self> {
        let bytes = files::read_regular(path, u64::MAX)?;
        Self::read(&bytes).map_err(|reason| Error::NoPatch { path: path.to_owned(), reason })
    }

    fn parts(&self) -> Result<Parts<'static>> {
        let mut parts = Parts::new();
        let of_values = in_file(self.dtype);
        for (name, flips) in self.path.flips()? {
            let indices = flips.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
            parts.insert(name.to_owned(), (Type::U32, indices));
            if self.path.len() > 1 {
                parts.insert(format!("{name}:step"), narrow(&flips.steps, self.path.len()));
            }
        }
        for (name, values) in &self.values {
            for (part, values) in [("aligned", &values.aligned), ("fine_tuned", &values.fine_tuned)] {
                parts.insert(format!("{name}:{part}"), (of_values, self.dtype.encode(values).into()));
            }
        }
        Ok(parts)
    }

    fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (header, parts) = read(bytes)?;
        Self::of(header, parts).map_err(|error| error.to_string())
    }

    fn of(header: Header, mut parts: Parts<'_>) -> Result<Self> {
        let (mut flips, mut values) = (BTreeMap::new(), BTreeMap::new());
        for (name, bound) in &header.tensors {
            let length = bound.shape.iter().try_fold(1_usize, |length, &dim| length.checked_mul(dim));
            let Some(length) = length else { return misfit(name, format!("cannot have the shape {:?}", bound.shape)) };
            let Some((dtype, bytes)) = parts.remove(name) else { continue };
            if dtype != Type::U32 {
                return misfit(name, "has indices that are not of type U32");
            }
            let indices: Vec<u32> = bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
            if let Some(index) = indices.iter().find(|&&index| index as usize >= length) {
                return misfit(name, format!("has {length} weights, and index {index} is not one of them"));
            }
            let steps = match parts.remove(&format!("{name}:step")) {
                None if header.steps == 1 => vec![1; indices.len()],
                None => return misfit(name, "has no steps"),
                Some((dtype, bytes)) => wide(name, dtype, &bytes)?,
            };
            let mut distinct = indices.clone();
            distinct.dedup();
            let mut side = |part: &str| match parts.remove(&format!("{name}:{part}")) {
                Some((dtype, bytes)) if dtype == in_file(header.dtype) => Ok(header.dtype.decode(&bytes)),
                _ => misfit(name, format!("has no values `{part}` in {}", header.dtype.name())),
            };
            let of = Values { aligned: side("aligned")?, fine_tuned: side("fine_tuned")?, indices: distinct };
            of.check(name)?;
            values.insert(name.clone(), of);
            flips.insert(name.clone(), Flips { indices, steps });
        }
        if let Some(name) = parts.keys().next() {
            return misfit(name, "has no place in a patch");
        }
        let path = Path::of_flips(header.steps, header.chosen, &flips)?;
        let Header { dtype, method, notes, tensors, .. } = header;
        Ok(Self { path, dtype, method, notes, tensors, values })
    }
}

impl Header {
    /// Hash of the file's content.
    fn hash(&self, parts: &Parts<'_>) -> serde_json::Result<String> {
        let mut json = serde_json::to_value(self)?;
        json["content"] = Value::Null;
        let mut hash = files::Sha::default();
        hash.part(json.to_string());
        for (name, (_, bytes)) in parts {
            hash.part(name).part(bytes);
        }
        Ok(hash.finish())
    }
}

/// A file of a header and tensors.
fn write(mut header: Header, parts: &Parts<'_>) -> std::result::Result<Vec<u8>, String> {
    header.content = header.hash(parts).map_err(|error| error.to_string())?;
    let header = serde_json::to_string(&header).map_err(|error| error.to_string())?;
    let view = |dtype: Type, bytes| TensorView::new(dtype, vec![8 * <[u8]>::len(bytes) / dtype.bitsize()], bytes);
    let views = parts.iter().map(|(name, (dtype, bytes))| Ok((name, view(*dtype, bytes)?)));
    let views: std::result::Result<Vec<_>, SafeTensorError> = views.collect();
    let metadata = HashMap::from([(KEY.to_owned(), header)]);
    views.and_then(|views| safetensors::serialize(views, Some(metadata))).map_err(|error| error.to_string())
}

/// Header and tensors of a file, as they were written.
fn read(bytes: &[u8]) -> std::result::Result<(Header, Parts<'_>), String> {
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > MAX_HEADER {
        return Err(format!("its first 8 bytes give a header of {length} bytes; at most {MAX_HEADER} are read"));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let text = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let text = text.ok_or_else(|| format!("it has no `{KEY}` in its metadata"))?;
    let wrong = |error: serde_json::Error| format!("its `{KEY}`: {error}");
    let json = files::json_value(text.as_bytes()).map_err(wrong)?;
    if json["version"] != VERSION {
        return Err(format!("it is of version {} and this program reads version {VERSION}", json["version"]));
    }
    let header: Header = serde_json::from_value(json).map_err(wrong)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let parts = tensors.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.data().into()))).collect();
    if header.hash(&parts).map_err(wrong)? != header.content {
        return Err("it is damaged: its hash does not fit its content".into());
    }
    Ok((header, parts))
}

/// A precision's name in a file.
fn in_file(dtype: Dtype) -> Type {
    match dtype {
        Dtype::F32 => Type::F32,
        Dtype::Bf16 => Type::BF16,
        Dtype::F16 => Type::F16,
    }
}

/// Steps in as many bytes as the last one needs.
fn narrow(steps: &[u16], last: usize) -> (Type, Cow<'static, [u8]>) {
    match last <= usize::from(u8::MAX) {
        true => (Type::U8, steps.iter().map(|&step| step.to_le_bytes()[0]).collect()),
        false => (Type::U16, steps.iter().flat_map(|step| step.to_le_bytes()).collect()),
    }
}

fn wide(name: &str, dtype: Type, bytes: &[u8]) -> Result<Vec<u16>> {
    match dtype {
        Type::U8 => Ok(bytes.iter().copied().map(u16::from).collect()),
        Type::U16 => Ok(bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect()),
        _ => misfit(name, "has steps that are neither of type U8 nor U16"),
    }
}

#[cfg(test)]
mod tests;
