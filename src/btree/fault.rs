//! The failures of the B-tree's storage.

use crate::error::Error;
use crate::observe;
use std::io;

/// Why a call into redb failed.
#[derive(Debug)]
pub(super) enum WindowFailure {
    /// This database fails every call because of an earlier fault. A reopened one may succeed.
    Lost(String),
    /// This call failed.
    Failed(Error),
}

impl WindowFailure {
    /// The error to return when no other database can be opened.
    pub(super) fn into_error(self) -> Error {
        match self {
            WindowFailure::Lost(reason) => Error::io(
                "the B-tree failed in an earlier call; try again",
                io::Error::other(reason),
            ),
            WindowFailure::Failed(error) => error,
        }
    }
}

impl From<Error> for WindowFailure {
    fn from(error: Error) -> Self {
        WindowFailure::Failed(error)
    }
}

/// The failure that an error of the window stands for: the error that it carries, if any.
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
    if error.kind() == io::ErrorKind::InvalidData {
        // redb found bytes that it did not write.
        let detail = error.to_string();
        observe::corruption(&"B-tree", &detail);
        return WindowFailure::Failed(Error::corrupted("B-tree", detail));
    }
    WindowFailure::Failed(Error::reading("the B-tree", error))
}
