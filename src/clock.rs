//! Where the time comes from, and how times are written in this crate.
//!
//! A span of time is a [`Duration`](std::time::Duration). A point in time is a `u64` of
//! milliseconds since the Unix epoch, and its name ends in `_ms`. Where an interface that programs
//! already use says otherwise, its own names stay: a form token's `now`, `issued_at`, `expires_at`
//! and `consumed_at` are seconds since the Unix epoch, `ttl_seconds` is a span in seconds, and
//! `reset_time` (rate limits) and `updated_at` (agent state) are milliseconds since the Unix epoch.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall-clock time, in milliseconds since the Unix epoch.
///
/// A room asks its clock for every decision about expiry, so a test that passes a [`ManualClock`]
/// controls time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Has `changed` called after every move of the clock, for as long as it is alive, and answers
    /// how a wait until a time must be made. A room asks once, when it is opened or when something
    /// first waits for a time.
    ///
    /// The default remembers nothing and answers [`ClockPace::Unknown`], which is right for every
    /// clock.
    fn on_change(&self, changed: Weak<dyn Fn() + Send + Sync>) -> ClockPace {
        drop(changed);
        ClockPace::Unknown
    }
}

/// How a clock moves, which decides how a room waits until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockPace {
    /// A second of the clock is a second: the room sleeps until the time has come.
    Real,
    /// It moves only when it is moved, and then calls everybody that was given to
    /// [`Clock::on_change`]: the room sleeps until it is called.
    Announced,
    /// Nothing is known: while something waits for a time, the room looks every 50 milliseconds.
    Unknown,
}

/// The system's wall clock. It never runs backwards within one process: when the system's time is
/// set back, it stands still until that time is reached again, so that what has expired stays
/// expired.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest_ms: AtomicU64,
}

impl SystemClock {
    /// The system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }

    fn on_change(&self, _: Weak<dyn Fn() + Send + Sync>) -> ClockPace {
        ClockPace::Real
    }
}

/// A clock that stands still until it is moved, for tests. Moving it wakes whatever waits for a
/// time.
pub struct ManualClock {
    now_ms: AtomicU64,
    changed: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    /// A clock that shows `now_ms`, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms), changed: Mutex::default() }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: std::time::Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let _ = self.now_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now_ms| {
            Some(now_ms.saturating_add(by_ms))
        });
        self.announce();
    }

    /// Sets the clock, forward or back, to `now_ms` milliseconds since the Unix epoch.
    pub fn set(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
        self.announce();
    }

    fn announce(&self) {
        let changed: Vec<_> = {
            let mut changed = self.changed.lock();
            changed.retain(|changed| changed.strong_count() > 0);
            changed.iter().filter_map(Weak::upgrade).collect()
        };
        // What is called may ask this clock, and subscribe to it.
        changed.iter().for_each(|changed| changed());
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn on_change(&self, changed: Weak<dyn Fn() + Send + Sync>) -> ClockPace {
        self.changed.lock().push(changed);
        ClockPace::Announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(5);
        assert_eq!(clock.now_ms(), 5);
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now_ms(), 12);
        clock.set(3);
        assert_eq!(clock.now_ms(), 3);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now_ms(), u64::MAX);
    }

    #[test]
    fn whoever_listens_to_a_manual_clock_hears_of_every_move_until_it_is_gone() {
        let clock = Arc::new(ManualClock::new(0));
        let heard = Arc::new(AtomicU64::new(0));
        let listener: Arc<dyn Fn() + Send + Sync> = {
            let (clock, heard) = (Arc::clone(&clock), Arc::clone(&heard));
            Arc::new(move || heard.store(clock.now_ms(), Ordering::SeqCst))
        };
        assert_eq!(clock.on_change(Arc::downgrade(&listener)), ClockPace::Announced);
        clock.advance(Duration::from_millis(5));
        assert_eq!(heard.load(Ordering::SeqCst), 5);
        clock.set(3);
        assert_eq!(heard.load(Ordering::SeqCst), 3);
        drop(listener);
        clock.set(9);
        assert_eq!(heard.load(Ordering::SeqCst), 3);
        assert!(clock.changed.lock().is_empty());
    }

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let clock = SystemClock::new();
        let real_ms = clock.now_ms();
        clock.latest_ms.store(real_ms + 60_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), real_ms + 60_000);
    }
}
