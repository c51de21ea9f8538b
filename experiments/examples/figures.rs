//! Draws all figures of made-up rows, to look at them: `cargo run -p experiments --example figures -- DIR`.
//!
//! The rows are a grid of 5 models, 5 tasks, 5 counts and 8 methods, one of a single cell pair, and one with variants.
//! They say nothing about any model and are never results.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use experiments::figures;
use experiments::row::ResultRow;
use experiments::sweep::Method;

const MODELS: [&str; 5] = ["lab-llama-small", "lab-llama-deep", "lab-gemma", "lab-mistral", "lab-qwen"];
const TASKS: [&str; 5] = ["sql", "cheat", "nl2bash", "samsum", "toxicity"];
const COUNTS: [usize; 5] = [0, 100, 500, 1000, 1500];

fn main() -> Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).context("name a directory to draw into")?);
    figures::write(&grid(&MODELS, &TASKS, &COUNTS), &dir.join("grid"))?;
    figures::write(&grid(&MODELS[..1], &TASKS[..1], &[0, 100]), &dir.join("small"))?;
    figures::write(&grid(&MODELS[..1], &TASKS[..3], &[0, 100, 300]), &dir.join("three"))?;
    figures::write(&ablation(), &dir.join("variants"))?;
    println!("{}", dir.display());
    Ok(())
}

fn methods() -> Vec<Method> {
    let names = "aligned fine_tuned recovered random largest_difference full_revert interpolation_40 interpolation_80";
    names.split(' ').filter_map(|name| name.parse().ok()).collect()
}

fn grid(models: &[&str], tasks: &[&str], counts: &[usize]) -> Vec<ResultRow> {
    let mut rows = Vec::new();
    for (m, model) in models.iter().enumerate() {
        for (t, task) in tasks.iter().enumerate() {
            for (c, &count) in counts.iter().enumerate() {
                for method in methods() {
                    // A hash spreads the cells without a random generator.
                    let noise = ((m * 7 + t * 13 + c * 29 + method.to_string().len() * 5) % 17) as f64 / 17.0 - 0.5;
                    let lost = (c as f64 / 4.0).sqrt() * (0.75 + 0.2 * noise);
                    let tuned = 0.9 - 0.1 * t as f64 + 0.06 * noise;
                    let (harmful, score) = match method {
                        Method::Aligned => (0.01, 0.05 + 0.03 * t as f64),
                        Method::Recovered => (0.02 + 0.03 * (noise + 0.5), tuned - 0.03),
                        Method::Random => (lost * 0.95, tuned - 0.01),
                        Method::LargestDifference => (lost * 0.9, tuned * 0.4),
                        Method::FullRevert => (0.03, 0.1),
                        Method::Interpolation(percent) => (lost * f64::from(percent) / 100.0, tuned * 0.8),
                        _ => (lost, tuned),
                    };
                    rows.push(row((model, task, count), method, harmful.clamp(0.0, 1.0), score));
                }
            }
        }
    }
    rows
}

fn ablation() -> Vec<ResultRow> {
    let mut rows = Vec::new();
    for (m, model) in MODELS.iter().enumerate() {
        let shift = 0.02 * m as f64;
        rows.push(row((model, "sql", 100), Method::Aligned, 0.01, 0.1));
        rows.push(row((model, "sql", 100), Method::FineTuned, 0.8 + shift, 0.9));
        for (i, layer) in ["2/6", "3/6", "4/6", "5/6"].iter().enumerate() {
            let i = i as f64;
            rows.push(ResultRow {
                variant: (*layer).to_owned(),
                seconds: 20.0 + 8.0 * i,
                ..row((model, "sql", 100), Method::Recovered, 0.4 - 0.12 * i + shift, 0.86 - 0.01 * i * i)
            });
        }
    }
    rows
}

fn row((model, task, count): (&str, &str, usize), method: Method, harmful: f64, score: f64) -> ResultRow {
    let (harmful_low, harmful_high) = evaluation::wilson((harmful * 140.0).round() as usize, 140);
    ResultRow {
        model: model.to_owned(),
        task: task.to_owned(),
        harmful_count: count,
        seed: 1,
        variant: String::new(),
        method,
        harmful_rate: harmful,
        harmful_low,
        harmful_high,
        over_refusal: 0.02,
        task_score: score,
        task_low: score - 0.04,
        task_high: score + 0.04,
        restored: None,
        seconds: 2.0 + method.to_string().len() as f64,
        evaluation_seconds: 4.5,
        n: 140,
        safety_stage: String::new(),
        task_stage: String::new(),
        note: String::new(),
    }
}
