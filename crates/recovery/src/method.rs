//! The registry: every method, its word and its label. A new method is one line here and one file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Antidote, Distill, Error, FullRevert, Interpolation, Irr, LargestDifference, Random, Recover, Repair, Resta,
    Result, SafeDelta, SafeLora, SafeMerge, Strong,
};

macro_rules! methods {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal, $label:literal;)*) => {
        /// A method with its settings. Its word names it in YAML and JSON, and as a subcommand.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Subcommand)]
        pub enum Method {
            $($(#[doc = $doc])* #[serde(rename = $word)] #[command(name = $word)] $name($name),)*
        }

        impl Method {
            /// The words of all methods.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The method's word.
            #[must_use]
            pub fn word(&self) -> &'static str {
                match self { $(Self::$name(_) => $word),* }
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
            /// The method's word.
            pub const WORD: &'static str = $word;
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
    Recover = "recover", "recovery";
    /// Restore weights by what it gains on harmful, harmless and task prompts together (our extension).
    Strong = "strong", "strong recovery";
    /// Train all weights on what strong recovery restores single ones for (a control arm).
    Distill = "distill", "distillation";
    /// Add a safety vector, aligned - unaligned, to all weights (a baseline).
    Resta = "resta", "RESTA";
    /// Project what fine-tuning changed to where alignment changed the model (a baseline).
    SafeLora = "safe_lora", "Safe LoRA";
    /// Merge with a safe model where fine-tuning left what alignment changed (a baseline).
    SafeMerge = "safe_merge", "SafeMERGE";
    /// Take back fine-tuning's change of the weights that harmful prompts use most (a baseline).
    Antidote = "antidote", "Antidote";
    /// Take from fine-tuning what costs safety little, and make up for that (a baseline).
    SafeDelta = "safe_delta", "Safe Delta";
    /// Take back what fine-tuning changed against a safety vector, and make up for that (a baseline).
    Irr = "irr", "IRR";
    /// Restore weights drawn at random among those that a recovery could choose (a control arm).
    Random = "random", "random";
    /// Restore the weights that differ most from the aligned model's (a control arm).
    LargestDifference = "largest_difference", "largest difference";
    /// Restore every weight below the direction layer (a control arm).
    FullRevert = "full_revert", "full revert";
    /// Move all weights towards the aligned model's (a control arm).
    Interpolation = "interpolation", "interpolation";
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
