//! Which values of a sweep make no sense. Every problem is reported at once, with its key.
//!
//! The settings of a stage check themselves; here is what a sweep adds.

use std::collections::BTreeSet;
use std::fmt::Display;

use recovery::Method;

use super::{Align, Source, Sweep, Unaligned, What};

/// Models that a sweep may compare in all its cells.
const MOST_COMPARED: usize = 200_000;

/// Keys and what is wrong with them.
#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn unless(&mut self, fine: bool, key: impl Into<String>, what: impl Display) {
        if !fine {
            self.0.push((key.into(), what.to_string()));
        }
    }

    fn settings<E: Display>(&mut self, key: impl Into<String>, checked: Result<(), E>) {
        if let Err(error) = checked {
            self.0.push((key.into(), error.to_string()));
        }
    }

    fn at_least_one(&mut self, key: &str, values: &[(&str, usize)]) {
        for (name, value) in values {
            self.unless(*value > 0, format!("{key}.{name}"), "0 must be at least 1");
        }
    }

    fn positive(&mut self, key: &str, value: f64) {
        self.unless(value.is_finite() && value > 0.0, key, format!("{value} must be above 0"));
    }

    fn shape(&mut self, key: String, decoder: model::Result<model::DecoderConfig>) {
        match decoder {
            Err(model::Error::Config { key: inner, reason, .. }) => self.0.push((format!("{key}.{inner}"), reason)),
            other => self.settings(key, other.map(drop)),
        }
    }

    /// Names are parts of paths and of table rows.
    fn names<'a>(&mut self, key: &str, below: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.enumerate() {
            let key = format!("{key}[{i}]{below}");
            self.name(&key, name);
            self.unless(seen.insert(name), key, format!("{name:?} is there twice"));
        }
        self.unless(!seen.is_empty(), key, "must not be empty");
    }

    fn name(&mut self, key: &str, name: &str) {
        let fine = files::is_name(name) && !name.starts_with('.');
        let what = "must be letters, digits, '-', '_' or '.', and not start with '.'";
        self.unless(fine, key, format!("{name:?} {what}"));
    }
}

impl Sweep {
    /// What makes no sense, as keys and sentences; empty when all is well.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Problems::default();
        problems.name("name", &self.name);
        problems.names("models", ".name", self.models.iter().map(|model| model.name.as_str()));
        self.check_grid(&mut problems);
        self.check_models(&mut problems);
        if self.tasks.len() == self.task_entries.len() {
            problems.names("tasks", "", self.tasks.iter().map(|task| task.name.as_str()));
        }
        problems.settings("finetune", self.finetune.check());
        if let Some(evading) = &self.evading {
            problems.positive("evading.weight", evading.weight);
            problems.at_least_one("evading.prompts", &[("count", evading.prompts.count)]);
        }
        let Unaligned { samples, epochs, learning_rate } = self.unaligned;
        problems.at_least_one("unaligned", &[("samples", samples), ("epochs", epochs)]);
        learning_rate.iter().for_each(|&rate| problems.positive("unaligned.learning_rate", rate));
        let recovery = &self.recovery;
        problems.unless(!recovery.prompts.as_os_str().is_empty(), "recovery.prompts", "must name a file");
        problems.at_least_one("recovery", &[("count", recovery.count), ("task_prompts", recovery.task_prompts)]);
        if let Some(evidence) = &recovery.evidence {
            let task_count = evidence.task_count.unwrap_or(1);
            let counts =
                [("count", evidence.count), ("max_new_tokens", evidence.max_new_tokens), ("task_count", task_count)];
            problems.at_least_one("recovery.evidence", &counts);
            let share = evidence.held_out;
            let fine = share > 0.0 && share < 1.0;
            problems.unless(fine, "recovery.evidence.held_out", format!("{share} must be above 0 and below 1"));
            problems.settings("recovery.evidence.merit", evidence.merit.check());
        }
        for (i, one) in self.methods.iter().enumerate().filter(|(_, one)| one.reads_evidence()) {
            let what = format!("{} needs `recovery.evidence`", one.name);
            problems.unless(recovery.evidence.is_some(), format!("methods[{i}]"), what);
        }
        problems.at_least_one("evaluation", &[("batch", self.evaluation.batch)]);
        for (name, set) in self.evaluation.sets() {
            let key = format!("evaluation.{name}");
            problems.at_least_one(&key, &[("count", set.count), ("max_new_tokens", set.max_new_tokens)]);
        }
        self.check_attacks(&mut problems);
        problems.0
    }

    fn check_attacks(&self, problems: &mut Problems) {
        let attacks = &self.evaluation.attacks;
        if !attacks.is_empty() {
            problems.names("evaluation.attacks", ".name", attacks.iter().map(|attack| attack.name.as_str()));
        }
        for (i, attack) in attacks.iter().enumerate() {
            let key = format!("evaluation.attacks[{i}]");
            if let Some((below, what)) = attack.problem() {
                problems.0.push((if below.is_empty() { key.clone() } else { format!("{key}.{below}") }, what));
            }
            if let Some(retraining) = &attack.retraining {
                let settings = super::training(&self.finetune, retraining.train.as_ref()).map(drop);
                problems.settings(format!("{key}.retraining.train"), settings);
            }
        }
    }

    fn check_grid(&self, problems: &mut Problems) {
        let counts = &self.harmful_counts;
        let lists = [self.models.len(), self.tasks.len(), counts.len(), self.seeds.len(), self.overlays.len()];
        let all = lists.into_iter().fold(self.methods.len(), |all, length| all.saturating_mul(length.max(1)));
        let what = format!("the grid compares {all} models; at most {MOST_COMPARED} make a sweep");
        problems.unless(all <= MOST_COMPARED, "models", what);
        problems.unless(self.jobs != Some(0), "jobs", "must be at least 1");
        problems.unless(!counts.is_empty(), "harmful_counts", "must not be empty");
        let rising = counts.is_sorted_by(|a, b| a < b);
        problems.unless(rising, "harmful_counts", format!("{counts:?} must rise, each count once"));
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        problems.unless(seeds.len() == self.seeds.len(), "seeds", format!("{:?} has one twice", self.seeds));
        if let Some(cells) = &self.cells {
            let checked = glob::Pattern::new(cells).map(drop);
            problems.settings("cells", checked.map_err(|error| format!("{cells:?} is not a pattern: {error}")));
        }
        problems.unless(!self.method_entries.is_empty(), "methods", "must not be empty");
        let recovers = self.methods.iter().any(|one| matches!(one.what, What::Repair(Method::Recover(_))));
        for (i, one) in self.methods.iter().enumerate() {
            problems.name(&format!("methods[{i}]"), &one.name);
            problems.settings(format!("methods[{i}].train"), one.training(&self.finetune).map(drop));
            let fine = recovers || !one.what.needs().is_some_and(|needs| needs.recovery);
            let what = format!("{} restores as many weights as a recovery: add recover, or give a `count`", one.name);
            problems.unless(fine, format!("methods[{i}]"), what);
        }
    }

    fn check_models(&self, problems: &mut Problems) {
        let needing = self.methods.iter().find(|one| one.what.needs().is_some_and(|needs| needs.base));
        for (i, model) in self.models.iter().enumerate() {
            let key = |rest: &str| format!("models[{i}].{rest}");
            check_source(problems, &key("source"), &model.source);
            if let Some(base) = &model.base {
                check_source(problems, &key("base"), base);
            }
            let known = model.base.is_some() || model.align.is_some();
            if let Some(one) = needing.filter(|_| !known) {
                let what = format!("{} needs the model before alignment: say where it is", one.name);
                problems.0.push((key("base"), what));
            }
            if let Some(align) = &model.align {
                check_align(problems, &key("align"), align);
            }
        }
    }
}

fn check_source(problems: &mut Problems, key: &str, source: &Source) {
    match source {
        Source::Pretrain(pretrain) => {
            let training = &pretrain.training;
            let at = |rest: &str| format!("{key}.pretrain.training.{rest}");
            problems.settings(at("train"), training.train.check());
            let whole = training.train.lora.rank == 0;
            problems.unless(whole, at("train.lora.rank"), "must be 0: a random model is trained whole");
            problems.positive(&at("initializer_range"), training.initializer_range.into());
            // The vocabulary's size is not known yet.
            problems.shape(format!("{key}.pretrain.config"), pretrain.config.decoder(Some(1)));
        }
        Source::Hub(hub) => problems.shape(format!("{key}.hub.shape"), hub.shape.decoder(None)),
        Source::Gguf(_) | Source::Dir(_) => {}
    }
}

fn check_align(problems: &mut Problems, key: &str, align: &Align) {
    problems.settings(format!("{key}.train"), align.settings.check());
    problems.at_least_one(key, &[("helpful_max_new_tokens", align.helpful_max_new_tokens)]);
    let empty = align.refusal_texts.iter().any(|text| text.trim().is_empty());
    problems.unless(!empty, format!("{key}.refusal_texts"), "holds an empty text");
    problems.unless(!align.helpful.is_empty(), format!("{key}.helpful"), "must not be empty");
    for (name, set) in align.sets() {
        problems.at_least_one(&format!("{key}.{name}"), &[("count", set.count)]);
    }
}
