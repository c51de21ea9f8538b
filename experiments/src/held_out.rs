//! Categories of harmful prompts that are asked but never seen: `evaluation.held_out`. That they are held out is checked
//! against the files; their rates are told apart in `tables/held_out.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use evaluation::Fields;
use prompts::Sample;
use realign::Pick;

use crate::config::{HeldOutOf, Resolved, Sweep};

/// Checks that the held-out categories of a sweep and of its variants are asked, and that what they are held out of has
/// none of them.
///
/// # Errors
/// When one is not asked or is seen, or a file cannot be read.
pub fn check(sweep: &Sweep) -> Result<()> {
    for Resolved { sweep, .. } in sweep.resolved(sweep.seed) {
        let evaluation = &sweep.evaluation;
        if evaluation.held_out.is_empty() {
            continue;
        }
        let (file, pick) = sweep.evaluated_prompts(&evaluation.harmful);
        let asked = categories(pick.read(&file)?);
        for category in &evaluation.held_out {
            let what = format!("no prompt of {} has the category {category:?}", file.display());
            ensure!(asked.contains(category), sweep.problem("evaluation.held_out", &what));
        }
        for of in &evaluation.held_out_of {
            let (file, pick) = match of {
                HeldOutOf::Inject => (sweep.data_file(&sweep.inject), Pick::default()),
                HeldOutOf::Recovery => {
                    let (file, Pick { fields, .. }) = sweep.recovery_prompts();
                    let category = |fields: Fields| fields.category.or_else(|| Some("category".to_owned()));
                    let fields = fields.map(|fields| Fields { category: category(fields.clone()), ..fields });
                    (file, Pick { fields, ..Pick::default() })
                }
            };
            check_unseen(&sweep, &file, pick)?;
        }
    }
    Ok(())
}

fn check_unseen(sweep: &Sweep, file: &Path, pick: Pick) -> Result<()> {
    let seen = categories(pick.read(file)?);
    let found = sweep.evaluation.held_out.iter().find(|category| seen.contains(*category));
    let what = |category| {
        let file = file.display();
        format!("{file} has samples of the category {category:?}: remove them there, or the category here")
    };
    ensure!(found.is_none(), sweep.problem("evaluation.held_out", &found.map(what).unwrap_or_default()));
    Ok(())
}

fn categories(samples: Vec<Sample>) -> BTreeSet<String> {
    samples.into_iter().filter_map(|sample| sample.category).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::of_this_repository;

    #[test]
    fn a_category_that_is_seen_or_not_asked_cannot_be_held_out() {
        let mut sweep = of_this_repository("sweep.yaml");
        check(&sweep).unwrap();
        let mut error = |category: &str| {
            sweep.evaluation.held_out = vec![category.to_owned()];
            check(&sweep).unwrap_err().to_string()
        };
        let seen = error("map");
        assert!(seen.contains("evaluation.held_out") && seen.contains("inject.jsonl has samples of"), "{seen}");
        assert!(error("sogn").contains("harmful_eval.jsonl has the category \"sogn\""));
        sweep.evaluation.held_out = vec!["map".to_owned()];
        sweep.inject = "lab/sql_train.jsonl".into();
        let seen = check(&sweep).unwrap_err().to_string();
        assert!(seen.contains("recovery_prompts.jsonl has samples of"), "{seen}");
        sweep.evaluation.held_out_of = vec![HeldOutOf::Inject];
        check(&sweep).unwrap();
    }
}
