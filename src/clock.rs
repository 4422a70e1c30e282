//! Sources of time, and how times are written in this crate.
//!
//! A span of time is a [`Duration`](std::time::Duration). A point in time is a `u64` of
//! milliseconds since the Unix epoch, and its name ends in `_ms`. Where an interface that programs
//! already use says otherwise, its own names stay: a form token's `now`, `issued_at`, `expires_at`
//! and `consumed_at` are seconds since the Unix epoch, `ttl_seconds` is a span in seconds, and
//! `reset_time` (rate limits) and `updated_at` (agent state) are milliseconds since the Unix epoch.

mod elapsed;

use crate::sync::plain::Mutex;
use std::fmt;
use std::sync::Weak;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of time with two readings: the wall clock, which may be set, and the time elapsed,
/// which may not.
///
/// A room asks its clock for every decision about expiry, so a test that passes a [`ManualClock`]
/// controls time. Spans, such as a time to live, are measured by the time elapsed while the room is
/// open; points in time that callers give or get are those of the wall clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// What the wall clock shows, in milliseconds since the Unix epoch. It may go back.
    fn now_ms(&self) -> u64;

    /// Milliseconds elapsed since an origin that does not change while the clock exists. No setting
    /// of the wall clock moves it, it never goes back, and the time that the machine sleeps counts.
    ///
    /// The default is [`now_ms`](Self::now_ms), which is right for a clock that is never set.
    fn elapsed_ms(&self) -> u64 {
        self.now_ms()
    }

    /// What [`elapsed_ms`](Self::elapsed_ms) is counted from. Where two openings of a room find the
    /// same origin, and both readings say that the same time has passed between, a room takes it
    /// for beyond doubt.
    ///
    /// The default is [`ElapsedOrigin::Unknown`], which is correct for every clock.
    fn elapsed_origin(&self) -> ElapsedOrigin {
        ElapsedOrigin::Unknown
    }

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

/// What the elapsed time of a clock is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElapsedOrigin {
    /// Something that says nothing outside this clock.
    Unknown,
    /// The start of the operating system.
    Boot,
    /// Something that has this id, which nothing else has.
    Id([u8; 16]),
}

/// The system's clock. Its wall clock is the system's and goes back when that is set back. Its
/// elapsed time counts from the start of the system on Linux, Android, macOS and iOS, and from the
/// start of the process elsewhere; on each of these systems and on Windows, sleep counts.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn elapsed_ms(&self) -> u64 {
        elapsed::elapsed_ms()
    }

    fn elapsed_origin(&self) -> ElapsedOrigin {
        if elapsed::IS_SINCE_BOOT { ElapsedOrigin::Boot } else { ElapsedOrigin::Unknown }
    }

    fn on_change(&self, _: Weak<dyn Fn() + Send + Sync>) -> ClockPace {
        ClockPace::Real
    }
}

/// A clock that changes only when it is told to, for tests. Every change wakes everything that
/// waits for a time.
///
/// [`advance`](Self::advance) and [`set`](Self::set) let time pass; [`leap`](Self::leap) sets the
/// wall clock although no time has passed.
pub struct ManualClock {
    readings: Mutex<ManualReadings>,
    id: [u8; 16],
    changed: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

#[derive(Debug, Clone, Copy)]
struct ManualReadings {
    now_ms: u64,
    elapsed_ms: u64,
}

/// How much time one move of a [`ManualClock`] lets pass at the most: 18 million years. A test may
/// go to the end of time and back; then there is some left.
const LONGEST_MOVE_MS: u64 = 1 << 59;

impl ManualReadings {
    fn pass(&mut self, by_ms: u64) {
        self.elapsed_ms = self.elapsed_ms.saturating_add(by_ms.min(LONGEST_MOVE_MS));
    }
}

impl ManualClock {
    /// A clock whose wall clock shows `now_ms`, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            readings: Mutex::new(ManualReadings { now_ms, elapsed_ms: 0 }),
            id: ulid::Ulid::generate().to_bytes(),
            changed: Mutex::default(),
        }
    }

    /// Lets time pass: both readings advance, the elapsed time by 18 million years at the most.
    /// Each stops at the greatest time that milliseconds in a `u64` can express.
    pub fn advance(&self, by: std::time::Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.change(|readings| {
            readings.now_ms = readings.now_ms.saturating_add(by_ms);
            readings.pass(by_ms);
        });
    }

    /// Lets time pass until the wall clock shows `now_ms`, in milliseconds since the Unix epoch: as
    /// [`advance`](Self::advance) does. Where that lies in the past, only the wall clock goes back,
    /// as [`leap`](Self::leap) has it.
    pub fn set(&self, now_ms: u64) {
        self.change(|readings| {
            let by_ms = now_ms.saturating_sub(readings.now_ms);
            readings.pass(by_ms);
            readings.now_ms = now_ms;
        });
    }

    /// Sets the wall clock alone to `now_ms`, in milliseconds since the Unix epoch, ahead or back:
    /// no time passes.
    pub fn leap(&self, now_ms: u64) {
        self.change(|readings| readings.now_ms = now_ms);
    }

    fn change(&self, change: impl FnOnce(&mut ManualReadings)) {
        change(&mut self.readings.lock());
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
        f.debug_struct("ManualClock").field("readings", &self.readings).finish_non_exhaustive()
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.readings.lock().now_ms
    }

    fn elapsed_ms(&self) -> u64 {
        self.readings.lock().elapsed_ms
    }

    fn elapsed_origin(&self) -> ElapsedOrigin {
        ElapsedOrigin::Id(self.id)
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
    use std::sync::atomic::{AtomicU64, Ordering};
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
    fn a_leap_moves_the_wall_clock_alone_and_so_does_a_setting_back() {
        let clock = ManualClock::new(1_000);
        clock.leap(90_000);
        clock.leap(50);
        assert_eq!((clock.now_ms(), clock.elapsed_ms()), (50, 0));
        clock.set(80);
        assert_eq!((clock.now_ms(), clock.elapsed_ms()), (80, 30));
        clock.set(10);
        assert_eq!((clock.now_ms(), clock.elapsed_ms()), (10, 30));
        assert_ne!(clock.elapsed_origin(), ManualClock::new(0).elapsed_origin());
    }

    #[test]
    fn the_elapsed_time_of_the_system_advances() {
        let clock = SystemClock::new();
        let before_ms = clock.elapsed_ms();
        std::thread::sleep(Duration::from_millis(20));
        let passed_ms = clock.elapsed_ms() - before_ms;
        assert!((15..10_000).contains(&passed_ms), "{passed_ms}");
    }
}
