//! The `experiments` command: runs the sweep that its YAML file describes.

use std::process::ExitCode;

use clap::Parser as _;
use experiments::cli::Cli;
use experiments::pipeline;
use experiments::store::Store;
use experiments::sweep::{Sweep, find};

/// Freed memory stays with the process for a while: a training step frees and asks again for
/// gigabytes, and getting them from the system each time costs a third of the step.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let sweep = Sweep::load(&find(&cli.sweep)?)?;
    let device = cli.device.open()?;
    let out = cli.out.clone().unwrap_or_else(|| sweep.root.join("results/runs").join(&sweep.name));
    let store = Store::open(&out, cli.device.name())?;
    pipeline::run(&sweep, &store, &device)
}
