//! Our side of each stage.

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use burn::tensor::Device;
use finetune::{LoraSettings, Objective, TrainBatch, TrainSettings, Trainer, lora};
use model::weights::{self, WeightInfo};
use model::{Decoder, Dtype, checkpoint, generate};
use prompts::Encoded;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use recovery::{Inputs, Recover, Region, Repair as _, Rollback, Ties, Trace};

use crate::child::Turn;
use crate::floor::ONE_BY_ONE;
use crate::plan::Plan;
use crate::stage::Stage;

/// Does a turn of the stage for each line of standard input.
pub fn run(stage: Stage, dtype: Option<Dtype>, plan: &Plan) -> Result<()> {
    match stage {
        Stage::Recovery => recovery(plan),
        Stage::Selection => selection(plan),
        Stage::Direction => {
            let decoder = open(&plan.aligned)?;
            serve(|| {
                let mean = direction::mean_direction(&decoder, &plan.rows, plan.layer)?;
                let norm = mean.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
                Ok(format!("norm {norm:.4}"))
            })
        }
        Stage::Answer1 => answer(plan, dtype, 1, ONE_BY_ONE),
        Stage::Answer64 => answer(plan, dtype, plan.rows.len(), plan.rows.len()),
        Stage::Lora => lora_step(plan),
    }
}

fn open(dir: &Path) -> Result<Decoder> {
    checkpoint::load(dir, &Device::flex()).with_context(|| format!("weights of {}", dir.display()))
}

/// Turns, one for each line of standard input.
struct Turns {
    lines: std::io::Lines<std::io::StdinLock<'static>>,
    start: Instant,
}

impl Turns {
    /// Says that everything is read, and waits for the first turn.
    fn begin() -> Result<Self> {
        println!("ready");
        std::io::stdout().flush()?;
        let mut turns = Self { lines: std::io::stdin().lines(), start: Instant::now() };
        // An end without a turn shows at the first one.
        let _ = turns.wait();
        Ok(turns)
    }

    /// Ends a turn and waits for the next; breaks where there is none.
    fn done(&mut self, word: &str) -> ControlFlow<()> {
        let turn = Turn { seconds: self.start.elapsed().as_secs_f64(), word: word.to_owned() };
        match serde_json::to_string(&turn) {
            Ok(line) => println!("{line}"),
            Err(_) => return ControlFlow::Break(()),
        }
        self.wait()
    }

    fn wait(&mut self) -> ControlFlow<()> {
        let next = self.lines.next();
        self.start = Instant::now();
        if matches!(next, Some(Ok(_))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn serve(mut work: impl FnMut() -> Result<String>) -> Result<()> {
    let mut turns = Turns::begin()?;
    loop {
        let word = work()?;
        if turns.done(&word).is_break() {
            return Ok(());
        }
    }
}

/// The aligned and the fine-tuned model, as a repair opens them.
fn open_both(plan: &Plan) -> Result<(Decoder, Decoder)> {
    let tuned = open(&plan.tuned)?;
    Ok((weights::share(open(&plan.aligned)?, &tuned)?, tuned))
}

fn recovery(plan: &Plan) -> Result<()> {
    let (aligned, tuned) = open_both(plan)?;
    let mut turns = Turns::begin()?;
    let mut report = |_: usize, _: usize, word: &str| {
        let _ = turns.done(word);
        ControlFlow::Continue(())
    };
    let mut inputs = Inputs::new(&aligned, &tuned, &mut report);
    inputs.prompts.clone_from(&plan.rows);
    // One step for each turn; the first one, which is not counted, has the direction in it.
    let Plan { batch, rate, .. } = *plan;
    let settings = Recover { steps: plan.turns + 1, rollback: Rollback::Off, batch, rate, ..Recover::default() };
    let repaired = settings.apply(inputs)?;
    if let Some(Trace::Steps(trace)) = repaired.trace {
        for step in &trace.steps[1..] {
            eprintln!("gradient {:.3} s, selection and restoration {:.3} s", step.grad_s, step.select_s);
        }
    }
    Ok(())
}

/// Gradients that are drawn, for the weights of all blocks.
fn selection(plan: &Plan) -> Result<()> {
    let (aligned, tuned) = open_both(plan)?;
    let mut region = Region::new(&aligned, &tuned, plan.blocks.to_string().parse()?)?;
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let draw = |info: &WeightInfo| (0..info.len()).map(|_| random.random_range(-1.0f32..1.0)).collect();
    let gradients: Vec<Vec<f32>> = region.infos.iter().map(draw).collect();
    let k = (plan.rate * region.len() as f64).ceil() as usize;
    let names = region.infos.iter().map(|info| info.name.clone());
    let gradients: HashMap<String, Vec<f32>> = names.zip(gradients).collect();
    serve(|| {
        let restored = region.restore_largest(&gradients, k, Ties::Exact)?.len();
        Ok(format!("restored {restored}, equal {}", region.equal()))
    })
}

fn answer(plan: &Plan, dtype: Option<Dtype>, batch: usize, count: usize) -> Result<()> {
    let decoder = weights::round(open(&plan.aligned)?, dtype.unwrap_or(Dtype::F32))?;
    serve(|| {
        let answers =
            plan.rows[..count].chunks(batch).map(|rows| generate::greedy(&decoder, rows, plan.new_tokens, &[]));
        let answers: Vec<Vec<u32>> = answers.collect::<Result<Vec<_>, _>>()?.concat();
        let sum: u64 = answers.iter().flatten().map(|&id| u64::from(id)).sum();
        Ok(format!("{} tokens, sum of ids {sum}", answers.iter().map(Vec::len).sum::<usize>()))
    })
}

fn lora_step(plan: &Plan) -> Result<()> {
    let settings = TrainSettings::default();
    let decoder = lora::attach(open(&plan.aligned)?, &LoraSettings::default(), 0);
    let mut trainer = Trainer::new(decoder, &settings, 0)?;
    let encoded = |(ids, &start): (&Vec<u32>, &usize)| Encoded {
        ids: ids.clone(),
        loss_mask: (0..ids.len()).map(|at| at >= start).collect(),
    };
    let samples: Vec<Encoded> = plan.samples.iter().zip(&plan.starts).map(encoded).collect();
    let batch = TrainBatch::new(&samples, &(0..samples.len()).collect::<Vec<_>>())?;
    serve(|| Ok(format!("loss {:.3}", trainer.step(&batch, &Objective::Sft)?)))
}
