//! The operations on counted failures, each written once.
//!
//! One row per key holds the failures of its window as runs: a time and how many there were. A
//! failure counts while its time is less than the window ago. Runs are exact to the millisecond up
//! to [`EXACT_FAILURES`]; beyond that, failures within a 1,024th of the window share a run under
//! the time of the last, so that a row stays small and a failure counts at most that much too long.

use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::engine::time_line::Moment;
use crate::error::Result;
use crate::stores::codlet::row::{FailuresRow, Run};
use crate::stores::codlet::sweep::{load_failures as load, remove_failures as remove};
use crate::stores::expiry;
use crate::stores::length::check_len;
use crate::tables::Table;
use ::codlet::{RateLimitKey, RateLimitOutcome, RateLimitPolicy};
use std::time::Duration;

/// Up to this many allowed failures each has a time of its own.
const EXACT_FAILURES: u32 = 1_024;

impl FailuresRow {
    /// How many failures count `now` in a window of `window_ms`. One beyond the window they
    /// were recorded with is that one, because the row is gone after it.
    fn count(&self, window_ms: u64, now: &Moment) -> u32 {
        let window_ms = window_ms.min(self.window_ms);
        let gone_ms = now.ago(window_ms);
        let counts = |run: &&Run| gone_ms.is_none_or(|gone_ms| run.at_ms > gone_ms);
        self.runs.iter().filter(counts).fold(0, |sum, run| sum.saturating_add(run.count))
    }

    /// Adds a failure, and lets go of what no check will count.
    fn add(&mut self, policy: &RateLimitPolicy, now: &Moment) {
        self.window_ms = window_ms(policy.window);
        let gone_ms = now.surely_ago(self.window_ms);
        self.runs.retain(|run| gone_ms.is_none_or(|gone_ms| run.at_ms > gone_ms));
        let exact = policy.max_failures <= EXACT_FAILURES;
        let step_ms = if exact { 1 } else { (self.window_ms / u64::from(EXACT_FAILURES)).max(1) };
        let at_ms = self.runs.last().map_or(now.line_ms(), |run| run.at_ms.max(now.line_ms()));
        self.epoch = now.epoch();
        match self.runs.last_mut() {
            Some(run) if run.at_ms / step_ms == at_ms / step_ms => {
                *run = Run { at_ms, count: run.count.saturating_add(1) };
            }
            _ => self.runs.push(Run { at_ms, count: 1 }),
        }
        // As soon as the newest alone are too many, older ones make no difference.
        let mut newer = 0_u32;
        let enough = self.runs.iter().rposition(|run| {
            newer = newer.saturating_add(run.count);
            newer >= policy.max_failures
        });
        self.runs.drain(..enough.unwrap_or(0));
    }
}

/// A window in milliseconds, rounded up.
fn window_ms(window: Duration) -> u64 {
    u64::try_from(window.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Whether `policy` lets another attempt go.
pub(super) fn check(
    rows: &mut dyn Reader,
    key: &RateLimitKey,
    policy: &RateLimitPolicy,
) -> Result<RateLimitOutcome> {
    check_len("the rate limit key", key.as_str())?;
    let now = rows.moment();
    let failures = load(rows, key.as_str().as_bytes())?
        .map_or(0, |row| row.count(window_ms(policy.window), &now));
    Ok(if policy.is_exceeded(failures) { RateLimitOutcome::Deny } else { RateLimitOutcome::Allow })
}

/// Counts a failure.
pub(super) fn record(
    tx: &mut dyn Writer,
    key: &RateLimitKey,
    policy: &RateLimitPolicy,
) -> Result<()> {
    check_len("the rate limit key", key.as_str())?;
    let key = key.as_str().as_bytes();
    let now = tx.moment();
    let old = load(tx, key)?;
    let indexed_at = old.as_ref().map(FailuresRow::ends_at);
    let mut row = old.filter(|row| !now.has_surely_passed(row.ends_at())).unwrap_or(FailuresRow {
        window_ms: 0,
        epoch: 0,
        runs: Vec::new(),
    });
    row.add(policy, &now);
    tx.put(Table::CODLET_FAILURES, key, codec::encode(&row)?);
    expiry::move_to(tx, indexed_at, row.ends_at(), Table::CODLET_FAILURES, key);
    Ok(())
}

/// Forgets the failures.
pub(super) fn clear(tx: &mut dyn Writer, key: &RateLimitKey) -> Result<()> {
    check_len("the rate limit key", key.as_str())?;
    let key = key.as_str().as_bytes();
    if let Some(row) = load(tx, key)? {
        remove(tx, key, &row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::codlet::sweep::sweep_failures as sweep;
    use crate::stores::map_tx::MapTx;
    use ::codlet::RateLimitUnavailable;
    use RateLimitOutcome::{Allow, Deny};
    use proptest::prelude::*;

    fn policy(max_failures: u32, window_ms: u64) -> RateLimitPolicy {
        RateLimitPolicy {
            max_failures,
            window: Duration::from_millis(window_ms),
            unavailable: RateLimitUnavailable::FailClosed,
        }
    }

    fn key() -> RateLimitKey {
        RateLimitKey::new("k")
    }

    #[test]
    fn a_row_round_trips_in_frozen_bytes() {
        let row = FailuresRow {
            window_ms: 300,
            epoch: 4,
            runs: vec![Run { at_ms: 5, count: 1 }, Run { at_ms: 300, count: 2 }],
        };
        let bytes = codec::encode(&row).unwrap();
        assert_eq!(bytes, b"\xfb\x2c\x01\x04\x02\x05\x01\xfb\x2c\x01\x02");
        assert_eq!(codec::decode::<FailuresRow>(&bytes), Ok(row));
    }

    #[test]
    fn the_window_slides() {
        let mut tx = MapTx::at(0);
        let policy = policy(2, 100);
        for at in [0, 60] {
            tx.now_ms = at;
            assert_eq!(check(&mut tx, &key(), &policy).unwrap(), Allow);
            record(&mut tx, &key(), &policy).unwrap();
        }
        tx.now_ms = 99;
        assert_eq!(check(&mut tx, &key(), &policy).unwrap(), Deny);
        tx.now_ms = 100;
        assert_eq!(check(&mut tx, &key(), &policy).unwrap(), Allow);
        record(&mut tx, &key(), &policy).unwrap();
        assert_eq!(check(&mut tx, &key(), &policy).unwrap(), Deny);
        clear(&mut tx, &key()).unwrap();
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn the_extremes_neither_overflow_nor_panic() {
        let mut tx = MapTx::at(u64::MAX - 1);
        for (policy, expected) in
            [(policy(0, 100), Deny), (policy(1, 0), Allow), (policy(1, u64::MAX), Deny)]
        {
            clear(&mut tx, &key()).unwrap();
            record(&mut tx, &key(), &policy).unwrap();
            assert_eq!(check(&mut tx, &key(), &policy).unwrap(), expected);
        }
        let forever = RateLimitPolicy { window: Duration::MAX, ..policy(u32::MAX, 0) };
        record(&mut tx, &key(), &forever).unwrap();
        assert_eq!(check(&mut tx, &key(), &forever).unwrap(), Allow);
    }

    #[test]
    fn a_row_stays_small_whatever_is_recorded() {
        let runs = |max_failures| {
            let mut tx = MapTx::at(0);
            let policy = policy(max_failures, 1_024_000);
            for _ in 0..20_000 {
                tx.now_ms += 100;
                record(&mut tx, &key(), &policy).unwrap();
            }
            load(&mut tx, b"k").unwrap().unwrap().runs.len()
        };
        assert_eq!(runs(10), 10);
        assert!(runs(1_000_000) <= 1_025);
    }

    #[test]
    fn sweeping_removes_only_what_counts_no_more() {
        let mut tx = MapTx::at(0);
        let policy = policy(1, 100);
        record(&mut tx, &key(), &policy).unwrap();
        tx.now_ms = 99;
        assert!(!sweep(&mut tx, b"k").unwrap());
        tx.now_ms = 100;
        assert!(sweep(&mut tx, b"k").unwrap());
        assert!(tx.snapshot().is_empty());
    }

    #[test]
    fn failures_have_the_row_that_is_derived() {
        crate::stores::derived::tests::histories(|tx, random| {
            let key = RateLimitKey::new(*random.choice(&["", "k", "l"]).unwrap());
            match random.u8(0..4) {
                0 | 1 => record(tx, &key, &policy(random.u32(1..4), random.u64(0..9_000))).unwrap(),
                2 => clear(tx, &key).unwrap(),
                _ => drop(sweep(tx, key.as_str().as_bytes()).unwrap()),
            }
        });
    }

    proptest! {
        #[test]
        fn a_list_of_every_time_agrees(
            steps in prop::collection::vec((0_u64..40, prop::bool::weighted(0.7), any::<bool>()), 0..60),
            max_failures in 0_u32..6,
        ) {
            let mut tx = MapTx::at(0);
            let policy = policy(max_failures, 100);
            let mut times: Vec<u64> = Vec::new();
            for (forward, is_failure, sweeps) in steps {
                tx.now_ms += forward;
                if sweeps {
                    sweep(&mut tx, b"k").unwrap();
                }
                if is_failure {
                    record(&mut tx, &key(), &policy).unwrap();
                    times.push(tx.now_ms);
                }
                let counted = times.iter().filter(|&&at| at + 100 > tx.now_ms).count();
                let expected = if counted >= max_failures as usize { Deny } else { Allow };
                prop_assert_eq!(check(&mut tx, &key(), &policy).unwrap(), expected);
                prop_assert!(tx.keys(Table::EXPIRY).len() <= 1);
            }
        }
    }
}
