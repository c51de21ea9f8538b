//! The decoder against transformers: tiny models with golden values in `tests/fixtures` (made by
//! `scripts/make_goldens.py`, formats in `scripts/goldens/README.md`) and, where
//! `REALIGN_PARITY_DIR` names the files of `scripts/parity_smollm2.py`, SmolLM2-135M-Instruct.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use model::checkpoint::{self, gguf, peft};
use model::generate::{Prompt, answer_each, greedy};
use model::{Decoder, Input, Packed, Walk, weights};
use safetensors::{Dtype, SafeTensors};

const TOLERANCE: f32 = 1e-4;

/// One tiny model for each family and variant; windows are shorter than the golden rows.
const MODELS: [&str; 8] = [
    "tiny-llama",
    "tiny-llama3",
    "tiny-mistral",
    "tiny-gemma",
    "tiny-gemma2",
    "tiny-gemma3",
    "tiny-qwen2",
    "tiny-qwen3",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load(name: &str) -> Decoder {
    checkpoint::load(&fixture(name), &Device::default()).unwrap()
}

/// Gradients are on here, which takes the compositions that every device has.
fn load_with_gradients(name: &str) -> Decoder {
    checkpoint::load(&fixture(name), &Device::default().autodiff()).unwrap()
}

/// Tensors of a golden file.
struct Golden(Vec<u8>);

impl Golden {
    fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0).unwrap().names().into_iter().map(str::to_owned).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }

    /// The rows `ids_0`, `ids_1`, ...
    fn rows(&self) -> Vec<Vec<u32>> {
        let names = self.names();
        let count = (0..).take_while(|i| names.contains(&format!("ids_{i}"))).count();
        assert!(count > 0, "a golden file without rows");
        (0..count).map(|i| self.ids(&format!("ids_{i}"))).collect()
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn all_weights(decoder: &Decoder) -> BTreeMap<String, Vec<u32>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    weights::read(decoder, |_| true).unwrap().into_iter().map(|(info, values)| (info.name, bits(values))).collect()
}

#[test]
fn logits_of_each_row_alone_are_those_of_transformers() {
    for name in MODELS {
        let (decoder, golden) = (load(name), Golden::open(&fixture(name).join("expected.safetensors")));
        for (i, row) in golden.rows().into_iter().enumerate() {
            let all: Vec<usize> = (0..row.len()).collect();
            let logits = decoder.logits(&Packed::new(&[row]).unwrap(), &all).unwrap();
            let off = difference(&values(logits), &golden.floats(&format!("logits_{i}")));
            assert!(off < TOLERANCE, "{name} row {i}: {off}");
        }
    }
}

#[test]
fn logits_of_a_batch_are_those_of_each_row_alone() {
    for name in MODELS {
        let (decoder, golden) = (load(name), Golden::open(&fixture(name).join("expected.safetensors")));
        let rows = golden.rows();
        let packed = Packed::new(&rows).unwrap();
        let width = decoder.config().vocab_size;
        let positions: Vec<usize> = rows
            .iter()
            .enumerate()
            .flat_map(|(i, row)| (0..row.len()).map(move |p| (i, p)))
            .map(|(i, p)| packed.index(i, p))
            .collect();
        let mut ascending = positions.clone();
        ascending.sort_unstable();
        ascending.dedup();
        let logits = values(decoder.logits(&packed, &ascending).unwrap());
        let mut place = positions.iter().map(|p| ascending.binary_search(p).unwrap());
        for (i, row) in rows.iter().enumerate() {
            let wanted = golden.floats(&format!("logits_{i}"));
            for position in 0..row.len() {
                let at = place.next().unwrap() * width;
                let off = difference(&logits[at..at + width], &wanted[position * width..(position + 1) * width]);
                assert!(off < TOLERANCE, "{name} row {i} position {position}: {off}");
            }
        }
    }
}

#[test]
fn rows_with_a_shared_prefix_are_computed_as_if_alone() {
    for name in MODELS {
        let (decoder, golden) = (load(name), Golden::open(&fixture(name).join("expected.safetensors")));
        let longest = golden.rows().into_iter().max_by_key(Vec::len).unwrap();
        let rows: Vec<Vec<u32>> = (1..4).map(|tail| [&longest[..6], &longest[7..7 + tail]].concat()).collect();
        let packed = Packed::new(&rows).unwrap();
        assert_eq!(packed.segments.prefix, 6);
        let together = values(decoder.logits(&packed, &packed.segments.last()).unwrap());
        let width = decoder.config().vocab_size;
        for (i, row) in rows.iter().enumerate() {
            let alone = decoder.logits(&Packed::new(&[row]).unwrap(), &[row.len() - 1]).unwrap();
            let off = difference(&values(alone), &together[i * width..(i + 1) * width]);
            assert!(off < TOLERANCE, "{name} row {i}: {off}");
        }
    }
}

#[test]
fn hidden_states_of_each_layer_are_those_of_transformers() {
    for name in MODELS {
        let (decoder, golden) = (load(name), Golden::open(&fixture(name).join("expected.safetensors")));
        let rows = golden.rows();
        let packed = Packed::new(&rows).unwrap();
        let width = decoder.config().hidden_size;
        for layer in 1..=decoder.config().num_hidden_layers {
            let together = values(decoder.hidden(&packed, layer, &packed.segments.last()).unwrap());
            for (i, row) in rows.iter().enumerate() {
                let wanted = &golden.floats(&format!("hidden_{i}"))[layer * width..(layer + 1) * width];
                let alone = decoder.hidden(&Packed::new(&[row]).unwrap(), layer, &[row.len() - 1]).unwrap();
                let off =
                    difference(&values(alone), wanted).max(difference(&together[i * width..(i + 1) * width], wanted));
                assert!(off < TOLERANCE, "{name} row {i} layer {layer}: {off}");
            }
        }
    }
}

/// New ids of an answer, at most.
const NEW: usize = 12;

#[test]
fn greedy_answers_batched_alone_and_without_cache_are_those_of_transformers() {
    for name in MODELS {
        let (decoder, golden) = (load(name), Golden::open(&fixture(name).join("expected.safetensors")));
        let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let eos = json["eos_token_id"].as_u64().unwrap() as u32;
        let (rows, ends) = (golden.rows(), [eos]);
        let wanted: Vec<Vec<u32>> = (0..rows.len())
            .map(|i| golden.ids(&format!("greedy_{i}")).into_iter().take_while(|&id| id != eos).collect())
            .collect();
        assert_eq!(greedy(&decoder, &rows, NEW, &ends).unwrap(), wanted, "{name}, batched");
        for (row, wanted) in rows.iter().zip(&wanted) {
            assert_eq!(&greedy(&decoder, std::slice::from_ref(row), NEW, &ends).unwrap()[0], wanted, "{name}, alone");
            assert_eq!(&uncached(&decoder, row, &ends), wanted, "{name}, without cache");
        }
    }
}

/// Prompts of 3 to 24 ids; every second one begins as the others of its kind do.
fn many_prompts(vocab: usize) -> Vec<Vec<u32>> {
    let id = |row: usize, at: usize| ((row * row * 7 + at * 31 + row * at * 5) % (vocab - 3) + 3) as u32;
    (0..23).map(|row| (0..3 + (row * 5) % 22).map(|at| id(if at < 6 { row % 2 } else { row }, at)).collect()).collect()
}

/// Ids that end an answer, many of them.
fn many_ends(decoder: &Decoder) -> Vec<u32> {
    (0..decoder.config().vocab_size as u32).step_by(9).collect()
}

#[test]
fn answers_are_the_same_in_batches_of_every_size_and_length() {
    let decoder = load("tiny-llama");
    let (ids, ends) = (many_prompts(decoder.config().vocab_size), many_ends(&decoder));
    let mut wanted = greedy(&decoder, &ids, 30, &ends).unwrap();
    let lengths: std::collections::BTreeSet<usize> = wanted.iter().map(Vec::len).collect();
    assert!(lengths.len() > 3, "rows end at different steps: {lengths:?}");
    let limit = |row: usize| [30, 0, 4][row % 3];
    wanted.iter_mut().enumerate().for_each(|(row, answer)| answer.truncate(limit(row)));
    let prompts = ids.into_iter().enumerate().map(|(row, ids)| Prompt { ids, max_new_tokens: limit(row), draw: None });
    let prompts: Vec<Prompt> = prompts.collect();
    for batch in [1, 2, 3, 7, 16] {
        let mut found = vec![None; prompts.len()];
        let mut answered = |prompt: usize, ids: Vec<u32>| -> model::Result<()> {
            assert!(found[prompt].replace(ids).is_none(), "answered once");
            Ok(())
        };
        answer_each(&decoder, &prompts, batch, &ends, &mut answered).unwrap();
        assert_eq!(found, wanted.iter().cloned().map(Some).collect::<Vec<_>>(), "batches of {batch}");
    }
}

#[test]
fn a_rows_logits_are_the_same_bits_alone_and_in_a_batch() {
    let decoder = load("tiny-llama");
    let prompts = many_prompts(decoder.config().vocab_size);
    let width = decoder.config().vocab_size;
    let steps = |rows: &[Vec<u32>]| -> Vec<Vec<u32>> {
        let packed = Packed::new(rows).unwrap();
        let mut cache = model::cache::KvCache::new(&packed, 4, decoder.config(), &decoder.device());
        let mut logits = vec![values(decoder.prefill(&packed, &mut cache).unwrap())];
        for step in 0..4 {
            let ids: Vec<u32> = rows.iter().map(|row| row[0] + step).collect();
            let positions: Vec<u32> = rows.iter().map(|row| row.len() as u32 + step).collect();
            logits.push(values(decoder.step(&ids, &positions, &mut cache)));
        }
        let bits =
            |row: usize| logits.iter().flat_map(move |step| step[row * width..][..width].iter().map(|x| x.to_bits()));
        (0..rows.len()).map(|row| bits(row).collect()).collect()
    };
    let together = steps(&prompts);
    for (row, prompt) in prompts.iter().enumerate() {
        assert!(steps(std::slice::from_ref(prompt))[0] == together[row], "row {row}");
    }
}

#[test]
fn the_padded_cache_of_other_devices_gives_the_same_answers() {
    for name in MODELS {
        let (fast, plain) = (load(name), load_with_gradients(name));
        let (prompts, ends) = (many_prompts(fast.config().vocab_size), many_ends(&fast));
        let [on_others, here] = [&plain, &fast].map(|decoder| greedy(decoder, &prompts, NEW, &ends).unwrap());
        assert_eq!(on_others, here, "{name}");
    }
    let plain = load_with_gradients("tiny-llama");
    let prompt = |ids| Prompt { ids, max_new_tokens: NEW, draw: None };
    let prompts: Vec<Prompt> = many_prompts(plain.config().vocab_size).into_iter().map(prompt).collect();
    let mut error = |_, _| Err(model::Error::Input("stopped".into()));
    let stopped = answer_each(&plain, &prompts, 5, &many_ends(&plain), &mut error).unwrap_err();
    assert_eq!(stopped.to_string(), "stopped");
}

#[test]
fn a_cache_that_grows_gives_the_same_answers_everywhere() {
    const LONG: usize = 100; // more than memory is taken for at first
    let (fast, plain) = (load("tiny-llama"), load_with_gradients("tiny-llama"));
    let prompts = &many_prompts(fast.config().vocab_size)[..2];
    let [on_others, here] = [&plain, &fast].map(|decoder| greedy(decoder, prompts, LONG, &[]).unwrap());
    assert_eq!(on_others, here);
    assert!(here.iter().all(|answer| answer.len() == LONG));
    let short = greedy(&fast, prompts, NEW, &[]).unwrap();
    assert!(short.iter().zip(&here).all(|(short, long)| long.starts_with(short)), "whatever the most is");
}

/// Greedy decoding that computes everything again for each token.
fn uncached(decoder: &Decoder, prompt: &[u32], ends: &[u32]) -> Vec<u32> {
    let mut row = prompt.to_vec();
    while row.len() < prompt.len() + NEW {
        let logits = values(decoder.logits(&Packed::new(&[&row]).unwrap(), &[row.len() - 1]).unwrap());
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        if ends.contains(&best) {
            break;
        }
        row.push(best);
    }
    row.split_off(prompt.len())
}

#[test]
fn shards_hold_the_same_model_as_one_file() {
    assert_eq!(all_weights(&load("tiny-llama-sharded")), all_weights(&load("tiny-llama")));
}

#[test]
fn a_saved_model_is_the_loaded_one_bit_for_bit() {
    for name in MODELS {
        let decoder = load(name);
        let dir = tempfile::tempdir().unwrap();
        checkpoint::save(&decoder, dir.path()).unwrap();
        checkpoint::copy_companions(&fixture(name), dir.path()).unwrap();
        let again = checkpoint::load(dir.path(), &Device::default()).unwrap();
        assert_eq!(again.config(), decoder.config());
        assert_eq!(all_weights(&again), all_weights(&decoder));
    }
}

#[test]
fn gguf_blocks_of_every_type_are_dequantised_bit_for_bit() {
    let file = gguf::Gguf::open(&fixture("gguf/types.gguf")).unwrap();
    let golden = Golden::open(&fixture("gguf/types-expected.safetensors"));
    let mut names = golden.names();
    names.sort();
    assert_eq!(names, file.tensors().keys().cloned().collect::<Vec<_>>());
    assert_eq!(names.len(), 13);
    for name in names {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(file.tensor(&name).unwrap()), bits(golden.floats(&name)), "{name}");
    }
}

#[test]
fn endless_answers_and_logits_that_are_no_numbers_are_errors() {
    let decoder = load("tiny-llama");
    let prompts = [vec![1, 2, 3]];
    let error = greedy(&decoder, &prompts, usize::MAX, &[]).unwrap_err().to_string();
    assert!(error.contains("exceed max_position_embeddings"), "{error}");
    let large = weights::replace(decoder, |info| {
        info.name.ends_with("up_proj.weight").then(|| TensorData::full(info.shape.clone(), 3e38f32))
    });
    let error = greedy(&large, &prompts, 2, &[]).unwrap_err().to_string();
    assert!(error.contains("the logits are not finite"), "{error}");
}

#[test]
fn gguf_files_of_all_families_give_the_weights_they_were_made_of() {
    for name in ["gemma", "gemma2", "gemma3", "qwen2", "qwen3", "llama3"] {
        let found = gguf::load(&fixture(&format!("gguf/tiny-{name}.gguf")), &Device::default()).unwrap();
        let wanted = load(&format!("tiny-{name}"));
        let [a, b] = [&found, &wanted].map(|decoder| {
            let c = decoder.config();
            let sizes = [c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_key_value_heads, c.head_dim];
            let caps = (c.attn_logit_softcapping, c.final_logit_softcapping);
            (c.model_type, sizes, c.tie_word_embeddings, caps, c.rope_theta, c.rope_scaling, c.qkv_bias, c.o_bias)
        });
        assert_eq!(a, b, "{name}");
        let [found, wanted] = [found, wanted].map(|decoder| weights::read(&decoder, |_| true).unwrap());
        for ((info, found), (other, wanted)) in found.into_iter().zip(wanted) {
            assert_eq!(info, other);
            // Gemma's norms were stored with 1 added.
            let most = if info.is_norm && name.starts_with("gemma") { 1e-6 } else { 0.0 };
            let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= most, "{name} {}: {worst}", info.name);
        }
    }
}

#[test]
fn a_gguf_model_is_what_transformers_reads() {
    let decoder = gguf::load(&fixture("gguf/tiny-llama.gguf"), &Device::default()).unwrap();
    let golden = Golden::open(&fixture("gguf/tiny-llama-expected.safetensors"));
    for (name, found) in all_weights(&decoder) {
        let wanted: Vec<u32> = golden.floats(&name).into_iter().map(f32::to_bits).collect();
        assert_eq!(found, wanted, "{name}");
    }
    let ids = golden.ids("ids");
    let all: Vec<usize> = (0..ids.len()).collect();
    let logits = decoder.logits(&Packed::new(&[ids]).unwrap(), &all).unwrap();
    assert!(difference(&values(logits), &golden.floats("logits")) < TOLERANCE);
    let file = gguf::Gguf::open(&fixture("gguf/tiny-llama.gguf")).unwrap();
    let tokenizer = gguf::tokenizer(&file).unwrap();
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!(tokenizer.tokens.len(), tokenizer.token_type.len());
    assert!(tokenizer.chat_template.is_some());
}

#[test]
fn an_adapter_of_peft_merges_to_the_weights_that_peft_merges() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../finetune/tests/fixtures/lora");
    let mut decoder = load("tiny-llama");
    peft::load_adapter(&mut decoder, &fixtures.join("adapter-final")).unwrap();
    let golden = Golden::open(&fixtures.join("merged.safetensors"));
    let mut count = 0;
    for (path, linear) in decoder.linears() {
        let off = difference(&values(linear.merged_weight()), &golden.floats(&format!("{path}.weight")));
        assert!(off < 1e-6, "{path}: {off}");
        count += 1;
    }
    assert_eq!(count, 28);
}

/// `name` in the directory of `REALIGN_PARITY_DIR`.
fn parity(name: &str) -> PathBuf {
    Path::new(&std::env::var_os("REALIGN_PARITY_DIR").expect("REALIGN_PARITY_DIR is set")).join(name)
}

#[test]
#[ignore = "needs REALIGN_PARITY_DIR, whose files scripts/parity_smollm2.py makes"]
fn real_gguf_weights_are_those_of_transformers_bit_for_bit() {
    let (file, reference) = (parity("model.gguf"), parity("reference"));
    let found = gguf::load(&file, &Device::default()).unwrap();
    let wanted = checkpoint::load(&reference, &Device::default()).unwrap();
    assert_eq!(found.config(), wanted.config());
    let (found, wanted) = (all_weights(&found), all_weights(&wanted));
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    let unequal: Vec<&String> = found.keys().filter(|name| found[*name] != wanted[*name]).collect();
    let count: usize = found.values().map(Vec::len).sum();
    println!("{} tensors, {count} weights, unequal {unequal:?}", found.len());
    assert!(unequal.is_empty());
}

#[test]
#[ignore = "needs REALIGN_PARITY_DIR, whose files scripts/parity_smollm2.py makes"]
fn real_logits_and_hidden_states_are_those_of_transformers() {
    let (file, golden) = (parity("model.gguf"), parity("logits.safetensors"));
    let (decoder, golden) = (gguf::load(&file, &Device::default()).unwrap(), Golden::open(&golden));
    let rows = golden.rows();
    let width = decoder.config().vocab_size;
    let last_four = |row: &Vec<u32>| row.len() - 4..row.len();
    let mut worst = [0.0f32; 2];
    let mut least_cosine = 1.0f64;
    for (i, row) in rows.iter().enumerate() {
        let packed = Packed::new(&[row]).unwrap();
        let logits = values(decoder.logits(&packed, &last_four(row).collect::<Vec<_>>()).unwrap());
        worst[0] = worst[0].max(difference(&logits, &golden.floats(&format!("logits_last_{i}"))));
        let hidden = values(decoder.hidden(&packed, 20, &[row.len() - 1]).unwrap());
        least_cosine = least_cosine.min(cosine(&hidden, &golden.floats(&format!("hidden_20_{i}"))));
    }
    let packed = Packed::new(&rows).unwrap();
    let positions: Vec<usize> = rows
        .iter()
        .enumerate()
        .flat_map(|(i, row)| last_four(row).map(move |p| (i, p)))
        .map(|(i, p)| packed.index(i, p))
        .collect();
    let logits = values(decoder.logits(&packed, &positions).unwrap());
    for i in 0..rows.len() {
        let part = &logits[i * 4 * width..(i + 1) * 4 * width];
        worst[1] = worst[1].max(difference(part, &golden.floats(&format!("logits_last_{i}"))));
    }
    println!(
        "{} rows: logits differ by {} alone, {} batched; least cosine {least_cosine}",
        rows.len(),
        worst[0],
        worst[1]
    );
    assert!(worst[0] < 1e-3 && worst[1] < 1e-3 && least_cosine > 0.999_999);
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_walk_shows_what_each_projection_reads() {
    for name in MODELS {
        let decoder = load(name);
        let packed = Packed::new(&[vec![1u32, 2, 3, 4, 5, 6], vec![1, 2, 7]]).unwrap();
        let positions: Vec<usize> = (0..packed.ids.len()).collect();
        let mut walk = Walk::new(&decoder, &packed).unwrap();
        for (index, block) in decoder.model.layers.iter().enumerate() {
            let mut seen = Vec::new();
            walk.pass(&decoder, &mut |input, x| seen.push((input, x())));
            assert_eq!(seen.iter().map(|(input, _)| *input).collect::<Vec<_>>(), Input::ALL, "{name}");
            for (input, x) in &seen {
                for projection in input.projections() {
                    let path = format!("model.layers.{index}.{projection}");
                    let (_, linear) = decoder.linears().find(|(own, _)| *own == path).unwrap();
                    assert_eq!(x.dims(), [positions.len(), linear.weight.dims()[1]], "{name}, {path}");
                }
            }
            if index > 0 {
                let before = decoder.hidden(&packed, index, &positions).unwrap();
                assert_eq!(values(seen[0].1.clone()), values(block.input_layernorm.forward(before)), "{name}");
            }
        }
    }
}
