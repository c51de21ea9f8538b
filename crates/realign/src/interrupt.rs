//! Ctrl-C: work that is asked to stop goes on to the next point from which it can be resumed. A second Ctrl-C ends the
//! process at once; nothing that is finished is lost by that either.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit status of a process that Ctrl-C ended.
pub const EXIT_STATUS: u8 = 130;

/// Whether the user asked to stop; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// Whether the user knows that it was heard.
    answered: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens to Ctrl-C and to SIGTERM from here on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, i32::from(EXIT_STATUS), Arc::clone(&interrupt.asked))?;
            flag::register(signal, Arc::clone(&interrupt.asked))?;
        }
        Ok(interrupt)
    }

    /// Whether the user asked to stop; the first answer that says so also tells the user.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked && !self.answered.swap(true, Ordering::Relaxed) {
            let text = "stopping at the next point from which this can go on; Ctrl-C again stops at once";
            let _ = writeln!(io::stderr(), "{text}");
        }
        asked
    }

    /// For a report to return.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}
