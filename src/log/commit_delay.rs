//! The commit delay: how long a leader of a group commit waits for more callers before it commits.
//!
//! When the callers of the last group return at once with their next call, a leader that starts
//! immediately takes only the first of them along, and the others wait for one more commit. So a
//! leader waits until as many callers have arrived as took part in the last commit, but at most a
//! fraction of the time that a commit takes, and not at all if it was alone in the last commit.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Instant, yield_within};
use std::time::Duration;

/// The longest commit delay, as a fraction of the time that a commit takes: one in this many.
/// Measured with flushes of 0.1 ms and of 1 ms: a half is no better on the slow disk, a fifth is
/// worse on the fast one.
const DELAY_DIVISOR: u64 = 3;

/// How much one commit changes the estimate of the time that a commit takes: one part in this many.
const SMOOTHING: u64 = 8;

/// What the last commits were like. The next leader decides by it how long to wait for callers.
#[derive(Debug, Default)]
pub(super) struct CommitDelay {
    /// Blocked threads plus the leader, as of the last commit.
    pub(super) callers: AtomicUsize,
    /// Threads that have gathered for the next commit, without the leader.
    pub(super) gathered: AtomicUsize,
    /// The smoothed time of a commit in nanoseconds.
    commit_ns: AtomicU64,
}

impl CommitDelay {
    /// Waits until as many callers have arrived as took part in the last commit, or until the
    /// longest delay has passed.
    pub(super) fn wait(&self) {
        // The leader itself is one of the callers.
        let expected = self.callers.load(Ordering::Relaxed).saturating_sub(1);
        if self.gathered.load(Ordering::Relaxed) >= expected {
            return;
        }
        let limit = Duration::from_nanos(self.commit_ns.load(Ordering::Relaxed) / DELAY_DIVISOR);
        let started = Instant::now();
        while self.gathered.load(Ordering::Relaxed) < expected && started.elapsed() < limit {
            yield_within(started, limit);
        }
    }

    /// Adds the time of a commit to the estimate.
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
    fn a_leader_does_not_wait_when_it_was_alone_or_when_every_caller_has_arrived() {
        // With commits this long, a leader that waited would never return.
        let delay = CommitDelay::default();
        delay.committed(Duration::from_secs(1_000_000));
        delay.callers.store(1, Ordering::Relaxed);
        delay.wait();
        delay.callers.store(3, Ordering::Relaxed);
        delay.gathered.store(2, Ordering::Relaxed);
        delay.wait();
    }

    #[test]
    fn the_delay_is_bounded_when_no_caller_arrives() {
        let delay = CommitDelay::default();
        delay.committed(Duration::from_nanos(30));
        delay.callers.store(3, Ordering::Relaxed);
        delay.wait();
        assert_eq!(delay.gathered.load(Ordering::Relaxed), 0);
    }
}
