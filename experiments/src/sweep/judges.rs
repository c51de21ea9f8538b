//! The judges of a sweep: a list as a file of `realign evaluate --judges` has it, or the path of such a file.

use std::fmt;
use std::path::{Path, PathBuf};

use evaluation::{EvaluationError, Judge, JudgeSpec};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The judges, as a sweep names them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
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
    /// When a file cannot be read, there is no judge, or two share a name.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(yaml: &str) -> Result<JudgeList, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_and_the_file_that_holds_it_are_the_same_judges() {
        let dir = tempfile::tempdir().unwrap();
        let judges = "[{kind: refusal, name: phrases}, {kind: refusal, name: again}]";
        std::fs::write(dir.path().join("two.yaml"), format!("judges: {judges}")).unwrap();
        let place = |file: &Path| dir.path().join(file);
        let read = list("two.yaml").unwrap().read(&place).unwrap();
        assert_eq!(read, list(judges).unwrap().read(&place).unwrap());
        assert_eq!(read.iter().map(Judge::name).collect::<Vec<_>>(), ["phrases", "again"]);
    }

    #[test]
    fn a_mistake_in_the_list_is_named() {
        for (yaml, part) in [
            ("[{kind: refusal, nam: a}]", "nam"),
            ("[{kind: oracle, name: a}]", "oracle"),
            ("[{kind: http, name: a, base_url: x, model: m, format: f, api_key: k}]", "api_key"),
            ("{kind: refusal}", "a list of judges or the path"),
        ] {
            let error = list(yaml).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = list("[]").unwrap().read(&|file| file.to_owned()).unwrap_err().to_string();
        assert!(error.contains("judges: judges is empty"), "{error}");
    }
}
