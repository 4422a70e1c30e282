//! The engine passes the conformance suites whole, in memory and in a file.
#![cfg(feature = "conformance")]

use cloakroom::limits::MIN_LOG_CAPACITY;
use cloakroom::{Cloakroom, DedupeStore, Durability, ManualClock, conformance};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

#[test]
fn form_tokens_in_memory() {
    conformance::form_token(|| {
        let (room, clock) = in_memory();
        (room.form_tokens(), clock)
    });
}

#[test]
fn handoff_in_memory() {
    conformance::handoff(|| {
        let (room, clock) = in_memory();
        (room.handoff(), clock)
    });
}

#[test]
fn a_shared_trait_object_is_a_store() {
    conformance::form_token(|| {
        let (room, clock) = in_memory();
        (Arc::new(room.form_tokens()) as Arc<dyn cloakroom::FormTokenStore>, clock)
    });
    conformance::handoff(|| {
        let (room, clock) = in_memory();
        (Arc::new(room.handoff()) as Arc<dyn cloakroom::HandoffStateStore>, clock)
    });
}

#[test]
fn dedupe_in_memory() {
    conformance::dedupe(|| {
        let (room, clock) = in_memory();
        (room.dedupe("http"), clock)
    });
}

#[test]
fn dedupe_in_a_file_whatever_the_durability() {
    for durability in [Durability::Sync, Durability::Interval(Duration::from_millis(5)), Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let files = AtomicUsize::new(0);
        conformance::dedupe(|| {
            let clock = Arc::new(ManualClock::new(0));
            let path = dir.path().join(files.fetch_add(1, Ordering::Relaxed).to_string());
            let room = Cloakroom::builder()
                .log_capacity(4 * MIN_LOG_CAPACITY)
                .clock(clock.clone())
                .open(path)
                .unwrap();
            (Arc::new(room.dedupe("http").with_durability(durability)) as Arc<dyn DedupeStore<Value>>, clock)
        });
    }
}
