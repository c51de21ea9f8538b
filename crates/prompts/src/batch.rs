//! Rows of similar length together, and the one seeded order behind every split.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Batches of at most `max_batch` row indices, rows of similar length together, the shortest first.
///
/// Equal lengths keep their order, so the same lengths always give the same batches.
///
/// # Panics
/// If `max_batch` is 0.
pub fn length_buckets(lengths: &[usize], max_batch: usize) -> Vec<Vec<usize>> {
    assert!(max_batch > 0, "a batch must hold at least one row");
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    order.chunks(max_batch).map(<[usize]>::to_vec).collect()
}

/// The numbers `0..count` in the order that `seed` gives: Fisher-Yates over ChaCha8.
///
/// The same on every platform. The first `n` of one order are nested in its first `n + 1`, which is how
/// injected samples of growing counts and validation splits are drawn; orders of different `count` are
/// not related.
pub fn shuffled_order(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_every_row_once_sorted_by_length_then_index() {
        let buckets = length_buckets(&[5, 1, 5, 3, 1, 9, 5], 3);
        assert_eq!(buckets, [vec![1, 4, 3], vec![0, 2, 6], vec![5]]);
        assert!(length_buckets(&[], 4).is_empty());
    }

    #[test]
    #[should_panic(expected = "at least one row")]
    fn a_batch_of_zero_rows_is_a_mistake() {
        length_buckets(&[1], 0);
    }

    #[test]
    fn a_seed_gives_one_order_for_ever() {
        assert_eq!(shuffled_order(10, 7), [0, 7, 5, 2, 9, 1, 6, 8, 3, 4], "pinned: a change here changes every result");
        assert_ne!(shuffled_order(100, 1), shuffled_order(100, 2));
        let mut sorted = shuffled_order(1000, 3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }
}
