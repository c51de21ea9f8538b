//! Reads `config.json`: the layouts of transformers 4 (`rope_theta`, `rope_scaling`) and of
//! transformers 5 (`rope_parameters`, `layer_types`).

use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value;

use super::family::{Bias, Family, QUERY_PRE_ATTN_SCALAR, SLIDING_WINDOW, Windows};
use super::keys::Keys;
use super::{Activation, DecoderConfig, LayerType, ModelType, RopeScaling};
use crate::Result;

/// See [`DecoderConfig::from_json`].
pub(super) fn config(json: &Value, path: &Path) -> Result<DecoderConfig> {
    let keys = Keys { json, path, prefix: "" };
    let model_type = model_type(&keys)?;
    let family = model_type.family();
    refuse_unsupported(&keys, &family)?;
    let hidden_size = keys.size("hidden_size")?;
    let num_hidden_layers = keys.size("num_hidden_layers")?;
    let num_attention_heads = keys.size("num_attention_heads")?;
    let head_dim = family.head_dim.unwrap_or(hidden_size / num_attention_heads);
    let attention_bias = keys.flag_or("attention_bias", false)?;
    let sliding_window = sliding_window(&keys, family.windows)?;
    let rope = Rope::read(&keys, &family)?;
    let [attn_logit_softcapping, final_logit_softcapping] = soft_caps(&keys, &family)?;
    let config = DecoderConfig {
        vocab_size: keys.size("vocab_size")?,
        hidden_size,
        intermediate_size: keys.size("intermediate_size")?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: keys.size_or("num_key_value_heads", num_attention_heads)?,
        head_dim: keys.size_or("head_dim", head_dim)?,
        max_position_embeddings: keys.size_or("max_position_embeddings", 2048)?,
        rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)?,
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        rope_local_base_freq: rope.local_base,
        tie_word_embeddings: keys.flag_or("tie_word_embeddings", family.tie_word_embeddings)?,
        qkv_bias: family.bias == Bias::Qkv || attention_bias,
        o_bias: attention_bias,
        hidden_act: activation(&keys, &family)?,
        qk_norm: family.qk_norm,
        output_norms: family.output_norms,
        norm_offset: family.norm_offset,
        embedding_scale: if family.scaled_embedding { root_as_f32(hidden_size) } else { 1.0 },
        query_pre_attn_scalar: match family.soft_caps {
            None => None,
            Some(_) => Some(keys.size_or("query_pre_attn_scalar", QUERY_PRE_ATTN_SCALAR)?),
        },
        attn_logit_softcapping,
        final_logit_softcapping,
        sliding_window,
        layer_types: layer_types(&keys, family.windows, num_hidden_layers, sliding_window)?,
        model_type,
    };
    check(&config, &keys)?;
    Ok(config)
}

fn model_type(keys: &Keys<'_>) -> Result<ModelType> {
    let name = keys.text("model_type")?;
    ModelType::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
        let known = ModelType::ALL.map(ModelType::name).join(", ");
        let text = text_part(keys).unwrap_or_default();
        keys.error("model_type", format!("architecture `{name}` is not supported; supported: {known}{text}"))
    })
}

/// What to do with a model of text and images whose text part is supported.
fn text_part(keys: &Keys<'_>) -> Option<String> {
    let name = keys.json["text_config"]["model_type"].as_str()?;
    ModelType::ALL.into_iter().find(|known| known.name() == name)?;
    Some(format!(
        "; this is a model of more than text: save its text part, `{name}`, with python -c \"import sys; \
         from transformers import AutoModelForCausalLM as C, AutoModelForImageTextToText as M, AutoTokenizer as T; \
         d = sys.argv[1]; m = M.from_pretrained(d); t = C.from_config(m.config.text_config); \
         t.model, t.lm_head = m.model.language_model, m.lm_head; t.save_pretrained('text'); \
         T.from_pretrained(d).save_pretrained('text')\" {}",
        files::shell_word(keys.path.parent()?)
    ))
}

/// transformers rounds the factor to the type of the weights, which are f32 here.
fn root_as_f32(width: usize) -> f64 {
    f64::from((width as f64).sqrt() as f32)
}

fn activation(keys: &Keys<'_>, family: &Family) -> Result<Activation> {
    let key = family.activation_key;
    match keys.get(key).map(|value| value.as_str()) {
        None => Ok(family.activation),
        Some(Some("silu" | "swish")) => Ok(Activation::Silu),
        Some(Some("gelu_pytorch_tanh")) => Ok(Activation::GeluTanh),
        // Gemma's first files say `gelu` and mean its tanh approximation.
        Some(Some("gelu")) if family.activation == Activation::GeluTanh && key == "hidden_act" => {
            Ok(Activation::GeluTanh)
        }
        Some(_) => Err(keys.error(key, "is neither `silu` nor `gelu_pytorch_tanh`")),
    }
}

/// Caps of the scores and of the logits.
fn soft_caps(keys: &Keys<'_>, family: &Family) -> Result<[Option<f64>; 2]> {
    let Some(caps) = family.soft_caps else { return Ok([None, None]) };
    let attention = keys.number_or_null("attn_logit_softcapping", caps.attention)?;
    if caps.attention.is_none() && attention.is_some() {
        let reason = "is not supported for this architecture: transformers does not apply it; set it to null";
        return Err(keys.error("attn_logit_softcapping", reason));
    }
    Ok([attention, keys.number_or_null("final_logit_softcapping", caps.logits)?])
}

fn sliding_window(keys: &Keys<'_>, windows: Windows) -> Result<Option<usize>> {
    match windows {
        Windows::Never => Ok(None),
        Windows::EveryLayer | Windows::Periodic(_) => keys.size_or_null("sliding_window", SLIDING_WINDOW),
        Windows::FromLayer if keys.flag_or("use_sliding_window", false)? => {
            keys.size_or_null("sliding_window", SLIDING_WINDOW)
        }
        Windows::FromLayer => Ok(None),
    }
}

/// `layer_types`, or what the family makes of its older keys.
fn layer_types(keys: &Keys<'_>, windows: Windows, layers: usize, window: Option<usize>) -> Result<Vec<LayerType>> {
    let by = |slides: &dyn Fn(usize) -> bool| -> Vec<LayerType> {
        let kind = |layer| if slides(layer) { LayerType::SlidingAttention } else { LayerType::FullAttention };
        (0..layers).map(kind).collect()
    };
    let (implied, free) = match windows {
        Windows::Never => (by(&|_| false), false),
        Windows::EveryLayer => (by(&|_| window.is_some()), false),
        Windows::FromLayer => {
            let first = keys.json.get("max_window_layers").map_or(Ok(28), |value| {
                let reason = || keys.error("max_window_layers", format!("`{value}` is not a whole number"));
                value.as_u64().ok_or_else(reason)
            })?;
            (by(&|layer| window.is_some() && layer as u64 >= first), true)
        }
        Windows::Periodic(period) => {
            let period = keys.size_or("sliding_window_pattern", period)?;
            (by(&|layer| !(layer + 1).is_multiple_of(period)), true)
        }
    };
    let types = match keys.get("layer_types") {
        None => implied.clone(),
        Some(stated) => {
            Vec::<LayerType>::deserialize(stated).map_err(|error| keys.error("layer_types", error.to_string()))?
        }
    };
    if types.len() != layers {
        let reason = format!("has {} entries for num_hidden_layers = {layers}", types.len());
        return Err(keys.error("layer_types", reason));
    }
    if !free && types != implied {
        return Err(keys.error("layer_types", "differs from what this architecture computes"));
    }
    if window.is_none() && types.contains(&LayerType::SlidingAttention) {
        return Err(keys.error("sliding_window", "is off, but layer_types has or implies `sliding_attention`"));
    }
    Ok(types)
}

/// What the rotary keys say.
struct Rope {
    theta: f64,
    scaling: RopeScaling,
    local_base: Option<f64>,
}

impl Rope {
    /// As in transformers, `rope_scaling` goes before `rope_parameters`, and a base in them before
    /// the one beside them.
    fn read(keys: &Keys<'_>, family: &Family) -> Result<Self> {
        let theta = keys.number_or("rope_theta", family.rope_theta)?;
        let own = object(keys, "rope_scaling", "rope_scaling.")?;
        let parameters = object(keys, "rope_parameters", "rope_parameters.")?;
        if let Some(local_base) = family.rope_local_base_freq {
            let local_base = keys.number_or("rope_local_base_freq", local_base)?;
            return Self::by_type(keys, own, parameters, theta, local_base);
        }
        match own.or(parameters) {
            None => Ok(Self { theta, scaling: RopeScaling::None, local_base: None }),
            Some(rope) if rope.json.as_object().is_some_and(|rope| rope.values().any(Value::is_object)) => {
                Err(keys.error("rope_parameters", "differ by layer type, which this architecture's do not"))
            }
            Some(rope) => {
                let theta = rope.number_or("rope_theta", theta)?;
                Ok(Self { theta, scaling: scaling(&rope, keys)?, local_base: None })
            }
        }
    }

    /// Where `rope_parameters` has an object for each layer type, and `rope_scaling` is of full
    /// attention alone.
    fn by_type<'a>(
        keys: &Keys<'a>,
        own: Option<Keys<'a>>,
        parameters: Option<Keys<'a>>,
        theta: f64,
        local_base: f64,
    ) -> Result<Self> {
        let (mut full, mut sliding) = (None, None);
        if let Some(parameters) = parameters {
            full = object(&parameters, "full_attention", "rope_parameters.full_attention.")?;
            sliding = object(&parameters, "sliding_attention", "rope_parameters.sliding_attention.")?;
            if full.is_none() && sliding.is_none() {
                return Err(keys.error("rope_parameters", "has neither full_attention nor sliding_attention"));
            }
        }
        let base =
            |rope: Option<Keys<'_>>, default| rope.map_or(Ok(default), |rope| rope.number_or("rope_theta", default));
        if let Some(sliding) = sliding.filter(|sliding| sliding.get("factor").is_some()) {
            return Err(sliding.error("factor", "is not supported: frequencies of sliding layers are not scaled"));
        }
        Ok(Self {
            theta: base(own, base(full, theta)?)?,
            scaling: own.or(full).map_or(Ok(RopeScaling::None), |rope| scaling(&rope, keys))?,
            local_base: Some(base(sliding, local_base)?),
        })
    }
}

/// The object under `key`; none when it is not there, null or empty.
fn object<'a>(keys: &Keys<'a>, key: &str, prefix: &'a str) -> Result<Option<Keys<'a>>> {
    match keys.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) if object.is_empty() => Ok(None),
        Some(json @ Value::Object(_)) => Ok(Some(Keys { json, path: keys.path, prefix })),
        Some(other) => Err(keys.error(key, format!("`{other}` is not an object"))),
    }
}

fn scaling(rope: &Keys<'_>, keys: &Keys<'_>) -> Result<RopeScaling> {
    refuse_partial(rope)?;
    let key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = if rope.get(key).is_some() { rope.text(key)? } else { "default" };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: rope.number("factor")? }),
        "llama3" => {
            let length = keys.size_or("max_position_embeddings", 2048)?;
            let (low_freq_factor, high_freq_factor) =
                (rope.number("low_freq_factor")?, rope.number("high_freq_factor")?);
            if high_freq_factor <= low_freq_factor {
                let reason = format!("{high_freq_factor} is not above low_freq_factor = {low_freq_factor}");
                return Err(rope.error("high_freq_factor", reason));
            }
            Ok(RopeScaling::Llama3 {
                factor: rope.number("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: rope.size_or("original_max_position_embeddings", length)?,
            })
        }
        other => {
            let reason = format!("rotary scaling `{other}` is not supported; supported: default, linear, llama3");
            Err(rope.error(key, reason))
        }
    }
}

fn refuse_partial(keys: &Keys<'_>) -> Result<()> {
    match keys.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        share => Err(keys.error("partial_rotary_factor", format!("{share} is not supported; whole heads rotate"))),
    }
}

/// Refuses what would silently change the computation.
fn refuse_unsupported(keys: &Keys<'_>, family: &Family) -> Result<()> {
    refuse_partial(keys)?;
    if keys.get("quantization_config").is_some() {
        let reason = "is not supported: dequantise the model first (in transformers: model.dequantize(), then \
                      save_pretrained), or take its unquantised original";
        return Err(keys.error("quantization_config", reason));
    }
    if family.bias != Bias::AsConfigured && keys.flag_or("attention_bias", false)? {
        return Err(keys.error("attention_bias", "is not supported for this architecture"));
    }
    for key in ["mlp_bias", "use_bidirectional_attention"] {
        if keys.flag_or(key, false)? {
            return Err(keys.error(key, "is not supported"));
        }
    }
    Ok(())
}

/// A model may have this many parameters, so that no sum of sizes overflows.
const MOST_PARAMETERS: f64 = 1e13;

/// About how many parameters a configuration asks for.
fn parameters(config: &DecoderConfig) -> f64 {
    let [d, f, layers] =
        [config.hidden_size, config.intermediate_size, config.num_hidden_layers].map(|size| size as f64);
    let heads = (config.num_attention_heads as f64 + config.num_key_value_heads as f64) * config.head_dim as f64;
    layers * d * (3.0 * f + 2.0 * heads) + 2.0 * config.vocab_size as f64 * d
}

fn check(config: &DecoderConfig, keys: &Keys<'_>) -> Result<()> {
    if parameters(config) > MOST_PARAMETERS {
        let reason = format!(
            "and the other sizes ask for {:.0e} parameters, more than any model has; is the file damaged?",
            parameters(config)
        );
        return Err(keys.error("hidden_size", reason));
    }
    if config.head_dim == 0 {
        return Err(keys.error("head_dim", "is 0: num_attention_heads is more than hidden_size"));
    }
    if !config.num_attention_heads.is_multiple_of(config.num_key_value_heads) {
        let reason = format!(
            "{} does not divide num_attention_heads = {}",
            config.num_key_value_heads, config.num_attention_heads
        );
        return Err(keys.error("num_key_value_heads", reason));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(keys.error("head_dim", format!("{} is odd; rotary pairs need an even width", config.head_dim)));
    }
    Ok(())
}
