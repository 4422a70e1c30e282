//! How the log asks for a leader when only tasks wait, which cannot block.

use std::fmt;
use std::sync::OnceLock;

/// Calls the background committer, and answers whether a thread will lead.
type Call = Box<dyn Fn() -> bool + Send + Sync>;

/// The call for a leader, once it is set. It is never set where callers do everything.
#[derive(Default)]
pub(super) struct LeaderCall {
    call: OnceLock<Call>,
}

impl LeaderCall {
    /// Sets the call. Only the first one counts.
    pub(super) fn set(&self, call: Call) {
        let _ = self.call.set(call);
    }

    /// Whether a background thread will lead.
    pub(super) fn call(&self) -> bool {
        self.call.get().is_some_and(|call| call())
    }
}

impl fmt::Debug for LeaderCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderCall")
            .field("is_set", &self.call.get().is_some())
            .finish_non_exhaustive()
    }
}
