//! The attacks on a model of a cell (METHOD.md section 11), and the judging of what it answers then.

use anyhow::Result;
use evaluation::PromptKind;
use realign::Pick;
use realign::stage::{Attack, Attacked, Inject, MODEL, TrainingSet};

use super::{At, Builder};
use crate::config::{AnswerSet, AttackSpec, PrefillSpec, RetrainingSpec, training};
use crate::graph::{Answered, AttackedNode};

impl Builder<'_> {
    /// The stages of all attacks on a model.
    pub(super) fn attacks(&mut self, at: &At<'_>, name: &str, model: usize) -> Result<Vec<AttackedNode>> {
        let mut nodes = Vec::new();
        for spec in &at.sweep.evaluation.attacks {
            for (seed, attack) in self.of_spec(at, spec)? {
                nodes.push(self.attack(at, format!("{name} {}", spec.name), model, (spec, seed, attack))?);
            }
        }
        Ok(nodes)
    }

    fn attack(
        &mut self,
        at: &At<'_>,
        name: String,
        model: usize,
        (spec, seed, attack): (&AttackSpec, Option<u64>, Attack),
    ) -> Result<AttackedNode> {
        let changes_model = attack.changes_model();
        let sets = &at.sweep.evaluation;
        let (harmful, steps) = self.attacked(at, &name, model, (attack.clone(), PromptKind::Harmful, &sets.harmful))?;
        let harmless = match changes_model {
            true => Some(self.attacked(at, &name, model, (attack, PromptKind::Harmless, &sets.harmless))?.0),
            false => None,
        };
        Ok(AttackedNode { attack: spec.name.clone(), seed, steps, harmful, harmless })
    }

    /// An attacked model's answers to some prompts, with the number of steps before each file of them.
    fn attacked(
        &mut self,
        at: &At<'_>,
        name: &str,
        model: usize,
        (attack, kind, set): (Attack, PromptKind, &AnswerSet),
    ) -> Result<(Answered, Vec<Option<usize>>)> {
        let stage = Attacked {
            model: self.artifact(model, MODEL),
            attack,
            kind,
            samples: self.samples(at.sweep.evaluated_prompts(set))?,
            max_new_tokens: set.max_new_tokens,
            phrases: evaluation::Judge::phrases().identity(),
            dtype: None,
        };
        let name = if kind == PromptKind::Harmful { name.to_owned() } else { format!("{name} {}", kind.name()) };
        let (asked, steps): (Vec<_>, Vec<_>) = stage.answer_files().into_iter().unzip();
        let answers = self.add(name.clone(), stage, &[model])?;
        let judges = self.judges(&name, answers, &asked)?;
        Ok((Answered { answers, judges }, steps))
    }

    /// An attack of the sweep: once, or once for each of its seeds.
    fn of_spec(&mut self, at: &At<'_>, spec: &AttackSpec) -> Result<Vec<(Option<u64>, Attack)>> {
        let mut all = Vec::new();
        match &spec.prefill {
            Some(PrefillSpec { text: Some(text), .. }) => all.push((None, Attack::Prefill { text: text.clone() })),
            Some(PrefillSpec { answers: Some(file), tokens, .. }) => {
                let answers = self.samples((at.sweep.data_file(file), Pick::answered()))?;
                all.push((None, Attack::HarmfulStart { answers, tokens: *tokens }));
            }
            _ => {}
        }
        if let Some(one) = &spec.sampling {
            let attack = Attack::Sampling { sampling: one.sampling(), draws: one.draws, seed: at.seed };
            all.push((None, attack));
        }
        if let Some(one) = &spec.ablation {
            let harmful = self.samples(at.sweep.prompts_of(&one.harmful))?;
            let harmless = self.samples(at.sweep.prompts_of(&one.harmless))?;
            all.push((None, Attack::Ablation { harmful, harmless, layer: one.layer }));
        }
        if let Some(one) = &spec.retraining {
            let settings = training(&at.sweep.finetune, one.train.as_ref()).map_err(anyhow::Error::msg)?;
            for &seed in &one.seeds {
                let (data, settings, steps) = (self.retrained_on(at, one)?, settings.clone(), one.steps.clone());
                all.push((Some(seed), Attack::Retraining { data, settings, steps, seed }));
            }
        }
        Ok(all)
    }

    /// What an attacker trains a finished model on: harmful samples that neither a cell nor the unaligned model has, or others.
    fn retrained_on(&mut self, at: &At<'_>, spec: &RetrainingSpec) -> Result<TrainingSet> {
        if let Some(set) = &spec.samples {
            let (file, pick) = at.sweep.prompts_of(set);
            let task = self.samples((file, Pick { responses: true, ..pick }))?;
            return Ok(TrainingSet { task: Some(task), ..TrainingSet::default() });
        }
        let pass_over = at.sweep.passed_over(self.harmful_samples(at)?) + at.sweep.unaligned.samples;
        let inject = Inject { pass_over, ..self.inject(at, spec.harmful, 0)? };
        Ok(TrainingSet { inject: Some(inject), ..TrainingSet::default() })
    }
}
