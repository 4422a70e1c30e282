//! The suites of limiters accept a simple driver that is right, and name the rule that a faulty one
//! breaks.

use crate::naive_limits::{Fault, NaiveAdaptive, NaiveLimiter};
use cloakroom::{ManualClock, conformance};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(0))
}

fn plain(fault: Fault) {
    conformance::rate_limit(|config| {
        let clock = clock();
        (NaiveLimiter::new(config, clock.clone(), fault), clock)
    });
}

fn adaptive(fault: Fault) {
    conformance::adaptive_rate_limit(|config, adaptive| {
        let clock = clock();
        (NaiveAdaptive::new(config, adaptive, clock.clone(), fault), clock)
    });
}

/// What the suite says of the driver with this fault.
fn verdict(suite: fn(Fault), fault: Fault) -> String {
    let answer = catch_unwind(AssertUnwindSafe(|| suite(fault)));
    *answer.expect_err("the suite accepts it").downcast::<String>().unwrap()
}

#[test]
fn limiters_over_lists_of_times_are_accepted() {
    plain(Fault::None);
    adaptive(Fault::None);
}

#[test]
fn each_fault_of_a_plain_limiter_breaks_its_rule() {
    for (fault, rule) in [
        (Fault::WaitsForTheOldest, "who waits alone for wait_time is admitted"),
        (Fault::NeverForgets, "does not count again what had left"),
    ] {
        let verdict = verdict(plain, fault);
        assert!(verdict.contains(rule), "{fault:?}: {verdict}");
    }
}

#[test]
fn each_fault_of_an_adaptive_limiter_breaks_its_rule() {
    for (fault, rule) in [
        (Fault::WaitsForTheOldest, "who waits alone for wait_time is admitted"),
        (Fault::RecordComputes, "record computes no shares"),
        (Fault::OldActivity, "recent_user_activity and remaining are those of now"),
        (Fault::OldCounts, "recent_user_activity and remaining are those of now"),
        (Fault::AskingKeepsNothing, "asking computes the shares, too"),
        (Fault::RefusalKeepsNothing, "acquire computes the shares, also when it refuses"),
        (Fault::UsersNeverReturn, "after sustained inactivity a user may go"),
        (Fault::UsersReturnInCrowds, "after sustained inactivity a user may go"),
        (Fault::PausedWaitsForTheOldest, "a paused background waits"),
        (Fault::ResetKeepsShares, "reset forgets that there ever was a request"),
    ] {
        let verdict = verdict(adaptive, fault);
        assert!(verdict.contains(rule), "{fault:?}: {verdict}");
    }
}
