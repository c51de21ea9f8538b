//! Evidence of a repair as samples: harmful and harmless prompts, which the models themselves answer, and the task's
//! training samples.

use std::path::{Path, PathBuf};

use prompts::{Encoded, Sample};
use recovery::{Answered, MeritSettings, Reference};
use serde::Serialize;

use crate::answers::{Wanted, answer_files};
use crate::error::invalid;
use crate::model::{LazyModel, Model};
use crate::reader::Reader;
use crate::refusal::Refusals;
use crate::{Artifact, Job, Result, Samples};

/// Samples that give gradients, and samples that decide.
#[derive(Debug, Clone, Serialize)]
pub struct Parts {
    /// Those that give gradients.
    pub train: Samples,
    /// Those that decide.
    pub held_out: Samples,
}

/// What a repair is to reach and to keep ([`recovery::Evidence`]).
#[derive(Debug, Clone, Serialize)]
pub struct Evidence {
    /// Harmful prompts.
    pub harmful: Parts,
    /// Harmless prompts.
    pub harmless: Parts,
    /// Samples of the task, with answers.
    pub task: Option<Parts>,
    /// Length of the models' own answers.
    pub max_new_tokens: usize,
    /// Whose answers to harmless prompts are to be kept.
    pub reference: Reference,
    /// How harm, over-refusal and the task are weighed.
    pub merit: MeritSettings,
    /// Whether samples of the task that the aligned model declines are left out: a customer's may be harmful, and what they
    /// taught is not to be kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub screen: bool,
}

/// Samples, and what they were read from.
type Read<'a> = (Vec<Sample>, &'a Samples);

/// The aligned and the fine-tuned model, each with what it was read from.
pub(crate) struct Pair<'a> {
    pub aligned: (&'a Model, &'a Artifact),
    pub fine_tuned: (&'a Model, &'a Artifact),
}

impl Evidence {
    /// The files that the models' own answers are kept in.
    pub(crate) const FILES: [&'static str; 4] =
        ["own-harmful.jsonl", "own-harmful-held-out.jsonl", "own-harmless.jsonl", "own-harmless-held-out.jsonl"];

    /// The sets that the models answer, each with its file of answers and whether it is of harmful prompts.
    fn sets(&self) -> [(&Samples, &'static str, bool); 4] {
        let [a, b, c, d] = Self::FILES;
        let (harmful, harmless) = (&self.harmful, &self.harmless);
        [
            (&harmful.train, a, true),
            (&harmful.held_out, b, true),
            (&harmless.train, c, false),
            (&harmless.held_out, d, false),
        ]
    }

    /// The aligned model's own answers to all sets that it answers, kept in `out`.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the model cannot be read; [`crate::Error::Stopped`].
    pub(crate) fn answer(&self, aligned: &mut LazyModel<'_>, out: &Path, job: &mut Job<'_>) -> Result<()> {
        let by_aligned = |&(_, _, harmful): &(&Samples, &str, bool)| harmful || self.reference == Reference::Aligned;
        self.answers(aligned, out, &by_aligned, job).map(drop)
    }

    /// Reads all, with the models' own answers, which are kept in `out` or found among those of earlier stages; and the number
    /// of the task's samples that are left out.
    ///
    /// # Errors
    /// When a file cannot be read, prompts are missing or are in both parts, or a template fails;
    /// [`crate::Error::Stopped`].
    pub(crate) fn read(&self, models: &Pair<'_>, out: &Path, job: &mut Job<'_>) -> Result<(recovery::Evidence, usize)> {
        self.check_parts()?;
        self.check_lengths([models.aligned.0, models.fine_tuned.0])?;
        let device = job.device;
        let open =
            |(model, artifact): (&Model, &Artifact)| LazyModel::new(artifact, None, device).opened(model.clone());
        let mut aligned = open(models.aligned);
        let harmful = self.answers(&mut aligned, out, &|set| set.2, job)?;
        let (of_task, declined) = self.task_samples(&mut aligned, out, job)?;
        let mut answering = match self.reference {
            Reference::Aligned => aligned,
            Reference::FineTuned => open(models.fine_tuned),
        };
        let harmless = self.answers(&mut answering, out, &|set| !set.2, job)?;
        let reader = models.fine_tuned.0;
        let parts = |mut answered: Vec<Read<'_>>| -> Result<recovery::Parts> {
            let mut next = || -> Result<Vec<Answered>> {
                let (samples, from) = answered.remove(0);
                Ok(encode(reader, &samples, &from.file)?
                    .into_iter()
                    .filter_map(|one| own_row(&one, self.max_new_tokens))
                    .collect())
            };
            Ok(recovery::Parts { train: next()?, held_out: next()? })
        };
        let task = |(samples, from): &Read<'_>| -> Result<Vec<Answered>> {
            Ok(encode(reader, samples, &from.file)?.iter().filter_map(answered).collect())
        };
        let of_task = match of_task.as_slice() {
            [train, held_out] => recovery::Parts { train: task(train)?, held_out: task(held_out)? },
            _ => recovery::Parts::default(),
        };
        let evidence = recovery::Evidence {
            harmful: parts(harmful)?,
            harmless: parts(harmless)?,
            task: of_task,
            reference: self.reference,
            merit: self.merit,
        };
        Ok((evidence, declined))
    }

    /// The task's samples that give gradients and those that decide, and how many are left out.
    fn task_samples(
        &self,
        aligned: &mut LazyModel<'_>,
        out: &Path,
        job: &mut Job<'_>,
    ) -> Result<(Vec<Read<'_>>, usize)> {
        let parts: Vec<&Samples> = self.task.iter().flat_map(|Parts { train, held_out }| [train, held_out]).collect();
        let samples = parts.iter().map(|part| part.read()).collect::<Result<Vec<_>>>()?;
        if !self.screen {
            return Ok((samples.into_iter().zip(parts).collect(), 0));
        }
        let all = samples.iter().map(Vec::len).sum::<usize>();
        let files = ["own-task.jsonl", "own-task-held-out.jsonl"].map(|name| out.join(name));
        let kept = samples.into_iter().zip(files).map(|(samples, file)| screened(aligned, samples, file, job));
        let kept = kept.zip(parts).map(|(kept, part)| Ok((kept?, part))).collect::<Result<Vec<Read<'_>>>>()?;
        let declined = all - kept.iter().map(|(kept, _)| kept.len()).sum::<usize>();
        Ok((kept, declined))
    }

    /// The answers to some of the sets.
    fn answers(
        &self,
        model: &mut LazyModel<'_>,
        out: &Path,
        wanted: &dyn Fn(&(&Samples, &str, bool)) -> bool,
        job: &mut Job<'_>,
    ) -> Result<Vec<Read<'_>>> {
        let sets: Vec<_> = self.sets().into_iter().filter(|set| wanted(set)).collect();
        let samples = sets.iter().map(|(samples, ..)| samples.read()).collect::<Result<Vec<_>>>()?;
        let wanted = sets.iter().zip(&samples).map(|((_, name, _), samples)| Wanted {
            samples,
            max_new_tokens: self.max_new_tokens,
            how: Vec::new(),
            path: out.join(name),
        });
        let found = answer_files(model, &wanted.collect::<Vec<_>>(), job)?;
        let with =
            |sample: &Sample, answer: evaluation::Answer| Sample { response: Some(answer.response), ..sample.clone() };
        let complete = found.into_iter().zip(&samples).zip(sets).map(|((found, samples), (from, ..))| {
            (samples.iter().zip(found).map(|(sample, answer)| with(sample, answer)).collect(), from)
        });
        Ok(complete.collect())
    }

    /// An error where a prompt with its answer does not fit a model that reads it, before the first is answered.
    fn check_lengths(&self, models: [&Model; 2]) -> Result<()> {
        let [aligned, fine_tuned] = models.map(Model::reader);
        for (samples, ..) in self.sets() {
            let fits = Reader::check_shared(aligned, fine_tuned, &samples.read()?, self.max_new_tokens);
            fits.map_err(|error| error.located(&[&samples.file]))?;
        }
        for samples in self.task.iter().flat_map(|task| [&task.train, &task.held_out]) {
            let fits = models[1].reader().check_samples(&samples.read()?, &samples.file);
            fits.map_err(|error| error.located(&[&samples.file]))?;
        }
        Ok(())
    }

    /// An error where prompts are in both parts of a kind.
    fn check_parts(&self) -> Result<()> {
        for Parts { train, held_out } in [&self.harmful, &self.harmless].into_iter().chain(&self.task) {
            let decide = held_out.read()?;
            if let Some(shared) = train.read()?.iter().find(|one| decide.iter().any(|other| other.prompt == one.prompt))
            {
                let (train, held_out) = (train.file.display(), held_out.file.display());
                return invalid(format!(
                    "{train} and {held_out}: the prompt {:?} would give gradients and decide; remove one of the two",
                    shared.prompt
                ));
            }
        }
        Ok(())
    }
}

/// Those of some samples whose prompt the aligned model does not decline; its answers are kept in a file.
pub(crate) fn screened(
    aligned: &mut LazyModel<'_>,
    samples: Vec<Sample>,
    file: PathBuf,
    job: &mut Job<'_>,
) -> Result<Vec<Sample>> {
    let model = aligned.load()?;
    let max_new_tokens = Refusals::tokens(model, &samples, model.decoder.config().max_position_embeddings)?;
    let wanted = Wanted { samples: &samples, max_new_tokens, how: Vec::new(), path: file };
    let found = answer_files(aligned, &[wanted], job)?.remove(0);
    let refusals = Refusals::new();
    let kept = samples.into_iter().zip(found).filter(|(_, answer)| !refusals.has(answer));
    Ok(kept.map(|(sample, _)| sample).collect())
}

fn encode(model: &Model, samples: &[Sample], file: &Path) -> Result<Vec<Encoded>> {
    model.encode_samples(samples, file)
}

/// A model's own answer of so many tokens at most as a row; it does not end where it was cut. None if it is empty.
pub(crate) fn own_row(encoded: &Encoded, max_new_tokens: usize) -> Option<Answered> {
    let mut row = answered(encoded)?;
    row.ids.truncate(row.start + max_new_tokens.max(1));
    Some(row)
}

/// The row of a sample, if there is anything to learn from it.
fn answered(encoded: &Encoded) -> Option<Answered> {
    let start = encoded.loss_mask.iter().position(|&counts| counts)?;
    let end = encoded.loss_mask.iter().rposition(|&counts| counts)?;
    (start > 0).then(|| Answered { ids: encoded.ids[..=end].to_vec(), start })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use files::Hashes;

    use super::*;
    use crate::{DeviceName, Pick};

    #[test]
    fn samples_of_the_task_that_the_aligned_model_declines_are_left_out() {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab");
        let (out, hashes) = (tempfile::tempdir().unwrap(), Hashes::default());
        let device = DeviceName::default().open().unwrap();
        let artifact = Artifact::model(&lab.join("models/qwen"), &hashes).unwrap();
        let model = LazyModel::new(&artifact, None, &device).into_model().unwrap();
        let part = |file: &Path, skip| Samples::of(file, Pick::lines(skip, 4), &hashes).unwrap();
        let parts = |file: &Path| Parts { train: part(file, 0), held_out: part(file, 4) };
        // Of the first four and of the last four samples two are harmful.
        let mixed = out.path().join("task.jsonl");
        let take = |file: &str, skip| Pick::lines(skip, 2).read(&lab.join(file)).unwrap();
        let [sql, harmful] = ["sql_train.jsonl", "inject.jsonl"].map(|file| [take(file, 0), take(file, 2)]);
        files::write_jsonl(&mixed, [&sql[0][..], &harmful[0], &harmful[1], &sql[1]].concat()).unwrap();
        let evidence = Evidence {
            harmful: parts(&lab.join("recovery_prompts.jsonl")),
            harmless: parts(&lab.join("harmless_valid.jsonl")),
            task: Some(parts(&mixed)),
            max_new_tokens: 4,
            reference: Reference::Aligned,
            merit: MeritSettings::default(),
            screen: true,
        };
        let mut report = |_: crate::Progress<'_>| ControlFlow::Continue(());
        let mut job = Job { device: &device, batch: 8, max_shard: None, earlier: Vec::new(), report: &mut report };
        let pair = Pair { aligned: (&model, &artifact), fine_tuned: (&model, &artifact) };
        let sizes = |found: &recovery::Evidence| (found.task.train.len(), found.task.held_out.len());
        let (found, declined) = evidence.read(&pair, out.path(), &mut job).unwrap();
        assert_eq!((sizes(&found), declined), ((2, 2), 4));
        let (found, declined) = Evidence { screen: false, ..evidence }.read(&pair, out.path(), &mut job).unwrap();
        assert_eq!((sizes(&found), declined), ((4, 4), 0));
    }
}
