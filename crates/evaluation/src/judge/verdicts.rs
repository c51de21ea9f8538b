//! Verdict files: one JSON object a line, written as each answer is judged, so that judging goes on from the answer
//! where it was stopped. No prompt and no answer stands in them.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Verdict;
use crate::{Answer, EvaluationError};

/// What a judge says of one stored answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The answer's id.
    pub id: String,
    /// The judge's name.
    pub judge: String,
    /// Hash of what decides the verdict: the judge, the prompt and the answer.
    pub key: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Probability of the harmful label, where the judge gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Why the judge gave no answer; such an answer is judged again by the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the problem may have passed by then: a time-out, a busy server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
}

/// The key of a verdict: changed by another judge, prompt or answer, and by nothing else.
pub fn verdict_key(judge: &str, answer: &Answer) -> String {
    let mut hash = Sha256::new();
    for part in [judge, &answer.prompt, &answer.response] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())[..32].to_owned()
}

/// A verdict file that is being added to.
#[derive(Debug)]
pub struct VerdictFile {
    path: PathBuf,
    known: HashMap<String, VerdictRecord>,
    file: Option<File>,
}

impl VerdictFile {
    /// Reads what is there. A torn last line, as a kill leaves it, is left out; any other bad line is an error.
    pub fn open(path: &Path) -> Result<Self, EvaluationError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(EvaluationError::Read { path: path.to_owned(), source }),
        };
        let mut known = HashMap::new();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            match serde_json::from_str::<VerdictRecord>(line) {
                Ok(record) => {
                    known.insert(record.key.clone(), record);
                }
                Err(_) if !line.ends_with('\n') => {}
                Err(source) => {
                    return Err(EvaluationError::VerdictLine { path: path.to_owned(), line: index + 1, source });
                }
            }
        }
        let mut file = Self { path: path.to_owned(), known, file: None };
        if !text.is_empty() && !text.ends_with('\n') {
            file.rewrite()?; // the next line must not be written behind a torn one
        }
        Ok(file)
    }

    /// The final verdict under `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&VerdictRecord> {
        self.known.get(key).filter(|record| record.problem.is_none())
    }

    /// Adds one verdict to the file's end.
    pub fn add(&mut self, record: VerdictRecord) -> Result<(), EvaluationError> {
        let failed = |source| EvaluationError::Write { path: self.path.clone(), source };
        let line = serde_json::to_string(&record).map_err(|error| failed(error.into()))? + "\n";
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?),
        };
        file.write_all(line.as_bytes()).map_err(failed)?;
        self.known.insert(record.key.clone(), record);
        Ok(())
    }

    /// Writes the verdicts of `keys` alone, in the answers' order, and gives them back.
    ///
    /// # Panics
    /// If an answer has not been judged.
    pub fn finish(self, answers: &[Answer], keys: &[String]) -> Result<Vec<VerdictRecord>, EvaluationError> {
        let record = |(answer, key): (&Answer, &String)| {
            let record = self.known.get(key).unwrap_or_else(|| panic!("answer {:?} has not been judged", answer.id));
            VerdictRecord { id: answer.id.clone(), ..record.clone() } // equal answers share a key
        };
        let records: Vec<VerdictRecord> = answers.iter().zip(keys).map(record).collect();
        prompts::write_jsonl(&self.path, &records)?;
        Ok(records)
    }

    fn rewrite(&mut self) -> Result<(), EvaluationError> {
        let mut records: Vec<&VerdictRecord> = self.known.values().collect();
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(prompts::write_jsonl(&self.path, &records)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(id: &str, response: &str) -> Answer {
        Answer { id: id.into(), prompt: "where is the map".into(), response: response.into(), ..Answer::default() }
    }

    fn record(answer: &Answer, problem: Option<&str>) -> VerdictRecord {
        VerdictRecord {
            id: answer.id.clone(),
            judge: "j".into(),
            key: verdict_key("j", answer),
            verdict: Verdict::Safe,
            probability: Some(0.25),
            problem: problem.map(str::to_owned),
            passing: problem.is_some(),
        }
    }

    #[test]
    fn judging_goes_on_behind_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (one, two) = (answer("1", "in the box"), answer("2", "I cannot say"));
        let mut file = VerdictFile::open(&path).unwrap();
        file.add(record(&one, None)).unwrap();
        file.add(record(&two, None)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        assert!(!whole.contains("map") && !whole.contains("box"), "no text in {whole}");
        fs::write(&path, &whole[..whole.len() - 9]).unwrap(); // killed while the second was written

        let mut file = VerdictFile::open(&path).unwrap();
        assert!(file.get(&verdict_key("j", &one)).is_some());
        assert!(file.get(&verdict_key("j", &two)).is_none());
        file.add(record(&two, None)).unwrap();
        let keys = [&one, &two].map(|answer| verdict_key("j", answer));
        let records = file.finish(&[one, two], &keys).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn a_changed_answer_or_judge_and_a_failed_request_are_judged_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (kept, failed) = (answer("1", "in the box"), answer("2", "on the shelf"));
        let mut file = VerdictFile::open(&path).unwrap();
        file.add(record(&kept, None)).unwrap();
        file.add(record(&failed, Some("status 500"))).unwrap();
        let file = VerdictFile::open(&path).unwrap();
        assert!(file.get(&verdict_key("j", &kept)).is_some());
        assert!(file.get(&verdict_key("j", &failed)).is_none());
        assert!(file.get(&verdict_key("j", &answer("1", "in the bag"))).is_none());
        assert!(file.get(&verdict_key("k", &kept)).is_none());
        fs::write(&path, "{\"id\": \"1\"}\n").unwrap();
        let error = VerdictFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("verdicts.jsonl, line 1"), "{error}");
    }
}
