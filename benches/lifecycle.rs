//! How many whole lives a second: a form token inserted and then consumed, a state of 2 KB set and
//! then taken. Every step waits for the disk.
//!
//! The room is a file below the target directory, so the disk that is measured is the one that
//! cargo builds on.

#![allow(missing_docs, clippy::unwrap_used)]

use cloakroom::Cloakroom;
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lives that each caller sees through in one iteration.
const LIVES: u64 = 8;

/// Callers at once.
const THREADS: [usize; 2] = [1, 64];

/// The caller's clock, in Unix seconds, and a time long after it.
const NOW: u64 = 1_700_000_000;
const EXPIRES_AT: u64 = u64::MAX / 1_000_000;

/// Numbers lives, so that no two of them share a key, whichever benchmark they belong to.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The time in which `threads` callers see `count` lives through, `life` given the number of each.
fn run(count: u64, threads: usize, life: impl Fn(u64) + Sync) -> Duration {
    let end = NEXT.load(Ordering::Relaxed) + count;
    let ready = Barrier::new(threads + 1);
    let caller = || {
        ready.wait();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Instant::now();
            }
            life(number);
        }
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads).map(|_| scope.spawn(caller)).collect();
        ready.wait();
        let started = Instant::now();
        let ended = callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap();
        ended.duration_since(started)
    })
}

/// The number behind a scattered form of itself, so that neighbours in time are no neighbours in
/// the store.
fn name(number: u64) -> String {
    format!("{:016x}{number:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn token_life(room: &Cloakroom, subject: &TokenSubject, number: u64) {
    let (store, lookup_key) = (room.form_tokens(), LookupKey::new(name(number)));
    let record = FormTokenRecord {
        lookup_key: lookup_key.clone(),
        key_version: "1".into(),
        subject: subject.clone(),
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: NOW,
        expires_at: EXPIRES_AT,
    };
    store.insert_form_token(record).wait().unwrap();
    let (outcome, _) =
        store.consume_form_token(&lookup_key, subject, "pay", None, NOW).wait().unwrap();
    assert_eq!(outcome, TokenConsumeOutcome::Proceed);
}

fn state_life(room: &Cloakroom, state: &JsonObject, number: u64) {
    let (store, id) = (room.handoff(), name(number));
    store.set(&id, state, 600).wait().unwrap();
    let taken = store.get_and_delete(&id).wait().unwrap();
    assert_eq!(taken.as_ref(), Some(state));
}

/// About 2 KB of JSON: forty fields of a cart.
fn state() -> JsonObject {
    (0..40).map(|line| (format!("item-{line:02}"), format!("{line:036}").into())).collect()
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let room = Cloakroom::open(dir.path().join("lifecycle.cloak")).unwrap();
    let (subject, state) = (TokenSubject::Authenticated("user-4711".into()), state());

    let mut group = criterion.benchmark_group("lifecycle");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    for threads in THREADS {
        let lives = threads as u64 * LIVES;
        group.throughput(Throughput::Elements(lives));
        group.bench_function(BenchmarkId::new("token insert + consume", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                run(iterations * lives, threads, |number| token_life(&room, &subject, number))
            });
        });
        group.bench_function(BenchmarkId::new("2 KB state set + take", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                run(iterations * lives, threads, |number| state_life(&room, &state, number))
            });
        });
    }
    group.finish();
    room.close().unwrap();
}

criterion_group!(lifecycle_benches, benches);
criterion_main!(lifecycle_benches);
