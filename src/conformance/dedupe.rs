//! What every [`DedupeStore`] must do.

mod calls;
mod extremes;
mod guards;

use super::{RACERS, Rule, START, run};
use crate::clock::ManualClock;
use crate::limits::DEFAULT_JOB_TIMEOUT;
use crate::stores::dedupe::{DedupeStore, JobId, Registration};
use calls::*;
use serde_json::{Value, json};
use std::pin::pin;
use std::sync::Arc;
use std::sync::Barrier;
use std::task::{Context, Waker};
use std::thread::{self};
use std::time::Duration;

const ONE_MS: Duration = Duration::from_millis(1);

/// Runs the whole suite on stores that `factory` makes: fresh, empty, with the default job timeout
/// of 300 s, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones. A store that does not wake a waiter
/// makes the suite wait for ever.
pub fn dedupe<S: DedupeStore<Value> + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    run("dedupe", RULES, |check: &dyn Fn(&DedupeDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

const RULES: &[Rule<DedupeDriver>] = &[
    ("an unknown job is not in progress, and waiting for it is None at once", unknown),
    ("ending an unknown job changes nothing", end_unknown),
    ("the first to register is the owner, and others join its job", joins),
    ("register gives the pending job, or a new one", register),
    ("a pending job is in progress until its end", in_progress),
    ("a caller that waits for a completed job gets its value at once", value_at_once),
    ("a caller that waits for a pending job gets the value when it is completed", value_later),
    ("every waiter gets the value, on threads and on tasks", many_waiters),
    ("a caller that waits for a failed job gets None", failed),
    ("a caller that waits for a cleared job gets None", cleared),
    ("a caller that waits for a job gets None at its timeout, and not before", times_out),
    ("a job that timed out is as if it had never been", timed_out_is_absent),
    ("a job that ended makes the next caller an owner again", owner_again),
    ("the first end wins", first_end_wins),
    ("an owner ends its own job, once", owned),
    ("an owner that lost its job to a timeout cannot end it, nor the next owner's", lost),
    ("an owned end is false after every other end", owned_after_end),
    ("a finished job is kept for the timeout from its end, and no longer", kept),
    ("what was completed before a waiter looks is not taken back by a later job", value_of_its_job),
    ("a dropped waiter disturbs no other waiter", dropped_waiter),
    ("clear takes literal prefixes", clear_prefix),
    ("clear without a scope takes everything", clear_all),
    ("every JSON value comes back equal", json_values),
    ("any string up to 64 KiB is a hash, and no two are the same", extremes::any_hash),
    ("a hash over 64 KiB is TooLarge", extremes::too_large_hash),
    ("an owner ends its job through its guard, and joiners get the value", guards::completes),
    ("a guard that is dropped fails its job at once, also by a panic", guards::dropped),
    ("an answer that is dropped leaves no owner behind", guards::dropped_answer),
    ("a guard never ends the job of another owner", guards::of_another),
    ("a guard that is kept leaves its job pending", guards::kept),
    ("of many concurrent callers of own_or_join one owns, and all go on", guards::race_own),
    ("a job id comes back from its string form", extremes::id_by_string),
    ("a call sees every call before it, awaited or not", extremes::in_order),
    ("of many concurrent registrations exactly one is the owner", extremes::race_register),
    ("of many concurrent ends exactly one is the first", extremes::race_end),
    ("waiters that race with the end all get the value", extremes::race_wait),
    ("of many callers one fetches, and all have the value", extremes::race_fetch),
];

fn unknown(store: &DedupeDriver, _: &ManualClock) {
    own(store, "other");
    absent(store, "h");
    absent(store, "");
    assert!(in_flight(store, "other"));
}

fn end_unknown(store: &DedupeDriver, _: &ManualClock) {
    let other = own(store, "other");
    complete(store, "h", 1);
    store.fail("h", "no").wait().unwrap();
    assert!(!store.complete_owned("h", &other, &json!(1)).wait().unwrap());
    assert!(!store.fail_owned("h", &other, "no").wait().unwrap());
    store.clear(Some("h")).wait().unwrap();
    absent(store, "h");
    assert!(own(store, "h") != other && in_flight(store, "other"));
}

fn joins(store: &DedupeDriver, _: &ManualClock) {
    let job = own(store, "h");
    for _ in 0..3 {
        assert_eq!(join(store, "h"), Registration { job_id: job, is_owner: false });
    }
    assert_ne!(own(store, "other"), job);
}

fn register(store: &DedupeDriver, _: &ManualClock) {
    let job = store.register("h").wait().unwrap();
    assert_eq!(store.register("h").wait().unwrap(), job);
    assert_eq!(join(store, "h"), Registration { job_id: job, is_owner: false });
    complete(store, "h", 1);
    assert_ne!(store.register("h").wait().unwrap(), job);
    assert!(in_flight(store, "h"));
}

fn in_progress(store: &DedupeDriver, _: &ManualClock) {
    own(store, "done");
    own(store, "failed");
    assert!(in_flight(store, "done") && in_flight(store, "failed"));
    complete(store, "done", 1);
    store.fail("failed", "no").wait().unwrap();
    assert!(!in_flight(store, "done") && !in_flight(store, "failed"));
}

fn value_at_once(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    complete(store, "h", 1);
    for _ in 0..3 {
        assert_eq!(value(store, "h"), some(1));
        assert_eq!(block_on(store.wait_for("h")).unwrap(), some(1));
    }
}

fn value_later(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    let waiting = store.wait_for("h");
    assert!(!waiting.is_ready());
    complete(store, "h", 1);
    assert_eq!(waiting.wait().unwrap(), some(1));
}

/// What threads and tasks get that wait for `hash` when `end` happens.
fn waited(store: &DedupeDriver, hash: &str, end: impl FnOnce()) -> Vec<Option<Value>> {
    let waiting = Barrier::new(RACERS + 1);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..RACERS)
            .map(|index| {
                let pending = store.wait_for(hash);
                assert!(!pending.is_ready(), "there is nothing to wait for");
                let waiting = &waiting;
                scope.spawn(move || {
                    waiting.wait();
                    match index % 2 {
                        0 => pending.wait().unwrap(),
                        _ => block_on(pending).unwrap(),
                    }
                })
            })
            .collect();
        waiting.wait();
        end();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    })
}

fn many_waiters(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    own(store, "other");
    let other = store.wait_for("other");
    let got = waited(store, "h", || complete(store, "h", "v"));
    assert!(got.iter().all(|value| *value == some("v")), "{got:?}");
    assert!(!other.is_ready(), "another job's waiter was woken");
}

fn failed(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    let got = waited(store, "h", || store.fail("h", "no").wait().unwrap());
    assert!(got.iter().all(Option::is_none), "{got:?}");
    absent(store, "h");
    own(store, "owned");
    let waiting = store.wait_for("owned");
    assert!(store.fail_owned("owned", &join(store, "owned").job_id, "").wait().unwrap());
    assert_eq!(waiting.wait().unwrap(), None);
}

fn cleared(store: &DedupeDriver, _: &ManualClock) {
    for scope in [None, Some("h")] {
        own(store, "h");
        let got = waited(store, "h", || store.clear(scope).wait().unwrap());
        assert!(got.iter().all(Option::is_none), "{got:?}");
        absent(store, "h");
    }
}

fn times_out(store: &DedupeDriver, clock: &ManualClock) {
    own(store, "h");
    clock.set(START * 1_000 + 1);
    own(store, "later");
    let later = store.wait_for("later");
    let got = waited(store, "h", || {
        clock.advance(DEFAULT_JOB_TIMEOUT - ONE_MS - ONE_MS);
        assert!(in_flight(store, "h"));
        clock.advance(ONE_MS);
    });
    assert!(got.iter().all(Option::is_none), "{got:?}");
    assert!(!later.is_ready() && in_flight(store, "later"));
    complete(store, "later", 2);
    assert_eq!(later.wait().unwrap(), some(2));
}

fn timed_out_is_absent(store: &DedupeDriver, clock: &ManualClock) {
    let first = own(store, "h");
    clock.advance(DEFAULT_JOB_TIMEOUT);
    absent(store, "h");
    complete(store, "h", 1);
    store.fail("h", "no").wait().unwrap();
    absent(store, "h");
    assert_ne!(own(store, "h"), first);
    assert!(in_flight(store, "h"));
}

fn owner_again(store: &DedupeDriver, clock: &ManualClock) {
    let mut jobs = vec![own(store, "h")];
    complete(store, "h", 1);
    jobs.push(own(store, "h"));
    store.fail("h", "no").wait().unwrap();
    jobs.push(own(store, "h"));
    clock.advance(DEFAULT_JOB_TIMEOUT);
    jobs.push(own(store, "h"));
    store.clear(None).wait().unwrap();
    jobs.push(own(store, "h"));
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 5, "a job id was given twice");
}

fn first_end_wins(store: &DedupeDriver, _: &ManualClock) {
    own(store, "done");
    complete(store, "done", 1);
    complete(store, "done", 2);
    store.fail("done", "no").wait().unwrap();
    assert_eq!(value(store, "done"), some(1));
    own(store, "failed");
    store.fail("failed", "no").wait().unwrap();
    complete(store, "failed", 1);
    absent(store, "failed");
}

fn owned(store: &DedupeDriver, _: &ManualClock) {
    let (done, failed) = (own(store, "done"), own(store, "failed"));
    assert!(!store.complete_owned("done", &failed, &json!(9)).wait().unwrap());
    assert!(!store.fail_owned("failed", &done, "").wait().unwrap());
    assert!(in_flight(store, "done") && in_flight(store, "failed"));
    assert!(store.complete_owned("done", &done, &json!(1)).wait().unwrap());
    assert!(!store.complete_owned("done", &done, &json!(2)).wait().unwrap());
    assert_eq!(value(store, "done"), some(1));
    assert!(store.fail_owned("failed", &failed, "").wait().unwrap());
    assert!(!store.complete_owned("failed", &failed, &json!(2)).wait().unwrap());
    absent(store, "failed");
}

fn assert_lost(store: &DedupeDriver, job: &JobId) {
    assert!(!store.complete_owned("h", job, &json!(9)).wait().unwrap());
    assert!(!store.fail_owned("h", job, "no").wait().unwrap());
}

fn lost(store: &DedupeDriver, clock: &ManualClock) {
    let first = own(store, "h");
    clock.advance(DEFAULT_JOB_TIMEOUT);
    assert_lost(store, &first);
    let second = own(store, "h");
    let waiting = store.wait_for("h");
    assert_lost(store, &first);
    assert!(in_flight(store, "h") && !waiting.is_ready());
    assert!(store.complete_owned("h", &second, &json!(2)).wait().unwrap());
    assert_eq!(waiting.wait().unwrap(), some(2));
    assert_lost(store, &first);
}

fn owned_after_end(store: &DedupeDriver, _: &ManualClock) {
    for end in 0..3 {
        let job = own(store, "h");
        match end {
            0 => complete(store, "h", 1),
            1 => store.fail("h", "no").wait().unwrap(),
            _ => store.clear(None).wait().unwrap(),
        }
        let before = value(store, "h");
        assert_lost(store, &job);
        assert_eq!(value(store, "h"), before);
    }
}

fn kept(store: &DedupeDriver, clock: &ManualClock) {
    own(store, "h");
    clock.advance(DEFAULT_JOB_TIMEOUT - ONE_MS);
    complete(store, "h", 1);
    clock.advance(DEFAULT_JOB_TIMEOUT - ONE_MS);
    assert_eq!(value(store, "h"), some(1));
    clock.advance(ONE_MS);
    absent(store, "h");
}

fn value_of_its_job(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    let waiting = store.wait_for("h");
    complete(store, "h", 1);
    own(store, "h");
    assert_eq!(waiting.wait().unwrap(), some(1));
    let waiting = store.wait_for("h");
    complete(store, "h", 2);
    store.clear(None).wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), some(2));
}

fn dropped_waiter(store: &DedupeDriver, _: &ManualClock) {
    own(store, "h");
    let waiting = store.wait_for("h");
    drop(store.wait_for("h"));
    let mut polled = store.wait_for("h");
    assert!(pin!(&mut polled).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(polled);
    complete(store, "h", 1);
    assert_eq!(waiting.wait().unwrap(), some(1));
}

fn clear_prefix(store: &DedupeDriver, _: &ManualClock) {
    let hashes = ["", "a", "a%", "a%b", "a_", "ab", "a\0", "a\0b", "A", "b", "\u{10ffff}"];
    for scope in ["a%", "a_", "a\0", "a", "%", "*", "b", "\u{10ffff}", "no"] {
        for hash in hashes {
            own(store, hash);
        }
        store.clear(Some(scope)).wait().unwrap();
        for hash in hashes {
            assert_eq!(
                in_flight(store, hash),
                !hash.starts_with(scope),
                "{hash:?} after clearing {scope:?}"
            );
        }
        store.clear(Some("")).wait().unwrap();
        assert!(!hashes.iter().any(|hash| in_flight(store, hash)));
    }
}

fn clear_all(store: &DedupeDriver, _: &ManualClock) {
    for number in 0..500 {
        own(store, &number.to_string());
    }
    complete(store, "7", 1);
    store.clear(None).wait().unwrap();
    (0..500).for_each(|number| absent(store, &number.to_string()));
}

fn json_values(store: &DedupeDriver, _: &ManualClock) {
    let values = [
        json!(null),
        json!(true),
        json!(""),
        json!("\0\u{2028}𝄞 漢字"),
        json!([u64::MAX, i64::MIN, 0.1 + 0.2, 5e-324]),
        json!({ "": { "deep": [[[{}]]] } }),
        json!("x".repeat(1 << 20)),
    ];
    for value in values {
        own(store, "h");
        let waiting = store.wait_for("h");
        complete(store, "h", value.clone());
        assert_eq!(waiting.wait().unwrap().as_ref(), Some(&value));
        assert_eq!(self::value(store, "h"), Some(value));
    }
}
