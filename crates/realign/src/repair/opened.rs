//! The inputs of a repair, read and divided, and the plan that they make. Of the weights only those outside the blocks are read.

use std::collections::HashSet;
use std::path::Path;

use burn::tensor::{DType, Device};
use evaluation::{Answer, Judge, PromptKind};
use files::Hashes;
use model::Dtype;
use prompts::Sample;

use super::measures::Questions;
use super::packaged::Packaged;
use super::pair::Pair;
use super::parts::{Divided, Held};
use super::plan::{Kind, Plan};
use super::settings::Settings;
use crate::error::{Within as _, invalid};
use crate::model::Source;
use crate::needs::{Machine, Needs, Precision, Work, speed};
use crate::stage::{Aim, AnswerFile};
use crate::{Evidence, Pick, Result, check_judge};

/// The name of the set of harmful prompts.
pub(super) const HARMFUL: &str = "harmful";

/// The inputs of a repair.
pub(super) struct Opened {
    pub kinds: Vec<Kind>,
    pub questions: Questions,
    /// The precision of the result.
    pub dtype: Dtype,
    pub pair: Pair,
    /// Parameters outside the blocks that may be restored.
    outside: usize,
    /// What looks wrong in the prompts.
    pub warnings: Vec<String>,
    harmful: Divided,
    harmless: Divided,
    task: Option<Divided>,
}

/// Where prompts come from, and which.
struct Given {
    source: String,
    hash: String,
    samples: Vec<Sample>,
}

impl Given {
    fn file(path: &Path, pick: &Pick, hashes: &Hashes) -> Result<Self> {
        Ok(Self { source: path.display().to_string(), hash: hashes.of(path)?, samples: pick.read(path)? })
    }

    fn packaged(set: Packaged) -> Self {
        Self { source: set.name.to_owned(), hash: set.hash, samples: set.samples }
    }
}

impl Opened {
    /// Reads and divides what the settings name.
    ///
    /// # Errors
    /// When a file is missing or damaged, the models are no pair, prompts are too few or do not fit the models, or a judge
    /// cannot be asked.
    pub fn new(settings: &Settings, hashes: &Hashes) -> Result<Self> {
        settings.check()?;
        let (aligned, fine_tuned) = models(settings)?;
        let (of_aligned, source) = (Source::new(aligned, None)?, Source::new(fine_tuned, Some(aligned))?);
        let pair = Pair::open(&of_aligned, &source, settings.enable_thinking)?;
        let dtype = source.dtype(settings.dtype)?;
        let outside = match settings.strong.all_tensors {
            Some(true) => source.differing_outside_blocks(of_aligned.home(), dtype)?,
            _ => 0,
        };
        let judges = settings.judges.as_deref().map_or_else(|| Ok(vec![Judge::phrases()]), Judge::read_list)?;
        judges.iter().try_for_each(check_judge)?;
        let mut opened = Self {
            kinds: Vec::new(),
            questions: Questions { asked: Vec::new(), max_new_tokens: settings.max_new_tokens, judges },
            dtype,
            pair,
            outside,
            warnings: Vec::new(),
            harmful: Divided::default(),
            harmless: Divided::default(),
            task: None,
        };
        let plain = Pick::by(&settings.prompt_key, None, false);
        let from = |file: &Path| Given::file(file, &plain, hashes);
        let harmful = settings.harmful.as_deref().map_or_else(|| Packaged::harmful().map(Given::packaged), from)?;
        opened.harmful = opened.divide(HARMFUL, Aim::Prompts(PromptKind::Harmful), harmful, settings)?;
        let aim = Aim::Prompts(PromptKind::Harmless);
        opened.harmless = match &settings.harmless {
            Some(file) => opened.divide("harmless", aim, from(file)?, settings)?,
            None => {
                let everyday = opened.divide("harmless", aim, Given::packaged(Packaged::harmless()?), settings)?;
                let looks = (Aim::Prompts(PromptKind::LooksHarmful), Given::packaged(Packaged::looks_harmful()?));
                everyday.with(opened.divide("looks-harmful", looks.0, looks.1, settings)?)
            }
        };
        opened.warnings.extend(opened.shared());
        if let Some(file) = &settings.task {
            let samples = Given::file(file, &Pick::by(&settings.prompt_key, None, true), hashes)?;
            let reference = |sample: &Sample| Answer { reference: sample.response.clone(), ..Answer::default() };
            let silent: Vec<Answer> = samples.samples.iter().map(reference).collect();
            let what = || format!("{} cannot be scored by {}", file.display(), settings.metric.name());
            settings.metric.score(&silent).within(what)?;
            opened.task = Some(opened.divide("task", Aim::Task(vec![settings.metric]), samples, settings)?);
        }
        Ok(opened)
    }

    /// A warning where prompts are harmful and harmless.
    fn shared(&self) -> Option<String> {
        let harmful: HashSet<&str> = self.harmful.prompts().collect();
        let shared = self.harmless.prompts().filter(|prompt| harmful.contains(prompt)).count();
        let sources: Vec<&str> = self.kinds.iter().map(|kind| kind.source.as_str()).collect();
        (shared > 0).then(|| {
            format!(
                "{shared} prompts are harmful and harmless, in {}: what is to be declined is to be answered, too; remove \
                 them from one of the files",
                sources.join(" and ")
            )
        })
    }

    /// Divides prompts, checks that they fit the models, notes how, and has the test part asked.
    fn divide(&mut self, name: &str, aim: Aim, from: Given, settings: &Settings) -> Result<Divided> {
        let is_task = matches!(aim, Aim::Task(_));
        let held = if is_task { Held::TASK } else { Held::PROMPTS };
        let seed = files::derived_seed(settings.seed, self.kinds.len() as u64);
        let parts = Divided::new(&from.source, from.samples, settings.parts, held, seed)?;
        match is_task {
            true => self.pair.check_task(&from.source, &parts, settings)?,
            false => self.pair.check_prompts(&from.source, &parts, settings)?,
        }
        self.kinds.push(Kind {
            name: name.to_owned(),
            source: from.source,
            hash: from.hash,
            recover: parts.recover.len(),
            choose: parts.choose.len(),
            test: parts.test.len(),
        });
        self.questions.asked.push((AnswerFile { name: name.to_owned(), aim }, parts.test.clone()));
        Ok(parts)
    }

    /// What the method reads, with its files in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn evidence(&self, settings: &Settings, dir: &Path, hashes: &Hashes) -> Result<Evidence> {
        let write = |parts: &Divided, name: &str, pick: Pick| parts.write(dir, name, &pick, hashes);
        Ok(Evidence {
            harmful: write(&self.harmful, "harmful", Pick::default())?,
            harmless: write(&self.harmless, "harmless", Pick::default())?,
            task: self.task.as_ref().map(|task| write(task, "task", Pick::answered())).transpose()?,
            max_new_tokens: settings.own_tokens,
            reference: settings.reference,
            merit: settings.merit,
            screen: true,
        })
    }

    /// Prompts by which tokenizers and templates are compared.
    pub fn shown(&self) -> Vec<Sample> {
        [&self.harmful.choose, &self.harmless.choose].into_iter().flatten().take(64).cloned().collect()
    }

    /// What will be done, for a result at `place`.
    pub fn plan(&self, settings: &Settings, device: &Device, place: &Path) -> Plan {
        let strong = &settings.strong;
        let kept = if model::ops::serves(device, DType::F32) { self.dtype } else { Dtype::F32 };
        Plan {
            kinds: self.kinds.clone(),
            judges: self.questions.judges.iter().map(|judge| judge.name().to_owned()).collect(),
            rounds: strong.rounds,
            cap: strong.cap,
            max_cap: strong.max_cap,
            reference: settings.reference,
            dtype: self.dtype.name().to_owned(),
            needs: Needs::strong(
                self.pair.config(),
                self.outside,
                self.work(settings),
                Precision { saved: self.dtype, kept },
                strong,
                speed(device),
            ),
            machine: Machine::here(place),
        }
    }

    fn work(&self, settings: &Settings) -> Work {
        let tests = || self.questions.asked.iter().flat_map(|(_, samples)| samples);
        let count = tests().count();
        // About four letters a token, and the template's own tokens.
        let prompt_tokens = 16 + tests().map(|sample| sample.prompt.len()).sum::<usize>() / (4 * count.max(1));
        let held = [&self.harmful, &self.harmless];
        Work {
            choose: held.iter().map(|parts| parts.choose.len()).max().unwrap_or(0),
            gradient: settings.strong.drawn,
            own: held.iter().map(|parts| parts.recover.len() + parts.choose.len()).sum(),
            test: count,
            prompt_tokens,
            own_tokens: settings.own_tokens,
            test_tokens: settings.max_new_tokens,
            rounds: settings.strong.rounds,
        }
    }
}

/// The two models of the settings.
pub(super) fn models(settings: &Settings) -> Result<(&Path, &Path)> {
    match (&settings.aligned, &settings.finetuned) {
        (Some(aligned), Some(fine_tuned)) => Ok((aligned, fine_tuned)),
        (None, _) => invalid("name the aligned model: --aligned DIR, or `aligned` in the settings file"),
        (_, None) => invalid("name the fine-tuned model: --finetuned DIR, or `finetuned` in the settings file"),
    }
}
