//! Where the commands' warnings go.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Writes what libraries log to the standard error: warnings, or what `RUST_LOG` says. A command calls it once, first.
pub fn to_stderr() {
    to_stderr_from("warn");
}

/// The same from `level` on.
pub fn to_stderr_from(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let lines = tracing_subscriber::fmt().without_time().with_ansi(io::stderr().is_terminal());
    // A line that cannot be written, as on a full disk, is lost; to say so the subscriber would panic.
    lines.with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false).init();
    // Whatever `RUST_LOG` asks for: at finer levels the http client prints whole requests, with the key of a judge's
    // endpoint. Libraries that are not ours log through `log`, our crates do not.
    log::set_max_level(log::LevelFilter::Info);
}
