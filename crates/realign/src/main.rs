//! The `realign` command: one subcommand per stage.

mod cli;
mod commands;
mod evaluate;
mod output;

use std::process::ExitCode;

use clap::Parser as _;
use realign::interrupt::EXIT_STATUS;

/// Freed memory stays with the process for a while: a training step frees and asks again for
/// gigabytes, and getting them from the system each time costs a third of the step.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    realign::log::to_stderr();
    let cli = cli::Cli::parse();
    // On a thread of the pool: from outside, each of a decoding step's hundreds of parallel parts is handed over, and
    // this thread sleeps and wakes for it.
    match rayon::scope(|_| commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_stopped() => {
            eprintln!("{error}");
            ExitCode::from(EXIT_STATUS)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
