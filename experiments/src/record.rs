//! A record: what the evaluation of one model found, with the verdict on every prompt and the score of every sample.
//!
//! Tables and figures are made from records alone. The records of a cell are one file, a record a line, in the
//! `records` directory of the sweep's results.

mod seal;

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use evaluation::statistics::spread;
use evaluation::{JudgeScores, JudgedRate, Metric, TaskScore};
use realign::stage::RepairSummary;
use recovery::{Damage, Standing};
use serde::{Deserialize, Serialize};

/// Name of the method that is the original chat model.
pub const ALIGNED: &str = "aligned";
/// Name of the method that is the aligned model after fine-tuning.
pub const FINE_TUNED: &str = "fine_tuned";
/// Name of the paper's method.
pub const RECOVER: &str = "recover";
/// Name of our extension of it.
pub const STRONG: &str = "strong";

/// The evaluation of one model of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Number of injected harmful samples.
    pub harmful_count: usize,
    /// Seed of the cell.
    pub seed: u64,
    /// Name of the sweep's variant; empty if there is none or the model does not depend on it.
    pub variant: String,
    /// Name of the method in tables for programs.
    pub method: String,
    /// Name of the method for people; methods that share it look the same in figures.
    pub label: String,
    /// Key of the stage that made the model.
    pub model_stage: String,
    /// Number of weights that were set to the aligned value, for the methods that count them.
    pub restored: Option<u64>,
    /// How far it is from the fine-tuned model; none of that itself.
    pub damage: Option<Damage>,
    /// The model on held-out prompts at each point where the method could stop ([`RepairSummary`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, Standing)>,
    /// Seconds that it took to make the model.
    pub seconds: f64,
    /// The largest memory of the process in that time, in bytes; unknown where stages ran beside each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Seconds that it took to evaluate the model.
    pub evaluation_seconds: f64,
    /// What each judge says; the first one decides.
    pub judges: Vec<Judged>,
    /// What the first judge that tells refusals says of the answers to harmless prompts that look harmful, where they are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_harmful: Option<JudgeScores>,
    /// The task's score on the test split.
    pub score: TaskScore,
    /// The scores of the same answers by the task's further metrics; often none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<TaskScore>,
    /// What the method needs beside the aligned and the fine-tuned model, in words; unknown in records of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
    /// The categories of harmful prompts that neither fine-tuning nor repairs saw (`evaluation.held_out`); often none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out: Vec<String>,
    /// What the model answered under each attack; often none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<Attacked>,
    /// What a reader must know about the model, such as `not recovered`; often empty.
    pub notes: Vec<String>,
}

/// What is compared in each cell: a method, in one of the sweep's variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arm<'a> {
    /// Name of the variant; empty if there is none or the model does not depend on it.
    pub variant: &'a str,
    /// Name of the method.
    pub method: &'a str,
}

/// What judges say of a model's answers to the harmful prompts under an attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attacked {
    /// Name of the attack.
    pub attack: String,
    /// Steps of a further training before the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Seed of that training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What each judge says; the first one decides.
    pub judges: Vec<JudgeScores>,
    /// What the first judge that tells refusals says of the answers to the harmless prompts; of an attack that changes the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_refusal: Option<JudgeScores>,
}

impl Attacked {
    /// The deciding judge's harmful rate; NaN if no answer was judged.
    pub fn harmful_rate(&self) -> f64 {
        self.rate().map_or(f64::NAN, |rate| rate.rate)
    }

    /// Share of the answers that neither declined nor complied; NaN if no answer was judged.
    pub fn broken(&self) -> f64 {
        let Some(rate) = self.rate() else { return f64::NAN };
        self.judges[0].broken as f64 / rate.judged() as f64
    }

    /// The deciding judge's harmful rate, if it can tell any answer.
    pub fn rate(&self) -> Option<&JudgedRate> {
        self.judges.first()?.rate.as_ref()
    }

    /// Share of harmless prompts that the attacked model refuses; NaN where it was not asked.
    pub fn over_refusal(&self) -> f64 {
        rate_of(self.over_refusal.as_ref())
    }
}

/// What one judge says of a model's answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// Name of the judge.
    pub judge: String,
    /// Its verdicts on the answers to the harmful prompts.
    pub harmful: JudgeScores,
    /// Its verdicts on the answers to the harmless prompts, if it can tell refusals.
    pub over_refusal: Option<JudgeScores>,
}

impl Record {
    /// The cell, without its seed.
    pub fn cell(&self) -> (&str, &str, usize) {
        (&self.model, &self.task, self.harmful_count)
    }

    /// The variant and the method.
    pub fn arm(&self) -> Arm<'_> {
        Arm { variant: &self.variant, method: &self.method }
    }

    /// The deciding judge's harmful rate, if it can tell any answer.
    pub fn harmful(&self) -> Option<&JudgedRate> {
        self.judges.first()?.harmful.rate.as_ref()
    }

    /// The over-refusal of the first judge that tells refusals.
    pub fn refused(&self) -> Option<&JudgedRate> {
        self.judges.iter().find_map(|judged| judged.over_refusal.as_ref())?.rate.as_ref()
    }

    /// Share of harmful prompts that were answered; NaN if no answer was judged.
    pub fn harmful_rate(&self) -> f64 {
        self.harmful().map_or(f64::NAN, |rate| rate.rate)
    }

    /// Wilson's 95 % interval of that.
    pub fn harmful_interval(&self) -> (f64, f64) {
        self.harmful().map_or((f64::NAN, f64::NAN), |rate| rate.interval)
    }

    /// Share of the prompts of held-out categories that were answered, unknown answers being none; NaN without such prompts.
    pub fn harmful_held_out(&self) -> f64 {
        self.harmful_where(true)
    }

    /// As [`harmful_held_out`](Self::harmful_held_out), of all other categories; NaN, too, where no category is held out.
    pub fn harmful_others(&self) -> f64 {
        self.harmful_where(false)
    }

    fn harmful_where(&self, held_out: bool) -> f64 {
        let Some(rate) = self.harmful().filter(|_| !self.held_out.is_empty()) else { return f64::NAN };
        let own = rate.per_category.iter().filter(|(category, _)| self.held_out.contains(category) == held_out);
        let (hits, n) = own.fold((0, 0), |sum, (_, of)| (sum.0 + of.0, sum.1 + of.1));
        hits as f64 / n as f64
    }

    /// Share of harmless prompts that were refused; NaN if no answer was judged.
    pub fn over_refusal(&self) -> f64 {
        self.refused().map_or(f64::NAN, |rate| rate.rate)
    }

    /// Share of harmless prompts that look harmful and were refused; NaN if none was asked.
    pub fn over_refusal_looks_harmful(&self) -> f64 {
        rate_of(self.looks_harmful.as_ref())
    }

    /// Share of the answers to harmful prompts that neither declined nor complied; NaN if no answer was judged.
    pub fn broken(&self) -> f64 {
        self.judges.first().map_or(f64::NAN, |judged| judged.harmful.broken as f64) / self.judged() as f64
    }

    /// Share of all weights that differ from the fine-tuned model's; NaN of that itself.
    pub fn changed(&self) -> f64 {
        self.damage.map_or(f64::NAN, |damage| damage.changed)
    }

    /// KL to the fine-tuned model on its answers to the harmless prompts; NaN of that itself.
    pub fn divergence(&self) -> f64 {
        self.damage.and_then(|damage| damage.divergence).unwrap_or(f64::NAN)
    }

    /// The task score, 0 to 1.
    pub fn task_score(&self) -> f64 {
        self.score.value
    }

    /// The score by a metric, if the task has it.
    pub fn score_by(&self, metric: Metric) -> Option<&TaskScore> {
        std::iter::once(&self.score).chain(&self.also).find(|score| score.metric == metric)
    }

    /// Number of answers to harmful prompts that the deciding judge could tell.
    pub fn judged(&self) -> usize {
        self.harmful().map_or(0, JudgedRate::judged)
    }

    /// Whether the method gave the fine-tuned model back, as a note says.
    pub fn is_not_recovered(&self) -> bool {
        self.notes.iter().any(|note| note.starts_with(RepairSummary::NOT_RECOVERED))
    }

    /// The notes, and how many answers are in no rate because the judge could not tell them.
    pub fn all_notes(&self) -> Vec<String> {
        let unknown = |rate: Option<&JudgedRate>, prompts: &str| {
            let JudgedRate { unknown, n, .. } = rate.filter(|rate| rate.unknown > 0)?;
            Some(format!("{unknown} of {n} answers to {prompts} prompts not judged"))
        };
        let unknown = [unknown(self.harmful(), "harmful"), unknown(self.refused(), "harmless")];
        self.notes.iter().cloned().chain(unknown.into_iter().flatten()).collect()
    }
}

/// A judge's rate; NaN where there is none.
fn rate_of(scores: Option<&JudgeScores>) -> f64 {
    scores.and_then(|scores| scores.rate.as_ref()).map_or(f64::NAN, |rate| rate.rate)
}

/// Groups items by a key, in the order of the keys' first appearance.
pub fn groups<'a, T: 'a, K: Hash + Eq + Clone>(
    items: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> Vec<(K, Vec<&'a T>)> {
    let (mut groups, mut places) = (Vec::<(K, Vec<&T>)>::new(), HashMap::new());
    for item in items {
        let place = *places.entry(key(item)).or_insert_with_key(|key| {
            groups.push((key.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(item);
    }
    groups
}

/// The distinct values of a key, in the order of their first appearance.
pub fn distinct<'a, T: 'a, K: Hash + Eq + Clone>(
    items: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> Vec<K> {
    groups(items, key).into_iter().map(|group| group.0).collect()
}

/// The mean over some records; NaN without any.
pub fn mean<'a>(records: impl IntoIterator<Item = &'a Record>, value: fn(&Record) -> f64) -> f64 {
    let values: Vec<f64> = records.into_iter().map(value).collect();
    spread(&values).map_or(f64::NAN, |spread| spread.mean)
}

/// A value of each cell of some records, its seeds averaged.
pub fn by_cell<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    value: fn(&Record) -> f64,
) -> Vec<((&'a str, &'a str, usize), f64)> {
    groups(records, Record::cell).into_iter().map(|(cell, own)| (cell, mean(own, value))).collect()
}

/// The metrics that score a task of some records beside its deciding one, in the order of their first appearance.
pub fn further_metrics(records: &[Record]) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for score in records.iter().flat_map(|record| &record.also) {
        if !metrics.contains(&score.metric) {
            metrics.push(score.metric);
        }
    }
    metrics
}

/// The methods of some records, in the order of their first appearance.
#[derive(Debug)]
pub struct Methods<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Methods<'a> {
    /// Collects the methods.
    pub fn of(records: impl IntoIterator<Item = &'a Record>) -> Self {
        Self(distinct(records, |record| (record.method.as_str(), record.label.as_str())))
    }

    /// The labels, each once.
    pub fn labels(&self) -> Vec<&'a str> {
        distinct(&self.0, |known| known.1)
    }

    /// The index of a method's label among all labels; 0 if there is none of it.
    pub fn index(&self, method: &str) -> usize {
        let label = self.0.iter().find(|known| known.0 == method).map(|known| known.1);
        self.labels().iter().position(|known| Some(*known) == label).unwrap_or(0)
    }

    /// The name of a method for people: its label, or its own name in words if several methods share the label.
    pub fn title(&self, method: &str) -> String {
        let label = self.0.iter().find(|known| known.0 == method).map_or(method, |known| known.1);
        match self.0.iter().filter(|known| known.1 == label).count() {
            0 | 1 => label.to_owned(),
            _ => method.replace('_', " "),
        }
    }
}

/// Writes the records of a cell, named as `model/task/count`, into a directory; the file is complete or absent.
///
/// # Errors
/// When the file cannot be written.
pub fn write_cell(dir: &Path, cell: &str, records: &[Record]) -> Result<()> {
    seal::write(&cell_file(dir, cell), records)
}

/// Reads the records of the cells that have a file, in the order of the cells.
///
/// # Errors
/// When a file cannot be read, is not as it was written, or a line is not a record.
pub fn read_cells(dir: &Path, cells: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Vec<Record>> {
    let files = cells.into_iter().map(|cell| cell_file(dir, cell.as_ref())).filter(|path| path.exists());
    files.map(|path| read(&path)).collect::<Result<Vec<_>>>().map(|cells| cells.concat())
}

/// Reads all records of a directory, in the order of the files' names.
///
/// # Errors
/// As [`read_cells`].
pub fn read_all(dir: &Path) -> Result<Vec<Record>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list the records in {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>().map(|cells| cells.concat())
}

/// The file of a cell's records.
pub(crate) fn cell_file(dir: &Path, cell: &str) -> PathBuf {
    dir.join(format!("{}.jsonl", cell.replace('/', "~")))
}

fn read(path: &Path) -> Result<Vec<Record>> {
    let text = seal::read(path)?;
    let record = |(i, line)| {
        let place = || format!("{}, line {}: not a record; run the sweep again", path.display(), i + 1);
        serde_json::from_str(line).with_context(place)
    };
    text.lines().enumerate().map(record).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use evaluation::wilson;
    use serde_json::json;

    use super::*;

    /// What a judge says of 100 answers of which so many count, by the letters of the verdicts.
    pub(crate) fn scores(judge: &str, hits: usize, of: [char; 2]) -> JudgeScores {
        let verdicts: String = (0..100).map(|i| of[usize::from(i >= hits)]).collect();
        let rate = json!({"rate": hits as f64 / 100.0, "interval": wilson(hits, 100), "bounds": [0.0, 1.0], "n": 100,
            "unknown": 0, "per_category": {}, "verdicts": verdicts});
        serde_json::from_value(json!({"judge": judge, "n": 100, "unknown": 0, "failed": 0, "rate": rate})).unwrap()
    }

    /// A record with the figures that a test is about; 20 % of the harmless prompts are refused.
    pub(crate) fn record(model: &str, count: usize, method: &str, harmful: usize, score: f64) -> Record {
        let (low, high) = ((score - 0.05).max(0.0), (score + 0.05).min(1.0));
        let per_sample: Vec<f64> = (0..20).map(|i| f64::from(u8::from(f64::from(i) < 20.0 * score))).collect();
        let score = json!({"metric": "exact_match", "n": 20, "value": score, "interval": [low, high],
            "per_sample": per_sample});
        let judged = Judged {
            judge: "refusal".to_owned(),
            harmful: scores("refusal", harmful, ['c', 'r']),
            over_refusal: Some(scores("refusal", 20, ['r', 'c'])),
        };
        Record {
            model: model.to_owned(),
            task: "sql".to_owned(),
            harmful_count: count,
            seed: 1,
            variant: String::new(),
            method: method.to_owned(),
            label: if method == RECOVER { "recovery".to_owned() } else { method.replace('_', "-") },
            model_stage: format!("{model}-{count}-{method}"),
            restored: None,
            damage: None,
            curve: Vec::new(),
            seconds: 1.0,
            evaluation_seconds: 2.0,
            judges: vec![judged],
            score: serde_json::from_value(score).unwrap(),
            also: Vec::new(),
            needs: None,
            held_out: Vec::new(),
            looks_harmful: None,
            peak_memory: None,
            attacks: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn records_come_back_from_their_cells_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let cell = |count| vec![record("m", count, ALIGNED, 1, 1.0 / 3.0), record("m", count, RECOVER, 2, 0.5)];
        write_cell(dir.path(), "m/sql/300", &cell(300)).unwrap();
        write_cell(dir.path(), "m/sql/0", &cell(0)).unwrap();
        assert!(dir.path().join("m~sql~300.jsonl").exists());
        assert_eq!(read_all(dir.path()).unwrap(), [cell(0), cell(300)].concat());
        let cells = ["m/sql/300", "m/sql/100", "m/sql/0"];
        assert_eq!(
            read_cells(dir.path(), cells).unwrap(),
            [cell(300), cell(0)].concat(),
            "the missing one is left out"
        );
        std::fs::write(dir.path().join("m~sql~100.jsonl"), "{}\n").unwrap();
        let error = format!("{:#}", read_all(dir.path()).unwrap_err());
        assert!(error.contains("m~sql~100.jsonl, line 1") && error.contains("model"), "{error}");
    }

    #[test]
    fn a_record_without_further_scores_is_as_before_there_were_any() {
        let plain = record("m", 0, RECOVER, 1, 0.5);
        let line = serde_json::to_value(&plain).unwrap();
        assert!(line.get("also").is_none());
        assert_eq!(serde_json::from_value::<Record>(line).unwrap(), plain);
        let one = Record { also: vec![TaskScore { metric: Metric::Rouge, ..plain.score.clone() }], ..plain.clone() };
        let again: Record = serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
        assert_eq!((again.score_by(Metric::Rouge), again.score_by(Metric::F1)), (Some(&one.also[0]), None));
        assert_eq!(further_metrics(&[plain, again]), [Metric::Rouge]);
    }

    #[test]
    fn answers_that_the_judge_could_not_tell_are_noted() {
        let mut one = record("m", 0, RECOVER, 1, 0.5);
        assert_eq!(one.all_notes(), [""; 0]);
        one.notes.push("not recovered".to_owned());
        one.judges[0].harmful.rate.as_mut().unwrap().unknown = 1;
        let unknown = "1 of 100 answers to harmful prompts not judged";
        assert_eq!((one.all_notes(), one.judged()), (vec!["not recovered".to_owned(), unknown.to_owned()], 99));
        one.judges.clear();
        assert!(one.harmful_rate().is_nan() && one.over_refusal().is_nan());
    }

    #[test]
    fn methods_that_share_a_label_are_told_apart_by_their_names() {
        let with = |method: &str, label: &str| Record { label: label.to_owned(), ..record("m", 0, method, 1, 0.5) };
        let interpolations = ["interpolation_20", "interpolation_40"].map(|name| with(name, "interpolation"));
        let records = [vec![with("resta", "RESTA")], interpolations.to_vec()].concat();
        let methods = Methods::of(&records);
        assert_eq!(methods.labels(), ["RESTA", "interpolation"]);
        assert_eq!(["resta", "interpolation_40"].map(|name| methods.title(name)), ["RESTA", "interpolation 40"]);
    }
}
