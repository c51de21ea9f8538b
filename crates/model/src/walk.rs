//! A pack that goes through a decoder one block at a time, so that a block can be looked at, and changed, before the next.

use burn::tensor::Tensor;

use crate::attention::{PerType, Queries};
use crate::block::Watch;
use crate::{Decoder, Packed, Result};

/// A pack between two blocks.
#[derive(Debug, Clone)]
pub struct Walk {
    x: Tensor<2>,
    queries: PerType<Queries>,
    passed: usize,
}

impl Walk {
    /// A pack before the first block.
    ///
    /// # Errors
    /// When an id or a position is out of range.
    pub fn new(decoder: &Decoder, packed: &Packed) -> Result<Self> {
        decoder.check(packed)?;
        Ok(Self { x: decoder.embed(&packed.ids), queries: decoder.queries(packed), passed: 0 })
    }

    /// Passes the next block of a decoder of the same shape; `watch` is shown the inputs of its projections.
    ///
    /// # Panics
    /// When all blocks are passed.
    pub fn pass(&mut self, decoder: &Decoder, watch: &mut Watch<'_>) {
        let block = &decoder.model.layers[self.passed];
        let kind = decoder.config().layer_types[self.passed];
        self.x = block.watched(self.x.clone(), self.queries.of(kind), None, watch);
        self.passed += 1;
    }
}
