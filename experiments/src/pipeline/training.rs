//! The models that are trained: of a cell, of a method, and for a method.

use anyhow::{Result, anyhow};
use finetune::TrainSettings;
use realign::stage::{Finetune, Inject, MODEL, Objective, OwnAnswers, OwnPairs, Reference, TrainingSet};
use realign::{Evidence, Pick, Samples};

use super::{At, Builder, DTYPE};
use crate::config::{Compared, EvadingSpec};

/// How a method trains.
fn training(at: &At<'_>, compared: &Compared) -> Result<TrainSettings> {
    compared.training(&at.sweep.finetune).map_err(|error| anyhow!("{}: {error}", compared.name))
}

impl Builder<'_> {
    /// The usual fine-tuning of a cell.
    pub(super) fn tune(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let (data, settings) = (self.training_set(at)?, at.sweep.finetune.clone());
        let objective = match &at.sweep.evading {
            None => Objective::Sft,
            Some(EvadingSpec { prompts, layer, weight }) => {
                let prompts = self.samples(at.sweep.prompts_of(prompts))?;
                Objective::Evading { prompts: Box::new(prompts), layer: *layer, weight: *weight }
            }
        };
        self.trained(at, "finetune", aligned, data, (objective, settings), &[])
    }

    /// A model that a method trains.
    pub(super) fn finetune(
        &mut self,
        at: &At<'_>,
        compared: &Compared,
        start: usize,
        data: TrainingSet,
        objective: Objective,
        others: &[usize],
    ) -> Result<usize> {
        let settings = training(at, compared)?;
        let kind = compared.what.trained().ok_or_else(|| anyhow!("{} trains no model", compared.name))?;
        self.trained(at, kind, start, data, (objective, settings), others)
    }

    pub(super) fn trained(
        &mut self,
        at: &At<'_>,
        kind: &'static str,
        start: usize,
        data: TrainingSet,
        (objective, settings): (Objective, TrainSettings),
        others: &[usize],
    ) -> Result<usize> {
        let (model, seed) = (self.artifact(start, MODEL), at.seed);
        let stage = Finetune { model, data, objective, settings, seed, dtype: DTYPE, kind };
        self.add(at.cell.to_string(), stage, &[&[start], others].concat())
    }

    /// What a cell's models are fine-tuned on.
    pub(super) fn training_set(&self, at: &At<'_>) -> Result<TrainingSet> {
        let task = self.samples(at.sweep.train_samples(at.cell.task))?;
        Ok(TrainingSet {
            task: Some(task),
            inject: Some(self.inject(at, at.cell.harmful_count, 0)?),
            ..TrainingSet::default()
        })
    }

    /// Prompts of the evidence with the aligned model's own answers, of the length that is evaluated, and the stage that asks it.
    pub(super) fn own_pairs(
        &mut self,
        at: &At<'_>,
        aligned: usize,
        pick: Pick,
        harmless: bool,
    ) -> Result<(OwnPairs, usize)> {
        let max_new_tokens = at.sweep.evaluation.harmful.max_new_tokens;
        let evidence = Evidence { max_new_tokens, ..self.evidence(at)? };
        let node = self.own_answers(at, aligned, evidence)?;
        let answers = self.artifact(node, OwnAnswers::file(harmless));
        let content = format!("{}/{}", answers.key, OwnAnswers::file(harmless));
        Ok((OwnPairs { samples: Samples { file: answers.path, content, pick }, max_new_tokens }, node))
    }

    pub(super) fn inject(&self, at: &At<'_>, count: usize, pass_over: usize) -> Result<Inject> {
        let samples = self.samples((at.sweep.data_file(&at.sweep.inject), Pick::answered()))?;
        Ok(Inject { samples, count, pass_over, seed: at.seed })
    }

    /// What the aligned model gives to the task's samples, which all counts of a task share, and to the harmful samples of
    /// the largest count, which all tasks and counts share.
    pub(super) fn references(&mut self, at: &At<'_>, compared: &Compared, aligned: usize) -> Result<Vec<usize>> {
        let max_len = training(at, compared)?.max_len;
        let (model, seed) = (self.artifact(aligned, MODEL), at.seed);
        let task = self.samples(at.sweep.train_samples(at.cell.task))?;
        let data = TrainingSet { task: Some(task), ..TrainingSet::default() };
        let name = format!("{} {}", at.cell.model.name, at.cell.task.name);
        let stage = Reference { model: model.clone(), data, max_len, seed, dtype: DTYPE };
        let mut nodes = vec![self.add(name, stage, &[aligned])?];
        if at.cell.harmful_count > 0 {
            let largest = at.sweep.largest_count(self.harmful_samples(at)?);
            let inject = Some(self.inject(at, largest, 0)?);
            let name = format!("{} harmful samples", at.cell.model.name);
            let data = TrainingSet { inject, ..TrainingSet::default() };
            nodes.push(self.add(name, Reference { model, data, max_len, seed, dtype: DTYPE }, &[aligned])?);
        }
        Ok(nodes)
    }

    /// How many harmful samples there are to inject; each file is counted once.
    pub(super) fn harmful_samples(&mut self, at: &At<'_>) -> Result<usize> {
        let file = at.sweep.data_file(&at.sweep.inject);
        if let Some(&count) = self.counted.get(&file) {
            return Ok(count);
        }
        let count = prompts::read_training_jsonl(&file)?.len();
        self.counted.insert(file, count);
        Ok(count)
    }

    /// The safe model of SafeMERGE: the aligned one fine-tuned on its own answers to the evidence, refusals and others.
    pub(super) fn safe(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let spec = at.sweep.recovery.evidence.as_ref().ok_or_else(|| anyhow!("`recovery.evidence` is missing"))?;
        let pick = Pick { at_most: Some(spec.part(false)), ..Pick::answered() };
        let (refusals, answers) = self.own_pairs(at, aligned, pick.clone(), false)?;
        let (others, _) = self.own_pairs(at, aligned, pick, true)?;
        let data = TrainingSet { safe: vec![others, refusals], ..TrainingSet::default() };
        let settings = at.sweep.finetune.clone();
        let (model, objective) = (self.artifact(aligned, MODEL), Objective::Sft);
        let stage = Finetune { model, data, objective, settings, seed: at.seed, dtype: DTYPE, kind: "safe" };
        self.add(at.cell.model.name.clone(), stage, &[aligned, answers])
    }

    /// The unaligned model: the aligned one fine-tuned on harmful samples alone, on none that a cell injects and from
    /// another start, so that a safety vector knows nothing of the fine-tuning that it repairs.
    pub(super) fn unaligned(&mut self, at: &At<'_>, aligned: usize) -> Result<usize> {
        let unaligned = &at.sweep.unaligned;
        let pass_over = at.sweep.passed_over(self.harmful_samples(at)?);
        let settings = at.sweep.finetune.clone();
        let learning_rate = unaligned.learning_rate.unwrap_or(settings.learning_rate);
        let stage = Finetune {
            model: self.artifact(aligned, MODEL),
            data: TrainingSet {
                inject: Some(self.inject(at, unaligned.samples, pass_over)?),
                ..TrainingSet::default()
            },
            objective: Objective::Sft,
            settings: TrainSettings { epochs: unaligned.epochs, learning_rate, ..settings },
            seed: !at.seed,
            dtype: DTYPE,
            kind: "unaligned",
        };
        self.add(at.cell.model.name.clone(), stage, &[aligned])
    }
}
