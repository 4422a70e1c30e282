//! Owners with a guard, and those who join them.

use super::calls::*;
use crate::clock::ManualClock;
use crate::conformance::race;
use crate::limits::DEFAULT_JOB_TIMEOUT;
use crate::pending::Pending;
use crate::stores::dedupe::{Job, JobGuard};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn job(store: &DedupeDriver, hash: &str) -> Job<Value> {
    store.own_or_join(hash).wait().unwrap()
}

fn guard(store: &DedupeDriver, hash: &str) -> JobGuard<Value> {
    match job(store, hash) {
        Job::Owner(guard) => guard,
        Job::Joiner(_) => panic!("{hash:.9?} has an owner already"),
    }
}

fn joined(store: &DedupeDriver, hash: &str) -> Pending<Option<Value>> {
    match job(store, hash) {
        Job::Joiner(wait) => wait,
        Job::Owner(_) => panic!("{hash:.9?} has no owner"),
    }
}

pub(super) fn completes(store: &DedupeDriver, _: &ManualClock) {
    let owner = guard(store, "h");
    let waiting = [joined(store, "h"), joined(store, "h")];
    assert!(waiting.iter().all(|wait| !wait.is_ready()));
    assert_eq!(join(store, "h").job_id, owner.job_id(), "the job is the one that is registered");
    assert!(owner.complete(&json!(1)).wait().unwrap());
    for wait in waiting {
        assert_eq!(wait.wait().unwrap(), some(1));
    }
    assert_eq!(value(store, "h"), some(1));

    let owner = guard(store, "h");
    let waiting = joined(store, "h");
    assert!(owner.fail("no").wait().unwrap());
    assert_eq!(block_on(waiting).unwrap(), None);
    absent(store, "h");
}

pub(super) fn dropped(store: &DedupeDriver, _: &ManualClock) {
    let owner = guard(store, "h");
    let waiting = joined(store, "h");
    drop(owner);
    assert_eq!(waiting.wait().unwrap(), None, "the joiner must be woken at once");
    absent(store, "h");

    let owner = guard(store, "h");
    let waiting = joined(store, "h");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _owner = owner;
        // Not by `panic!`, whose message would be printed.
        std::panic::resume_unwind(Box::new("as planned"));
    }));
    assert!(panicked.is_err());
    assert_eq!(waiting.wait().unwrap(), None);
    assert!(matches!(job(store, "h"), Job::Owner(_)), "the next caller must be an owner");
}

pub(super) fn dropped_answer(store: &DedupeDriver, _: &ManualClock) {
    let waiting = {
        let unanswered = store.own_or_join("h");
        let waiting = joined(store, "h");
        drop(unanswered);
        waiting
    };
    assert_eq!(waiting.wait().unwrap(), None, "a cancelled call must not own a job");
    drop(guard(store, "h"));
    // One who joins and leaves changes nothing.
    let owner = guard(store, "h");
    drop(store.own_or_join("h"));
    drop(joined(store, "h"));
    assert!(in_flight(store, "h"));
    assert!(owner.complete(&json!(1)).wait().unwrap());
}

pub(super) fn of_another(store: &DedupeDriver, clock: &ManualClock) {
    let lost = [guard(store, "complete"), guard(store, "fail"), guard(store, "drop")];
    clock.advance(DEFAULT_JOB_TIMEOUT);
    let next = ["complete", "fail", "drop"].map(|hash| guard(store, hash));
    let [complete, fail, drops] = lost;
    assert!(!complete.complete(&json!("lost")).wait().unwrap());
    assert!(!fail.fail("lost").wait().unwrap());
    drop(drops);
    for (hash, owner) in ["complete", "fail", "drop"].into_iter().zip(next) {
        assert!(in_flight(store, hash), "{hash}: the lost guard ended the job of the next owner");
        assert!(owner.complete(&json!(hash)).wait().unwrap());
        assert_eq!(value(store, hash), some(hash));
    }
    // A job that was ended by its id is over for its guard.
    let owner = guard(store, "h");
    complete_by_id(store, "h", &owner);
    assert!(!owner.complete(&json!(2)).wait().unwrap());
    assert_eq!(value(store, "h"), some(1));
}

fn complete_by_id(store: &DedupeDriver, hash: &str, owner: &JobGuard<Value>) {
    assert!(store.complete_owned(hash, &owner.job_id(), &json!(1)).wait().unwrap());
}

pub(super) fn kept(store: &DedupeDriver, _: &ManualClock) {
    let job_id = guard(store, "h").keep();
    assert!(in_flight(store, "h"), "a guard that is kept ends nothing");
    assert!(store.complete_owned("h", &job_id, &json!(1)).wait().unwrap());
}

pub(super) fn race_own(store: &DedupeDriver, _: &ManualClock) {
    for round in 0..10 {
        let hash = format!("h{round}");
        let answers = race(|index| match job(store, &hash) {
            Job::Owner(owner) if round % 2 == 0 => {
                assert!(owner.complete(&json!(index)).wait().unwrap());
                (true, some(index))
            }
            Job::Owner(owner) => {
                drop(owner);
                (true, None)
            }
            Job::Joiner(wait) => (false, wait.wait().unwrap()),
        });
        let owners = answers.iter().filter(|(is_owner, _)| *is_owner).count();
        // A caller that comes after the end is the next owner.
        assert!(owners >= 1, "{answers:?}");
        if owners == 1 {
            let values: Vec<_> = answers.iter().map(|(_, value)| value).collect();
            assert!(values.iter().all(|value| Some(value) == values.first()), "{answers:?}");
        }
    }
}
