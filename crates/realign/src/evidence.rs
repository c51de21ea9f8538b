//! Evidence of a repair as samples: harmful and harmless prompts, which the models themselves answer, and the task's
//! training samples.

use std::path::Path;

use prompts::{Encoded, Sample};
use recovery::{Answered, MeritSettings, Reference};
use serde::Serialize;

use crate::answers::{Wanted, answer_files};
use crate::error::invalid;
use crate::model::{LazyModel, Model};
use crate::reader::Reader;
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
}

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

    /// Reads all, with the models' own answers, which are kept in `out` or found among those of earlier stages.
    ///
    /// # Errors
    /// When a file cannot be read, prompts are missing or are in both parts, or a template fails;
    /// [`crate::Error::Stopped`].
    pub(crate) fn read(&self, models: &Pair<'_>, out: &Path, job: &mut Job<'_>) -> Result<recovery::Evidence> {
        self.check_parts()?;
        self.check_lengths([models.aligned.0, models.fine_tuned.0])?;
        let device = job.device;
        let open =
            |(model, artifact): (&Model, &Artifact)| LazyModel::new(artifact, None, device).opened(model.clone());
        let mut aligned = open(models.aligned);
        let harmful = self.answers(&mut aligned, out, &|set| set.2, job)?;
        let mut answering = match self.reference {
            Reference::Aligned => aligned,
            Reference::FineTuned => open(models.fine_tuned),
        };
        let harmless = self.answers(&mut answering, out, &|set| !set.2, job)?;
        let reader = models.fine_tuned.0;
        let parts = |mut answered: Vec<(Vec<Sample>, &Samples)>| -> Result<recovery::Parts> {
            let mut next = || -> Result<Vec<Answered>> {
                let (samples, from) = answered.remove(0);
                Ok(encode(reader, &samples, &from.file)?.into_iter().filter_map(|one| self.own(&one)).collect())
            };
            Ok(recovery::Parts { train: next()?, held_out: next()? })
        };
        let task = |samples: &Samples| -> Result<Vec<Answered>> {
            Ok(encode(reader, &samples.read()?, &samples.file)?.iter().filter_map(answered).collect())
        };
        let of_task = match &self.task {
            Some(Parts { train, held_out }) => recovery::Parts { train: task(train)?, held_out: task(held_out)? },
            None => recovery::Parts::default(),
        };
        Ok(recovery::Evidence {
            harmful: parts(harmful)?,
            harmless: parts(harmless)?,
            task: of_task,
            reference: self.reference,
            merit: self.merit,
        })
    }

    /// The answers to some of the sets.
    fn answers(
        &self,
        model: &mut LazyModel<'_>,
        out: &Path,
        wanted: &dyn Fn(&(&Samples, &str, bool)) -> bool,
        job: &mut Job<'_>,
    ) -> Result<Vec<(Vec<Sample>, &Samples)>> {
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

    /// A model's own answer as a row; it does not end where it was cut. None if it is empty.
    fn own(&self, encoded: &Encoded) -> Option<Answered> {
        let mut row = answered(encoded)?;
        let limit = row.start + self.max_new_tokens;
        row.ids.truncate(limit.max(row.start + 1));
        Some(row)
    }

    /// An error where a prompt with its answer is too long for a model that reads it, before the first is answered. Both models
    /// read what the fine-tuned model's tokenizer makes of the answered prompts.
    fn check_lengths(&self, models: [&Model; 2]) -> Result<()> {
        let [own, of_both] = models.map(|model| model.reader());
        let of_both = Reader {
            limit: own.limit.min(of_both.limit),
            vocabulary: own.vocabulary.min(of_both.vocabulary),
            ..of_both
        };
        for (samples, ..) in self.sets() {
            let read = samples.read()?;
            let fits = |reader: Reader<'_>| reader.check_prompts(&read, self.max_new_tokens);
            fits(own).and_then(|()| fits(of_both)).map_err(|error| error.located(&[&samples.file]))?;
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

fn encode(model: &Model, samples: &[Sample], file: &Path) -> Result<Vec<Encoded>> {
    model.encode_samples(samples, file)
}

/// The row of a sample, if there is anything to learn from it.
fn answered(encoded: &Encoded) -> Option<Answered> {
    let start = encoded.loss_mask.iter().position(|&counts| counts)?;
    let end = encoded.loss_mask.iter().rposition(|&counts| counts)?;
    (start > 0).then(|| Answered { ids: encoded.ids[..=end].to_vec(), start })
}
