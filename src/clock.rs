//! Sources of time, and how times are written in this crate.
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

    /// Registers `changed` to be called after every change of the clock, for as long as it is
    /// alive, and returns how to wait for a time. A room calls this once, when it is opened or when
    /// something first waits for a time.
    ///
    /// The default does not register it and returns [`ClockPace::Unknown`], which is correct for
    /// every clock.
    fn on_change(&self, changed: Weak<dyn Fn() + Send + Sync>) -> ClockPace {
        drop(changed);
        ClockPace::Unknown
    }
}

/// How a clock advances. It decides how a room waits for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockPace {
    /// In real time: the room sleeps until the time has come.
    Real,
    /// Only when it is set. It then calls every function registered by [`Clock::on_change`]: the
    /// room sleeps until it is called.
    Announced,
    /// In an unknown way: while something waits for a time, the room reads the clock every 50
    /// milliseconds.
    Unknown,
}

/// The system's wall clock. It never runs backwards within one process: when the system's time is
/// set back, it stops until that time is reached again, so that what has expired stays expired.
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

/// A clock that changes only when it is set, for tests. Setting it wakes everything that waits for
/// a time.
pub struct ManualClock {
    now_ms: AtomicU64,
    changed: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    /// A clock set to `now_ms`, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms), changed: Mutex::default() }
    }

    /// Advances the clock. It stops at the greatest time that milliseconds in a `u64` can express.
    pub fn advance(&self, by: std::time::Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let _ = self.now_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now_ms| {
            Some(now_ms.saturating_add(by_ms))
        });
        self.notify();
    }

    /// Sets the clock to `now_ms`, in milliseconds since the Unix epoch. It may run backwards.
    pub fn set(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
        self.notify();
    }

    fn notify(&self) {
        let changed: Vec<_> = {
            let mut changed = self.changed.lock();
            changed.retain(|changed| changed.strong_count() > 0);
            changed.iter().filter_map(Weak::upgrade).collect()
        };
        // Called without the lock, because a function may read this clock and register another.
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
    fn a_manual_clock_changes_only_when_it_is_set() {
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
    fn a_function_registered_with_a_manual_clock_is_called_after_every_change_until_it_is_dropped()
    {
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
