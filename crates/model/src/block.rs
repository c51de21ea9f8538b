//! One decoder block: attention and gated MLP, each behind a norm and beside the residual stream.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::{Attention, Queries};
use crate::cache::LayerCache;
use crate::config::DecoderConfig;
use crate::mlp::Mlp;
use crate::norm::RmsNorm;
use crate::ops::Rope;

/// A decoder block; field names are the checkpoint's.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: Attention,
    /// Norm before the MLP; with [`pre_feedforward_layernorm`](Self::pre_feedforward_layernorm) it
    /// is the norm of the attention's output.
    pub post_attention_layernorm: RmsNorm,
    /// Norm before the MLP in families that normalise outputs, too (Gemma 2 and 3).
    pub pre_feedforward_layernorm: Option<RmsNorm>,
    /// Norm of the MLP's output in those families.
    pub post_feedforward_layernorm: Option<RmsNorm>,
    /// Gated MLP.
    pub mlp: Mlp,
}

impl Block {
    /// Weights of zero and neutral norms, to be filled from a checkpoint.
    pub fn zeros(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.hidden_size, config.rms_norm_eps, config.norm_offset, device);
        Self {
            input_layernorm: norm(),
            self_attn: Attention::zeros(config, device),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: config.output_norms.then(norm),
            post_feedforward_layernorm: config.output_norms.then(norm),
            mlp: Mlp::zeros(config, device),
        }
    }

    /// The residual stream after this block, at the query rows.
    ///
    /// # Shapes
    /// - x: `[positions, hidden]`
    /// - output: `[query rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, queries: &Queries, cache: Option<&mut LayerCache>) -> Tensor<2> {
        let normed = self.input_layernorm.forward(x.clone());
        self.feed_forward(queries.of(x), self.self_attn.forward(normed, queries, cache))
    }

    /// One new position per row, over the keys and values in `cache`.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`
    pub fn step(&self, x: Tensor<2>, rope: &Rope, cache: &mut LayerCache) -> Tensor<2> {
        let normed = self.input_layernorm.forward(x.clone());
        let attended = self.self_attn.step(normed, rope, cache);
        self.feed_forward(x, attended)
    }

    /// Adds the attention's output and the MLP's.
    fn feed_forward(&self, x: Tensor<2>, attended: Tensor<2>) -> Tensor<2> {
        match (&self.pre_feedforward_layernorm, &self.post_feedforward_layernorm) {
            (Some(before), Some(after)) => {
                let x = x + self.post_attention_layernorm.forward(attended);
                let normed = before.forward(x.clone());
                x + after.forward(self.mlp.forward(normed))
            }
            _ => {
                let x = x + attended;
                let normed = self.post_attention_layernorm.forward(x.clone());
                x + self.mlp.forward(normed)
            }
        }
    }
}
