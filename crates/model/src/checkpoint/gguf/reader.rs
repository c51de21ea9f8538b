//! The GGUF container: metadata, and tensors that stay on disk until they are asked for.
//!
//! Own code, because no kept crate fits: candle-core 0.11 (`quantized::gguf_file`) bounds most
//! lengths by the file, but multiplies a tensor's dimensions unchecked and would bring a second
//! tensor library with its matrix kernels into every build for this one file; `gguf` 0.1 wants the
//! whole file in memory and reserves for the counts that it reads. Here every count, length and
//! offset is checked against the file's length before memory is taken. Version 1 and big-endian
//! files are not read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::dequant::BlockType;
use crate::{Error, Result};

/// Metadata values of a file at most, array elements included: a value takes more memory than
/// its one byte on disk may be worth. Vocabularies have well below a million.
const MAX_VALUES: u64 = 1 << 22;

/// A metadata value; whole numbers of all widths are one kind, so are both widths of floats.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number; f32 widened exactly.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(Vec<Value>),
}

/// Where a tensor lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dimensions, outermost first (GGUF stores them innermost first).
    pub shape: Vec<usize>,
    /// How values are stored.
    pub kind: BlockType,
    offset: u64,
    bytes: usize,
}

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens a file, reads its metadata and checks where its tensors lie.
    ///
    /// # Errors
    /// When it cannot be read or is no well-formed GGUF file of version 2 or 3 with supported
    /// tensor types; the message names the byte offset and what was expected. When it is one of several files of a model.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::io(path, source);
        files::check_regular(path, u64::MAX)?;
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut cursor = Cursor { path, reader: BufReader::new(file), at: 0, size, values: 0 };
        let (metadata, tensors) = cursor.header()?;
        let gguf = Self { path: path.to_path_buf(), file: cursor.reader.into_inner(), metadata, tensors };
        match gguf.integer("split.count")? {
            Some(count) if count > 1 => Err(Error::checkpoint(
                path,
                format!(
                    "is one of {count} files of a model: join them first, with `llama-gguf-split --merge FIRST WHOLE`, where \
                     FIRST is the one that ends in -00001-of-{count:05}.gguf, and name WHOLE"
                ),
            )),
            _ => Ok(gguf),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// When the value is not a text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// A whole number, if the key is there.
    ///
    /// # Errors
    /// When the value is not a whole number of 32 bits.
    pub fn integer(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number of 32 bits", |value| match value {
            Value::Integer(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// When the value is not a number.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", |value| if let Value::Float(number) = value { Some(*number) } else { None })
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// When the value is not a truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a truth value", |value| if let Value::Bool(flag) = value { Some(*flag) } else { None })
    }

    /// An array of texts, if the key is there.
    ///
    /// # Errors
    /// When the value is not an array of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.array(
            key,
            "an array of texts",
            |value| if let Value::Text(text) = value { Some(text.clone()) } else { None },
        )
    }

    /// An array of whole numbers, if the key is there.
    ///
    /// # Errors
    /// When the value is not an array of whole numbers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.array(key, "an array of whole numbers", |value| match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        })
    }

    /// An array of numbers, if the key is there.
    ///
    /// # Errors
    /// When the value is not an array of numbers.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.array(key, "an array of floats", |value| match value {
            Value::Float(number) => Some(*number as f32),
            _ => None,
        })
    }

    fn array<T>(&self, key: &str, kind: &str, take: impl Fn(&Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.typed(key, kind, |value| match value {
            Value::Array(values) => values.iter().map(&take).collect(),
            _ => None,
        })
    }

    fn typed<'a, T>(&'a self, key: &str, kind: &str, take: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match take(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::checkpoint(&self.path, format!("metadata key `{key}` is not {kind}"))),
        }
    }

    /// Names and places of all tensors.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The values of a tensor, row-major.
    ///
    /// # Errors
    /// When there is no such tensor or the file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.tensors.get(name).ok_or_else(|| super::super::missing(&self.path, name))?;
        let mut bytes = vec![0; info.bytes];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(info.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::io(&self.path, source))?;
        Ok(info.kind.dequantize(&bytes))
    }
}

/// Reads the header and never past the file's end.
struct Cursor<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    at: u64,
    size: u64,
    values: u64,
}

impl Cursor<'_> {
    fn wrong(&self, at: u64, reason: impl std::fmt::Display) -> Error {
        Error::checkpoint(self.path, format!("not a readable GGUF file: byte {at}: {reason}"))
    }

    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>> {
        let left = self.size - self.at;
        if count > left {
            return Err(
                self.wrong(self.at, format!("expected {what} of {count} bytes, but the file ends after {left}"))
            );
        }
        let mut bytes = vec![0; count as usize];
        self.reader.read_exact(&mut bytes).map_err(|source| Error::io(self.path, source))?;
        self.at += count;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let at = self.at;
        let length = self.u64(what)?;
        let bytes = self.bytes(length, what)?;
        String::from_utf8(bytes).map_err(|error| self.wrong(at, format!("{what} is not UTF-8: {error}")))
    }

    fn header(&mut self) -> Result<(BTreeMap<String, Value>, BTreeMap<String, TensorInfo>)> {
        if self.fixed(r#"the magic "GGUF""#)? != *b"GGUF" {
            return Err(self.wrong(0, r#"expected the magic "GGUF""#));
        }
        let version = self.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(self.wrong(4, format!("expected version 2 or 3 (little-endian), found {version}")));
        }
        let tensor_count = self.u64("the number of tensors")?;
        let key_count = self.u64("the number of metadata keys")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..key_count {
            let at = self.at;
            let key = self.text("a metadata key")?;
            let kind = self.u32("a value's type")?;
            let value = self.value(kind, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.wrong(at, format!("metadata key `{key}` is there twice")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(alignment)) if *alignment > 0 && alignment % 8 == 0 => *alignment as u64,
            Some(other) => {
                return Err(self.wrong(self.at, format!("general.alignment is {other:?}, not a multiple of 8")));
            }
        };
        let tensors = self.tensors(tensor_count, alignment)?;
        Ok((metadata, tensors))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value> {
        let at = self.at;
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.wrong(at, format!("expected at most {MAX_VALUES} metadata values")));
        }
        let value = match kind {
            0 => Value::Integer(u8::from_le_bytes(self.fixed(key)?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.fixed(key)?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.fixed(key)?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.fixed(key)?).into()),
            4 => Value::Integer(self.u32(key)?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.fixed(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.fixed(key)?).into()),
            7 => Value::Bool(self.fixed::<1>(key)? != [0]),
            8 => Value::Text(self.text(key)?),
            9 => {
                let kind = self.u32(key)?;
                let count = self.u64(key)?;
                if kind == 9 {
                    return Err(self.wrong(at, format!("`{key}` is an array of arrays, which is not supported")));
                }
                // Elements are read one by one, so memory grows with what the file really holds.
                Value::Array((0..count).map(|_| self.value(kind, key)).collect::<Result<_>>()?)
            }
            10 => {
                let number = self.u64(key)?;
                let number = i64::try_from(number);
                Value::Integer(number.map_err(|_| self.wrong(at, format!("`{key}` is above 2^63")))?)
            }
            11 => Value::Integer(i64::from_le_bytes(self.fixed(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.fixed(key)?)),
            _ => return Err(self.wrong(at, format!("expected a value type of 0 to 12 for `{key}`, found {kind}"))),
        };
        Ok(value)
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<BTreeMap<String, TensorInfo>> {
        let mut tensors = BTreeMap::new();
        let mut places = Vec::new();
        for _ in 0..count {
            let at = self.at;
            let (name, info) = self.tensor_info()?;
            places.push((at, name.clone()));
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.wrong(at, format!("tensor `{name}` is there twice")));
            }
        }
        let start = self.at.checked_next_multiple_of(alignment);
        let start =
            start.ok_or_else(|| self.wrong(self.at, format!("general.alignment is {alignment}, beyond any file")))?;
        let mut spans = Vec::new();
        for (at, name) in places {
            let Some(info) = tensors.get_mut(&name) else { continue };
            let offset = start.checked_add(info.offset);
            let end = offset.and_then(|offset| offset.checked_add(info.bytes as u64));
            match (offset, end) {
                (Some(offset), Some(end)) if end <= self.size => {
                    info.offset = offset;
                    spans.push((offset, end, at, name));
                }
                _ => {
                    let reason = format!(
                        "tensor `{name}` of {} bytes at offset {} of the data (byte {start}) reaches past the file's \
                         {} bytes; is the file truncated?",
                        info.bytes, info.offset, self.size
                    );
                    return Err(self.wrong(at, reason));
                }
            }
        }
        // Tensors that share bytes would become many times as large as the file; others at most 13 times, as f32.
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let [(_, end, _, first), (offset, _, at, second)] = pair else { continue };
            if offset < end {
                return Err(self.wrong(*at, format!("tensor `{second}` lies over tensor `{first}`")));
            }
        }
        Ok(tensors)
    }

    fn tensor_info(&mut self) -> Result<(String, TensorInfo)> {
        let at = self.at;
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32("a number of dimensions")?;
        if !(1..=4).contains(&dimensions) {
            return Err(self.wrong(at, format!("expected 1 to 4 dimensions of tensor `{name}`, found {dimensions}")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let dimension = self.u64("a dimension")?;
            let fits = usize::try_from(dimension).ok().filter(|&dimension| dimension > 0);
            let wrong = || self.wrong(at, format!("tensor `{name}` has a dimension of {dimension}"));
            shape.insert(0, fits.ok_or_else(wrong)?);
        }
        let id = self.u32("a tensor's type")?;
        let kind = BlockType::from_id(id).ok_or_else(|| {
            let known = BlockType::names();
            self.wrong(at, format!("tensor `{name}` has GGML type {id}; supported are {known}"))
        })?;
        let (values, size) = kind.block();
        let row = shape[shape.len() - 1];
        let rows = shape[..shape.len() - 1].iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let bytes = rows.and_then(|rows| rows.checked_mul(row / values)).and_then(|blocks| blocks.checked_mul(size));
        match bytes {
            Some(bytes) if row.is_multiple_of(values) => {
                let offset = self.u64("a tensor's offset")?;
                Ok((name, TensorInfo { shape, kind, offset, bytes }))
            }
            Some(_) => {
                Err(self.wrong(at, format!("rows of tensor `{name}` hold {row} values, not whole blocks of {values}")))
            }
            None => Err(self.wrong(at, format!("tensor `{name}` of shape {shape:?} is larger than memory can be"))),
        }
    }
}
