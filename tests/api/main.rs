//! The stores as a program uses them: each call's contract, its limits, models with random calls,
//! and many threads at once.

mod atomically;
mod bulk;
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
mod late_window;
#[cfg(feature = "conformance")]
mod limiter_canaries;
mod limits;
#[cfg(feature = "conformance")]
#[path = "../support/naive_limits.rs"]
mod naive_limits;
#[cfg(feature = "conformance")]
mod outside_driver;
mod pending;
mod prelude;
#[cfg(feature = "conformance")]
mod rate_limit_model;
mod rate_limits;
mod read_only;
#[path = "../support/rooms.rs"]
mod rooms;
#[path = "../support/scale.rs"]
mod scale;
#[cfg(feature = "testing")]
mod secrets;
mod state;
mod state_model;
#[cfg(feature = "testing")]
mod stats;
mod stores_review;
mod time_line;
mod time_line_model;
mod time_line_truth;
#[cfg(feature = "testing")]
mod watch;
#[cfg(feature = "testing")]
mod watch_rewrites;
mod within;
#[cfg(feature = "conformance")]
mod wrong_drivers;
#[cfg(feature = "conformance")]
mod wrong_states;
