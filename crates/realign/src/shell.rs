//! What the command line writes of itself: a settings file, completions and the manual page.

use std::path::Path;

use clap::CommandFactory as _;
use realign::repair::template;
use realign::{Error, Result};

use crate::cli::Cli;
use crate::output::{is_stream, say, write};

/// Writes the settings file of `repair`; one that is there is kept.
///
/// # Errors
/// When it is there, or cannot be written.
pub fn init(file: &Path) -> Result<()> {
    if !is_stream(file) && file.exists() {
        return Err(Error::Invalid(format!(
            "{} is there already: name a new file, or remove it first",
            file.display()
        )));
    }
    write(file, template().as_bytes())?;
    if !is_stream(file) {
        let word = files::shell_word(file);
        say(format!("wrote {}; edit it, then: realign repair --settings {word}", file.display()));
    }
    Ok(())
}

/// Writes completions to standard output.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "realign", &mut text);
    write(Path::new("-"), &text)
}

/// Writes the manual page to standard output: the command, then each subcommand with its own ones behind it.
///
/// # Errors
/// When standard output cannot be written.
pub fn man() -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    pages(&command, &mut text).map_err(files::Error::io("write", Path::new("-")))?;
    write(Path::new("-"), &text)
}

/// The page of a command and those of all commands under it.
fn pages(command: &clap::Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(text)?;
    command.get_subcommands().filter(|sub| sub.get_name() != "help").try_for_each(|sub| pages(sub, text))
}
