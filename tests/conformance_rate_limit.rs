//! The engine passes the conformance suites whole, in memory and in a file.
#![cfg(feature = "conformance")]

use cloakroom::{AdaptiveConfig, Cloakroom, ManualClock, RateLimitConfig, conformance};
use std::sync::Arc;

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    (room, clock)
}

fn in_a_file() -> (tempfile::TempDir, Cloakroom, Arc<ManualClock>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let room = Cloakroom::builder().clock(clock.clone()).open(dir.path().join("suite.cloak")).unwrap();
    (dir, room, clock)
}

#[test]
fn rate_limits_in_memory() {
    conformance::rate_limit(|config| {
        let (room, clock) = in_memory();
        (room.rate_limit("api", config).unwrap(), clock)
    });
}

#[test]
fn rate_limits_in_a_file() {
    let dirs = std::cell::RefCell::new(Vec::new());
    conformance::rate_limit(|config| {
        let (dir, room, clock) = in_a_file();
        dirs.borrow_mut().push(dir);
        (Arc::new(room.rate_limit("api", config).unwrap()) as Arc<dyn cloakroom::RateLimitStore>, clock)
    });
}

#[test]
fn adaptive_rate_limits_in_memory() {
    conformance::adaptive_rate_limit(|config: RateLimitConfig, adaptive: AdaptiveConfig| {
        let (room, clock) = in_memory();
        (room.adaptive_rate_limit("api", config, adaptive).unwrap(), clock)
    });
}

#[test]
fn adaptive_rate_limits_in_a_file() {
    let dirs = std::cell::RefCell::new(Vec::new());
    conformance::adaptive_rate_limit(|config, adaptive| {
        let (dir, room, clock) = in_a_file();
        dirs.borrow_mut().push(dir);
        let store = room.adaptive_rate_limit("api", config, adaptive).unwrap();
        (Arc::new(store) as Arc<dyn cloakroom::AdaptiveRateLimitStore>, clock)
    });
}
