//! What one `acquire` costs at a limit of 10 and of 100,000: against a full window, which denies
//! it, and while the window slides, so that each request that is admitted follows one that has just
//! left.
//!
//! The cost must not grow with the limit. The rooms are files below the target directory.

#![allow(missing_docs, clippy::unwrap_used)]

use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::{Cloakroom, ManualClock};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LIMITS: [u64; 2] = [10, 100_000];

/// One request in each of these fills a window exactly.
const STEP: Duration = Duration::from_millis(1);

const RESOURCE: &str = "https://api.example.com";

/// A limiter whose window is full: `limit` requests, the last of them made now and one `STEP`
/// between each two.
fn full(dir: &Path, limit: u64) -> (Cloakroom, Arc<ManualClock>, RateLimit) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let file = dir.join(format!("{limit}.cloak"));
    let room = Cloakroom::builder().clock(clock.clone()).open(file).unwrap();
    let window = STEP * u32::try_from(limit).unwrap();
    let limiter = room.rate_limit("bench", RateLimitConfig { limit, window }).unwrap();
    for _ in 0..limit {
        clock.advance(STEP);
        assert!(limiter.acquire(RESOURCE).wait().unwrap());
    }
    (room, clock, limiter)
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut group = criterion.benchmark_group("acquire");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for limit in LIMITS {
        let (room, clock, limiter) = full(dir.path(), limit);
        group.bench_function(BenchmarkId::new("full window", limit), |bencher| {
            bencher.iter(|| assert!(!limiter.acquire(RESOURCE).wait().unwrap()));
        });
        group.bench_function(BenchmarkId::new("sliding window", limit), |bencher| {
            bencher.iter(|| {
                clock.advance(STEP);
                assert!(limiter.acquire(RESOURCE).wait().unwrap());
            });
        });
        room.close().unwrap();
    }
    group.finish();
}

criterion_group!(rate_limit_benches, benches);
criterion_main!(rate_limit_benches);
