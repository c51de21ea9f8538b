//! The largest memory of the process while a stage ran: known where the system says it and no other stage ran beside it.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// The stages of this process.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A stage that runs.
pub(super) struct Peak<'a> {
    gauge: &'a Gauge,
    /// The number of stages that had begun, this one included.
    begun: u64,
    /// Whether the peak began with it.
    is_own: bool,
}

impl Gauge {
    pub fn begin(&self) -> Peak<'_> {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let is_alone = self.ended.load(Ordering::SeqCst) + 1 == begun;
        // 5 sets the peak to the memory of now (Linux, Documentation/filesystems/proc.rst).
        let is_own = is_alone && fs::write("/proc/self/clear_refs", "5").is_ok();
        Peak { gauge: self, begun, is_own }
    }
}

impl Peak<'_> {
    /// In bytes.
    pub fn memory(&self) -> Option<u64> {
        let is_alone = self.gauge.begun.load(Ordering::SeqCst) == self.begun;
        realign::needs::peak_memory().filter(|_| self.is_own && is_alone)
    }
}

impl Drop for Peak<'_> {
    fn drop(&mut self) {
        self.gauge.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_stage_is_told_where_no_other_ran() {
        let gauge = Gauge::default();
        drop(gauge.begin());
        let alone = gauge.begin();
        if cfg!(target_os = "linux") {
            assert!(alone.memory().unwrap() > 1 << 20);
        }
        let beside = gauge.begin();
        assert_eq!([alone.memory(), beside.memory()], [None, None]);
        drop((alone, beside));
        assert!(gauge.begin().is_own || cfg!(not(target_os = "linux")));
    }
}
