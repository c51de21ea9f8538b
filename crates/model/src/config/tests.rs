//! The configuration's claims: what is read, written back and refused.

use super::*;

fn shape(model_type: &str) -> Value {
    json!({"model_type": model_type, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
           "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2})
}

/// The shape with further keys.
fn with(model_type: &str, more: Value) -> Value {
    let mut json = shape(model_type);
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

fn read(json: Value) -> DecoderConfig {
    DecoderConfig::from_json(&json, Path::new("dir/config.json")).unwrap()
}

fn message(json: Value) -> String {
    match DecoderConfig::from_json(&json, Path::new("dir/config.json")) {
        Ok(config) => panic!("accepted {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_written_configuration_is_read_back_equal() {
    for model_type in ModelType::ALL.map(ModelType::name) {
        for more in [
            json!({}),
            json!({"tie_word_embeddings": true, "head_dim": 6, "rope_theta": 5e5}),
            json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "sliding_window": 7,
                   "use_sliding_window": true, "max_window_layers": 2}),
        ] {
            let config = read(with(model_type, more));
            assert_eq!(read(config.to_json()), config);
        }
    }
}

#[test]
fn errors_name_file_key_and_value() {
    let wrong = |key: &str, value: Value| message(with("llama", json!({key: value})));
    assert_eq!(
        wrong("hidden_size", json!("wide")),
        "dir/config.json: key `hidden_size`: `\"wide\"` is not a whole number above 0"
    );
    let text = wrong("model_type", json!("mamba"));
    assert!(text.contains("architecture `mamba` is not supported; supported: llama, mistral"), "{text}");
    assert!(!text.contains("python -c"), "{text}");
    let with_images = |text: &str| message(json!({"model_type": "gemma3", "text_config": {"model_type": text}}));
    let text = with_images("gemma3_text");
    assert!(text.contains("its text part, `gemma3_text`, with python -c") && text.ends_with(" dir"), "{text}");
    assert!(!with_images("phi3").contains("python -c"));
    assert!(wrong("num_key_value_heads", json!(3)).contains("3 does not divide num_attention_heads = 4"));
    assert!(wrong("intermediate_size", json!(1 << 25)).contains("33554432 is not between 1 and 16777216"));
    assert!(wrong("num_attention_heads", json!(64)).contains("`head_dim`: is 0"));
    let text = wrong("rope_scaling", json!({"rope_type": "linear", "factor": -1}));
    assert_eq!(text, "dir/config.json: key `rope_scaling.factor`: `-1` is not a number above 0 that f32 can hold");
    assert!(wrong("rms_norm_eps", json!(1e300)).contains("`rms_norm_eps`"));
}

#[test]
fn what_would_change_the_computation_is_refused() {
    for (model_type, key, value, wanted) in [
        ("llama", "rope_scaling", json!({"type": "yarn", "factor": 8.0}), "rotary scaling `yarn` is not supported"),
        ("llama", "rope_scaling", json!("linear"), "`\"linear\"` is not an object"),
        ("llama", "partial_rotary_factor", json!(0.5), "0.5 is not supported"),
        ("llama", "mlp_bias", json!(true), "is not supported"),
        ("llama", "quantization_config", json!({"bits": 4}), "dequantise the model first"),
        ("mistral", "attention_bias", json!(true), "is not supported for this architecture"),
        ("llama", "hidden_act", json!("relu"), "is neither `silu` nor"),
        ("llama", "layer_types", json!(vec!["sliding_attention"; 4]), "differs from what this architecture computes"),
        ("qwen2", "layer_types", json!(vec!["sliding_attention"; 4]), "is off, but layer_types has"),
        ("qwen2", "layer_types", json!(vec!["full_attention"; 3]), "has 3 entries for num_hidden_layers = 4"),
        ("qwen2", "layer_types", json!(vec!["chunked_attention"; 4]), "unknown variant `chunked_attention`"),
    ] {
        let text = message(with(model_type, json!({key: value})));
        assert!(text.contains(wanted) && text.contains(key), "{text}");
    }
}

#[test]
fn both_layouts_of_the_rotary_keys_are_the_same() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 64});
    let old = read(with("llama", json!({"rope_theta": 5e5, "rope_scaling": llama3})));
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(5e5);
    assert_eq!(read(with("llama", json!({"rope_parameters": parameters}))), old);
    let wanted = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    assert_eq!((old.rope_theta, old.rope_scaling), (5e5, wanted));
    let linear = read(with("llama", json!({"rope_scaling": {"type": "linear", "factor": 4.0}})));
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let flat = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
    assert_eq!(read(with("llama", flat)).rope_theta, 1e6);
}

#[test]
fn gemma3_has_a_rotary_base_for_each_type_of_layer_in_both_layouts() {
    let old = json!({"rope_theta": 5e5, "rope_local_base_freq": 1e3,
                     "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let new = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}});
    let config = read(with("gemma3_text", old));
    assert_eq!(config, read(with("gemma3_text", new)));
    assert_eq!((config.rope_theta, config.rope_local_base_freq), (5e5, Some(1e3)));
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 8.0 });
    let silent = read(shape("gemma3_text"));
    assert_eq!((silent.rope_theta, silent.rope_local_base_freq), (1e6, Some(1e4)));
    let scaled = json!({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}});
    assert!(message(with("gemma3_text", scaled)).contains("rope_parameters.sliding_attention.factor"));
}

#[test]
fn soft_caps_are_off_when_null_and_the_familys_when_silent() {
    let caps = |config: DecoderConfig| (config.attn_logit_softcapping, config.final_logit_softcapping);
    assert_eq!(caps(read(shape("gemma2"))), (Some(50.0), Some(30.0)));
    let off = json!({"attn_logit_softcapping": null, "final_logit_softcapping": 5.0});
    assert_eq!(caps(read(with("gemma2", off))), (None, Some(5.0)));
    assert_eq!(caps(read(shape("gemma3_text"))), (None, None));
    assert_eq!(caps(read(shape("llama"))), (None, None));
    assert!(message(with("gemma3_text", json!({"attn_logit_softcapping": 5.0}))).contains("set it to null"));
    assert_eq!(read(with("gemma2", json!({"query_pre_attn_scalar": 16}))).scores().scale, 0.25);
}

#[test]
fn windows_are_those_of_the_family() {
    let sliding =
        |config: &DecoderConfig| config.layer_types.iter().map(|&kind| config.window(kind)).collect::<Vec<_>>();
    assert_eq!(sliding(&read(shape("llama"))), [None; 4]);
    assert_eq!(sliding(&read(shape("mistral"))), [Some(4096); 4]);
    assert_eq!(sliding(&read(with("mistral", json!({"sliding_window": 5})))), [Some(5); 4]);
    assert_eq!(sliding(&read(with("mistral", json!({"sliding_window": null})))), [None; 4]);
    assert_eq!(sliding(&read(with("qwen2", json!({"sliding_window": 5})))), [None; 4]);
    let (every_other, every_third) = ([Some(5), None, Some(5), None], [Some(5), Some(5), None, Some(5)]);
    assert_eq!(sliding(&read(with("gemma2", json!({"sliding_window": 5})))), every_other);
    let third = json!({"sliding_window": 5, "sliding_window_pattern": 3});
    assert_eq!(sliding(&read(with("gemma3_text", third))), every_third);
    let asked = json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 3});
    assert_eq!(sliding(&read(with("qwen2", asked))), [None, None, None, Some(5)]);
}

#[test]
fn hidden_parameters_of_smollm2_are_those_of_the_reference() {
    let json = json!({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3});
    // Per block: 2 x 576 x 576 + 2 x 576 x 192 + 3 x 576 x 1536 + 2 x 576.
    assert_eq!(read(json).hidden_parameters(), 30 * 3_540_096);
}
