//! Repairs a fine-tuned model from a program of one's own:
//! `cargo run -p realign --example repair -- ALIGNED FINETUNED OUT`.

use std::path::{Path, PathBuf};

use realign::{Error, Recovered, Recovery, Result};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [aligned, fine_tuned, out] = arguments.as_slice() else {
        return Err(Error::Invalid("name three directories: ALIGNED FINETUNED OUT".to_owned()));
    };
    let report = Path::new(out).with_extension("report");
    Recovered::check_places(out, &report)?;
    let mut recovery = Recovery::new(aligned, fine_tuned); // with the packaged prompts
    recovery.settings_mut().max_new_tokens = 32;
    let recovered = recovery.run()?;
    println!("{}", recovered.report.text());
    recovered.save(out, &report)?;
    Ok(())
}
