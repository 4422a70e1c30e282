//! A crowd of threads on each store at once, with mixed operations, counted exactly.

use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, ManualClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const THREADS: usize = 128;

fn room() -> Cloakroom {
    let clock = Arc::new(ManualClock::new(1_000_000));
    Cloakroom::builder().clock(clock).open_in_memory().unwrap()
}

/// Runs `work` on every thread, with the thread's number.
fn crowd(work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

#[test]
fn a_crowd_consumes_each_form_token_once() {
    const TOKENS: usize = 60;
    let tokens = room().form_tokens();
    let (inserted, proceeds, replays) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    crowd(|thread| {
        for step in 0..TOKENS {
            let lookup_key = LookupKey::new(format!("{:04x}", (step + thread) % TOKENS));
            let subject = TokenSubject::Anonymous;
            let record = FormTokenRecord {
                lookup_key: lookup_key.clone(),
                key_version: "1".into(),
                subject: subject.clone(),
                purpose: "pay".into(),
                bound_resource: None,
                issued_at: 1_000,
                expires_at: 2_000,
            };
            if tokens.insert_form_token(record).wait().is_ok() {
                inserted.fetch_add(1, Ordering::Relaxed);
            }
            match tokens
                .consume_form_token(&lookup_key, &subject, "pay", None, 1_000)
                .wait()
                .unwrap()
                .0
            {
                TokenConsumeOutcome::Proceed => {
                    tokens.set_token_result(&lookup_key, "done").wait().unwrap();
                    proceeds.fetch_add(1, Ordering::Relaxed)
                }
                TokenConsumeOutcome::Replay => replays.fetch_add(1, Ordering::Relaxed),
                outcome => panic!("{outcome:?}"),
            };
        }
    });
    let counts = [inserted, proceeds, replays].map(AtomicUsize::into_inner);
    assert_eq!(counts, [TOKENS, TOKENS, TOKENS * THREADS - TOKENS]);
}

#[test]
fn a_crowd_takes_each_state_once_however_it_takes_it() {
    const STATES: usize = 60;
    let handoff = room().handoff();
    let taken: Vec<AtomicUsize> = (0..STATES).map(|_| AtomicUsize::new(0)).collect();
    for number in 0..STATES {
        let state: JsonObject = [("number".to_owned(), number.into())].into_iter().collect();
        handoff.set(&number.to_string(), &state, 600).wait().unwrap();
    }
    crowd(|thread| {
        for step in 0..STATES {
            let number = (step + thread) % STATES;
            let id = number.to_string();
            let got = match (step + thread) % 3 {
                0 => handoff.get_and_delete(&id).wait().unwrap().is_some(),
                1 => handoff
                    .claim(&id, Duration::from_secs(60))
                    .wait()
                    .unwrap()
                    .is_some_and(|claim| handoff.ack(&claim.id).wait().unwrap()),
                _ => {
                    if let Some(claim) = handoff.claim(&id, Duration::from_secs(60)).wait().unwrap()
                    {
                        assert!(handoff.release(&claim.id).wait().unwrap());
                    }
                    false
                }
            };
            taken[number].fetch_add(usize::from(got), Ordering::Relaxed);
        }
        // What was only claimed when this thread came by is there again.
        for (number, taken) in taken.iter().enumerate() {
            let got = handoff.get_and_delete(&number.to_string()).wait().unwrap().is_some();
            taken.fetch_add(usize::from(got), Ordering::Relaxed);
        }
    });
    let left = (0..STATES)
        .filter(|number| handoff.get(&number.to_string()).wait().unwrap().is_some())
        .count();
    assert_eq!(left, 0);
    assert!(taken.into_iter().all(|taken| taken.into_inner() == 1));
}

#[test]
fn a_crowd_never_has_two_owners_of_a_job_and_everybody_gets_its_value() {
    const JOBS: usize = 20;
    let jobs = room().dedupe::<usize>("http");
    let owned: Vec<AtomicBool> = (0..JOBS).map(|_| AtomicBool::new(false)).collect();
    crowd(|thread| {
        for step in 0..JOBS {
            let number = (step + thread) % JOBS;
            let hash = number.to_string();
            let registration = jobs.register_or_join(&hash).wait().unwrap();
            if registration.is_owner {
                assert!(!owned[number].swap(true, Ordering::SeqCst), "two owners at once");
                owned[number].store(false, Ordering::SeqCst);
                assert!(jobs.complete_owned(&hash, &registration.job_id, &number).wait().unwrap());
            }
            // Completed by this thread or by the owner, and perhaps begun anew since: then that one
            // completes it.
            assert_eq!(jobs.wait_for(&hash).wait().unwrap(), Some(number));
        }
    });
}

#[test]
fn a_crowd_is_admitted_exactly_up_to_the_limit() {
    let config = RateLimitConfig { limit: 1_000, window: Duration::from_secs(60) };
    let limiter = room().rate_limit("api", config).unwrap();
    let (admitted, other) = (AtomicUsize::new(0), AtomicUsize::new(0));
    crowd(|thread| {
        for step in 0..20 {
            if limiter.acquire("one").wait().unwrap() {
                admitted.fetch_add(1, Ordering::Relaxed);
            }
            if (step + thread) % 4 == 0 && limiter.acquire("other").wait().unwrap() {
                other.fetch_add(1, Ordering::Relaxed);
            }
            assert!(limiter.status("one").wait().unwrap().remaining <= 1_000);
        }
    });
    assert_eq!((admitted.into_inner(), other.into_inner()), (1_000, THREADS * 5));
    assert!(!limiter.can_proceed("one").wait().unwrap());
}

#[test]
fn a_crowd_of_both_priorities_stays_within_its_shares() {
    let config = RateLimitConfig { limit: 100, window: Duration::from_secs(60) };
    let limiter = room().adaptive_rate_limit("api", config, AdaptiveConfig::default()).unwrap();
    let admitted = [AtomicUsize::new(0), AtomicUsize::new(0)];
    crowd(|thread| {
        for _ in 0..4 {
            // The clock stands still, so the capacity of the first request, when nothing was ever
            // recorded, holds.
            let priority = if thread % 2 == 0 { Priority::User } else { Priority::Background };
            if limiter.acquire("api", priority).wait().unwrap() {
                admitted[thread % 2].fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(admitted.map(AtomicUsize::into_inner), [30, 70]);
}
