//! Seconds of one LoRA step on SmolLM2's shape with random weights: forward, backward, the rest.
//!
//! `cargo run -p finetune --example step_time`

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use finetune::{LoraSettings, Objective, TrainBatch, TrainSettings, Trainer, init_random, lora};
use model::{DecoderConfig, weights};
use prompts::tokenizer::Encoded;

const SAMPLES: u32 = 8;
const PROMPT: usize = 96;
const TOKENS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = serde_json::json!({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "tie_word_embeddings": true});
    let config = DecoderConfig::from_json(&config, Path::new("SmolLM2"))?;
    let settings = TrainSettings::default();
    let decoder = lora::attach(init_random(&config, 0.02, 0, &Device::default()), &LoraSettings::default(), 0);
    let mut trainer = Trainer::new(decoder, &settings, 0)?;
    let ids = |row: u32| (0..TOKENS as u32).map(move |at| (row * 977 + at * 31) % 49152);
    let sample = |row| Encoded { ids: ids(row).collect(), loss_mask: (0..TOKENS).map(|at| at >= PROMPT).collect() };
    let samples: Vec<Encoded> = (0..SAMPLES).map(sample).collect();
    let batch = TrainBatch::new(&samples, &(0..samples.len()).collect::<Vec<_>>())?;
    for _ in 0..4 {
        let started = Instant::now();
        let loss = Objective::Sft.loss(trainer.decoder(), &batch)?;
        let value: f32 = loss.clone().into_scalar();
        let forward = started.elapsed().as_secs_f64();
        let gradients = loss.backward();
        let backward = started.elapsed().as_secs_f64() - forward;
        weights::gradients(trainer.decoder(), gradients)?;
        let started = Instant::now();
        trainer.step(&batch, &Objective::Sft)?;
        let step = started.elapsed().as_secs_f64();
        let rate = batch.tokens as f64 / step;
        println!(
            "loss {value:.3}: forward {forward:.2} s, backward {backward:.2} s, whole step {step:.2} s, {rate:.0} tokens/s"
        );
    }
    Ok(())
}
