//! What command lines share.

use evaluation::Metric;

/// A count of which there must be one at least.
///
/// # Errors
/// Says what is expected; clap adds the flag.
pub fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// A count from one to `MOST`.
///
/// # Errors
/// As [`at_least_one`].
pub fn up_to<const MOST: usize>(text: &str) -> std::result::Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

/// The names of all metrics, for a help text.
#[must_use]
pub fn metric_names() -> String {
    let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    names.join(", ")
}
