//! How errors are told.

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
