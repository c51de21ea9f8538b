//! How errors are told.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow};

/// An error with its causes, each said once: those of our crates hold their cause in their own words already.
#[must_use]
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

/// Does work that may panic: a panic is an error of this work alone.
///
/// # Errors
/// That of the work, or its panic.
pub(crate) fn panic_as_error<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|caught| {
        let caught: &(dyn Any + Send) = caught.as_ref();
        let text = caught.downcast_ref::<&str>().copied();
        let text = text.or_else(|| caught.downcast_ref::<String>().map(String::as_str));
        Err(anyhow!("a bug, please report it: panicked: {}", text.unwrap_or("no reason was given")))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let system = || std::io::Error::other("no space left");
        let own = files::Error::io("write", std::path::Path::new("a"))(system());
        let error = anyhow::Error::from(own).context("stage x");
        assert_eq!(with_causes(&error), "stage x: cannot write a: no space left");
        let plain = Err::<(), _>(system()).context("cannot lock b").unwrap_err();
        assert_eq!(with_causes(&plain), "cannot lock b: no space left");
    }
}
