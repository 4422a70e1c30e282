//! Whether the disk is too full for the log, and for how long callers wait for it.
//!
//! The log is preallocated, so an ordinary filesystem has the space for it. One that writes every
//! block to a new place, or lies on a volume that promised more than it has, may not. That is not a
//! failure of the log: nothing that it promised is lost, it has every byte that is not durable in
//! memory, and the same bytes are written and flushed again until that works.

use crate::error::FullDisk;
use crate::limits::DEFAULT_LOG_STALL;
use crate::observe;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, thread};
use std::io;
use std::sync::Arc;

use std::time::{Duration, Instant};

/// The longest pause between two attempts. The first ones come sooner.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How long closing waits for space.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct DiskFullState {
    /// Whether `stall` is there, to be asked without a lock.
    is_on: AtomicBool,
    stall: Mutex<Option<DiskFullStall>>,
    closing_since: Mutex<Option<Instant>>,
    stalls: AtomicU64,
    /// How long callers wait, in nanoseconds.
    patience_ns: AtomicU64,
}

impl Default for DiskFullState {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            stall: Mutex::default(),
            closing_since: Mutex::default(),
            stalls: AtomicU64::new(0),
            patience_ns: AtomicU64::new(nanos(DEFAULT_LOG_STALL)),
        }
    }
}

/// More than five centuries are as good as for ever.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct DiskFullStall {
    since: Instant,
    error: Arc<io::Error>,
}

impl DiskFullState {
    /// A write or flush found the disk full.
    #[cold]
    pub(super) fn met(&self, error: &io::Error) {
        let mut stall = self.stall.lock();
        if stall.is_none() {
            let full = FullDisk(error.to_string());
            let error = Arc::new(io::Error::new(error.kind(), full));
            observe::log_without_space(&error);
            *stall = Some(DiskFullStall { since: Instant::now(), error });
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.is_on.store(true, Ordering::Release);
        }
    }

    /// Everything that was appended is durable.
    pub(super) fn over(&self) {
        if !self.is_on() {
            return;
        }
        let mut stall = self.stall.lock();
        self.is_on.store(false, Ordering::Release);
        if let Some(stall) = stall.take() {
            observe::log_has_space(stall.since.elapsed());
        }
    }

    /// Whether the disk is full.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// What the disk said, while it is full.
    pub(super) fn error(&self) -> Option<Arc<io::Error>> {
        if !self.is_on() {
            return None;
        }
        self.stall.lock().as_ref().map(|stall| Arc::clone(&stall.error))
    }

    /// Waits for the time between two attempts.
    pub(super) fn pause(&self) {
        let elapsed =
            self.stall.lock().as_ref().map_or(Duration::ZERO, |stall| stall.since.elapsed());
        thread::sleep((elapsed / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }

    /// What those who wait are told, once they have waited long enough.
    pub(super) fn out_of_patience(&self) -> Option<Arc<io::Error>> {
        let stall = self.stall.lock();
        let stall = stall.as_ref()?;
        let patience = Duration::from_nanos(self.patience_ns.load(Ordering::Relaxed));
        let closing = *self.closing_since.lock();
        let over = stall.since.elapsed() >= patience
            || closing.is_some_and(|since| since.elapsed() >= CLOSING_PATIENCE.min(patience));
        over.then(|| Arc::clone(&stall.error))
    }

    /// The log is about to be closed: callers do not wait long any more.
    pub(super) fn closing(&self) {
        self.closing_since.lock().get_or_insert_with(Instant::now);
    }

    /// How often the disk was full.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Says how long callers wait.
    pub(super) fn set_patience(&self, patience: Duration) {
        self.patience_ns.store(nanos(patience), Ordering::Relaxed);
    }
}
