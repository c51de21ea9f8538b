//! One line per stage: position, stage, cell, figure, seconds and the time left; a bar for the
//! stage in progress where there is a terminal.
//!
//! Libraries print nothing; they log through `tracing`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

/// The progress of a sweep over its stages. Threads share it; a line is printed whole.
#[derive(Debug)]
pub struct Progress {
    counts: Mutex<Counts>,
    /// The bars of the stages in progress; nothing where there is no terminal.
    bars: MultiProgress,
    /// Stages in progress at a time, at most.
    jobs: usize,
}

#[derive(Debug, Default)]
struct Counts {
    position: usize,
    total: usize,
    /// By kind of stage: how many are left, and what the finished ones took.
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    left: usize,
    finished: usize,
    seconds: f64,
}

impl Progress {
    /// Of the stages that a run will go through, each named by its kind, `jobs` at a time.
    pub fn new(stages: impl IntoIterator<Item = &'static str>, jobs: usize) -> Self {
        let mut counts = Counts::default();
        for stage in stages {
            counts.kinds.entry(stage).or_default().left += 1;
            counts.total += 1;
        }
        Self { counts: Mutex::new(counts), bars: MultiProgress::new(), jobs: jobs.max(1) }
    }

    /// A bar for a stage in progress, drawn on a terminal only; its length is set by the stage. It goes when the
    /// stage is done.
    #[must_use]
    pub fn bar(&self, stage: &str, cell: &str) -> ProgressBar {
        // The template is a constant, so the default style is never used.
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::no_length().with_style(style).with_prefix(format!("{stage} {cell}"));
        // indicatif draws nothing where the error stream is no terminal.
        self.bars.add(bar.with_finish(ProgressFinish::AndClear))
    }

    /// Prints the line of a stage that was run just now; `figure` is what there is to know about it.
    pub fn finish(&self, kind: &'static str, name: &str, figure: &str, seconds: f64) {
        self.count(kind, Some(seconds));
        self.print(&self.line(kind, name, figure, &format!("{seconds:.1} s")));
    }

    /// Counts a stage that cannot be finished.
    pub fn give_up(&self, kind: &'static str) {
        self.count(kind, None);
    }

    /// Prints the line of a stage or cell that failed.
    pub fn fail(&self, kind: &'static str, name: &str, error: &str) {
        self.print(&self.line(kind, name, &format!("failed: {error}"), "-"));
    }

    /// A reader that is gone is no error: the work goes on.
    fn print(&self, line: &str) {
        self.bars.suspend(|| drop(writeln!(std::io::stdout(), "{}", files::printable(line))));
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &'static str, seconds: Option<f64>) {
        let mut counts = self.counts();
        counts.position += 1;
        let entry = counts.kinds.entry(kind).or_default();
        entry.left = entry.left.saturating_sub(1);
        if let Some(seconds) = seconds {
            entry.finished += 1;
            entry.seconds += seconds;
        }
    }

    fn line(&self, kind: &str, cell: &str, figure: &str, took: &str) -> String {
        let left = self.left();
        let counts = self.counts();
        let width = counts.total.to_string().len();
        let (position, total) = (counts.position, counts.total);
        format!("[{position:>width$}/{total}] {kind:<10} {cell:<28} {figure:<36} {took:>8}  {left}")
    }

    /// The time left, from the finished stages of the same kinds.
    fn left(&self) -> String {
        let counts = self.counts();
        let mut seconds = 0.0;
        let mut unknown = false;
        for kind in counts.kinds.values().filter(|kind| kind.left > 0) {
            if kind.finished == 0 {
                unknown = true;
            } else {
                seconds += kind.left as f64 * kind.seconds / kind.finished as f64;
            }
        }
        // Jobs share the processor: a stage of many takes longer, so that this is what it takes at best.
        let span = HumanDuration(std::time::Duration::from_secs_f64(seconds / self.jobs as f64));
        match (counts.position >= counts.total, unknown, seconds > 0.0) {
            (true, _, _) => "done".to_owned(),
            (false, false, _) => format!("about {span} left"),
            (false, true, true) => format!("over {span} left"),
            (false, true, false) => "time left not known yet".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(stages: &[&'static str], done: &[(&'static str, f64)]) -> Progress {
        let progress = Progress::new(stages.iter().copied(), 1);
        for &(kind, seconds) in done {
            progress.count(kind, Some(seconds));
        }
        progress
    }

    #[test]
    fn time_left_is_the_mean_of_the_same_kind() {
        let progress = after(&["tune", "tune", "tune", "score"], &[("tune", 50.0), ("tune", 70.0), ("score", 1.0)]);
        assert_eq!(progress.left(), "about 60 seconds left");
    }

    #[test]
    fn a_kind_that_never_finished_makes_the_time_a_lower_bound() {
        let progress = after(&["tune", "tune", "score"], &[("tune", 30.0)]);
        assert_eq!(progress.left(), "over 30 seconds left");
        assert_eq!(after(&["tune"], &[]).left(), "time left not known yet");
    }

    #[test]
    fn two_jobs_halve_the_time_left() {
        let progress = Progress::new(["tune", "tune", "tune"], 2);
        progress.count("tune", Some(30.0));
        assert_eq!(progress.left(), "about 30 seconds left");
    }

    #[test]
    fn a_line_names_position_stage_cell_figure_and_seconds() {
        let progress = after(&["tune", "tune"], &[("tune", 30.0)]);
        let line = progress.line("tune", "lab sql 300", "loss 0.12", "30.0 s");
        for part in ["[1/2]", "tune", "lab sql 300", "loss 0.12", "30.0 s", "30 seconds left"] {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
}
