//! How far a command has come, on standard error: a bar on a terminal, else a line a step.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use realign::Progress;

/// Steps that are many and short, such as answers, get a line this often.
const PAUSE: Duration = Duration::from_secs(10);

/// What is shown.
pub struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
    started: Instant,
    last: Option<Instant>,
    /// The last step that has a line.
    said: String,
}

impl Shown {
    /// Shows nothing yet, and with `quiet` never anything.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}, {elapsed}, {eta} left");
            let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Self { bar, quiet, started: Instant::now(), last: None, said: String::new() }
    }

    /// Shows a step.
    pub fn show(&mut self, Progress { done, all, word }: Progress<'_>) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(files::printable(word).into_owned());
            return;
        }
        let place = if done == 0 { String::new() } else { format!("{done}/{all} ") };
        let step = format!("{place}{}", files::printable(word));
        // What stands still is one step, however often it is reported.
        let is_step = (word.starts_with("loss") || done == all || done == 0) && step != self.said;
        if !self.quiet && (is_step || self.last.is_none_or(|last| last.elapsed() >= PAUSE)) {
            self.last = Some(Instant::now());
            let _ = writeln!(io::stderr(), "{step} ({} s)", self.started.elapsed().as_secs());
            self.said = step;
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
