//! The `realign` command: one subcommand per stage.

mod attack_args;
mod cli;
mod commands;
mod evaluate;
mod evaluate_args;
mod gate;
mod kind;
mod output;
mod patch;
mod progress;
mod repair_args;
mod shell;
mod whole;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use realign::interrupt::EXIT_STATUS;

/// Freed memory stays with the process for a while: a training step frees and asks again for
/// gigabytes, and getting them from the system each time costs a third of the step.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    realign::log::to_stderr_from(match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    });
    let is_gate = matches!(cli.command, cli::Command::Gate(_));
    // On a thread of the pool: from outside, each of a decoding step's hundreds of parallel parts is handed over, and
    // this thread sleeps and wakes for it.
    let done = rayon::scope(|_| commands::run(cli)).and_then(|status| match output::unsaid() {
        Some(why) => Err(realign::Error::Invalid(format!("cannot write to standard output: {why}"))),
        None => Ok(status),
    });
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_stopped() => {
            let _ = writeln!(std::io::stderr(), "{}", files::printable(&error.to_string()));
            ExitCode::from(EXIT_STATUS)
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", files::printable(&error.to_string()));
            if is_gate { ExitCode::from(gate::UNDECIDED) } else { ExitCode::FAILURE }
        }
    }
}
