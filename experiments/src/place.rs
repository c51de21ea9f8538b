//! Where a sweep's results and the stages that lead to them are: what `--out` and `base` say about it.

use std::path::{Path, PathBuf};

use crate::store::Roots;
use crate::sweep::Sweep;

/// The directory of a sweep's results, and where its stages are kept. `out` is the directory that the user asked for.
///
/// Without it results are in results/runs/ of the repository under the sweep's name, and stages beside them, or, of a
/// sweep with a `base`, in the base's directory. With it all that is new is below `out`, and what the base has finished is
/// only read.
#[must_use]
pub fn of(sweep: &Sweep, out: Option<&Path>) -> (PathBuf, Roots) {
    let named = |name: &str| sweep.root.join("results/runs").join(name);
    let results = out.map_or_else(|| named(&sweep.name), Path::to_owned);
    let stages = match (&sweep.store, out) {
        (None, _) => results.as_path().into(),
        (Some(base), None) => named(base).as_path().into(),
        (Some(base), Some(out)) => Roots::over(out, &named(base)),
    };
    (results, stages)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A sweep of this directory, in a repository at /r.
    fn sweep(name: &str) -> Sweep {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        Sweep { root: "/r".into(), ..sweep }
    }

    #[test]
    fn out_holds_all_that_is_new_and_reads_what_the_base_has() {
        let (plain, over) = (sweep("sweep.yaml"), sweep("ablation-rate.yaml"));
        let base = Path::new("/r/results/runs").join(&plain.name);
        let at = |path: &str| PathBuf::from(path);
        assert_eq!(of(&plain, None), (base.clone(), base.as_path().into()));
        assert_eq!(of(&over, None), (at("/r/results/runs/ablation-rate"), base.as_path().into()));
        let out = Path::new("/tmp/x/out");
        assert_eq!(of(&plain, Some(out)), (out.to_owned(), out.into()));
        assert_eq!(of(&over, Some(out)), (out.to_owned(), Roots::over(out, &base)));
    }
}
