//! The engine passes the conformance suites whole, in memory and in a file.
#![cfg(feature = "conformance")]

use cloakroom::{Cloakroom, ManualClock, conformance};
use std::sync::Arc;

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
