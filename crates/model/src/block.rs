//! One decoder block: attention and gated MLP, each behind a norm and beside the residual stream.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::ablation::Ablation;
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
    /// What is taken out of the residual stream before, in and after the block.
    #[module(skip)]
    pub(crate) ablation: Option<Ablation>,
}

/// An input of projections in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// The normed residual stream before the attention.
    Attention,
    /// The heads' outputs side by side.
    Heads,
    /// The normed residual stream before the MLP.
    Mlp,
    /// The MLP's gated activations.
    Gated,
}

impl Input {
    /// All, in the order in which a pass comes to them.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Heads, Self::Mlp, Self::Gated];

    /// The projections that read it, as paths in the block.
    #[must_use]
    pub fn projections(self) -> &'static [&'static str] {
        match self {
            Self::Attention => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            Self::Heads => &["self_attn.o_proj"],
            Self::Mlp => &["mlp.gate_proj", "mlp.up_proj"],
            Self::Gated => &["mlp.down_proj"],
        }
    }
}

/// Is shown the inputs of a block's projections, each of shape `[rows, in]`, made when they are asked for.
pub type Watch<'a> = dyn FnMut(Input, &dyn Fn() -> Tensor<2>) + 'a;

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
            ablation: None,
        }
    }

    /// The residual stream after this block, at the query rows.
    ///
    /// # Shapes
    /// - x: `[positions, hidden]`
    /// - output: `[query rows, hidden]`
    pub fn forward(&self, x: Tensor<2>, queries: &Queries, cache: Option<&mut LayerCache>) -> Tensor<2> {
        self.watched(x, queries, cache, &mut |_, _| ())
    }

    /// As [`forward`](Self::forward), where `watch` is shown the inputs of the projections.
    pub fn watched(
        &self,
        x: Tensor<2>,
        queries: &Queries,
        cache: Option<&mut LayerCache>,
        watch: &mut Watch<'_>,
    ) -> Tensor<2> {
        let x = self.ablated(x);
        let normed = self.input_layernorm.forward(x.clone());
        watch(Input::Attention, &|| normed.clone());
        let heads = self.self_attn.attend(normed, queries, cache);
        watch(Input::Heads, &|| heads.clone());
        self.feed_forward(queries.of(x), self.self_attn.o_proj.forward(heads), watch)
    }

    /// One new position per row, over the keys and values in `cache`.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`
    pub fn step(&self, x: Tensor<2>, rope: &Rope, cache: &mut LayerCache) -> Tensor<2> {
        let x = self.ablated(x);
        let normed = self.input_layernorm.forward(x.clone());
        let attended = self.self_attn.step(normed, rope, cache);
        self.feed_forward(x, attended, &mut |_, _| ())
    }

    /// Adds the attention's output and the MLP's.
    fn feed_forward(&self, x: Tensor<2>, attended: Tensor<2>, watch: &mut Watch<'_>) -> Tensor<2> {
        match (&self.pre_feedforward_layernorm, &self.post_feedforward_layernorm) {
            (Some(before), Some(after)) => {
                let x = self.ablated(x + self.post_attention_layernorm.forward(attended));
                let normed = before.forward(x.clone());
                self.ablated(x + after.forward(self.mlp(normed, watch)))
            }
            _ => {
                let x = self.ablated(x + attended);
                let normed = self.post_attention_layernorm.forward(x.clone());
                self.ablated(x + self.mlp(normed, watch))
            }
        }
    }

    /// The residual stream without the direction that is ablated, if one is.
    fn ablated(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.ablation {
            Some(ablation) => ablation.of(x),
            None => x,
        }
    }

    fn mlp(&self, x: Tensor<2>, watch: &mut Watch<'_>) -> Tensor<2> {
        watch(Input::Mlp, &|| x.clone());
        let gated = self.mlp.gated(x);
        watch(Input::Gated, &|| gated.values());
        self.mlp.down_proj.forward_gated(gated)
    }
}
