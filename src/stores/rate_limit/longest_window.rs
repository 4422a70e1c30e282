//! The longest window that the handles of a limiter use.
//!
//! Requests are kept for that long, whichever handle records them, so that every handle counts all
//! that lie in its own window.

use crate::stores::named::Named;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the handles of one limiter. It does not become shorter while there are any.
#[derive(Debug, Default)]
pub(crate) struct LongestWindow {
    ms: AtomicU64,
}

impl LongestWindow {
    /// In milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        // Relaxed, because a handle is given to another thread by what orders memory itself.
        self.ms.load(Ordering::Relaxed)
    }
}

/// Those of the limiters of one kind, by name.
#[derive(Debug, Default)]
pub(crate) struct LongestWindows {
    by_name: Named<LongestWindow>,
}

impl LongestWindows {
    /// The one of the limiter called `name`, after a handle was made that uses `window_ms`.
    pub(crate) fn used(&self, name: &str, window_ms: u64) -> Arc<LongestWindow> {
        let longest = self.by_name.get(name);
        longest.ms.fetch_max(window_ms, Ordering::Relaxed);
        longest
    }
}
