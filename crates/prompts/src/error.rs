//! The one error type of this crate: every message says what is wrong, where, and what to do.

use std::path::PathBuf;

/// The result of everything in this crate that a file or a user can make fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a file of text and token ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A line of a JSONL file is no JSON object.
    #[error("{}, line {line}: not a JSON object ({reason}); each line must be one object with a \"prompt\"", path.display())]
    JsonLine {
        /// The JSONL file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A line of a CSV file is not one of its columns.
    #[error("{}, line {line}: not a row of the file's columns ({reason})", path.display())]
    CsvLine {
        /// The CSV file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key of a line is missing or has the wrong type.
    #[error("{}, line {line}: key \"{key}\" {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong with it and what it should be.
        problem: String,
    },
    /// A file of samples has no sample.
    #[error("{} is empty: expected one JSON object per line, or rows under the line that names the columns of a .csv file", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of samples is of a format that is not read.
    #[error("{} {help}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Which format it is, and what to do.
        help: String,
    },
    /// A directory of samples has none.
    #[error("{} has no file that ends in .csv, .jsonl or .json: name the directory of the samples", dir.display())]
    NoFiles {
        /// The directory.
        dir: PathBuf,
    },
    /// Fewer samples than asked for.
    #[error("asked for {asked} prompts, file {} has {found}; ask for fewer or give a longer file", path.display())]
    TooFew {
        /// The number asked for.
        asked: usize,
        /// The number in the file.
        found: usize,
        /// The file.
        path: PathBuf,
    },
    /// A sample that is used for training has no response.
    #[error("a sample of {} has no \"response\"; training needs one in every line", path.display())]
    NoResponse {
        /// Where the sample came from.
        path: PathBuf,
    },
    /// A JSON file of a model directory is malformed or has an unexpected value.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The JSON file.
        path: PathBuf,
        /// What is wrong, with the key.
        problem: String,
    },
    /// A model directory has no chat template.
    #[error(
        "no chat template in {}: expected chat_template.jinja, or \"chat_template\" in tokenizer_config.json \
         (a string, or a list with an entry named \"default\")",
        dir.display()
    )]
    NoTemplate {
        /// The model directory.
        dir: PathBuf,
    },
    /// A chat template does not parse, fails, or raises.
    #[error("chat template {name}, line {line}: {message}")]
    Template {
        /// The file the template came from, or "chat template".
        name: String,
        /// Line in the template, from 1; 0 when unknown.
        line: usize,
        /// The template's own message, or the engine's.
        message: String,
    },
    /// A template leaves out what it is to show.
    #[error(
        "chat template {name}: what it makes of a conversation does not show {what}, so a model would be asked something \
         else, and nothing measured with it means anything; correct the template, or take it from the model's original"
    )]
    NotShown {
        /// The template.
        name: String,
        /// What is left out.
        what: &'static str,
    },
    /// A conversation with its answer does not begin with the same conversation that asks for an answer.
    #[error(
        "chat template {name}: the rendered conversation does not begin with the rendered prompt (they part at byte \
         {at}), so the response's tokens cannot be told from the prompt's; use a template that only appends"
    )]
    NotAPrefix {
        /// The template.
        name: String,
        /// First byte that differs.
        at: usize,
    },
    /// A template writes no added token after an assistant's message.
    #[error(
        "chat template {name}: no added token follows the assistant's message, so a model cannot learn to stop; \
         end the assistant's turn with a token of the vocabulary"
    )]
    NoEndOfTurn {
        /// The template.
        name: String,
    },
    /// The tokenizer library refused a file or a text.
    #[error("tokenizer {}: {source}", path.display())]
    Tokenizer {
        /// The tokenizer.json or the directory it belongs to.
        path: PathBuf,
        /// The library's reason.
        source: tokenizers::Error,
    },
    /// A GGUF vocabulary that cannot be turned into a tokenizer.json.
    #[error("GGUF vocabulary: {problem}")]
    Vocab {
        /// What is wrong or unsupported, with the metadata key.
        problem: String,
    },
}
