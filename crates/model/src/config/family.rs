//! What each architecture computes, and what holds where its `config.json` is silent: the values
//! of its configuration class in transformers.

use super::{Activation, ModelType};

/// The fixed traits of an architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// The class that transformers loads.
    pub architecture: &'static str,
    /// Width of a head; none is the width of the residual stream over the number of heads.
    pub head_dim: Option<usize>,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// The key of the activation.
    pub activation_key: &'static str,
    /// The activation.
    pub activation: Activation,
    /// Which projections of the attention have a bias.
    pub bias: Bias,
    /// Which layers slide.
    pub windows: Windows,
    /// Whether each head's queries and keys are normalised.
    pub qk_norm: bool,
    /// Whether the outputs of attention and MLP are normalised.
    pub output_norms: bool,
    /// Added to the norm weights.
    pub norm_offset: f64,
    /// Whether embeddings are multiplied by the root of the width.
    pub scaled_embedding: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Base of the rotary frequencies of sliding layers, where they have their own.
    pub rope_local_base_freq: Option<f64>,
    /// Whether there are `query_pre_attn_scalar` and soft caps, and the caps' values.
    pub soft_caps: Option<SoftCaps>,
}

/// The soft caps where the file has no such key.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoftCaps {
    /// Of the scores; transformers reads the key for Gemma 3 but does not cap.
    pub attention: Option<f64>,
    /// Of the logits.
    pub logits: Option<f64>,
}

/// Which projections of the attention have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// None.
    None,
    /// q, k and v.
    Qkv,
    /// All four where `attention_bias` says so.
    AsConfigured,
}

/// Which layers slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    /// None.
    Never,
    /// All, where `sliding_window` is a number.
    EveryLayer,
    /// Those from `max_window_layers` on, where `use_sliding_window` says so.
    FromLayer,
    /// All but each n-th, where `sliding_window_pattern` states no other n.
    Periodic(usize),
}

/// `query_pre_attn_scalar` where the file has no such key.
pub(super) const QUERY_PRE_ATTN_SCALAR: usize = 256;

/// Width of a window where the file has no such key.
pub(super) const SLIDING_WINDOW: usize = 4096;

const LLAMA: Family = Family {
    architecture: "LlamaForCausalLM",
    head_dim: None,
    tie_word_embeddings: false,
    activation_key: "hidden_act",
    activation: Activation::Silu,
    bias: Bias::AsConfigured,
    windows: Windows::Never,
    qk_norm: false,
    output_norms: false,
    norm_offset: 0.0,
    scaled_embedding: false,
    rope_theta: 10_000.0,
    rope_local_base_freq: None,
    soft_caps: None,
};

const GEMMA: Family = Family {
    architecture: "GemmaForCausalLM",
    head_dim: Some(256),
    tie_word_embeddings: true,
    activation: Activation::GeluTanh,
    norm_offset: 1.0,
    scaled_embedding: true,
    ..LLAMA
};

const GEMMA2: Family = Family {
    architecture: "Gemma2ForCausalLM",
    activation_key: "hidden_activation",
    output_norms: true,
    windows: Windows::Periodic(2),
    soft_caps: Some(SoftCaps { attention: Some(50.0), logits: Some(30.0) }),
    ..GEMMA
};

impl ModelType {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Llama, Self::Mistral, Self::Gemma, Self::Gemma2, Self::Gemma3Text, Self::Qwen2, Self::Qwen3];

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3Text => "gemma3_text",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Llama => LLAMA,
            Self::Mistral => {
                Family { architecture: "MistralForCausalLM", bias: Bias::None, windows: Windows::EveryLayer, ..LLAMA }
            }
            Self::Gemma => GEMMA,
            Self::Gemma2 => GEMMA2,
            Self::Gemma3Text => Family {
                architecture: "Gemma3ForCausalLM",
                qk_norm: true,
                windows: Windows::Periodic(6),
                rope_theta: 1_000_000.0,
                rope_local_base_freq: Some(10_000.0),
                soft_caps: Some(SoftCaps { attention: None, logits: None }),
                ..GEMMA2
            },
            Self::Qwen3 => Family {
                architecture: "Qwen3ForCausalLM",
                head_dim: Some(128),
                qk_norm: true,
                windows: Windows::FromLayer,
                ..LLAMA
            },
            Self::Qwen2 => {
                Family { architecture: "Qwen2ForCausalLM", bias: Bias::Qkv, windows: Windows::FromLayer, ..LLAMA }
            }
        }
    }
}
