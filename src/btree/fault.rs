//! What redb's errors and panics mean.

use super::window::Window;
use crate::error::Error;
use crate::observe;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call into redb did not answer.
#[derive(Debug)]
pub(super) enum WindowFailure {
    /// This database answers nothing any more because of what another call met; a fresh one may.
    Lost(String),
    /// This call failed.
    Failed(Error),
}

impl WindowFailure {
    /// The error to report when there is no other database to ask.
    pub(super) fn into_error(self) -> Error {
        match self {
            WindowFailure::Lost(reason) => {
                Error::io("the B-tree must be reopened", io::Error::other(reason))
            }
            WindowFailure::Failed(error) => error,
        }
    }
}

impl From<Error> for WindowFailure {
    fn from(error: Error) -> Self {
        WindowFailure::Failed(error)
    }
}

/// Calls into redb. Damaged input may make it panic; that is damage found, not a reason to end the
/// caller.
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
    WindowFailure::Failed(damaged(window, format!("the B-tree cannot be made sense of: {said}")))
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

/// The failure that an error of the window stands for: the one that it carries, if any.
pub(super) fn from_io(error: io::Error) -> WindowFailure {
    if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        if let Error::Corrupted { location, detail } = own {
            observe::corruption(location, detail);
        }
        return WindowFailure::Failed(own.clone());
    }
    if error.kind() == io::ErrorKind::BrokenPipe {
        return WindowFailure::Lost(error.to_string());
    }
    WindowFailure::Failed(Error::io("the B-tree", error))
}

/// Damage, at the place where the window found it if it did.
fn damaged(window: &Window, detail: String) -> Error {
    let (location, detail) = window.damage().unwrap_or_else(|| ("B-tree".to_owned(), detail));
    observe::corruption(&location, &detail);
    Error::corrupted(location, detail)
}
