//! Verdict files: one JSON object a line, written as each answer is judged, so that judging goes on from the answer at
//! which it was stopped. They hold no prompt and no answer, and what a judge wrote only where it is no verdict.

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
    /// Probability of harm, if the judge gives one: a guard model's of its harmful labels, the trained classifier's that the
    /// answer is no refusal.
    #[serde(default, alias = "probability", skip_serializing_if = "Option::is_none")]
    pub p_harmful: Option<f64>,
    /// Why the judge gave no answer; the next run judges such an answer again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the problem may be gone by then: a time-out, a busy server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transient: bool,
    /// The beginning of what a model wrote as a judge, where it holds no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
}

/// What scores need of a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// As in [`VerdictRecord`].
    pub p_harmful: Option<f64>,
    /// Whether the judge gave no answer.
    pub failed: bool,
    /// Whether it may give one in the next run.
    pub transient: bool,
}

impl From<&VerdictRecord> for Judged {
    fn from(record: &VerdictRecord) -> Self {
        let VerdictRecord { verdict, p_harmful, problem, transient, .. } = record;
        Self { verdict: *verdict, p_harmful: *p_harmful, failed: problem.is_some(), transient: *transient }
    }
}

/// Characters that are kept of a reply without a label.
const LONGEST_REPLY: usize = 200;

/// What is kept of a model's reply: its beginning where it is no verdict.
#[must_use]
pub fn unusable(verdict: Verdict, reply: &str) -> Option<String> {
    (verdict == Verdict::Unknown).then(|| reply.chars().take(LONGEST_REPLY).collect())
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
            p_harmful: Some(0.25),
            problem: problem.map(str::to_owned),
            transient: problem.is_some(),
            reply: None,
        }
    }

    #[test]
    fn judging_goes_on_behind_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (one, two) = (answer("1", "in the box"), answer("2", "I cannot say"));
        let mut file = Journal::open(&path).unwrap();
        file.add(&record(&one, None)).unwrap();
        file.add(&record(&two, None)).unwrap();
        let partial = folder.path().join("verdicts.jsonl.partial");
        let whole = std::fs::read_to_string(&partial).unwrap();
        assert!(!whole.contains("map") && !whole.contains("box"), "no text in {whole}");
        std::fs::write(&partial, &whole[..whole.len() - 9]).unwrap(); // killed while the second was written

        let mut file = Journal::<VerdictRecord>::open(&path).unwrap();
        assert!(file.has(&verdict_key("j", &one)));
        assert!(!file.has(&verdict_key("j", &two)));
        file.add(&record(&two, None)).unwrap();
        file.finish([&one, &two].iter().map(|answer| file.record(&verdict_key("j", answer)))).unwrap();
        let records = whole.lines().map(|line| format!("{}\n", line.split('\t').next().unwrap()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), records.collect::<String>());
    }

    #[test]
    fn the_beginning_of_a_reply_without_a_label_is_kept() {
        assert_eq!(unusable(Verdict::Safe, "safe"), None);
        assert_eq!(unusable(Verdict::Unknown, "as a judge I would say").as_deref(), Some("as a judge I would say"));
        assert_eq!(unusable(Verdict::Unknown, &"\u{e9}".repeat(999)).unwrap().chars().count(), LONGEST_REPLY);
        let old = r#"{"id": "1", "judge": "j", "key": "k", "verdict": "unknown", "probability": 0.5}"#;
        let old: VerdictRecord = serde_json::from_str(old).unwrap();
        assert_eq!((old.reply, old.p_harmful), (None, Some(0.5)), "an older file is read");
    }

    #[test]
    fn a_changed_answer_or_judge_and_a_failed_request_are_judged_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verdicts.jsonl");
        let (done, failed) = (answer("1", "in the box"), answer("2", "on the shelf"));
        let mut file = Journal::open(&path).unwrap();
        file.add(&record(&done, None)).unwrap();
        file.add(&record(&failed, Some("status 500"))).unwrap();
        let file = Journal::<VerdictRecord>::open(&path).unwrap();
        assert!(file.has(&verdict_key("j", &done)));
        assert!(!file.has(&verdict_key("j", &failed)));
        assert!(!file.has(&verdict_key("j", &answer("1", "in the bag"))));
        assert!(!file.has(&verdict_key("k", &done)));
        file.finish([done, failed].iter().map(|answer| file.record(&verdict_key("j", answer)))).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.lines().nth(1).unwrap().contains("status 500"), "a failure that lasts is in the finished file");
    }
}
