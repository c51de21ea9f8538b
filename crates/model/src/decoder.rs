//! The decoder: embedding, blocks, final norm and head.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::ablation::Ablation;
use crate::attention::{PerType, Queries};
use crate::block::Block;
use crate::cache::KvCache;
use crate::config::DecoderConfig;
use crate::norm::RmsNorm;
use crate::ops::{self, Rope};
use crate::{Error, Linear, Packed, Result};

/// A causal language model; field names are the checkpoint's, so that paths are tensor names.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Embedding, blocks and final norm.
    pub model: Trunk,
    /// The head, unless it is the embedding.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: DecoderConfig,
}

/// What a checkpoint calls `model`.
#[derive(Module, Debug)]
pub struct Trunk {
    /// Embedding.
    pub embed_tokens: Embedding,
    /// Blocks.
    pub layers: Vec<Block>,
    /// Final norm.
    pub norm: RmsNorm,
}

/// Token embedding.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, hidden]`.
    pub weight: Param<Tensor<2>>,
}

impl Decoder {
    /// Weights of zero and neutral norms, to be filled from a checkpoint or an initialiser.
    pub fn zeros(config: &DecoderConfig, device: &Device) -> Self {
        let (vocab, d) = (config.vocab_size, config.hidden_size);
        Self {
            model: Trunk {
                embed_tokens: Embedding { weight: Param::from_tensor(ops::zero_matrix([vocab, d], device)) },
                layers: (0..config.num_hidden_layers).map(|_| Block::zeros(config, device)).collect(),
                norm: RmsNorm::new(d, config.rms_norm_eps, config.norm_offset, device),
            },
            lm_head: (!config.tie_word_embeddings).then(|| Linear::zeros(vocab, d, false, device)),
            config: config.clone(),
        }
    }

    /// The decoder's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The device that holds the weights.
    pub fn device(&self) -> Device {
        self.model.norm.weight.device()
    }

    /// The seven projections of each block with their module paths, such as
    /// `model.layers.0.self_attn.q_proj`, in the checkpoint's order.
    pub fn linears(&self) -> impl Iterator<Item = (String, &Linear)> {
        self.model.layers.iter().enumerate().flat_map(|(index, block)| {
            let (attention, mlp) = (&block.self_attn, &block.mlp);
            let linears = [
                &attention.q_proj,
                &attention.k_proj,
                &attention.v_proj,
                &attention.o_proj,
                &mlp.gate_proj,
                &mlp.up_proj,
                &mlp.down_proj,
            ];
            projection_paths(index).into_iter().zip(linears)
        })
    }

    /// As [`linears`](Self::linears), to attach or remove adapters.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.model.layers.iter_mut().enumerate().flat_map(|(index, block)| {
            let (attention, mlp) = (&mut block.self_attn, &mut block.mlp);
            let linears = [
                &mut attention.q_proj,
                &mut attention.k_proj,
                &mut attention.v_proj,
                &mut attention.o_proj,
                &mut mlp.gate_proj,
                &mut mlp.up_proj,
                &mut mlp.down_proj,
            ];
            projection_paths(index).into_iter().zip(linears)
        })
    }

    /// The decoder whose residual stream has no part along `direction`: before each block, after its attention and after
    /// its MLP.
    ///
    /// # Errors
    /// When the direction is not of the model's width, or has no length.
    pub fn without_direction(mut self, direction: &[f32]) -> Result<Self> {
        let ablation = Ablation::new(direction, self.config.hidden_size)?;
        for block in &mut self.model.layers {
            block.ablation = Some(ablation.clone());
        }
        Ok(self)
    }

    /// Checks that all ids are in the vocabulary and no row is longer than the positions.
    ///
    /// # Errors
    /// Names the first id or position that is not.
    pub fn check(&self, packed: &Packed) -> Result<()> {
        let vocab = self.config.vocab_size;
        if let Some(id) = packed.ids.iter().find(|&&id| id as usize >= vocab) {
            let hint = "does the tokenizer belong to this model?";
            return Err(Error::Input(format!("token id {id} is not below the vocabulary size {vocab}; {hint}")));
        }
        let limit = self.config.max_position_embeddings;
        match packed.positions.iter().find(|&&position| position as usize >= limit) {
            Some(_) => Err(Error::Input(format!("a row is longer than max_position_embeddings = {limit}"))),
            None => Ok(()),
        }
    }

    /// The residual stream after block `layer` (1-based: `hidden_states[layer]` of transformers,
    /// without the final norm) at the ascending `positions` of the pack. Nothing past that block
    /// is computed, and in it only what those positions need.
    ///
    /// # Shapes
    /// - output: `[positions.len(), hidden]`
    ///
    /// # Errors
    /// When an id or a position is out of range.
    ///
    /// # Panics
    /// When `layer` is 0 or more than there are blocks.
    pub fn hidden(&self, packed: &Packed, layer: usize, positions: &[usize]) -> Result<Tensor<2>> {
        self.trunk(packed, layer, positions, None)
    }

    /// Logits at the ascending `positions` of the pack.
    ///
    /// # Shapes
    /// - output: `[positions.len(), vocab]`
    ///
    /// # Errors
    /// When an id or a position is out of range.
    pub fn logits(&self, packed: &Packed, positions: &[usize]) -> Result<Tensor<2>> {
        let hidden = self.trunk(packed, self.config.num_hidden_layers, positions, None)?;
        Ok(self.head(hidden))
    }

    /// Negative log-likelihood of `targets` at the ascending `positions` of the pack.
    ///
    /// # Shapes
    /// - output: `[positions.len()]`
    ///
    /// # Errors
    /// When an id or a position is out of range.
    pub fn negative_log_likelihood(&self, packed: &Packed, positions: &[usize], targets: &[u32]) -> Result<Tensor<1>> {
        let logits = self.logits(packed, positions)?;
        Ok(ops::negative_log_likelihood(logits, targets))
    }

    /// Logits after each row's last position; keys and values of all positions go to `cache`.
    ///
    /// # Shapes
    /// - output: `[rows, vocab]`
    ///
    /// # Errors
    /// When an id or a position is out of range.
    pub fn prefill(&self, packed: &Packed, cache: &mut KvCache) -> Result<Tensor<2>> {
        let last = packed.segments.last();
        let hidden = self.trunk(packed, self.config.num_hidden_layers, &last, Some(cache))?;
        Ok(self.head(hidden))
    }

    /// Logits after one more id per row.
    ///
    /// # Shapes
    /// - output: `[rows, vocab]`
    pub fn step(&self, ids: &[u32], positions: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let device = self.device();
        let rope = PerType::new(&self.config, |kind| Rope::new(&self.config, kind, positions, &device));
        let mut x = self.embed(ids);
        let blocks = self.model.layers.iter().zip(&self.config.layer_types);
        for ((block, &kind), cache) in blocks.zip(&mut cache.layers) {
            x = block.step(x, rope.of(kind), cache);
        }
        self.head(x)
    }

    fn trunk(
        &self,
        packed: &Packed,
        layer: usize,
        positions: &[usize],
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor<2>> {
        let blocks = self.model.layers.len();
        assert!((1..=blocks).contains(&layer), "layer {layer} is not one of the {blocks} blocks, counted from 1");
        self.check(packed)?;
        let (all, kinds) = (self.queries(packed), &self.config.layer_types);
        let last = kinds[layer - 1];
        let used = Queries::selected(&packed.segments, &all.of(last).rope, self.config.window(last), positions);
        let mut x = self.embed(&packed.ids);
        for (index, (block, &kind)) in self.model.layers[..layer].iter().zip(kinds).enumerate() {
            let queries = if index + 1 == layer { &used } else { all.of(kind) };
            x = block.forward(x, queries, cache.as_mut().map(|cache| &mut cache.layers[index]));
        }
        Ok(x)
    }

    /// All positions of a pack, for each type of layer.
    pub(crate) fn queries(&self, packed: &Packed) -> PerType<Queries> {
        let device = self.device();
        PerType::new(&self.config, |kind| {
            let rope = Rope::new(&self.config, kind, &packed.positions, &device);
            Queries::all(&packed.segments, &rope, self.config.window(kind))
        })
    }

    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        let table = self.model.embed_tokens.weight.val();
        let x = ops::wide(table.clone().select(0, id_tensor(ids, &table.device())));
        let x = if self.config.embedding_scale == 1.0 { x } else { x.mul_scalar(self.config.embedding_scale) };
        // On GPUs, gradients of parameters are NaN or 0 where the input has none (burn issue 5162).
        let is_other = x.device().is_autodiff() && !ops::serves(&x.device(), DType::F32);
        if is_other && !table.is_require_grad() { x.require_grad() } else { x }
    }

    /// Logits of the residual stream after the last block, which [`Self::hidden`] gives.
    ///
    /// # Shapes
    /// - `x`: `[positions, hidden]`
    /// - output: `[positions, vocab]`
    #[must_use]
    pub fn head(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.model.norm.forward(x);
        let logits = match &self.lm_head {
            Some(head) => head.forward(x),
            None => ops::linear(x, self.model.embed_tokens.weight.val(), None),
        };
        match self.config.final_logit_softcapping {
            None => logits,
            Some(cap) => ops::softcap(logits, cap),
        }
    }
}

/// The projections of a block in the checkpoint's order; peft's `target_modules` are the last parts.
const PROJECTIONS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

fn projection_paths(layer: usize) -> [String; 7] {
    PROJECTIONS.map(|projection| format!("model.layers.{layer}.{projection}"))
}

fn id_tensor(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}
