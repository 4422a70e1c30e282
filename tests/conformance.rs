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
    conformance::state(|| {
        let (room, clock) = in_memory();
        (Arc::new(room.state()) as Arc<dyn cloakroom::StateStore>, clock)
    });
}
