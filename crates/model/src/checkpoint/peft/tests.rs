//! Adapters that are saved here, and those that peft merged.

use std::fs;

use serde_json::{Map, Value, json};

use super::super::save;
use super::super::tests::{config, numbered};
use super::settings::MAX_PATTERNS;
use super::*;
use crate::weights;

fn base() -> Decoder {
    numbered(&config("llama", true))
}

/// A decoder with adapters of rank 2 on the projections that `wanted` accepts.
fn adapted(wanted: impl Fn(&str) -> bool) -> Decoder {
    let mut decoder = base();
    let device = decoder.device();
    let mut next = 0.0;
    for (path, linear) in decoder.linears_mut().filter(|(path, _)| wanted(path)) {
        let [out_features, in_features] = linear.weight.dims();
        next += 0.01 + path.len() as f64 * 1e-4;
        linear.lora = Some(Lora {
            a: Param::from_tensor(Tensor::full([2, in_features], next, &device)),
            b: Param::from_tensor(Tensor::full([out_features, 2], -next, &device)),
            scale: 4.0,
            dropout: 0.05,
            seed: 0,
        });
    }
    decoder
}

fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_adapter(&adapted(|_| true), dir.path()).unwrap();
    dir
}

fn change(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json[key] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_saved_adapter_is_loaded_back_bit_for_bit() {
    for wanted in
        [(|_| true) as fn(&str) -> bool, |path| path.ends_with("q_proj"), |path| path.contains("layers.1.mlp")]
    {
        let decoder = adapted(wanted);
        let dir = tempfile::tempdir().unwrap();
        save_adapter(&decoder, dir.path()).unwrap();
        let mut loaded = base();
        load_adapter(&mut loaded, dir.path()).unwrap();
        let all = |decoder| weights::read(decoder, |_| true).unwrap();
        assert_eq!(all(&loaded), all(&decoder));
        for (_, linear) in loaded.linears() {
            assert!(linear.lora.iter().all(|lora| (lora.scale, lora.dropout) == (4.0, 0.05)));
        }
    }
}

#[test]
fn the_scale_follows_the_rank_or_its_root() {
    let dir = saved();
    change(dir.path(), "use_rslora", json!(true));
    let mut decoder = base();
    load_adapter(&mut decoder, dir.path()).unwrap();
    let (_, linear) = decoder.linears().next().unwrap();
    assert_eq!(linear.lora.as_ref().unwrap().scale, 8.0 / 2f64.sqrt());
}

#[test]
fn an_adapter_in_pytorchs_format_is_an_adapter_and_told_how_to_convert() {
    let dir = saved();
    fs::rename(dir.path().join(WEIGHTS), dir.path().join(PICKLED)).unwrap();
    save(&base(), dir.path()).unwrap();
    fs::write(dir.path().join(CONFIG), "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 8}").unwrap();
    assert_eq!(super::super::contents(dir.path()), super::super::Contents::Both);
    let error = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("adapter_model.bin") && error.contains("python -c") && error.contains("weights_only"),
        "{error}"
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3"), "peft_type is `IA3`; supported: LORA; merge it first"),
        ("peft_type", json!("P_TUNING"), "peft_type is `P_TUNING`; supported: LORA; it changes no weight"),
        ("peft_type", Value::Null, "key `peft_type` is missing"),
        ("trainable_token_indices", json!([1]), "key `trainable_token_indices` = [1] is not supported; merge it first"),
        ("use_dora", json!(true), "lora_magnitude_vector` is missing"),
        ("alpha_pattern", json!({"(?=q)": 4}), "key `alpha_pattern`, `(?=q)`"),
        ("init_lora_weights", json!("pissa"), "key `init_lora_weights` = \"pissa\""),
        ("r", json!(0), "r must be above 0"),
        ("r", json!("two"), "key `r`: invalid type"),
        ("lora_alpha", json!([4]), "key `lora_alpha`: invalid type"),
        ("alpha_pattern", json!("q"), "key `alpha_pattern`: invalid type"),
        ("exclude_modules", json!(["k_proj"]), "k_proj.lora_A.weight` is of a projection that exclude_modules"),
        ("exclude_modules", json!(".*mlp.*"), "_proj.lora_A.weight` is of a projection that exclude_modules"),
        ("exclude_modules", json!("(?=q)"), "key `exclude_modules`: "),
        ("target_modules", json!("(q|k_proj"), "adapter_config.json: key `target_modules`: regex parse error"),
        ("target_modules", json!(7), "key `target_modules`: 7 is neither"),
        ("target_modules", json!([]), "is of no projection that target_modules"),
        ("target_modules", json!("q_proj"), "is of no projection that target_modules"),
        ("exclude_modules", json!(3), "key `exclude_modules`: 3 is neither"),
        ("lora_dropout", json!(1.0), "below 1"),
        ("r", json!(8), "has rank 2, and "),
        ("rank_pattern", json!({"up_proj": 4}), "up_proj.lora_A.weight` has rank 2, and "),
        (
            "target_modules",
            json!(["q_proj", "down_proj"]),
            "k_proj.lora_A.weight` is of no projection that target_modules",
        ),
        ("target_modules", json!(".*_proj_"), "q_proj.lora_A.weight` is of no projection that target_modules"),
        ("layers_to_transform", json!([0]), "layers.1.self_attn.q_proj.lora_A.weight` is of no projection"),
        ("modules_to_save", json!(["lm_head"]), "names `lm_head`"),
    ];
    let home = tempfile::tempdir().unwrap();
    save(&base(), home.path()).unwrap();
    check_adapter(saved().path(), home.path()).unwrap();
    for (key, value, wanted) in cases {
        let dir = saved();
        change(dir.path(), key, value);
        let mut decoder = base();
        let message = load_adapter(&mut decoder, dir.path()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted}: {message}");
        let checked = check_adapter(dir.path(), home.path()).unwrap_err().to_string();
        assert_eq!(checked, message, "it is known without the values");
        assert!(decoder.linears().all(|(_, linear)| linear.lora.is_none()), "the decoder is unchanged");
    }
}

#[test]
fn another_kind_of_adapter_is_named_though_it_has_no_rank() {
    let dir = saved();
    fs::write(dir.path().join(CONFIG), r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8}"#).unwrap();
    let error = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
    assert!(error.contains("PROMPT_TUNING") && !error.contains("field `r`"), "{error}");
}

/// Adds a tensor of zeros to the weights of an adapter.
fn add(dir: &Path, name: &str, shape: &[usize]) {
    use ::safetensors::tensor::{SafeTensors, TensorView};
    let path = dir.join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let zeros = vec![0; 4 * shape.iter().product::<usize>()];
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors.push((name.to_owned(), TensorView::new(::safetensors::Dtype::F32, shape.to_vec(), &zeros).unwrap()));
    fs::write(path, ::safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn a_head_or_embedding_of_an_adapter_that_the_model_ties_is_to_be_merged_first() {
    for (module, name) in [("embed_tokens", EMBEDDING), ("lm_head", HEAD)] {
        let dir = saved();
        change(dir.path(), "modules_to_save", json!([module]));
        add(dir.path(), &format!("{ROOT}{name}"), &[32, 16]);
        let error = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
        for part in [name, "tie_word_embeddings", "merge it first: python -c"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        load_adapter(&mut numbered(&config("llama", false)), dir.path()).unwrap();
    }
}

#[test]
fn a_bias_is_read_beside_or_within_an_adapted_projection() {
    for name in ["k_proj.base_layer.bias", "k_proj.bias"] {
        let base = numbered(&config("qwen2", true));
        let mut adapted = base.clone();
        let dir = saved();
        add(dir.path(), &format!("{ROOT}model.layers.1.self_attn.{name}"), &[8]);
        load_adapter(&mut adapted, dir.path()).unwrap();
        let zeros = |decoder: &Decoder| -> Vec<String> {
            let all = weights::read(decoder, |info| info.name.ends_with("bias")).unwrap();
            let zeros = all.into_iter().filter(|(_, values)| values.iter().all(|&value| value == 0.0));
            zeros.map(|(info, _)| info.name).collect()
        };
        assert_eq!((zeros(&base), zeros(&adapted)), (vec![], vec!["model.layers.1.self_attn.k_proj.bias".to_owned()]));
    }
}

#[test]
fn an_adapter_of_a_resized_or_an_adapted_base_says_so() {
    let refused = |name: &str, shape: &[usize]| {
        let dir = saved();
        add(dir.path(), &format!("{ROOT}{name}"), shape);
        load_adapter(&mut numbered(&config("llama", false)), dir.path()).unwrap_err().to_string()
    };
    let error = refused(EMBEDDING, &[40, 16]);
    assert!(error.contains("has 40 rows, and the base 32 tokens") && error.contains("embeddings(40)"), "{error}");
    let error = refused(&format!("{ROOT}model.layers.0.mlp.up_proj.lora_A.weight"), &[2, 16]);
    assert!(error.contains("had an adapter already") && !error.contains("python -c"), "{error}");
}

#[test]
fn the_way_to_merge_an_adapter_keeps_its_tokenizer_and_takes_any_path() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("it's");
    fs::create_dir(&dir).unwrap();
    let path = dir.join(CONFIG);
    let of_base = "T.from_pretrained(m.peft_config['default'].base_model_name_or_path).save_pretrained('merged')";
    assert!(way_out(&path).contains(of_base) && way_out(&path).ends_with(r"it'\''s'"), "{}", way_out(&path));
    fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
    assert!(way_out(&path).contains("T.from_pretrained(d).save_pretrained('merged')"), "{}", way_out(&path));
}

/// What peft merged, beside the adapters it merged: a case that is handed to the project.
#[test]
#[ignore = "needs ../shared/cases"]
fn merged_adapters_are_what_peft_merges() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/adapters-that-peft-merges");
    for name in ["rank-pattern", "alpha-pattern", "dora", "save-norm", "save-head"] {
        let base = cases.join(if name == "save-head" { "base-untied" } else { "base" });
        let mut found = super::super::load(&base, &Device::default()).unwrap();
        load_adapter(&mut found, &cases.join(name)).unwrap();
        for (_, linear) in found.linears_mut() {
            linear.weight = Param::from_tensor(linear.merged_weight());
            linear.lora = None;
        }
        let wanted = super::super::load(&cases.join(format!("merged-{name}")), &Device::default()).unwrap();
        let [found, wanted] = [found, wanted].map(|decoder| weights::read(&decoder, |_| true).unwrap());
        let mut worst = 0.0f32;
        for ((info, found), (other, wanted)) in found.iter().zip(&wanted) {
            assert_eq!(info, other);
            worst = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        }
        assert_eq!(worst, 0.0, "{name}");
    }
}

#[test]
fn patterns_are_bounded_in_number_and_size() {
    let dir = saved();
    for key in ["alpha_pattern", "rank_pattern"] {
        let many: Map<String, Value> = (0..=MAX_PATTERNS).map(|i| (format!("a{i}"), 2.into())).collect();
        for (patterns, wanted) in
            [(Value::from(many), "has 1025 patterns"), (json!({"\\w{90}(\\w0){0,3}": 1}), "exceeds size limit")]
        {
            change(dir.path(), key, patterns);
            let error = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
            assert!(error.contains(CONFIG) && error.contains(key) && error.contains(wanted), "{error}");
        }
        // One for each projection of a large model.
        let path = |i: usize| (format!("model.layers.{}.self_attn.{}_proj", i / 7, i % 7), 2.into());
        change(dir.path(), key, Value::from((0..900).map(path).collect::<Map<String, Value>>()));
        load_adapter(&mut base(), dir.path()).unwrap();
        change(dir.path(), key, Value::Null);
    }
    change(dir.path(), "target_modules", json!("(\\w{190}|.*q_proj)"));
    assert!(load_adapter(&mut base(), dir.path()).unwrap_err().to_string().contains("exceeds size limit"));
}

#[cfg(unix)]
#[test]
fn an_adapter_outside_its_directory_is_not_read() {
    let (dir, elsewhere) = (saved(), tempfile::tempdir().unwrap());
    for name in [WEIGHTS, CONFIG] {
        let (file, other) = (dir.path().join(name), elsewhere.path().join(name));
        fs::rename(&file, &other).unwrap();
        std::os::unix::fs::symlink(&other, &file).unwrap();
        let error = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("points outside"), "{error}");
        fs::remove_file(&file).unwrap();
        fs::rename(&other, &file).unwrap();
    }
    load_adapter(&mut base(), dir.path()).unwrap();
}

#[test]
fn an_adapter_whose_values_are_not_finite_is_not_saved() {
    let mut decoder = adapted(|path| path.ends_with("q_proj"));
    let device = decoder.device();
    for (_, linear) in decoder.linears_mut() {
        if let Some(lora) = &mut linear.lora {
            lora.b = Param::from_tensor(Tensor::full(lora.b.dims(), f32::INFINITY, &device));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let error = save_adapter(&decoder, dir.path()).unwrap_err().to_string();
    assert!(error.contains("lora_B.weight` holds inf") && !dir.path().join(WEIGHTS).exists(), "{error}");
}

#[test]
fn ranks_and_alphas_may_differ_by_layer() {
    let dir = saved();
    change(dir.path(), "r", json!(8));
    change(dir.path(), "rank_pattern", json!({"[qk]_proj": 2, ".*": 2}));
    change(dir.path(), "alpha_pattern", json!({".*\\.layers\\.1\\..*(q_proj|k_proj)": 32, "layers.1.mlp.up_proj": 6}));
    let mut decoder = base();
    load_adapter(&mut decoder, dir.path()).unwrap();
    let scales: Vec<f64> = decoder.linears().map(|(_, linear)| linear.lora.as_ref().unwrap().scale).collect();
    assert_eq!(scales, [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 16.0, 16.0, 4.0, 4.0, 4.0, 3.0, 4.0]);
}

#[test]
fn an_adapter_may_name_its_projections_in_many_ways() {
    for (key, value) in [
        ("target_modules", json!("all-linear")),
        ("target_modules", json!(".*_proj")),
        ("target_modules", Value::Null),
        ("layers_to_transform", json!([0, 1])),
        ("layers_to_transform", Value::Null),
        ("modules_to_save", Value::Null),
    ] {
        let dir = saved();
        change(dir.path(), key, value);
        load_adapter(&mut base(), dir.path()).unwrap();
    }
}

#[test]
fn half_an_adapter_and_foreign_tensors_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    save_adapter(&adapted(|path| path.ends_with("0.mlp.up_proj")), dir.path()).unwrap();
    let path = dir.path().join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    for (from, wanted) in [("lora_B", "lora_B.weight` is missing"), ("layers.0", "belongs to no projection")] {
        let mut changed = bytes.clone();
        for at in (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from.as_bytes())) {
            changed[at + from.len() - 1] = b'9';
        }
        fs::write(&path, changed).unwrap();
        let message = load_adapter(&mut base(), dir.path()).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn adapters_that_one_file_cannot_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(save_adapter(&base(), dir.path()).unwrap_err().to_string().contains("no adapter is attached"));
    let mut decoder = adapted(|_| true);
    if let Some((_, linear)) = decoder.linears_mut().last() {
        linear.lora.as_mut().unwrap().scale = 1.0;
    }
    let message = save_adapter(&decoder, dir.path()).unwrap_err().to_string();
    assert!(message.contains("`model.layers.1.mlp.down_proj` has another rank, scale"), "{message}");
    assert!(super::super::save(&decoder, dir.path()).unwrap_err().to_string().contains("merge adapters before"));
}
