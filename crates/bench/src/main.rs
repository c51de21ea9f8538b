//! Each stage beside its PyTorch peer: `cargo run -p bench -- [STAGE]... --python PYTHON`.
//!
//! Both sides are processes of their own that have read the same plan (models, token ids, settings) and take turns, so
//! that whatever else the machine does falls on both. The first turn of each is not counted.

mod child;
mod floor;
mod machine;
mod plan;
mod report;
mod stage;
mod worker;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum as _};
use model::Dtype;

use child::Child;
use machine::Peak;
use plan::Plan;
use stage::Stage;

/// As in `realign`, so that time and memory are those of the command.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the stages on SmolLM2-135M, or a model of another shape, beside PyTorch.
#[derive(Debug, Parser)]
struct Args {
    /// The stages; all of them where none is named.
    stages: Vec<Stage>,
    /// A python with torch, transformers and peft; without it only our side is measured.
    #[arg(long)]
    python: Option<PathBuf>,
    /// SmolLM2 as `scripts/fetch-smollm2.sh` leaves it.
    #[arg(long, default_value_os_t = default_gguf())]
    gguf: PathBuf,
    /// Models of another shape with random weights in bf16 instead of SmolLM2, whose tokenizer is used: a `config.json`, such as
    /// those of `scripts/bench/shapes`.
    #[arg(long)]
    shape: Option<PathBuf>,
    /// JSONL with `prompt`; 64 are taken.
    #[arg(long, default_value = "data/prompt_sets/packaged/harmful.jsonl")]
    prompts: PathBuf,
    /// JSONL with `prompt` and `response`; 8 are taken for a LoRA step.
    #[arg(long, default_value = "data/lab/sql_train.jsonl")]
    samples: PathBuf,
    /// Turns of each side that are counted.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Where the models are made and kept, about 1.1 GB; with `--shape` its two models besides.
    #[arg(long, default_value = "target/bench")]
    work: PathBuf,
    /// Be one side: run the stage by this plan, a turn for each line of standard input.
    #[arg(long, hide = true)]
    plan: Option<PathBuf>,
    /// Of that side: the precision of weights.
    #[arg(long, hide = true)]
    dtype: Option<Dtype>,
}

fn default_gguf() -> PathBuf {
    let home = std::env::home_dir().unwrap_or_default();
    home.join(".cache/realign/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn main() -> Result<()> {
    let args = Args::parse();
    let stages = if args.stages.is_empty() { Stage::value_variants().to_vec() } else { args.stages.clone() };
    if let Some(path) = &args.plan {
        // On a thread of the pool, as in `realign`.
        return rayon::scope(|_| worker::run(stages[0], args.dtype, &files::read_json(path)?));
    }
    let path = Plan::make(&args)?;
    let plan: Plan = files::read_json(&path)?;
    println!("{}", report::head(&plan));
    for stage in stages {
        let peak = Peak::measure();
        let ours = stage.dtypes().iter().map(|&dtype| Child::ours(stage, dtype, &path));
        let python = args.python.iter();
        let peers =
            python.flat_map(|python| stage.dtypes().iter().map(|&dtype| Child::peer(python, stage, dtype, &path)));
        let mut sides = ours.chain(peers).collect::<Result<Vec<_>>>()?;
        for turn in 0..=plan.turns {
            for side in &mut sides {
                side.turn(turn > 0)?;
            }
        }
        let sides = sides.into_iter().map(Child::end).collect::<Result<Vec<_>>>()?;
        println!("{}", report::stage(stage, &floor::of(stage, &plan)?, &peak, &sides));
    }
    if args.python.is_none() {
        println!("No peer was measured: name a python with torch, transformers and peft as --python.");
    }
    Ok(())
}
