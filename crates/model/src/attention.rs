//! Causal self-attention with grouped heads over packed rows.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::cache::LayerCache;
use crate::config::{DecoderConfig, LayerType};
use crate::norm::RmsNorm;
use crate::ops::{self, AttentionPlan, Rope, Scores};
use crate::{Linear, Segments};

/// What one pass needs in layers of one type: rotary tables of all positions of the pack, and the
/// query rows, which are all positions or those whose output is used.
#[derive(Debug, Clone)]
pub struct Queries {
    /// What each query sees.
    pub plan: Arc<AttentionPlan>,
    /// Rotary tables of the pack.
    pub key_rope: Rope,
    /// Rotary tables of the query rows.
    pub rope: Rope,
    /// The query rows as indices into the pack; none when all positions ask.
    pub select: Option<Tensor<1, Int>>,
}

impl Queries {
    /// All positions of the pack.
    pub fn all(segments: &Segments, rope: &Rope, window: Option<usize>) -> Self {
        let positions: Vec<usize> = (0..segments.positions()).collect();
        let plan = Arc::new(AttentionPlan::new(segments, &positions, window));
        Self { plan, key_rope: rope.clone(), rope: rope.clone(), select: None }
    }

    /// The ascending `positions` of the pack alone.
    pub fn selected(segments: &Segments, rope: &Rope, window: Option<usize>, positions: &[usize]) -> Self {
        let index: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
        let data = TensorData::new(index, [positions.len()]);
        let select: Tensor<1, Int> = Tensor::from_data(data, &rope.cos.device());
        Self {
            plan: Arc::new(AttentionPlan::new(segments, positions, window)),
            key_rope: rope.clone(),
            rope: rope.select(select.clone()),
            select: Some(select),
        }
    }

    /// The query rows of `x`, shape `[positions, width]`.
    pub fn of(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.select {
            None => x,
            Some(rows) => x.select(0, rows.clone()),
        }
    }
}

/// One value for each type of layer.
#[derive(Debug, Clone)]
pub struct PerType<T> {
    full: T,
    sliding: T,
}

impl<T: Clone> PerType<T> {
    /// Calls `make` once for each type of layer that the decoder has.
    pub fn new(config: &DecoderConfig, make: impl Fn(LayerType) -> T) -> Self {
        let has = |layer_type| config.layer_types.contains(&layer_type);
        match (has(LayerType::FullAttention), has(LayerType::SlidingAttention)) {
            (true, true) => Self { full: make(LayerType::FullAttention), sliding: make(LayerType::SlidingAttention) },
            (_, sliding) => {
                let only = make(if sliding { LayerType::SlidingAttention } else { LayerType::FullAttention });
                Self { full: only.clone(), sliding: only }
            }
        }
    }

    /// The value of a type of layer that the decoder has.
    pub fn of(&self, layer_type: LayerType) -> &T {
        match layer_type {
            LayerType::FullAttention => &self.full,
            LayerType::SlidingAttention => &self.sliding,
        }
    }
}

/// Self-attention; field names are the checkpoint's.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[heads * head_dim, hidden]`.
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub v_proj: Linear,
    /// `[hidden, heads * head_dim]`.
    pub o_proj: Linear,
    /// Norm of each head's query, where the family has one.
    pub q_norm: Option<RmsNorm>,
    /// Norm of each head's key, where the family has one.
    pub k_norm: Option<RmsNorm>,
    head_dim: usize,
    #[module(skip)]
    scores: Scores,
}

impl Attention {
    /// Weights of zero, to be filled from a checkpoint.
    pub fn zeros(config: &DecoderConfig, device: &Device) -> Self {
        let d = config.hidden_size;
        let q = config.num_attention_heads * config.head_dim;
        let kv = config.num_key_value_heads * config.head_dim;
        let norm = || RmsNorm::new(config.head_dim, config.rms_norm_eps, config.norm_offset, device);
        Self {
            q_proj: Linear::zeros(q, d, config.qkv_bias, device),
            k_proj: Linear::zeros(kv, d, config.qkv_bias, device),
            v_proj: Linear::zeros(kv, d, config.qkv_bias, device),
            o_proj: Linear::zeros(d, q, config.o_bias, device),
            q_norm: config.qk_norm.then(norm),
            k_norm: config.qk_norm.then(norm),
            head_dim: config.head_dim,
            scores: config.scores(),
        }
    }

    /// Attention of the query rows over the whole pack, which is what `o_proj` is to be applied to. Keys and values are
    /// handed to `cache` when there is one.
    ///
    /// # Shapes
    /// - x: `[positions, hidden]`
    /// - output: `[query rows, heads * head_dim]`
    pub fn attend(&self, x: Tensor<2>, queries: &Queries, cache: Option<&mut LayerCache>) -> Tensor<2> {
        let key = ops::rotate(self.keys(x.clone()), &queries.key_rope);
        let value = self.heads(self.v_proj.forward(x.clone()));
        let query = ops::rotate(self.queries(queries.of(x)), &queries.rope);
        if let Some(cache) = cache {
            cache.prefill(key.clone(), value.clone());
        }
        joined(ops::attention(query, key, value, &queries.plan, self.scores))
    }

    /// One new position per row, over the keys and values in `cache`.
    ///
    /// # Shapes
    /// - x and output: `[rows, hidden]`
    pub fn step(&self, x: Tensor<2>, rope: &Rope, cache: &mut LayerCache) -> Tensor<2> {
        let query = ops::rotate(self.queries(x.clone()), rope);
        let key = ops::rotate(self.keys(x.clone()), rope);
        let value = self.heads(self.v_proj.forward(x));
        self.o_proj.forward(joined(cache.attend(query, key, value, self.scores)))
    }

    fn queries(&self, x: Tensor<2>) -> Tensor<3> {
        normed(self.heads(self.q_proj.forward(x)), self.q_norm.as_ref())
    }

    fn keys(&self, x: Tensor<2>) -> Tensor<3> {
        normed(self.heads(self.k_proj.forward(x)), self.k_norm.as_ref())
    }

    fn heads(&self, x: Tensor<2>) -> Tensor<3> {
        let [rows, width] = x.dims();
        x.reshape([rows, width / self.head_dim, self.head_dim])
    }
}

/// The heads side by side, `[rows, heads * head_dim]`.
fn joined(x: Tensor<3>) -> Tensor<2> {
    let [rows, heads, head_dim] = x.dims();
    x.reshape([rows, heads * head_dim])
}

/// Each head by itself, `[rows, heads, head_dim]`.
fn normed(x: Tensor<3>, norm: Option<&RmsNorm>) -> Tensor<3> {
    let Some(norm) = norm else { return x };
    let [rows, heads, head_dim] = x.dims();
    norm.forward(x.reshape([rows * heads, head_dim])).reshape([rows, heads, head_dim])
}
