//! Frames for which no segment is free yet. They are decided, have their LSN, and are visible; they
//! are written when checkpoints have freed the segments that they are for. No call waits for that,
//! only answers do.

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

/// What the log asks of those who free segments.
pub(crate) trait SegmentCall: Send + Sync {
    /// Blocks until the frame at this LSN is queued no more, or answers why that is not waited for
    /// any longer.
    fn wait(&self, lsn: u64) -> Result<()>;

    /// Has a segment freed. Where no thread does that, this one does.
    fn ask(&self);
}

/// The LSN from which frames are queued, while none are.
pub(super) const NONE: u64 = u64::MAX;

/// See the module.
pub(super) struct SegmentQueue {
    /// The first LSN that is queued.
    pub(super) from: AtomicU64,
    pub(super) since: Mutex<Option<Instant>>,
    pub(super) given_up: Mutex<Option<GivenUpQueue>>,
    pub(super) call: OnceLock<Box<dyn SegmentCall>>,
}

/// Tasks that wait for queued frames up to an LSN get this error.
pub(super) struct GivenUpQueue {
    pub(super) up_to: u64,
    pub(super) error: Error,
}

impl Default for SegmentQueue {
    fn default() -> Self {
        Self {
            from: AtomicU64::new(NONE),
            since: Mutex::default(),
            given_up: Mutex::default(),
            call: OnceLock::new(),
        }
    }
}

impl fmt::Debug for SegmentQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentQueue").field("from", &self.from).finish_non_exhaustive()
    }
}
