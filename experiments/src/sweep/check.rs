//! Which values of a sweep make no sense. Every problem is reported at once, with its key.
//!
//! Types and unknown keys are the reader's business (`load.rs`); what a file holds is the stage's.

use super::{Align, DecoderShape, Lora, Method, Source, Sweep};

/// Collects sentences about keys.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, fine: bool, key: &str, what: impl FnOnce() -> String) {
        if !fine {
            self.0.push(format!("{key}: {}", what()));
        }
    }

    fn at_least_one(&mut self, key: &str, value: usize) {
        self.unless(value > 0, key, || format!("{value} must be at least 1"));
    }

    fn positive(&mut self, key: &str, value: f64) {
        let fine = value.is_finite() && value > 0.0;
        self.unless(fine, key, || format!("{value} must be above 0"));
    }

    fn share(&mut self, key: &str, value: f64) {
        let fine = (0.0..1.0).contains(&value);
        self.unless(fine, key, || format!("{value} must be at least 0 and below 1"));
    }

    /// Names are parts of paths and of table rows.
    fn names<'a>(&mut self, key: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen: Vec<&str> = Vec::new();
        for (i, name) in names.enumerate() {
            let key = format!("{key}[{i}].name");
            self.name(&key, name);
            self.unless(!seen.contains(&name), &key, || format!("{name:?} is there twice"));
            seen.push(name);
        }
        self.unless(!seen.is_empty(), key, || "must not be empty".to_owned());
    }

    fn name(&mut self, key: &str, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fine = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        self.unless(fine, key, || format!("{name:?} must be letters, digits, '-', '_' or '.', and not start with '.'"));
    }

    /// The first thing that the decoder's own reader finds wrong; the vocabulary is not known yet.
    fn shape(&mut self, key: &str, shape: &DecoderShape) {
        match shape.decoder(1) {
            Ok(_) => {}
            Err(model::Error::Config { key: inner, reason, .. }) => self.0.push(format!("{key}.{inner}: {reason}")),
            Err(other) => self.0.push(format!("{key}: {other}")),
        }
    }

    fn lora(&mut self, key: &str, lora: Option<&Lora>) {
        let Some(lora) = lora else { return };
        self.at_least_one(&format!("{key}.rank"), lora.rank);
        self.positive(&format!("{key}.alpha"), lora.alpha);
        self.share(&format!("{key}.dropout"), lora.dropout);
    }
}

impl Sweep {
    /// What makes no sense, one sentence each; empty when all is well.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Problems::default();
        problems.name("name", &self.name);
        problems.names("models", self.models.iter().map(|model| model.name.as_str()));
        problems.names("tasks", self.tasks.iter().map(|task| task.name.as_str()));
        self.check_grid(&mut problems);
        self.check_models(&mut problems);
        for (i, task) in self.tasks.iter().enumerate() {
            let key = |rest: &str| format!("tasks[{i}].{rest}");
            problems.at_least_one(&key("max_new_tokens"), task.max_new_tokens);
            problems.positive(&key("validation"), task.validation);
            problems.share(&key("validation"), task.validation);
        }
        let finetune = &self.finetune;
        problems.lora("finetune.lora", finetune.lora.as_ref());
        problems.positive("finetune.learning_rate", finetune.learning_rate);
        problems.at_least_one("finetune.epochs", finetune.epochs);
        problems.at_least_one("finetune.batch", finetune.batch);
        problems.at_least_one("finetune.max_len", finetune.max_len);
        self.check_recovery(&mut problems);
        self.check_variants(&mut problems);
        self.check_baselines(&mut problems);
        self.check_evaluation(&mut problems);
        problems.0
    }

    fn check_grid(&self, problems: &mut Problems) {
        let counts = &self.harmful_counts;
        problems.unless(self.jobs != Some(0), "jobs", || "must be at least 1".to_owned());
        problems.unless(!counts.is_empty(), "harmful_counts", || "must not be empty".to_owned());
        let rising = counts.is_sorted_by(|a, b| a < b);
        problems.unless(rising, "harmful_counts", || format!("{counts:?} must rise, each count once"));
        let methods = &self.methods;
        problems.unless(!methods.is_empty(), "methods", || "must not be empty".to_owned());
        let ordered = methods.is_sorted_by(|a, b| a < b);
        problems.unless(ordered, "methods", || {
            "must be in the order aligned, fine_tuned, recovered, softsft, resta, random, largest_difference, \
             full_revert, interpolation_N, each once"
                .to_owned()
        });
        for method in methods.iter().filter(|method| method.needs_recovery()) {
            problems.unless(methods.contains(&Method::Recovered), "methods", || {
                format!("{method} restores as many weights as recovery: add recovered")
            });
        }
    }

    fn check_variants(&self, problems: &mut Problems) {
        for (i, variant) in self.variants.iter().enumerate() {
            let key = |rest: &str| format!("variants[{i}].{rest}");
            let name = &variant.name;
            problems.unless(!name.trim().is_empty(), &key("name"), || "must not be empty".to_owned());
            let twice = self.variants[..i].iter().any(|other| &other.name == name);
            problems.unless(!twice, &key("name"), || format!("{name:?} is there twice"));
            if let Some(rate) = variant.rate {
                problems.positive(&key("rate"), rate);
                problems.share(&key("rate"), rate);
            }
            if let Some(count) = variant.count {
                problems.at_least_one(&key("count"), count);
            }
            if let Some(drop) = variant.metric_drop {
                problems.share(&key("metric_drop"), drop);
                let gated = variant.rollback.unwrap_or(self.recovery.rollback).is_auto();
                problems.unless(gated, &key("metric_drop"), || {
                    "has nothing to decide: rollback is on or off, so nothing is scored".to_owned()
                });
            }
        }
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        problems.unless(seeds.len() == self.seeds.len(), "seeds", || format!("{:?} has one twice", self.seeds));
        if let Some(cells) = &self.cells {
            let wrong = glob::Pattern::new(cells).err();
            problems.unless(wrong.is_none(), "cells", || {
                format!("{cells:?} is no pattern: {}", wrong.map(|wrong| wrong.to_string()).unwrap_or_default())
            });
        }
    }

    fn check_models(&self, problems: &mut Problems) {
        for (i, model) in self.models.iter().enumerate() {
            let key = |rest: &str| format!("models[{i}].{rest}");
            if let Source::Pretrain(pretrain) = &model.source {
                let training = &pretrain.training;
                let shape = key("source.pretrain.config");
                let key = |rest: &str| key(&format!("source.pretrain.training.{rest}"));
                for (name, value) in
                    [("epochs", training.epochs), ("batch", training.batch), ("max_len", training.max_len)]
                {
                    problems.at_least_one(&key(name), value);
                }
                problems.positive(&key("learning_rate"), training.learning_rate);
                problems.positive(&key("initializer_range"), f64::from(training.initializer_range));
                training.betas.iter().for_each(|&beta| problems.share(&key("betas"), beta));
                problems.shape(&shape, &pretrain.config);
            }
            if let Source::Hub(hub) = &model.source {
                let shape = &hub.shape;
                for (name, value) in [
                    ("vocab_size", shape.vocab_size),
                    ("hidden_size", shape.hidden_size),
                    ("intermediate_size", shape.intermediate_size),
                    ("num_hidden_layers", shape.num_hidden_layers),
                    ("num_attention_heads", shape.num_attention_heads),
                    ("num_key_value_heads", shape.num_key_value_heads),
                ] {
                    problems.at_least_one(&key(&format!("source.hub.shape.{name}")), value);
                }
            }
            if let Some(align) = &model.align {
                self.check_align(problems, &key("align"), align);
            }
        }
    }

    fn check_align(&self, problems: &mut Problems, key: &str, align: &Align) {
        let key = |rest: &str| format!("{key}.{rest}");
        for (name, value) in [
            ("helpful_max_new_tokens", align.helpful_max_new_tokens),
            ("epochs", align.epochs),
            ("batch", align.batch),
            ("max_len", align.max_len),
        ] {
            problems.at_least_one(&key(name), value);
        }
        problems.positive(&key("learning_rate"), align.learning_rate);
        let fine = align.kl.is_finite() && align.kl >= 0.0;
        problems.unless(fine, &key("kl"), || format!("{} must not be below 0", align.kl));
        problems.lora(&key("lora"), align.lora.as_ref());
        let empty = align.refusal_texts.iter().any(|text| text.trim().is_empty());
        problems.unless(!empty, &key("refusal_texts"), || "holds an empty text".to_owned());
        problems.unless(!align.helpful.is_empty(), &key("helpful"), || "must not be empty".to_owned());
        for (name, set) in align.sets() {
            problems.at_least_one(&key(&format!("{name}.count")), set.count);
        }
    }

    fn check_baselines(&self, problems: &mut Problems) {
        let softsft = self.softsft.check();
        problems
            .unless(softsft.is_ok(), "softsft", || softsft.map_or_else(|error| error.to_string(), |()| String::new()));
        let resta = &self.resta;
        problems.at_least_one("resta.samples", resta.samples);
        problems.at_least_one("resta.epochs", resta.epochs);
        problems.share("resta.dare", resta.dare);
        if let Some(rate) = resta.learning_rate {
            problems.positive("resta.learning_rate", rate);
        }
        problems.unless(resta.gamma.is_finite(), "resta.gamma", || format!("{} must be finite", resta.gamma));
    }

    fn check_recovery(&self, problems: &mut Problems) {
        let recovery = &self.recovery;
        let named = !recovery.prompts.as_os_str().is_empty();
        problems.unless(named, "recovery.prompts", || "must name a file".to_owned());
        problems.at_least_one("recovery.count", recovery.count);
        problems.at_least_one("recovery.task_prompts", recovery.task_prompts);
        problems.at_least_one("recovery.steps", recovery.steps);
        problems.at_least_one("recovery.warmup", recovery.warmup);
        problems.at_least_one("recovery.save_every", recovery.save_every);
        problems.at_least_one("recovery.batch", recovery.batch);
        problems.positive("recovery.rate", recovery.rate);
        problems.share("recovery.rate", recovery.rate);
        problems.share("recovery.metric_drop", recovery.metric_drop);
        problems.share("recovery.rollback_rate", recovery.rollback_rate);
        problems.unless(recovery.warmup <= recovery.steps, "recovery.warmup", || {
            format!("{} is more than the {} steps in all", recovery.warmup, recovery.steps)
        });
        problems.unless(recovery.save_every <= recovery.steps, "recovery.save_every", || {
            format!("{} is more than the {} steps in all", recovery.save_every, recovery.steps)
        });
    }

    fn check_evaluation(&self, problems: &mut Problems) {
        problems.at_least_one("evaluation.batch", self.evaluation.batch);
        for (name, set) in self.evaluation.sets() {
            problems.at_least_one(&format!("evaluation.{name}.count"), set.count);
            let tokens = format!("evaluation.{name}.max_new_tokens");
            problems.at_least_one(&tokens, set.max_new_tokens);
        }
    }
}
