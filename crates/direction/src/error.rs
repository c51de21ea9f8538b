//! What can go wrong with a direction.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of directions and their gradients.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decoder refused the ids, or the device failed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// There is nothing to average.
    #[error("no prompt was given for the direction")]
    NoPrompts,
    /// The layer is not one of the model's.
    #[error("direction layer {layer} is not between 1 and {blocks}, the number of blocks")]
    Layer {
        /// The layer asked for.
        layer: usize,
        /// Number of blocks.
        blocks: usize,
    },
    /// A text that is no direction layer.
    #[error("{text:?} is no direction layer; write a share of the blocks such as 4/6, or a block's number from 1")]
    NoLayer {
        /// The text.
        text: String,
    },
    /// The direction was computed for a model of another width.
    #[error("the direction has {found} values, the model's hidden size is {expected}")]
    Width {
        /// The direction's length.
        found: usize,
        /// The model's width.
        expected: usize,
    },
    /// A mean, a direction or a loss is not finite.
    #[error("{what} is not finite; the weights or the prompts are damaged")]
    NotFinite {
        /// What is not finite.
        what: String,
    },
}
