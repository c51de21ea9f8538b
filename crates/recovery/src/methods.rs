//! The registry: every method, its word and its name for people. A method is a file in `methods/`, and its `mod` and its line here.

mod antidote;
mod distill;
mod full_revert;
mod interpolation;
mod irr;
mod largest_difference;
mod random;
mod recover;
mod resta;
mod safe_delta;
mod safe_lora;
mod safe_merge;
mod strong;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use recover::Progress;
pub use recover::{GradientMode, Rollback};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Repair, Result};

macro_rules! methods {
    ($($(#[doc = $doc:literal])* $word:ident::$name:ident = $label:literal;)*) => {
        $(pub use $word::$name;)*

        /// A method with its settings. Its word names it in YAML and JSON, and as a subcommand.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Subcommand)]
        #[serde(rename_all = "snake_case")]
        #[command(rename_all = "snake_case")]
        pub enum Method {
            $($(#[doc = $doc])* $name($name),)*
        }

        impl Method {
            /// The words of all methods.
            pub const WORDS: &'static [&'static str] = &[$($name::WORD),*];

            /// The method's word.
            #[must_use]
            pub fn word(&self) -> &'static str {
                match self { $(Self::$name(_) => $name::WORD),* }
            }

            /// The method's name for people.
            #[must_use]
            pub fn label(&self) -> &'static str {
                match self { $(Self::$name(_) => $label),* }
            }

            /// The settings as what they do.
            #[must_use]
            pub fn repair(&self) -> &dyn Repair {
                match self { $(Self::$name(settings) => settings),* }
            }
        }

        $(impl $name {
            /// The method's word, which sweeps and keys of kept results have: its file cannot be renamed.
            pub const WORD: &'static str = stringify!($word);
        }

        impl From<$name> for Method {
            fn from(settings: $name) -> Self {
                Self::$name(settings)
            }
        })*
    };
}

methods! {
    /// Restore the weights that carry alignment, found by gradients (the paper's method).
    recover::Recover = "recovery";
    /// Restore weights by what it gains on harmful, harmless and task prompts together (our extension).
    strong::Strong = "strong recovery";
    /// Train all weights on what strong recovery restores single ones for (a control arm).
    distill::Distill = "distillation";
    /// Add a safety vector, aligned - unaligned, to all weights (a baseline).
    resta::Resta = "RESTA";
    /// Project what fine-tuning changed to where alignment changed the model (a baseline).
    safe_lora::SafeLora = "Safe LoRA";
    /// Merge with a safe model where fine-tuning left what alignment changed (a baseline).
    safe_merge::SafeMerge = "SafeMERGE";
    /// Take back fine-tuning's change of the weights that harmful prompts use most (a baseline).
    antidote::Antidote = "Antidote";
    /// Take from fine-tuning what costs safety little, and make up for that (a baseline).
    safe_delta::SafeDelta = "Safe Delta";
    /// Take back what fine-tuning changed against a safety vector, and make up for that (a baseline).
    irr::Irr = "IRR";
    /// Restore weights drawn at random among those that a recovery could choose (a control arm).
    random::Random = "random";
    /// Restore the weights that differ most from the aligned model's (a control arm).
    largest_difference::LargestDifference = "largest difference";
    /// Restore every weight below the direction layer (a control arm).
    full_revert::FullRevert = "full revert";
    /// Move all weights towards the aligned model's (a control arm).
    interpolation::Interpolation = "interpolation";
}

impl Method {
    /// The same method with one setting changed.
    ///
    /// # Errors
    /// When the setting is unknown or out of its range.
    pub fn with(&self, key: &str, value: f64) -> Result<Self> {
        let word = self.word();
        let wrong = |source| Error::Settings { method: word, source };
        let mut method = serde_json::to_value(self).map_err(wrong)?;
        let whole = value.fract() == 0.0 && method[word][key].is_u64();
        method[word][key] = if whole { Value::from(value as u64) } else { Value::from(value) };
        Self::from_settings(word, method[word].take())
    }

    /// The method of a word with these settings, checked; those left out have their defaults, as all have for null.
    ///
    /// # Errors
    /// When the word is unknown, or a setting is unknown, of another type or out of its range.
    pub fn from_settings(word: &str, settings: Value) -> Result<Self> {
        let Some(&word) = Self::WORDS.iter().find(|known| **known == word) else {
            return Err(Error::UnknownMethod { word: word.to_owned(), known: Self::WORDS.join(", ") });
        };
        let settings = if settings.is_null() { Value::Object(Map::new()) } else { settings };
        let method = Value::Object(Map::from_iter([(word.to_owned(), settings)]));
        let method: Self = serde_json::from_value(method).map_err(|source| Error::Settings { method: word, source })?;
        method.repair().check()?;
        Ok(method)
    }
}
