//! The models of a cell that are compared: aligned, fine-tuned, recovered, the baselines and
//! the control arms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The model of a cell that a row of the results is about; in settings and tables a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// `aligned`: the original chat model.
    Aligned,
    /// `fine_tuned`: the aligned model after fine-tuning on the task and the injected samples.
    FineTuned,
    /// `recovered`: the fine-tuned model after recovery.
    Recovered,
    /// `softsft`: the aligned model fine-tuned with SoftSFT in place of the usual loss.
    SoftSft,
    /// `resta`: the fine-tuned model with RESTA's safety vector added.
    Resta,
    /// `random`: as many random weights restored as recovery restored.
    Random,
    /// `largest_difference`: as many weights restored, those that differ most.
    LargestDifference,
    /// `full_revert`: the whole region restored.
    FullRevert,
    /// `interpolation_40`: aligned + 0.40 (fine-tuned - aligned), over all weights; in percent.
    Interpolation(u8),
}

impl Method {
    /// What is compared where a sweep does not say.
    pub const USUAL: [Self; 3] = [Self::Aligned, Self::FineTuned, Self::Recovered];

    /// Its name for people; all interpolations share one.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Aligned => "aligned",
            Self::FineTuned => "fine-tuned",
            Self::Recovered => "recovered",
            Self::SoftSft => "SoftSFT",
            Self::Resta => "RESTA",
            Self::Random => "random",
            Self::LargestDifference => "largest difference",
            Self::FullRevert => "full revert",
            Self::Interpolation(_) => "interpolation",
        }
    }

    /// The same with the share of an interpolation.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::Interpolation(percent) => format!("{} {percent} %", self.label()),
            _ => self.label().to_owned(),
        }
    }

    /// Whether the method restores as many weights as recovery did.
    #[must_use]
    pub fn needs_recovery(self) -> bool {
        matches!(self, Self::Random | Self::LargestDifference)
    }

    /// Whether the method's model depends on the settings of the recovery, and so on a sweep's variant.
    #[must_use]
    pub fn follows_recovery(self) -> bool {
        matches!(self, Self::Recovered | Self::Random | Self::LargestDifference | Self::FullRevert)
    }

    /// Whether the method is a control arm.
    #[must_use]
    pub fn is_control(self) -> bool {
        match self {
            Self::Random | Self::LargestDifference | Self::FullRevert | Self::Interpolation(_) => true,
            Self::Aligned | Self::FineTuned | Self::Recovered | Self::SoftSft | Self::Resta => false,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aligned => f.write_str("aligned"),
            Self::FineTuned => f.write_str("fine_tuned"),
            Self::Recovered => f.write_str("recovered"),
            Self::SoftSft => f.write_str("softsft"),
            Self::Resta => f.write_str("resta"),
            Self::Random => f.write_str("random"),
            Self::LargestDifference => f.write_str("largest_difference"),
            Self::FullRevert => f.write_str("full_revert"),
            Self::Interpolation(percent) => write!(f, "interpolation_{percent}"),
        }
    }
}

impl FromStr for Method {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let others = [Self::SoftSft, Self::Resta, Self::Random, Self::LargestDifference, Self::FullRevert];
        let known = [&Self::USUAL[..], &others].concat().into_iter();
        let percent = name.strip_prefix("interpolation_").and_then(|percent| percent.parse::<u8>().ok());
        let interpolation = percent.filter(|percent| *percent <= 100).map(Self::Interpolation);
        known.chain(interpolation).find(|method| method.to_string() == name).ok_or_else(|| {
            anyhow::anyhow!(
                "no method is called `{name}`; there are aligned, fine_tuned, recovered, softsft, resta, random, \
                 largest_difference, full_revert and interpolation_N with N from 0 to 100"
            )
        })
    }
}

impl TryFrom<String> for Method {
    type Error = anyhow::Error;

    fn try_from(name: String) -> anyhow::Result<Self> {
        name.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        let all = "aligned fine_tuned recovered softsft resta random largest_difference full_revert interpolation_0 \
                   interpolation_40";
        for name in all.split(' ') {
            assert_eq!(name.parse::<Method>().unwrap().to_string(), name);
        }
        for name in ["interpolation_101", "interpolation_040", "interpolation", "recoverd"] {
            assert!(name.parse::<Method>().unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
