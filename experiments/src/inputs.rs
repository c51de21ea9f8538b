//! The sample files of a sweep, and which of their lines each stage may see.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use prompts::Sample;
use prompts::sample::{read_jsonl, read_training_jsonl};

use crate::sweep::{Align, Gguf, Method, ModelSpec, Source, Sweep, TaskSpec};

/// A part of a task's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What decides the recovery, held out of the training file.
    Validation,
    /// What is reported and decides nothing.
    Test,
}

/// Runs `script`, which makes `file`, unless the file is there.
///
/// # Errors
/// When the script cannot be run, fails, or makes no such file.
pub fn fetch(sweep: &Sweep, script: &Path, file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let script = sweep.root_file(script);
    let dir = file.parent().with_context(|| format!("{} has no directory", file.display()))?;
    let data = sweep.root.join(&sweep.data);
    let status = Command::new("bash").arg(&script).arg(dir).arg(data).status();
    let status = status.with_context(|| format!("cannot run {}", script.display()))?;
    if !status.success() || !file.exists() {
        bail!("{} did not make {}", script.display(), file.display());
    }
    Ok(())
}

/// Makes the prompt files of some cells that have a script and are not there.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_prompts(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    let models = sweep.models_of(cells);
    let aligns = models.iter().filter_map(|(_, model)| model.align.as_ref());
    let trained = aligns.flat_map(Align::sets).map(|(_, set)| (&set.fetch, &set.file));
    let asked = sweep.evaluation.sets().map(|(_, set)| (&set.fetch, &set.file));
    for (script, file) in trained.chain(asked) {
        if let Some(script) = script {
            fetch(sweep, script, &sweep.data_file(file))?;
        }
    }
    Ok(())
}

/// Fetches the GGUF file of a model that has a script for it and is not there.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_model(sweep: &Sweep, model: &ModelSpec) -> Result<()> {
    match &model.source {
        Source::Gguf(Gguf { fetch: Some(script), file }) => fetch(sweep, script, &sweep.root_file(file)),
        _ => Ok(()),
    }
}

/// `count` samples of a file after the first `skip`.
///
/// # Errors
/// When the file cannot be read or holds fewer.
pub fn read(path: &Path, skip: usize, count: usize) -> Result<Vec<Sample>> {
    let samples = read_jsonl(path)?;
    if samples.len() < skip + count {
        bail!(
            "{}: {count} samples after the first {skip} were asked for, the file has {}",
            path.display(),
            samples.len()
        );
    }
    Ok(samples[skip..skip + count].to_vec())
}

/// A split of a task; train and validation are a seeded division of the training file.
///
/// # Errors
/// When the file cannot be read, or a sample has no response.
pub fn task(sweep: &Sweep, task: &TaskSpec, split: Split) -> Result<Vec<Sample>> {
    if split == Split::Test {
        return Ok(read_training_jsonl(&sweep.data_file(&task.test))?);
    }
    let samples = read_training_jsonl(&sweep.data_file(&task.train))?;
    let held = (samples.len() as f64 * task.validation).ceil() as usize;
    let order = prompts::shuffled_order(samples.len(), sweep.seed);
    let (validation, train) = order.split_at(held.min(samples.len()));
    let mut chosen = if split == Split::Train { train.to_vec() } else { validation.to_vec() };
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|index| samples[index].clone()).collect())
}

/// Checks that there are as many harmful samples as some cells ask for and, beside them, RESTA's unaligned model.
///
/// # Errors
/// When there are fewer, or the file cannot be read.
pub fn check_harmful(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Result<()> {
    let file = sweep.data_file(&sweep.inject);
    let cells = sweep.cells();
    let largest = chosen.iter().map(|&cell| cells[cell].harmful_count).max().unwrap_or(0);
    let found = prompts::read_training_jsonl(&file)?.len();
    if largest > found {
        bail!("harmful_counts: {largest} samples are to be injected, and {} has {found}", file.display());
    }
    let samples = sweep.resta.samples;
    if sweep.methods.contains(&Method::Resta) && largest + samples > found {
        bail!(
            "resta.samples: beside the {largest} samples that are injected the unaligned model wants {samples} others, and {} \
             has {found} in all: ask for fewer, or take a larger file",
            file.display()
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sweep::find;

    #[test]
    fn a_model_with_a_script_is_fetched_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("smollm2.yaml")).unwrap();
        let mut sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        sweep.root = dir.path().to_owned();
        let mut model = sweep.models[0].clone();
        model.source = Source::Gguf(Gguf { fetch: Some("fetch.sh".into()), file: "kept/model.gguf".into() });
        let error = fetch_model(&sweep, &model).unwrap_err().to_string();
        assert!(error.contains("did not make") && error.contains("model.gguf"), "{error}");
        std::fs::write(dir.path().join("fetch.sh"), "mkdir -p \"$1\" && echo made >> \"$1/model.gguf\"").unwrap();
        let made = || std::fs::read_to_string(dir.path().join("kept/model.gguf")).unwrap();
        fetch_model(&sweep, &model).unwrap();
        assert_eq!(made(), "made\n");
        fetch_model(&sweep, &model).unwrap();
        assert_eq!(made(), "made\n", "it is there");
        model.source = Source::Dir("small".into());
        fetch_model(&sweep, &model).unwrap();
        assert!(!dir.path().join("small").exists(), "a directory is not fetched");
    }

    #[test]
    fn harmful_samples_must_suffice_for_the_cells_and_for_resta() {
        let path = find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sweep.yaml")).unwrap();
        let mut sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        sweep.root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let check = |sweep: &Sweep, largest| {
            let sweep = Sweep { harmful_counts: vec![0, largest, 1000], ..sweep.clone() };
            check_harmful(&sweep, &BTreeSet::from([0, 1])) // of the first task
        };
        check(&sweep, 200).unwrap();
        let error = check(&sweep, 201).unwrap_err().to_string();
        assert!(error.contains("resta.samples: beside the 201") && error.contains("has 300 in all"), "{error}");
        sweep.methods.retain(|method| *method != Method::Resta);
        check(&sweep, 300).unwrap();
        assert!(check(&sweep, 301).unwrap_err().to_string().contains("harmful_counts: 301"));
    }
}
