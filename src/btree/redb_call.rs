//! Calls into redb, and the failures that its errors and panics stand for.

use super::fault::{WindowFailure, from_io};
use super::window::Window;
use crate::error::Error;
use crate::observe;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls into redb. Damaged input may make it panic: that is reported as damage and does not end
/// the caller.
pub(super) fn guarded<T>(
    window: &Window,
    call: impl FnOnce() -> std::result::Result<T, redb::Error>,
) -> Result<T, WindowFailure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(from_redb(window, error)),
        Err(panic) => Err(from_panic(window, panic.as_ref())),
    }
}

/// The failure that a panic of redb stands for.
pub(super) fn from_panic(window: &Window, panic: &(dyn std::any::Any + Send)) -> WindowFailure {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    WindowFailure::Failed(damaged(window, format!("redb cannot read the B-tree: {said}")))
}

/// The failure that an error of redb stands for.
pub(super) fn from_redb(window: &Window, error: redb::Error) -> WindowFailure {
    match error {
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
            WindowFailure::Lost(error.to_string())
        }
        redb::Error::Io(error) => from_io(error),
        redb::Error::Corrupted(detail) => WindowFailure::Failed(damaged(window, detail)),
        redb::Error::ValueTooLarge(size) => WindowFailure::Failed(Error::TooLarge {
            what: "a row of the B-tree",
            size: size as u64,
            limit: 3 << 30,
        }),
        other => WindowFailure::Failed(damaged(window, other.to_string())),
    }
}

/// Damage, at the location where the window found it, if it did.
fn damaged(window: &Window, detail: String) -> Error {
    let (location, detail) = window.damage().unwrap_or_else(|| ("B-tree".to_owned(), detail));
    observe::corruption(&location, &detail);
    Error::corrupted(location, detail)
}
