//! What the engine counts.

use crate::error::Error;
use crate::histogram::HistogramRecorder;
use crate::observe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters that transactions and checkpoints advance.
#[derive(Debug)]
pub(super) struct EngineCounters {
    pub(super) opened_at: Instant,
    pub(super) stalls: AtomicU64,
    pub(super) stall_ns: AtomicU64,
    pub(super) checkpoint_ns: HistogramRecorder,
    /// Nanoseconds from the opening to the end of the last checkpoint; zero when there was none.
    pub(super) checkpointed_ns: AtomicU64,
    pub(super) checkpoint_failures: AtomicU64,
    /// How long the last checkpoint took.
    last_checkpoint_ns: AtomicU64,
}

impl Default for EngineCounters {
    fn default() -> Self {
        Self {
            opened_at: Instant::now(),
            stalls: AtomicU64::default(),
            stall_ns: AtomicU64::default(),
            checkpoint_ns: HistogramRecorder::default(),
            checkpointed_ns: AtomicU64::default(),
            checkpoint_failures: AtomicU64::default(),
            last_checkpoint_ns: AtomicU64::default(),
        }
    }
}

impl EngineCounters {
    pub(super) fn stalled(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        observe::stalls();
    }

    pub(super) fn stall_ended(&self, took: Duration) {
        self.stall_ns.fetch_add(nanos(took), Ordering::Relaxed);
        observe::stalled(took);
    }

    pub(super) fn checkpointed(&self, took: Duration) {
        self.checkpoint_ns.record_time(took);
        self.last_checkpoint_ns.store(nanos(took), Ordering::Relaxed);
        self.checkpointed_ns.store(nanos(self.opened_at.elapsed()).max(1), Ordering::Relaxed);
    }

    pub(super) fn checkpoint_failed(&self, error: &Error) {
        self.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
        observe::checkpoint_failed(error);
    }

    /// How long the last checkpoint took.
    pub(super) fn last_checkpoint(&self) -> Duration {
        Duration::from_nanos(self.last_checkpoint_ns.load(Ordering::Relaxed))
    }

    /// A writer was refused because both segments are full.
    pub(super) fn refused(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        observe::refused();
    }

    pub(super) fn since_checkpoint(&self) -> Option<Duration> {
        match self.checkpointed_ns.load(Ordering::Relaxed) {
            0 => None,
            at_ns => Some(self.opened_at.elapsed().saturating_sub(Duration::from_nanos(at_ns))),
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
