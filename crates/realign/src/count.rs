//! Counts on a command line.

/// A count of which there must be one at least.
///
/// # Errors
/// Says what is expected; clap adds the flag.
pub fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}
