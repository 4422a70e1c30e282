//! The engine passes the conformance suite of caches whole, in memory and in a file.
#![cfg(feature = "conformance")]

use cloakroom::{CacheStore, Cloakroom, ManualClock, conformance};
use std::sync::Arc;

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

#[test]
fn cache_in_memory() {
    conformance::cache(|| {
        let (room, clock) = in_memory();
        (room.cache("http"), clock)
    });
}

#[test]
fn cache_in_a_file_beside_another() {
    let dir = tempfile::tempdir().unwrap();
    let files = std::sync::atomic::AtomicUsize::new(0);
    conformance::cache(|| {
        let clock = Arc::new(ManualClock::new(0));
        let file = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let room =
            Cloakroom::builder().clock(clock.clone()).open(dir.path().join(format!("{file}.cloak"))).unwrap();
        // Whatever the suite does in one cache, the neighbours keep their own.
        let value = conformance::CacheSample::Json("other".into());
        for name in ["", "htt", "http\0", "http\0\0"] {
            room.cache(name).set_with_tags("h", &value, 0, &["x", "tag"]).wait().unwrap();
        }
        // Limits that are never reached keep the order of use, which must change no answer.
        (room.cache("http").with_max_entries(1_000_000).with_max_bytes(1 << 40), clock)
    });
}
