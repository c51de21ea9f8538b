//! The projections of the blocks: their weights on the host, and what they read of answered prompts.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use model::weights::{self, WeightInfo};
use model::{Decoder, Input, Packed, Walk};

use crate::compensation::Gram;
use crate::evidence::Answered;
use crate::lesson::at_once;
use crate::{Error, Result};

/// Names of the weights of a block that read an input.
pub(crate) fn names(block: usize, input: Input) -> impl Iterator<Item = String> {
    input.projections().iter().map(move |projection| format!("model.layers.{block}.{projection}.weight"))
}

/// Whether a tensor is the weight of a projection.
pub(crate) fn is_projection(info: &WeightInfo) -> bool {
    info.layer.is_some_and(|block| Input::ALL.iter().any(|&input| names(block, input).any(|name| name == info.name)))
}

/// The weights of all projections by name, row-major.
pub(crate) fn read(decoder: &Decoder) -> Result<HashMap<String, Vec<f32>>> {
    let read = weights::read(decoder, is_projection)?;
    Ok(read.into_iter().map(|(info, values)| (info.name, values)).collect())
}

/// `decoder` with other values of some weights.
pub(crate) fn replaced(decoder: Decoder, mut values: HashMap<String, Vec<f32>>) -> Decoder {
    weights::replace(decoder, |info| Some(TensorData::new(values.remove(&info.name)?, info.shape.clone())))
}

/// Prompts with their answers on their way through a decoder, all tokens of each, block by block.
#[derive(Debug, Clone)]
pub(crate) struct Calibration(Vec<Walk>);

impl Calibration {
    /// Before the first block.
    pub fn new(decoder: &Decoder, rows: &[Answered]) -> Result<Self> {
        let rows: Vec<&Answered> = rows.iter().collect();
        let walk = |run: std::ops::Range<usize>| {
            let ids: Vec<&[u32]> = rows[run].iter().map(|row| row.ids.as_slice()).collect();
            // Without a shared prefix, since each row is to count with all its tokens.
            Ok(Walk::new(decoder, &Packed::with_prefix_limit(&ids, 0)?)?)
        };
        at_once(decoder.config(), &rows).into_iter().map(walk).collect::<Result<_>>().map(Self)
    }

    /// Passes the next block of a decoder; `add` gets the inputs of its projections, `[tokens, in]`, pack by pack, made when it asks for them.
    pub fn pass(
        &mut self,
        decoder: &Decoder,
        mut add: impl FnMut(Input, &dyn Fn() -> Tensor<2>) -> Result<()>,
    ) -> Result<()> {
        for walk in &mut self.0 {
            let mut added = Ok(());
            walk.pass(decoder, &mut |input, x| {
                if added.is_ok() {
                    added = add(input, x);
                }
            });
            added?;
        }
        Ok(())
    }

    /// Passes the next block of a decoder; what the inputs of its projections have in common with each other.
    pub fn grams(&mut self, decoder: &Decoder) -> Result<Vec<(Input, Gram)>> {
        let mut grams: Vec<(Input, Gram)> = Vec::new();
        self.pass(decoder, |input, x| {
            let x = x();
            let found = grams.iter().position(|(own, _)| *own == input);
            let at = found.unwrap_or_else(|| {
                grams.push((input, Gram::new(x.dims()[1])));
                grams.len() - 1
            });
            grams[at].1.add(&host(x.clone().transpose().matmul(x))?);
            Ok(())
        })?;
        Ok(grams)
    }
}

/// The values of a tensor, row-major.
pub(crate) fn host(x: Tensor<2>) -> Result<Vec<f32>> {
    x.try_into_vec_as().map_err(|error| Error::Model(model::Error::Device(error.to_string())))
}
