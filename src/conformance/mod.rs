//! Conformance suites: what every driver of a store trait must do, as checks that anyone can run.
//!
//! A suite is one call with a factory. The factory gives a fresh, empty store with its default
//! options and the [`ManualClock`] that the store takes its time from; it is called once per rule.
//! The suite sets that clock to a time of its own before it first calls the store, and only moves
//! it forward afterwards.
//!
//! ```
//! # #[cfg(feature = "conformance")] {
//! use cloakroom::{Cloakroom, ManualClock, conformance};
//! use std::sync::Arc;
//!
//! conformance::handoff(|| {
//!     let clock = Arc::new(ManualClock::new(0));
//!     let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
//!     (room.handoff(), clock)
//! });
//! # }
//! ```
//!
//! Every rule is run, also after one was broken; then the suite panics with the list of the broken
//! ones.

// A broken rule is reported by a panic; that is what a suite is for.
#![expect(clippy::unwrap_used, reason = "a failed call breaks the rule that is being checked")]

mod adaptive_rate_limit;
mod cache;
mod cache_bytes;
mod cache_sample;
mod dedupe;
mod form_token;
mod handoff;
mod rate_limit;
mod state;

pub use adaptive_rate_limit::adaptive_rate_limit;
pub use cache::cache;
pub use cache_bytes::cache_bytes;
pub use cache_sample::CacheSample;
pub use dedupe::dedupe;
pub use form_token::form_token;
pub use handoff::handoff;
pub use rate_limit::rate_limit;
pub use state::{FenceEffect, state, state_fence, state_late_window};

use crate::clock::ManualClock;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::thread;

/// The time at which every check begins, in seconds since the Unix epoch.
const START: u64 = 1_700_000_000;

/// How many threads fight where only one may win.
const RACERS: usize = 32;

/// What must hold, in words, and the check of it.
type Rule<Store> = (&'static str, fn(&Store, &ManualClock));

/// Checks each of `rules` on a store of its own, made by `with_store`, and panics with the names of
/// the broken ones.
fn run<Store: ?Sized>(
    suite: &str,
    rules: &[Rule<Store>],
    with_store: impl Fn(&dyn Fn(&Store, &ManualClock)),
) {
    let mut broken = String::new();
    let mut count = 0;
    for (rule, check) in rules {
        let checked = panic::catch_unwind(AssertUnwindSafe(|| {
            with_store(&|store, clock| {
                clock.set(START * 1_000);
                check(store, clock);
            });
        }));
        if let Err(cause) = checked {
            count += 1;
            let cause = cause
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| cause.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a message");
            // Writing to a string cannot fail.
            let _ = write!(broken, "\n- {rule}\n    {}", cause.replace('\n', "\n    "));
        }
    }
    assert!(
        broken.is_empty(),
        "{suite} conformance: {count} of {} rules broken:{broken}",
        rules.len()
    );
}

/// What each of [`RACERS`] threads got that set out at the same moment.
fn race<T: Send>(racer: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(RACERS);
    let (start, racer) = (&start, &racer);
    thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|index| {
                scope.spawn(move || {
                    start.wait();
                    racer(index)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_run_and_the_broken_ones_are_named() {
        let rules: &[Rule<u8>] = &[
            ("one holds", |_, _| ()),
            ("two is broken", |store, _| assert_eq!(*store, 0)),
            ("three is broken", |_, _| panic!("because")),
        ];
        let answer =
            panic::catch_unwind(|| run("some", rules, |check| check(&1, &ManualClock::new(0))));
        let message = *answer.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("2 of 3 rules broken"), "{message}");
        assert!(message.contains("- two is broken") && message.contains("because"), "{message}");
        assert!(!message.contains("one holds"), "{message}");
    }

    #[test]
    fn a_race_has_every_racer() {
        let mut racers = race(|index| index);
        racers.sort_unstable();
        assert_eq!(racers, (0..RACERS).collect::<Vec<_>>());
    }
}
