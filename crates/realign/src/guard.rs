//! Judges run on stored answers: each judge's verdicts go to a file of its own, answer by answer, so that judging goes on
//! where it was stopped. The decoder of a guard model is run here; how it is asked is in `evaluation`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use evaluation::judge::format::{JudgeFormat, Probability};
use evaluation::judge::settings::GuardSettings;
use evaluation::{
    Answer, EvaluationError, HttpJudge, HttpOutcome, Judge, Judged, Verdict, VerdictRecord, unusable, verdict_key,
};
use files::{Hashes, Journal};
use model::Packed;
use model::generate::{greedy, greedy_with_logits};
use prompts::{Tokenizer, length_buckets};

use crate::error::{Within as _, invalid};
use crate::model::{Model, Source};
use crate::{Artifact, Error, Job, Result};

/// A file of answers to be judged, and the file for the verdicts.
#[derive(Debug, Clone)]
pub struct ToJudge {
    /// The answers.
    pub answers: PathBuf,
    /// Their number, of which progress is a share.
    pub count: usize,
    /// The verdict file.
    pub path: PathBuf,
}

/// So many answers are in memory and shown to a judge at a time.
const AT_ONCE: usize = 4096;

/// Judges all files of answers by one judge; what is judged already is read. A guard is loaded once, if at all.
///
/// # Errors
/// When a guard cannot be loaded, an endpoint refuses the key, or a file cannot be read or written.
pub fn judge_sets(judge: &Judge, sets: &[ToJudge], hashes: &Hashes, job: &mut Job<'_>) -> Result<Vec<Vec<Judged>>> {
    let identity = identity(judge, hashes)?;
    let mut opened = Opened { judge, device: job.device, guard: None, endpoint: None };
    sets.iter().map(|set| judge_set(&mut opened, &identity, set, job)).collect()
}

fn judge_set(opened: &mut Opened<'_>, identity: &str, set: &ToJudge, job: &mut Job<'_>) -> Result<Vec<Judged>> {
    let name = opened.judge.name();
    let key = |answer: &Answer| verdict_key(identity, answer);
    let mut file = Journal::<VerdictRecord>::open(&set.path)?;
    if let Some(name) = set.path.file_name() {
        job.earlier.iter().for_each(|dir| file.take_over(&dir.join(name)));
    }
    let (mut done, mut missing, mut pending) = (0, Vec::new(), HashSet::new());
    let mut judge = |missing: &[Answer], done: &mut usize, file: &mut Journal<VerdictRecord>| {
        opened.judge(missing, &mut |heard| {
            let Some((index, found)) = heard else { return job.step(*done, set.count, "verdicts") };
            let Found { verdict, p_harmful, problem, transient, reply } = found;
            let (id, judge, key) = (missing[index].id.clone(), name.to_owned(), key(&missing[index]));
            file.add(&VerdictRecord { id, judge, key, verdict, p_harmful, problem, transient, reply })?;
            *done += 1;
            job.step(*done, set.count, "verdicts")
        })
    };
    for answer in evaluation::answers(&set.answers)? {
        let answer = answer?;
        let key = key(&answer);
        if file.has(&key) || !pending.insert(key) {
            done += 1; // equal answers are judged once
            continue;
        }
        missing.push(answer);
        if missing.len() == AT_ONCE {
            judge(&missing, &mut done, &mut file)?;
            missing.clear();
            pending.clear();
        }
    }
    judge(&missing, &mut done, &mut file)?;
    let mut judged = Vec::with_capacity(set.count);
    let records = evaluation::answers(&set.answers)?.map(|answer| {
        let answer = answer?;
        let record = file.record(&key(&answer))?;
        judged.push(Judged::from(&record));
        Ok::<_, Error>(VerdictRecord { id: answer.id, ..record }) // equal answers share a verdict; the id is the answer's
    });
    file.finish(records)?;
    Ok(judged)
}

/// A judge, and what it is asked through, opened when it is first needed.
struct Opened<'a> {
    judge: &'a Judge,
    device: &'a Device,
    guard: Option<Guard<'a>>,
    endpoint: Option<HttpJudge<'a>>,
}

impl Opened<'_> {
    /// Judges answers; `heard` gets each one's index and what was found, in any order, and none while an endpoint says nothing.
    fn judge(&mut self, answers: &[Answer], heard: &mut dyn FnMut(Option<(usize, Found)>) -> Result<()>) -> Result<()> {
        let mut open = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            match self.judge.by_rule(answer) {
                Some(verdict) => heard(Some((index, Found::of(verdict))))?,
                None => open.push(index),
            }
        }
        let asked: Vec<&Answer> = open.iter().map(|&index| &answers[index]).collect();
        let mut judged = |place: usize, found: Found| heard(Some((open[place], found)));
        match self.judge {
            _ if asked.is_empty() => Ok(()),
            Judge::Refusal(_) | Judge::Lab(_) => Ok(()), // they judge by rule alone
            Judge::Trained(settings, weights) => asked.iter().enumerate().try_for_each(|(place, answer)| {
                let text = answer.final_text().unwrap_or_default();
                let (verdict, p_harmful) = weights.verdict(text, settings.window);
                judged(place, Found { p_harmful, ..Found::of(verdict) })
            }),
            Judge::Http(settings, format) => {
                let endpoint = match &mut self.endpoint {
                    Some(endpoint) => endpoint,
                    none => none.insert(HttpJudge::new(settings, format)?),
                };
                let mut failed = None;
                let outcome = endpoint.judge(&asked, &mut |found| {
                    let found = found.map(|(place, HttpOutcome { verdict, problem, transient, reply })| {
                        (open[place], Found { problem, transient, reply, ..Found::of(verdict) })
                    });
                    heard(found).map_err(|error| {
                        failed = Some(error);
                        EvaluationError::NoAnswers // ends the judging; the error itself is given below
                    })
                });
                failed.map_or(Ok(()), Err)?;
                Ok(outcome?)
            }
            Judge::Guard(settings, format) => {
                let guard = match &mut self.guard {
                    Some(guard) => guard,
                    none => {
                        let guard = Guard::open(settings, format, self.device);
                        none.insert(guard.within(|| format!("judge {}", settings.name))?)
                    }
                };
                guard.judge(&asked, &mut judged)
            }
        }
    }
}

/// What a judge found of one answer.
struct Found {
    verdict: Verdict,
    p_harmful: Option<f64>,
    problem: Option<String>,
    transient: bool,
    reply: Option<String>,
}

impl Found {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, p_harmful: None, problem: None, transient: false, reply: None }
    }
}

/// What decides a judge's verdicts, the content of a guard's files among it.
///
/// # Errors
/// When a guard's directory cannot be read.
pub fn identity(judge: &Judge, hashes: &Hashes) -> Result<String> {
    let mut identity = judge.identity().to_string();
    if let Judge::Guard(settings, _) = judge {
        identity += &Artifact::model(&settings.model, hashes)?.key;
    }
    Ok(identity)
}

/// Checks that a judge can be asked, before hours of answers: an endpoint's key is in the environment, and a guard's files
/// are there and whole. No weight is read and no request made.
///
/// # Errors
/// Names the judge and what is missing.
pub fn check_judge(judge: &Judge) -> Result<()> {
    match judge {
        Judge::Refusal(_) | Judge::Lab(_) | Judge::Trained(..) => Ok(()),
        Judge::Http(settings, format) => Ok(HttpJudge::new(settings, format).map(drop)?),
        Judge::Guard(settings, format) => {
            check_guard(&settings.model, format).within(|| format!("judge {}", settings.name))
        }
    }
}

fn check_guard(dir: &Path, format: &JudgeFormat) -> Result<()> {
    let source = Source::new(dir, None)?;
    let tokenizer = Tokenizer::from_dirs(&source.dirs).within(|| format!("tokenizer of {}", dir.display()))?;
    source.dtype(None)?;
    format.probability.as_ref().map_or(Ok(()), |probability| labels(&tokenizer, probability).map(drop))
}

/// A guard model in memory.
struct Guard<'a> {
    model: Model,
    format: &'a JudgeFormat,
    batch: usize,
    labels: Option<Labels>,
}

/// The ids that a probability is read from.
struct Labels {
    after: Vec<u32>,
    harmful: Vec<usize>,
    other: Vec<usize>,
}

impl<'a> Guard<'a> {
    fn open(settings: &GuardSettings, format: &'a JudgeFormat, device: &Device) -> Result<Self> {
        let model = Model::open(&settings.model, None, device)?;
        let labels =
            format.probability.as_ref().map(|probability| labels(&model.tokenizer, probability)).transpose()?;
        Ok(Self { model, format, batch: settings.batch.max(1), labels })
    }

    /// Judges answers in batches of similar length. One that is too long for the model is unknown, with the cause.
    fn judge(&self, answers: &[&Answer], judged: &mut dyn FnMut(usize, Found) -> Result<()>) -> Result<()> {
        let tokenizer = &self.model.tokenizer;
        let limit = self.model.decoder.config().max_position_embeddings;
        let eos = tokenizer.eos_ids();
        let extra = self.format.max_new_tokens.max(self.labels.as_ref().map_or(0, |labels| labels.after.len()));
        let (mut rows, mut fitting) = (Vec::new(), Vec::new());
        for (index, answer) in answers.iter().enumerate() {
            let row = tokenizer.encode(&self.format.render(answer)?)?;
            self.model.reader().check_ids(&row)?;
            if row.len().saturating_add(extra) > limit {
                let problem = format!("prompt of {} tokens; the guard reads {limit}", row.len());
                judged(index, Found { problem: Some(problem), ..Found::of(Verdict::Unknown) })?;
            } else {
                rows.push(row);
                fitting.push(index);
            }
        }
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        for bucket in length_buckets(&lengths, self.batch) {
            let batch: Vec<Vec<u32>> = bucket.iter().map(|&row| rows[row].clone()).collect();
            for (&row, (written, p_harmful)) in bucket.iter().zip(self.read(&batch, &eos)?) {
                let text = tokenizer.decode(&written, true)?;
                let verdict = self.format.parse(&text);
                let reply = unusable(verdict, &text);
                judged(fitting[row], Found { p_harmful, reply, ..Found::of(verdict) })?;
            }
        }
        Ok(())
    }

    /// What the guard writes after each row, and the probability of the harmful labels.
    fn read(&self, rows: &[Vec<u32>], eos: &[u32]) -> Result<Vec<(Vec<u32>, Option<f64>)>> {
        let (decoder, length) = (&self.model.decoder, self.format.max_new_tokens);
        match &self.labels {
            Some(labels) if labels.after.is_empty() && length > 0 => {
                let read = greedy_with_logits(decoder, rows, length, eos)?.into_iter();
                read.map(|row| Ok((row.answer, Some(finite_share(&row.first, labels)?)))).collect()
            }
            labels => {
                let written = greedy(decoder, rows, length, eos)?;
                let shares = match labels {
                    Some(labels) => self.probabilities(rows, labels)?.into_iter().map(Some).collect(),
                    None => vec![None; rows.len()],
                };
                Ok(written.into_iter().zip(shares).collect())
            }
        }
    }

    /// The probability of the harmful labels at each row's next position.
    fn probabilities(&self, rows: &[Vec<u32>], labels: &Labels) -> Result<Vec<f64>> {
        let rows: Vec<Vec<u32>> = rows.iter().map(|row| [row.as_slice(), &labels.after].concat()).collect();
        let packed = Packed::new(&rows)?;
        let logits = self.model.decoder.logits(&packed, &packed.segments.last())?;
        let [_, vocab] = logits.dims();
        let logits: Vec<f32> = logits.try_into_vec_as().map_err(|error| model::Error::Device(error.to_string()))?;
        logits.chunks(vocab).map(|row| finite_share(row, labels)).collect()
    }
}

fn finite_share(logits: &[f32], labels: &Labels) -> Result<f64> {
    let reason =
        "the judge's logits are not finite: a weight, or a number of its config.json, is too large or too small";
    share(logits, labels).map_or_else(|| invalid(reason), Ok)
}

/// The share of the harmful labels' probability, as [`Probability`] defines it; none where a logit is no number.
fn share(logits: &[f32], labels: &Labels) -> Option<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let is_finite = logits.iter().all(|logit| logit.is_finite());
    let of = |largest: f32| share_below(logits, labels, largest);
    // Where another token takes all, both can be too small for a number; they are compared with each other then.
    let of_labels =
        || labels.harmful.iter().chain(&labels.other).map(|&id| logits[id]).fold(f32::NEG_INFINITY, f32::max);
    is_finite.then(|| of(largest).or_else(|| of(of_labels())))?
}

/// The share, with weights relative to a logit; none where all are 0.
fn share_below(logits: &[f32], labels: &Labels, largest: f32) -> Option<f64> {
    let weight = |logit: f32| f64::from(logit - largest).exp();
    let sum = |ids: &[usize]| ids.iter().map(|&id| weight(logits[id])).sum::<f64>();
    let harmful = sum(&labels.harmful);
    let all = match labels.other.is_empty() {
        true => logits.iter().map(|&logit| weight(logit)).sum(),
        false => harmful + sum(&labels.other),
    };
    (all > 0.0).then(|| harmful / all)
}

fn labels(tokenizer: &Tokenizer, probability: &Probability) -> Result<Labels> {
    let first = |label: &String| -> Result<usize> {
        match tokenizer.encode(label)?.first() {
            Some(&id) => Ok(id as usize),
            None => invalid(format!("the tokenizer makes nothing of the label {label:?}")),
        }
    };
    let ids = |labels: &[String]| -> Result<Vec<usize>> {
        let mut ids = labels.iter().map(first).collect::<Result<Vec<_>>>()?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    };
    let (harmful, other) = (ids(&probability.unsafe_labels)?, ids(&probability.safe_labels)?);
    if let Some(id) = harmful.iter().find(|id| other.contains(id)) {
        return invalid(format!(
            "labels of both kinds begin with the token {id} of this tokenizer; take `probability` out of the format"
        ));
    }
    let after = if probability.after.is_empty() { vec![] } else { tokenizer.encode(&probability.after)? };
    Ok(Labels { after, harmful, other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_a_share_of_the_labels_or_of_the_vocabulary() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        let of = |harmful: &[usize], other: &[usize]| {
            share(&logits, &Labels { after: vec![], harmful: harmful.to_vec(), other: other.to_vec() })
                .unwrap_or(f64::NAN)
        };
        // weights 1, 2, 5; f32 logarithms are good to 1e-6
        for (got, expected) in [(of(&[1], &[0]), 2.0 / 3.0), (of(&[1], &[]), 0.25), (of(&[0, 1], &[2]), 3.0 / 8.0)] {
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
        let labels = Labels { after: vec![], harmful: vec![1], other: vec![2] };
        assert_eq!(share(&[0.0, -1e9, -1e9], &labels), Some(0.5));
        assert_eq!(share(&[0.0, -1e9, -2e9], &labels), Some(1.0), "both are too small beside another token");
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(share(&[broken, 0.0, 1.0], &labels), None, "{broken}");
            assert_eq!(share(&[0.0, broken, 1.0], &labels), None, "{broken}");
        }
    }
}
