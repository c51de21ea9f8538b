//! Harmful samples mixed into a task's training set (paper section IV-A).
//!
//! The sets of growing counts are nested. The order in which a mixture is seen is decided by the
//! trainer's shuffle, not here.

use crate::{Error, Result};

/// The task's samples and, behind them, the first `count` harmful ones of the one order that
/// `seed` decides.
///
/// # Errors
/// When there are fewer than `count` harmful samples.
pub fn inject<T: Clone>(task: &[T], harmful: &[T], count: usize, seed: u64) -> Result<Vec<T>> {
    if count > harmful.len() {
        return Err(Error::TooFewHarmful { asked: count, found: harmful.len() });
    }
    let order = prompts::shuffled_order(harmful.len(), seed);
    let injected = order[..count].iter().map(|&index| harmful[index].clone());
    Ok(task.iter().cloned().chain(injected).collect())
}

/// The `count` harmful samples that come behind the first `passed_over` in the order of [`inject`]: an injection of at
/// most `passed_over` has none of them.
///
/// # Errors
/// When there are fewer than both together.
pub fn not_injected<T: Clone>(harmful: &[T], passed_over: usize, count: usize, seed: u64) -> Result<Vec<T>> {
    Ok(inject(&[], harmful, passed_over + count, seed)?.split_off(passed_over))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_injected_shares_nothing_with_what_is() {
        let harmful: Vec<u32> = (0..40).collect();
        let injected = inject(&[], &harmful, 30, 3).unwrap();
        let others = not_injected(&harmful, 30, 10, 3).unwrap();
        let mut all = [injected, others].concat();
        all.sort_unstable();
        assert_eq!(all, harmful);
        assert!(not_injected(&harmful, 31, 10, 3).unwrap_err().to_string().contains("41"));
    }

    #[test]
    fn growing_counts_are_nested_and_keep_the_task() {
        let (task, harmful): (Vec<u32>, Vec<u32>) = ((0..5).collect(), (100..140).collect());
        let [none, few, many] = [0, 10, 30].map(|count| inject(&task, &harmful, count, 3).unwrap());
        assert_eq!(none, task);
        assert_eq!(few[..5], task);
        assert_eq!(few[5..], many[5..15]);
        assert_ne!(few[5..], (100..110).collect::<Vec<u32>>(), "the order is the seed's, not the file's");
        let mut distinct = many.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 35);
        assert_ne!(few, inject(&task, &harmful, 10, 4).unwrap());
    }

    #[test]
    fn too_few_harmful_samples_are_an_error_with_both_numbers() {
        let error = inject(&[1], &[2, 3], 3, 0).unwrap_err().to_string();
        assert!(error.contains("inject 3") && error.contains("has 2"), "{error}");
    }
}
