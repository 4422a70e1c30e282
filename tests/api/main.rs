//! The stores as a program uses them: each call's contract, its limits, models with random calls,
//! and many threads at once.

mod atomically;
mod cache;
mod cache_model;
#[cfg(feature = "codlet")]
mod codlet;
#[cfg(feature = "conformance")]
mod conformance;
mod crowd;
#[cfg(feature = "testing")]
mod dedupe;
#[cfg(feature = "testing")]
mod dedupe_model;
mod limits;
#[cfg(feature = "conformance")]
mod outside_driver;
mod pending;
mod prelude;
mod rate_limit_model;
mod read_only;
#[path = "../support/rooms.rs"]
mod rooms;
#[path = "../support/scale.rs"]
mod scale;
mod state;
mod state_model;
#[cfg(feature = "testing")]
mod stats;
mod stores_review;
#[cfg(feature = "testing")]
mod watch;
