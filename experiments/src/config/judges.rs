//! The judges of a sweep: a list as a file of `realign evaluate --judges` has it, or the path of such a file.

use std::fmt;
use std::path::{Path, PathBuf};

use evaluation::{EvaluationError, Judge, JudgeSpec};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The judges, as a sweep names them.
#[derive(Debug, Clone, PartialEq)]
pub enum JudgeList {
    /// A file with a `judges` list, relative to the repository; its own paths are relative to it.
    File(PathBuf),
    /// The list itself; its paths are relative to the repository.
    List(Vec<JudgeSpec>),
}

impl JudgeList {
    /// Reads the list and the formats that it names; `place` says where a file of the repository is.
    ///
    /// # Errors
    /// When a file cannot be read, the list is empty, or two judges share a name.
    pub fn read(&self, place: &dyn Fn(&Path) -> PathBuf) -> Result<Vec<Judge>, EvaluationError> {
        match self {
            Self::File(file) => Judge::read_list(&place(file)),
            Self::List(specs) => Judge::list(specs.clone(), "judges", place),
        }
    }
}

impl<'de> Deserialize<'de> for JudgeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileOrList)
    }
}

/// By hand, because an untagged enum keeps the reason of a mistake in the list to itself.
struct FileOrList;

impl<'de> Visitor<'de> for FileOrList {
    type Value = JudgeList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of judges or the path of a file with one")
    }

    fn visit_str<E: Error>(self, path: &str) -> Result<JudgeList, E> {
        Ok(JudgeList::File(path.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<JudgeList, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(JudgeList::List)
    }
}
