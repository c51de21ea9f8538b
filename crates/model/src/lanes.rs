//! Two packs at once. A product of matrices keeps all cores busy, but what lies between products is done by one thread; two
//! packs side by side, each with half of the threads, leave none idle.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use burn::tensor::{DType, Device};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::ops;

/// What `work` makes of each item and its place, in the order of the items. On the CPU two items are in work at a time, if there
/// are threads for both; the threads of a rayon pool inside `work` are half of those outside.
pub fn in_lanes<T: Sync, R: Send>(device: &Device, items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let is_for_two = items.len() > 1 && ops::serves(device, DType::F32);
    let Some(pools) = is_for_two.then(Pools::take).flatten() else {
        return items.iter().enumerate().map(|(at, item)| work(at, item)).collect();
    };
    let next = AtomicUsize::new(0);
    let lane = || {
        let places = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let items = places.map_while(|at| Some((at, items.get(at)?)));
        items.map(|(at, item)| (at, work(at, item))).collect::<Vec<_>>()
    };
    let mut found = std::thread::scope(|scope| {
        let lanes = pools.lanes.each_ref().map(|pool| scope.spawn(|| pool.install(lane)));
        let join = |lane: ScopedJoinHandle<'_, _>| lane.join().unwrap_or_else(|fault| resume_unwind(fault));
        lanes.map(join).into_iter().flatten().collect::<Vec<_>>()
    });
    pools.give_back();
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, result)| result).collect()
}

/// The threads of two lanes.
struct Pools {
    /// Threads of both.
    threads: usize,
    lanes: [ThreadPool; 2],
}

/// Pools that nobody uses now: the allocator keeps memory by thread, and new threads would ask the system for new memory.
static FREE: Mutex<Vec<Pools>> = Mutex::new(Vec::new());

impl Pools {
    /// For as many threads as there are; none where one lane has to do.
    fn take() -> Option<Self> {
        let threads = rayon::current_num_threads();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = free.iter().position(|pools| pools.threads == threads) {
            return Some(free.swap_remove(at));
        }
        let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().ok();
        let lanes = if threads > 1 { [pool(threads / 2)?, pool(threads - threads / 2)?] } else { return None };
        Some(Self { threads, lanes })
    }

    fn give_back(self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..23).collect();
        for threads in 1..4 {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build();
            let found = pool.map(|pool| {
                pool.install(|| {
                    in_lanes(&Device::default(), &items, |at, item| (at, 2 * item, rayon::current_num_threads()))
                })
            });
            for (at, (place, double, held)) in found.into_iter().flatten().enumerate() {
                assert_eq!((place, double), (at, 2 * at));
                assert!(threads == 1 || held < threads, "{held} of {threads} threads");
            }
        }
    }
}
