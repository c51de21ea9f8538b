//! Panics and endless work of other people's code on other people's input, as errors.

use std::cell::Cell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is returned as its message and not printed.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        text.unwrap_or("it failed without a message").to_owned()
    })
}

/// Bounds what works on one file: a stack, and a time. After work that has not ended in its time nothing more is begun, since
/// nothing can stop its thread.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    stack: usize,
    /// Whether something has not ended.
    endless: Arc<AtomicBool>,
}

impl Limit {
    /// Work has so large a stack.
    pub(crate) fn new(stack: usize) -> Self {
        Self { stack, endless: Arc::default() }
    }

    /// Whether work has taken too long.
    pub(crate) fn is_endless(&self) -> bool {
        self.endless.load(Ordering::Relaxed)
    }

    /// As [`caught`], on a thread of its own, and for so long at most. Work that takes longer is an error; its thread goes on
    /// until it ends or the process does.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        time: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.is_endless() {
            return Err("it took too long before, and is not tried again".into());
        }
        let (send, receive) = mpsc::channel();
        let thread = thread::Builder::new().name("bounded".into()).stack_size(self.stack);
        let started = thread.spawn(move || drop(send.send(caught(work))));
        let thread = started.map_err(|error| format!("no thread for it: {error}"))?;
        let result = match receive.recv_timeout(time) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.endless.store(true, Ordering::Relaxed);
                mem::forget(thread);
                return Err(format!("takes more than {} seconds", time.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => Err("it failed without a message".into()),
        };
        // To drop the handle would detach a thread that is about to end, whose record glibc reads after it is gone: once in
        // some hundred thousand times that is the end of the process. So it is joined, and an endless one is never detached.
        drop(thread.join());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_endless_work_are_errors() {
        let limit = Limit::new(1 << 20);
        let within = |time, work: fn() -> usize| limit.clone().run(Duration::from_millis(time), work);
        assert_eq!(within(60_000, || 3), Ok(3)); // a busy machine is slow
        assert_eq!(within(60_000, || panic!("no {}", 3)), Err("no 3".into()));
        let endless = || loop {
            thread::park_timeout(Duration::from_secs(1));
        };
        assert!(within(200, endless).is_err_and(|error| error.contains("takes more than")));
        assert!(within(60_000, || 3).is_err_and(|error| error.contains("not tried again")));
    }
}
