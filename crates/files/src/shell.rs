//! Paths in commands that a message names to be copied.

use std::path::Path;

/// A path as one word of a POSIX shell.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(shell_word(Path::new("/models/größe-1.5_b")), "/models/größe-1.5_b");
        for path in ["it's", "a b", "", "$HOME", "~", "a\"b`c`", "a\nb", "'"] {
            let command = format!("printf %s {}", shell_word(Path::new(path)));
            let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), path, "{command}");
        }
    }
}
