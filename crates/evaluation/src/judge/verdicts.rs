//! Verdict files: one JSON object a line, written as each answer is judged, so that judging goes on from the answer at
//! which it was stopped. They hold no prompt and no answer.

use files::{Keyed, Sha};
use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::Answer;

/// A judge's verdict on one stored answer.
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
    /// Probability of the harmful label, if the judge gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Why the judge gave no answer; the next run judges such an answer again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the problem may be gone by then: a time-out, a busy server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transient: bool,
}

impl Keyed for VerdictRecord {
    fn key(&self) -> &str {
        &self.key
    }

    fn is_final(&self) -> bool {
        self.problem.is_none()
    }
}

/// The key of a verdict: changed by another judge, prompt or answer, and by nothing else.
pub fn verdict_key(judge: &str, answer: &Answer) -> String {
    let mut key = Sha::default().part(judge).part(&answer.prompt).part(&answer.response).finish();
    key.truncate(32);
    key
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use files::Journal;

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
            transient: problem.is_some(),
        }
    }

    #[test]
    fn judging_goes_on_behind_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (one, two) = (answer("1", "in the box"), answer("2", "I cannot say"));
        let mut file = Journal::open(&path).unwrap();
        file.add(record(&one, None)).unwrap();
        file.add(record(&two, None)).unwrap();
        let partial = folder.path().join("verdicts.jsonl.partial");
        let whole = std::fs::read_to_string(&partial).unwrap();
        assert!(!whole.contains("map") && !whole.contains("box"), "no text in {whole}");
        std::fs::write(&partial, &whole[..whole.len() - 9]).unwrap(); // killed while the second was written

        let mut file = Journal::<VerdictRecord>::open(&path).unwrap();
        assert!(file.get(&verdict_key("j", &one)).is_some());
        assert!(file.get(&verdict_key("j", &two)).is_none());
        file.add(record(&two, None)).unwrap();
        let keys = [&one, &two].map(|answer| verdict_key("j", answer));
        let records = file.finish(keys.iter().map(String::as_str), |_, record| record).unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap(), records.len()), (whole, 2));
    }

    #[test]
    fn a_changed_answer_or_judge_and_a_failed_request_are_judged_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (done, failed) = (answer("1", "in the box"), answer("2", "on the shelf"));
        let mut file = Journal::open(&path).unwrap();
        file.add(record(&done, None)).unwrap();
        file.add(record(&failed, Some("status 500"))).unwrap();
        let file = Journal::<VerdictRecord>::open(&path).unwrap();
        assert!(file.get(&verdict_key("j", &done)).is_some());
        assert!(file.get(&verdict_key("j", &failed)).is_none());
        assert!(file.get(&verdict_key("j", &answer("1", "in the bag"))).is_none());
        assert!(file.get(&verdict_key("k", &done)).is_none());
        let both = [done, failed].map(|answer| verdict_key("j", &answer));
        let records = file.finish(both.iter().map(String::as_str), |_, record| record).unwrap();
        assert!(records[1].transient, "a failure that lasts is in the finished file");
    }
}
