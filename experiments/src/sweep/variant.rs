//! Ablations: variants of the recovery, and the two settings that only they change: the direction layer as a share of
//! the blocks, and rollback on or off (paper, section V, "Ablation").

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Recovery;

/// A recovery that differs from the sweep's in the keys that are given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in tables and figures.
    pub name: String,
    /// See [`Recovery::layer`].
    #[serde(default)]
    pub layer: Option<Layer>,
    /// See [`Recovery::rate`].
    #[serde(default)]
    pub rate: Option<f64>,
    /// See [`Recovery::prompts`].
    #[serde(default)]
    pub prompts: Option<PathBuf>,
    /// See [`Recovery::count`].
    #[serde(default)]
    pub count: Option<usize>,
    /// See [`Recovery::metric_drop`].
    #[serde(default)]
    pub metric_drop: Option<f64>,
    /// See [`Recovery::rollback`].
    #[serde(default)]
    pub rollback: Option<Rollback>,
}

impl Variant {
    /// Sets the keys that are given.
    pub fn apply(&self, recovery: &mut Recovery) {
        let Self { name: _, layer, rate, prompts, count, metric_drop, rollback } = self;
        recovery.layer = layer.or(recovery.layer);
        recovery.rate = rate.unwrap_or(recovery.rate);
        recovery.prompts = prompts.clone().unwrap_or_else(|| recovery.prompts.clone());
        recovery.count = count.unwrap_or(recovery.count);
        recovery.metric_drop = metric_drop.unwrap_or(recovery.metric_drop);
        recovery.rollback = rollback.unwrap_or(recovery.rollback);
    }
}

/// Whether a restoration step is followed by a rollback half-step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollback {
    /// The task's score decides, about the answer too (method, section 3).
    #[default]
    Auto,
    /// In every step; all steps are done and nothing is scored.
    On,
    /// In no step; all steps are done and nothing is scored.
    Off,
}

impl Rollback {
    /// Whether the task's score decides.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// A direction layer as a share of the blocks, written `4/6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Layer {
    part: usize,
    of: usize,
}

impl Layer {
    /// The layer of a model with this many blocks, counted from 1: the share rounded down, at least 1.
    #[must_use]
    pub fn of_blocks(self, blocks: usize) -> usize {
        (blocks * self.part / self.of).max(1)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl FromStr for Layer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if 0 < part && part <= of && of <= 1000 => Ok(Self { part, of }),
            _ => anyhow::bail!("a layer is a share of the blocks like 4/6, above 0 and at most 1; {text:?} is none"),
        }
    }
}

impl TryFrom<String> for Layer {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Layer> for String {
    fn from(layer: Layer) -> Self {
        layer.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_a_share_of_the_blocks_rounded_down_and_at_least_one() {
        let layer = |text: &str, blocks| text.parse::<Layer>().unwrap().of_blocks(blocks);
        assert_eq!([layer("2/6", 32), layer("3/6", 32), layer("4/6", 32), layer("5/6", 32)], [10, 16, 21, 26]);
        assert_eq!((layer("1/6", 4), layer("6/6", 4)), (1, 4));
        for text in ["0/6", "7/6", "4", "1/0", "a/6", "-1/6"] {
            assert!(text.parse::<Layer>().unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn a_variant_changes_the_keys_that_it_has_and_no_other() {
        let variant =
            Variant { name: "a".into(), metric_drop: Some(0.1), rollback: Some(Rollback::Off), ..Variant::default() };
        let mut recovery = Recovery { count: 64, ..Recovery::default() };
        variant.apply(&mut recovery);
        let expected = Recovery { count: 64, metric_drop: 0.1, rollback: Rollback::Off, ..Recovery::default() };
        assert_eq!(recovery, expected);
    }

    #[test]
    fn settings_without_layer_and_rollback_have_the_keys_that_they_had_before() {
        let json = serde_json::to_value(Recovery::default()).unwrap();
        assert!(json.get("layer").is_none() && json.get("rollback").is_none());
    }
}
