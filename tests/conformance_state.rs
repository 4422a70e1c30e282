//! The engine passes the conformance suites whole, in memory and in a file.
#![cfg(feature = "conformance")]

use cloakroom::{Cloakroom, ManualClock, conformance, drivers};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

#[test]
fn state_in_memory() {
    conformance::state(|| {
        let (room, clock) = in_memory();
        (room.state(), clock)
    });
}

#[test]
fn state_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let opened = AtomicUsize::new(0);
    conformance::state(|| {
        let clock = Arc::new(ManualClock::new(0));
        let path = dir.path().join(format!("{}.cloak", opened.fetch_add(1, Ordering::Relaxed)));
        let room = Cloakroom::builder().clock(clock.clone()).open(path).unwrap();
        (room.state(), clock)
    });
}

#[test]
fn state_of_the_reference_driver() {
    conformance::state(|| {
        let clock = Arc::new(ManualClock::new(0));
        (drivers::InMemoryState::with_clock(clock.clone()), clock)
    });
}
