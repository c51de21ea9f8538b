//! The direction layer in settings: a share of the blocks, or a block (METHOD.md section 2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A direction layer, written as a share of the blocks (`4/6`, the paper's) or as a block's number from 1 (`21`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Layer(Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Share { part: usize, of: usize },
    Block(usize),
}

impl Layer {
    /// The layer of a model with this many blocks, counted from 1: a share is rounded down, and is at least 1.
    #[must_use]
    pub fn of_blocks(self, blocks: usize) -> usize {
        match self.0 {
            Place::Share { part, of } => (blocks * part / of).max(1),
            Place::Block(block) => block,
        }
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self(Place::Share { part: 4, of: 6 })
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Share { part, of } => write!(f, "{part}/{of}"),
            Place::Block(block) => write!(f, "{block}"),
        }
    }
}

impl FromStr for Layer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number > 0);
        let place = match text.split_once('/') {
            None => number(text).map(Place::Block),
            Some((part, of)) => number(part).zip(number(of)).map(|(part, of)| Place::Share { part, of }),
        };
        let known = place.filter(|place| !matches!(place, Place::Share { part, of } if part > of || *of > 1000));
        known.map(Self).ok_or_else(|| Error::NoLayer { text: text.to_owned() })
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a share of the blocks such as \"4/6\", or a block's number from 1")]
enum Written {
    Number(usize),
    Text(String),
}

impl TryFrom<Written> for Layer {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        match written {
            Written::Number(block) => block.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Layer> for String {
    fn from(layer: Layer) -> Self {
        layer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_layer_is_two_thirds_down() {
        assert_eq!([1, 4, 6, 30, 32].map(|blocks| Layer::default().of_blocks(blocks)), [1, 2, 4, 20, 21]);
    }

    #[test]
    fn a_layer_is_a_share_or_a_block_and_its_text_reads_back() {
        let of = |text: &str, blocks| text.parse::<Layer>().unwrap().of_blocks(blocks);
        assert_eq!([of("2/6", 6), of("5/6", 4), of("1/6", 3), of("6/6", 6), of("21", 32)], [2, 3, 1, 6, 21]);
        for text in ["4/6", "21"] {
            assert_eq!(text.parse::<Layer>().unwrap().to_string(), text);
        }
        for text in ["", "0", "0/6", "7/6", "4/0", "1/2/3", "-1", "1/2000", "half"] {
            let error = text.parse::<Layer>().unwrap_err().to_string();
            assert!(error.contains("no direction layer") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn json_has_a_layer_as_text_and_takes_a_number() {
        let read = |json: &str| serde_json::from_str::<Layer>(json);
        assert_eq!(read("21").unwrap(), read("\"21\"").unwrap());
        assert_eq!(serde_json::to_string(&read("21").unwrap()).unwrap(), "\"21\"");
        assert_eq!(serde_json::to_string(&Layer::default()).unwrap(), "\"4/6\"");
        assert!(read("\"7/6\"").unwrap_err().to_string().contains("7/6"));
        assert!(read("0.5").unwrap_err().to_string().contains("share of the blocks"));
    }
}
