//! The settings of a training and what values they may have.

use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::{LoraSettings, Result};

/// Settings of a training. The defaults are the paper's where it gives one (METHOD.md section 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Passes over the samples. Paper: 1.
    #[arg(long, default_value_t = Self::default().epochs)]
    pub epochs: usize,
    /// Samples per step; the last batch of an epoch may be smaller. Not given by the paper.
    #[arg(id = "train_batch", long = "train-batch", default_value_t = Self::default().batch)]
    pub batch: usize,
    /// Learning rate after the warm-up. Paper: 2e-5 in its configurations, 1e-4 in its released paths.
    #[arg(long, default_value_t = Self::default().learning_rate)]
    pub learning_rate: f64,
    /// Steps of linear warm-up, the first of them at 1/n of the rate; 0 is a constant rate, as in the paper.
    #[arg(long, default_value_t = Self::default().warmup_steps)]
    pub warmup_steps: usize,
    /// AdamW's decoupled weight decay. Paper: 0.
    #[arg(long, default_value_t = Self::default().weight_decay)]
    pub weight_decay: f64,
    /// AdamW's decay rates of the two moments, with a comma between.
    #[arg(long, value_parser = pair, default_value = "0.9,0.999")]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[arg(long, default_value_t = Self::default().epsilon)]
    pub epsilon: f64,
    /// Largest norm of the whole gradient; a larger one is scaled down to it. Off by default.
    #[arg(long)]
    pub max_grad_norm: Option<f64>,
    /// Longer samples are dropped and counted. Paper: 512.
    #[arg(long, default_value_t = Self::default().max_len)]
    pub max_len: usize,
    /// Steps between two checkpoints, where a checkpoint file is given.
    #[arg(long, default_value_t = Self::default().save_every)]
    pub save_every: usize,
    /// The weights that move: those whose names hold one of these texts, with commas between, such as `layers.3.,norm`; all
    /// that are trained where there is none.
    #[arg(long, value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// The adapters that are trained, or all weights.
    #[command(flatten)]
    pub lora: LoraSettings,
}

/// Two numbers with a comma between.
fn pair(text: &str) -> std::result::Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| "expected two numbers, such as 0.9,0.999".into())
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch: 8,
            learning_rate: 1e-4,
            warmup_steps: 0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            max_grad_norm: None,
            max_len: 512,
            save_every: 50,
            only: Vec::new(),
            lora: LoraSettings::default(),
        }
    }
}

impl TrainSettings {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// Names the first setting that does not.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [("epochs", self.epochs), ("batch", self.batch), ("save_every", self.save_every)] {
            require(value > 0, key, value, "must be at least 1")?;
        }
        require(self.max_len > 1, "max_len", self.max_len, "must be at least 2")?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        require(positive(self.learning_rate), "learning_rate", self.learning_rate, "must be above 0")?;
        require(positive(self.epsilon), "epsilon", self.epsilon, "must be above 0")?;
        let decay = self.weight_decay;
        require(decay >= 0.0 && decay.is_finite(), "weight_decay", decay, "must not be below 0")?;
        for beta in self.betas {
            require((0.0..1.0).contains(&beta), "betas", beta, "must be at least 0 and below 1")?;
        }
        if let Some(norm) = self.max_grad_norm {
            require(positive(norm), "max_grad_norm", norm, "must be above 0; leave it out for no clipping")?;
        }
        self.lora.check()
    }

    /// The learning rate of the `step`-th update, from 0.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64
        } else {
            self.learning_rate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_take_the_default() {
        let settings: TrainSettings = serde_json::from_str(r#"{"batch": 4, "lora": {"rank": 16}}"#).unwrap();
        let lora = LoraSettings { rank: 16, ..LoraSettings::default() };
        assert_eq!(settings, TrainSettings { batch: 4, lora, ..TrainSettings::default() });
        for (wrong, named) in [(r#"{"bach": 4}"#, "bach"), (r#"{"lora": {"targets": ["lm_head"]}}"#, "lm_head")] {
            let error = serde_json::from_str::<TrainSettings>(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_rank_that_no_memory_holds_is_refused() {
        let of =
            |rank| TrainSettings { lora: LoraSettings { rank, ..LoraSettings::default() }, ..TrainSettings::default() };
        assert!(of(8192).check().is_ok());
        assert!(of(1 << 32).check().unwrap_err().to_string().contains("rank"));
    }

    #[test]
    fn every_field_is_in_the_json_that_keys_are_made_of() {
        let all = TrainSettings { only: vec!["norm".into()], ..TrainSettings::default() };
        let json = serde_json::to_value(&all).unwrap();
        for key in json.as_object().unwrap().keys().filter(|key| *key != "lora") {
            let mut other = json.clone();
            other[key] = match key.as_str() {
                "betas" => serde_json::json!([0.5, 0.5]),
                "only" => serde_json::json!(["layers.1."]),
                "learning_rate" | "weight_decay" | "epsilon" | "max_grad_norm" => 0.25.into(),
                _ => 77.into(),
            };
            let changed: TrainSettings = serde_json::from_value(other.clone()).unwrap();
            assert_ne!(changed, all, "{key}");
            assert_eq!(serde_json::to_value(changed).unwrap(), other, "{key}");
        }
        let debug = format!("{all:?}");
        let fields = debug.split(", ").filter(|part| part.contains(": ")).count();
        let nested = json["lora"].as_object().unwrap().len();
        assert_eq!(fields, json.as_object().unwrap().len() + nested - 1, "{debug}");
    }

    #[test]
    fn the_command_line_has_the_same_defaults() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: crate::AlignSettings,
            #[command(flatten)]
            soft: crate::SoftSftSettings,
        }
        let parsed = <Line as clap::Parser>::parse_from(["train"]);
        assert_eq!(parsed.settings, crate::AlignSettings::default());
        assert_eq!(parsed.soft, crate::SoftSftSettings::default());
        let line = ["x", "--train-batch", "3", "--betas", "0.5,0.6", "--rank", "0", "--targets", "q_proj,up_proj"];
        let parsed = <Line as clap::Parser>::parse_from(line).settings.train;
        assert_eq!((parsed.batch, parsed.betas, parsed.lora.rank), (3, [0.5, 0.6], 0));
        assert_eq!(parsed.lora.targets, [crate::Target::QProj, crate::Target::UpProj]);
        assert!(<Line as clap::Parser>::try_parse_from(["x", "--betas", "0.5"]).is_err());
    }

    #[test]
    fn senseless_values_are_named() {
        let message = |settings: TrainSettings| settings.check().unwrap_err().to_string();
        assert_eq!(
            message(TrainSettings { batch: 0, ..Default::default() }),
            "setting `batch` = 0: must be at least 1"
        );
        let nan = TrainSettings { learning_rate: f64::NAN, ..Default::default() };
        assert_eq!(message(nan), "setting `learning_rate` = NaN: must be above 0");
        let lora = LoraSettings { dropout: 1.0, ..Default::default() };
        let dropout = TrainSettings { lora, ..Default::default() };
        assert!(message(dropout).contains("`dropout` = 1"));
        assert!(TrainSettings::default().check().is_ok());
    }

    #[test]
    fn warm_up_is_linear_and_then_constant() {
        let settings = TrainSettings { warmup_steps: 4, learning_rate: 1.0, ..Default::default() };
        let rates: Vec<f64> = (0..6).map(|step| settings.learning_rate_at(step)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(TrainSettings { learning_rate: 0.5, ..Default::default() }.learning_rate_at(0), 0.5);
    }
}
