//! How far a score can be trusted (paper, "Evaluation"): intervals, differences between methods, spread over seeds and
//! agreement of judges. It scores nothing; it takes counts, per-sample scores and verdicts.

mod agreement;
mod bootstrap;
mod mcnemar;
mod newcombe;
mod rate;

pub use agreement::{Agreement, agreement};
pub use bootstrap::{
    BootstrapSettings, Drawn, Estimate, bootstrap, bootstrap_groups, bootstrap_mean, paired_bootstrap,
};
pub use mcnemar::{McNemar, holm, mcnemar};
pub use newcombe::newcombe;
pub use rate::{Spread, spread, wilson};

use crate::{EvaluationError, Result};

/// An error unless there are samples, and as many of one method as of the other.
pub(crate) fn check_paired(left: usize, right: usize) -> Result<()> {
    match (left, right) {
        (0, 0) => Err(EvaluationError::NoAnswers),
        _ if left != right => Err(EvaluationError::Unpaired { left, right }),
        _ => Ok(()),
    }
}
