//! How many form tokens a second are consumed durably: by callers that each wait for their answer,
//! and by callers that have many consumes in flight.
//!
//! The room is a file below the target directory, so the disk that is measured is the one that
//! cargo builds on.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, FormTokens, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::{Cloakroom, Pending};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Consumes of each blocking caller in one iteration.
const BLOCKING_OPS: u64 = 16;

/// Consumes that each pipelining caller has in flight, and makes in one iteration.
const DEPTH: usize = 1024;
const PIPELINED_OPS: u64 = 8 * DEPTH as u64;

/// How many tokens one transaction of the preparation inserts.
const PRELOAD_BATCH: usize = 500;

/// The caller's clock, in Unix seconds, and a time long after it.
const NOW: u64 = 1_700_000_000;
const EXPIRES_AT: u64 = u64::MAX / 1_000_000;

struct Bench {
    room: Cloakroom,
    subject: TokenSubject,
    /// Tokens inserted so far.
    inserted: u64,
}

/// A key like the keyed hash that callers use: the number, spread over 32 bytes, so that neighbours
/// in time are no neighbours in the store.
fn key(number: u64) -> LookupKey {
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    LookupKey::new(format!("{spread:016x}{number:016x}{:016x}{:016x}", !spread, !number))
}

impl Bench {
    fn new(room: Cloakroom) -> Self {
        Self { room, subject: TokenSubject::Authenticated("user-4711".into()), inserted: 0 }
    }

    /// Inserts `count` tokens and moves them into the B-tree, so that a consume finds its token
    /// there.
    fn insert(&mut self, count: u64) -> Range<u64> {
        let numbers = self.inserted..self.inserted + count;
        self.inserted = numbers.end;
        for batch in numbers.clone().step_by(PRELOAD_BATCH) {
            let inserted = self.room.atomically(|tx| {
                for number in batch..(batch + PRELOAD_BATCH as u64).min(numbers.end) {
                    tx.form_tokens().insert_form_token(FormTokenRecord {
                        lookup_key: key(number),
                        key_version: "1".into(),
                        subject: self.subject.clone(),
                        purpose: "pay".into(),
                        bound_resource: None,
                        issued_at: NOW,
                        expires_at: EXPIRES_AT,
                    })?;
                }
                Ok::<_, cloakroom::Error>(())
            });
            inserted.wait().unwrap();
        }
        self.room.checkpoint().unwrap();
        numbers
    }

    /// The time in which `threads` callers consume `count` fresh tokens with `depth` in flight
    /// each.
    fn consume(&mut self, count: u64, threads: usize, depth: usize) -> Duration {
        let numbers = self.insert(count);
        let (next, ready) = (AtomicU64::new(numbers.start), Barrier::new(threads + 1));
        let caller = || {
            let store = self.room.form_tokens();
            ready.wait();
            let mut in_flight = VecDeque::with_capacity(depth);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    break;
                }
                in_flight.push_back(consume(&store, number, &self.subject));
                if in_flight.len() == depth {
                    proceed(in_flight.pop_front());
                }
            }
            in_flight.into_iter().for_each(|answer| proceed(Some(answer)));
            Instant::now()
        };
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..threads).map(|_| scope.spawn(caller)).collect();
            ready.wait();
            let started = Instant::now();
            let ended = callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap();
            ended.duration_since(started)
        })
    }
}

type Answer = Pending<(TokenConsumeOutcome, Option<String>)>;

fn consume(store: &FormTokens, number: u64, subject: &TokenSubject) -> Answer {
    store.consume_form_token(&key(number), subject, "pay", None, NOW)
}

fn proceed(answer: Option<Answer>) {
    let (outcome, _) = answer.unwrap().wait().unwrap();
    assert_eq!(outcome, TokenConsumeOutcome::Proceed);
}

fn short(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut bench = Bench::new(Cloakroom::open(dir.path().join("consume.cloak")).unwrap());

    let mut group = criterion.benchmark_group("consume/blocking");
    short(&mut group);
    for threads in [1, 8, 64] {
        let ops = threads as u64 * BLOCKING_OPS;
        group.throughput(Throughput::Elements(ops));
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|iterations| bench.consume(iterations * ops, threads, 1));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("consume/pipelined");
    short(&mut group);
    for threads in [1, 2] {
        let ops = threads as u64 * PIPELINED_OPS;
        group.throughput(Throughput::Elements(ops));
        group.bench_function(
            BenchmarkId::from_parameter(format!("{threads}x{DEPTH}")),
            |bencher| {
                bencher.iter_custom(|iterations| bench.consume(iterations * ops, threads, DEPTH));
            },
        );
    }
    group.finish();
    bench.room.close().unwrap();
}

criterion_group!(consume_benches, benches);
criterion_main!(consume_benches);
