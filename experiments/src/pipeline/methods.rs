//! The model that each method makes, and what decides about it.

use anyhow::{Result, anyhow};
use realign::stage::{Choose, Gate, MODEL, Objective, OwnAnswers, REFERENCE, Repair, TrainingSet};
use realign::{Evidence, Parts, Pick};
use recovery::{Knob, MeritSettings, Method};

use super::{At, Builder, DTYPE};
use crate::config::{Compared, OneShot, SafeInstruct, What};

/// The stages of a cell that methods start from.
#[derive(Clone, Copy)]
pub(super) struct Base {
    /// The aligned model.
    pub aligned: usize,
    /// The fine-tuned model.
    pub tuned: usize,
    /// The recovery whose number of restored weights others take.
    pub recovery: Option<usize>,
}

impl Builder<'_> {
    /// The stage that makes a model to be compared.
    pub(super) fn model(&mut self, at: &At<'_>, compared: &Compared, base: Base) -> Result<usize> {
        match (compared.what.trained(), compared.what.knob()) {
            (Some(method), Some(knob)) if compared.by_merit => self.chosen(at, compared, (method, knob), base),
            _ => self.with_its_settings(at, compared, base),
        }
    }

    /// The stage that chooses among models that a method trains with each value of its knob.
    fn chosen(
        &mut self,
        at: &At<'_>,
        compared: &Compared,
        (method, knob): (&'static str, Knob),
        base: Base,
    ) -> Result<usize> {
        let Base { aligned, tuned, .. } = base;
        let with = |&value| Compared { what: compared.what.with(value), by_merit: false, ..compared.clone() };
        let trained = knob.values.iter().map(|value| self.with_its_settings(at, &with(value), base));
        let trained: Vec<usize> = trained.collect::<Result<_>>()?;
        let evidence = self.evidence(at)?;
        let answers = self.own_answers(at, aligned, evidence.clone())?;
        let stage = Choose {
            method,
            knob,
            models: trained.iter().map(|&node| self.artifact(node, MODEL)).collect(),
            aligned: self.artifact(aligned, MODEL),
            fine_tuned: self.artifact(tuned, MODEL),
            evidence,
            answers: Some(self.artifact(answers, "")),
            dtype: DTYPE,
        };
        self.add(format!("{} {}", at.cell, compared.name), stage, &[&trained[..], &[aligned, tuned, answers]].concat())
    }

    fn with_its_settings(&mut self, at: &At<'_>, compared: &Compared, base: Base) -> Result<usize> {
        let Base { aligned, tuned, .. } = base;
        match &compared.what {
            What::Aligned => Ok(aligned),
            What::FineTuned => Ok(tuned),
            What::SafeInstruct(SafeInstruct { share }) => {
                let (file, pick) = at.sweep.train_samples(at.cell.task);
                let pairs = (pick.read(&file)?.len() as f64 * share).ceil() as usize;
                let pick = Pick { count: Some(pairs), ..Pick::answered() };
                let (safe, answers) = self.own_pairs(at, aligned, pick, false)?;
                let data = TrainingSet { safe: vec![safe], ..self.training_set(at)? };
                self.finetune(at, compared, aligned, data, Objective::Sft, &[answers])
            }
            What::OneShot(OneShot { pairs, harmless }) => {
                let pick = Pick { count: Some(*pairs), ..Pick::answered() };
                let (safe, answers) = self.own_pairs(at, aligned, pick, *harmless)?;
                let data = TrainingSet { safe: vec![safe], ..TrainingSet::default() };
                self.finetune(at, compared, tuned, data, Objective::Sft, &[answers])
            }
            What::SoftSft(settings) => {
                let nodes = self.references(at, compared, aligned)?;
                let references = nodes.iter().map(|&node| self.artifact(node, REFERENCE)).collect();
                let objective = Objective::SoftSft { settings: *settings, references };
                let data = self.training_set(at)?;
                self.finetune(at, compared, aligned, data, objective, &nodes)
            }
            What::Repair(method) => self.repair(at, compared, &at.decided(method), base),
        }
    }

    /// The stage of a method of the registry.
    fn repair(&mut self, at: &At<'_>, compared: &Compared, method: &Method, base: Base) -> Result<usize> {
        let Base { aligned, tuned, recovery } = base;
        let needs = method.repair().needs();
        let reads_task = needs.task_prompts && at.sweep.recovery.trust_task;
        let mut parents = vec![aligned, tuned];
        let unaligned = if needs.unaligned { Some(self.unaligned(at, aligned)?) } else { None };
        let counted = match (needs.recovery, recovery) {
            (true, None) => anyhow::bail!("methods: {} needs `recover` among the methods", compared.name),
            (needed, recovery) => recovery.filter(|_| needed),
        };
        let base = if needs.base { Some(self.base(at, aligned)?) } else { None };
        let safe = if needs.safe { Some(self.safe(at, aligned)?) } else { None };
        parents.extend(unaligned.iter().chain(&counted).chain(&base).chain(&safe));
        let evidence = if compared.reads_evidence() { Some(self.evidence(at)?) } else { None };
        let answers = match &evidence {
            Some(evidence) => Some(self.own_answers(at, aligned, evidence.clone())?),
            None => None,
        };
        parents.extend(answers);
        let with = |needed: bool, from| if needed { self.samples(from).map(Some) } else { Ok(None) };
        let stage = Repair {
            method: method.clone(),
            aligned: self.artifact(aligned, MODEL),
            fine_tuned: self.artifact(tuned, MODEL),
            unaligned: unaligned.map(|node| self.artifact(node, MODEL)),
            base: base.map(|node| self.artifact(node, MODEL)),
            safe: safe.map(|node| self.artifact(node, MODEL)),
            recovery: counted.map(|node| self.artifact(node, "")),
            prompts: with(needs.prompts, at.sweep.recovery_prompts())?,
            task: with(reads_task, at.sweep.task_prompts(at.cell.task))?,
            evidence,
            answers: answers.map(|node| self.artifact(node, "")),
            choose: method.repair().knob().filter(|_| compared.by_merit),
            gate: if reads_task && !compared.by_merit { Some(self.gate(at)?) } else { None },
            seed: at.seed,
            dtype: DTYPE,
            thinking: None,
            probe: 0,
        };
        self.add(format!("{} {}", at.cell, compared.name), stage, &parents)
    }

    /// What strong recovery reads and methods are chosen by.
    pub(super) fn evidence(&self, at: &At<'_>) -> Result<Evidence> {
        let spec = at.sweep.recovery.evidence.as_ref().ok_or_else(|| anyhow!("`recovery.evidence` is missing"))?;
        let harmful = |held_out| self.samples(at.sweep.harmful_evidence(spec, held_out));
        let harmless = |held_out| self.samples(at.sweep.harmless_evidence(spec, held_out));
        let samples = |held_out| self.samples(at.sweep.evidence_samples(spec, at.cell.task, held_out));
        Ok(Evidence {
            harmful: Parts { train: harmful(false)?, held_out: harmful(true)? },
            harmless: Parts { train: harmless(false)?, held_out: harmless(true)? },
            task: match at.sweep.recovery.trust_task {
                true => Some(Parts { train: samples(false)?, held_out: samples(true)? }),
                false => None,
            },
            max_new_tokens: spec.max_new_tokens,
            reference: spec.reference,
            merit: spec.merit,
            screen: at.sweep.recovery.screen_task,
        })
    }

    /// The aligned model's own answers to the evidence, which all tasks and counts share.
    pub(super) fn own_answers(&mut self, at: &At<'_>, aligned: usize, evidence: Evidence) -> Result<usize> {
        let merit = MeritSettings::default();
        let evidence =
            Evidence { task: None, screen: false, reference: recovery::Reference::Aligned, merit, ..evidence };
        let stage = OwnAnswers { aligned: self.artifact(aligned, MODEL), evidence, dtype: None };
        self.add(at.cell.model.name.clone(), stage, &[aligned])
    }

    /// The score that decides: on samples that are held out of training, or, as the released code has it, on those that
    /// are reported.
    pub(super) fn gate(&self, at: &At<'_>) -> Result<Gate> {
        let task = at.cell.task;
        let samples = self.samples(at.sweep.deciding_samples(task))?;
        Ok(Gate { samples, metric: task.metric, max_new_tokens: task.max_new_tokens })
    }
}

/// Whether the control arms of a cell restore as many weights as this method does.
pub(super) fn is_recovery(compared: &Compared) -> bool {
    matches!(&compared.what, What::Repair(Method::Recover(_)))
}
