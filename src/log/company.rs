//! How long a leader of a group commit waits for company.
//!
//! When the callers of the last group come back at once with the next call, a leader that starts
//! immediately takes only the first of them along, and the others wait for a whole commit more. So
//! a leader waits for as many callers as took part lately, but at most a fraction of the time a
//! commit takes, and never when it was alone lately.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a leader waits for callers to join, as a fraction of the time that a commit takes: one
/// in this many. Measured with flushes of 0.1 and of 1 ms: a half is no better with the slow disk,
/// a fifth is worse with the fast.
const LINGER_DIVISOR: u64 = 3;

/// How much one commit moves the estimate of the time that commits take: one part in this many.
const SMOOTHING: u64 = 8;

/// What the last commits were like, for the next leader to decide how long to wait for company.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Blocked threads and the leader, as of the last commit.
    pub(super) callers: AtomicUsize,
    /// Threads that have gathered for the next commit, the leader not counted.
    pub(super) gathered: AtomicUsize,
    /// The smoothed time of a commit in nanoseconds.
    commit_ns: AtomicU64,
}

impl Company {
    /// Waits until as many callers have come as took part in the last commit, or for as long as is
    /// worth it.
    pub(super) fn linger(&self) {
        // The leader itself is one of them.
        let expected = self.callers.load(Ordering::Relaxed).saturating_sub(1);
        if self.gathered.load(Ordering::Relaxed) >= expected {
            return;
        }
        let limit = Duration::from_nanos(self.commit_ns.load(Ordering::Relaxed) / LINGER_DIVISOR);
        let started = Instant::now();
        while self.gathered.load(Ordering::Relaxed) < expected && started.elapsed() < limit {
            thread::yield_now();
        }
    }

    pub(super) fn committed(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.commit_ns.load(Ordering::Relaxed);
        let smoothed = before - before / SMOOTHING + took / SMOOTHING;
        self.commit_ns.store(if before == 0 { took } else { smoothed }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_when_alone_lately_or_when_all_are_there() {
        // A commit that takes for ever would be waited for ever.
        let company = Company::default();
        company.committed(Duration::from_secs(1_000_000));
        company.callers.store(1, Ordering::Relaxed);
        company.linger();
        company.callers.store(3, Ordering::Relaxed);
        company.gathered.store(2, Ordering::Relaxed);
        company.linger();
    }

    #[test]
    fn the_wait_is_bounded_although_nobody_comes() {
        let company = Company::default();
        company.committed(Duration::from_nanos(30));
        company.callers.store(3, Ordering::Relaxed);
        company.linger();
        assert_eq!(company.gathered.load(Ordering::Relaxed), 0);
    }
}
