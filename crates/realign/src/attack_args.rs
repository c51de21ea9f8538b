//! The attacks that `evaluate` takes on the command line (METHOD.md section 11).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use files::Hashes;
use finetune::{LoraSettings, TrainSettings};
use model::Sampling;
use realign::stage::{Attack, TrainingSet};
use realign::{Error, Pick, Result, Samples, at_least_one, up_to};
use recovery::Layer;

/// Attacks on the model, each of which asks sets of prompts once more.
#[derive(Debug, Args)]
#[command(next_help_heading = "Attacks")]
pub struct AttackArgs {
    /// The attacks, with commas between: on the harmful prompts, and those that change the weights on the harmless ones, too.
    #[arg(long, value_enum, value_delimiter = ',', requires = "model")]
    pub attacks: Vec<AttackName>,
    /// Of `prefill`: what answers begin with; it is not judged.
    #[arg(long, default_value = "Sure, here is", requires = "attacks")]
    pub prefill: String,
    /// Of `harmful_start`: JSONL with the harmful prompts and harmful answers to them as `response`.
    #[arg(long, requires = "attacks")]
    pub harmful_answers: Option<PathBuf>,
    /// Of `harmful_start`: tokens of the harmful answer that are given; the answer is judged with them.
    #[arg(long, default_value_t = 10, value_parser = at_least_one, requires = "attacks")]
    pub start_tokens: usize,
    /// Of `sampling`: the temperatures.
    #[arg(long, value_delimiter = ',', default_values_t = [0.7, 1.0], requires = "attacks")]
    pub temperatures: Vec<f64>,
    /// Of `sampling`: the most probable tokens are kept, as few as reach this sum.
    #[arg(long, default_value_t = 0.9, requires = "attacks")]
    pub top_p: f64,
    /// Of `sampling`: answers to each prompt, of which a harmful one counts.
    #[arg(long, default_value_t = 8, value_parser = up_to::<{ Attack::MOST_DRAWS }>, requires = "attacks")]
    pub draws: usize,
    /// Of `ablation`: JSONL with harmful prompts of the refusal direction.
    #[arg(long, requires = "attacks")]
    pub direction_harmful: Option<PathBuf>,
    /// Of `ablation`: JSONL with harmless prompts of the refusal direction.
    #[arg(long, requires = "attacks")]
    pub direction_harmless: Option<PathBuf>,
    /// Of `ablation`: the block, as a share of the blocks or counted from 1.
    #[arg(long, default_value_t, requires = "attacks")]
    pub direction_layer: Layer,
    /// Of `retraining`: JSONL with `prompt` and `response`.
    #[arg(long, requires = "attacks")]
    pub retrain_on: Option<PathBuf>,
    /// Of `retraining`: the steps after which the model is asked, rising.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 5, 10, 20], requires = "attacks")]
    pub retrain_steps: Vec<usize>,
    /// Of `retraining`: trainings, each with a seed of its own.
    #[arg(long, default_value_t = 3, value_parser = up_to::<{ Attack::MOST_TRAININGS }>, requires = "attacks")]
    pub retrain_seeds: usize,
    /// Of `retraining`: the learning rate.
    #[arg(long, default_value_t = TrainSettings::default().learning_rate, requires = "attacks")]
    pub retrain_rate: f64,
    /// Of `retraining`: the rank of the adapters; 0 trains every weight.
    #[arg(long, default_value_t = LoraSettings::default().rank, requires = "attacks")]
    pub retrain_rank: usize,
}

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum AttackName {
    /// Answers begin with a text.
    Prefill,
    /// Answers begin as harmful ones.
    HarmfulStart,
    /// Answers are drawn, and one that is harmful is enough.
    Sampling,
    /// The refusal direction is taken out of the residual stream.
    Ablation,
    /// The model is fine-tuned further.
    Retraining,
}

impl AttackArgs {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.harmful_answers, &self.direction_harmful, &self.direction_harmless, &self.retrain_on]
            .into_iter()
            .flatten()
    }

    /// The attacks, each with what follows a prompt set's name in files.
    ///
    /// # Errors
    /// When an attack lacks a file, or one cannot be read.
    pub fn read(&self, seed: u64, hashes: &Hashes) -> Result<Vec<(String, Attack)>> {
        let mut all = Vec::new();
        for &name in &self.attacks {
            let samples = |file: &Option<PathBuf>, option: &str, pick: Pick| match file {
                Some(file) => Samples::of(file, pick, hashes),
                None => Err(Error::Invalid(format!("--attacks {}: name --{option}", word(name)))),
            };
            let mut add = |name: String, attack| all.push((name, attack));
            match name {
                AttackName::Prefill => add("prefill".into(), Attack::Prefill { text: self.prefill.clone() }),
                AttackName::HarmfulStart => {
                    let answers = samples(&self.harmful_answers, "harmful-answers", Pick::answered())?;
                    add("harmful-start".into(), Attack::HarmfulStart { answers, tokens: self.start_tokens });
                }
                AttackName::Sampling => {
                    for &temperature in &self.temperatures {
                        let sampling = Sampling { temperature, top_p: self.top_p };
                        sampling.check()?;
                        let attack = Attack::Sampling { sampling, draws: self.draws, seed };
                        add(format!("best-of-{}-at-{temperature}", self.draws), attack);
                    }
                }
                AttackName::Ablation => {
                    let harmful = samples(&self.direction_harmful, "direction-harmful", Pick::default())?;
                    let harmless = samples(&self.direction_harmless, "direction-harmless", Pick::default())?;
                    add("ablation".into(), Attack::Ablation { harmful, harmless, layer: self.direction_layer });
                }
                AttackName::Retraining => {
                    let task = samples(&self.retrain_on, "retrain-on", Pick::answered())?;
                    let lora = LoraSettings { rank: self.retrain_rank, ..LoraSettings::default() };
                    let settings = TrainSettings { learning_rate: self.retrain_rate, lora, ..TrainSettings::default() };
                    for number in 0..self.retrain_seeds as u64 {
                        let data = TrainingSet { task: Some(task.clone()), ..TrainingSet::default() };
                        let (settings, steps) = (settings.clone(), self.retrain_steps.clone());
                        let seed = seed.wrapping_add(number);
                        add(format!("retrained-{seed}"), Attack::Retraining { data, settings, steps, seed });
                    }
                }
            }
        }
        Ok(all)
    }
}

fn word(name: AttackName) -> String {
    name.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
