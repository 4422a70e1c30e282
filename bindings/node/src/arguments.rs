//! Arguments from JavaScript as the crate takes them. Their types were checked there.

use crate::failure::Failure;
use cloakroom::Durability;
use std::time::Duration;

/// The largest whole number that a JavaScript number holds exactly.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// A number that is not negative, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked in the line before"
)]
pub fn whole(number: f64) -> Result<u64, Failure> {
    if (0.0..=MAX_SAFE_INTEGER).contains(&number) {
        return Ok(number as u64);
    }
    Err(Failure::argument(format!("{number} is not a number from 0 to 2^53 - 1")))
}

/// Milliseconds. A fraction counts: a span that is not zero does not become zero.
pub fn span(ms: f64) -> Result<Duration, Failure> {
    if (0.0..=MAX_SAFE_INTEGER).contains(&ms) {
        return Ok(Duration::from_secs_f64(ms / 1000.0));
    }
    Err(Failure::argument(format!("{ms} is not a span of 0 to 2^53 - 1 milliseconds")))
}

/// `0` is `Sync`, a negative number `Os`, a positive one an interval in milliseconds.
pub fn durability(code: f64) -> Result<Durability, Failure> {
    if code == 0.0 {
        return Ok(Durability::Sync);
    }
    if code < 0.0 { Ok(Durability::Os) } else { Ok(Durability::Interval(span(code)?)) }
}
