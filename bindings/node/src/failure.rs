//! Errors on their way to JavaScript: a code that stays, a message, and what belongs to it.

use cloakroom::state::StateError;
use cloakroom::watch::WatchError;
use cloakroom::{Error, dedupe, handoff, page};
use serde_json::{Value, json};

/// A refusal, which becomes an object of an error class of the package.
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    /// An object in JSON.
    pub data: Value,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Value::Null }
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new("INVALID_ARGUMENT", message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, data) = match error {
            Error::Locked { path } => ("LOCKED", json!({ "path": path.display().to_string() })),
            Error::NotCloakroom { .. } => ("NOT_CLOAKROOM", Value::Null),
            Error::DifferentRoom { .. } => ("DIFFERENT_ROOM", Value::Null),
            Error::UnsupportedVersion { .. } => ("UNSUPPORTED_VERSION", Value::Null),
            Error::OutdatedVersion { .. } => ("OUTDATED_VERSION", Value::Null),
            Error::VersionTooOld { .. } => ("VERSION_TOO_OLD", Value::Null),
            Error::Corrupted { location, detail } => {
                ("CORRUPTED", json!({ "location": location, "detail": detail }))
            }
            Error::Io { source, .. } => ("IO", json!({ "errno": source.raw_os_error() })),
            Error::DiskFull { .. } => ("DISK_FULL", Value::Null),
            Error::LogFull { waited, retry_after, is_applied, .. } => {
                let retry_ms = retry_after.as_secs_f64() * 1000.0;
                let waited_ms = waited.as_secs_f64() * 1000.0;
                let data = json!({
                    "retryAfter": retry_ms.ceil(), "waited": waited_ms, "isApplied": is_applied
                });
                ("LOG_FULL", data)
            }
            Error::Unlinked { .. } => ("UNLINKED", Value::Null),
            Error::Forked => ("FORKED", Value::Null),
            Error::TooLarge { size, limit, .. } => {
                ("TOO_LARGE", json!({ "size": size, "limit": limit }))
            }
            Error::AlreadyExists => ("ALREADY_EXISTS", Value::Null),
            Error::NotEmpty { .. } => ("NOT_EMPTY", Value::Null),
            Error::Import { line, .. } => ("IMPORT", json!({ "line": line })),
            Error::InvalidConfig(_) => ("INVALID_CONFIG", Value::Null),
            Error::Encode(_) => ("ENCODE", Value::Null),
            Error::OutcomeUnknown { .. } => ("OUTCOME_UNKNOWN", Value::Null),
            Error::Poisoned { .. } => ("POISONED", Value::Null),
            Error::Unanswered => ("UNANSWERED", Value::Null),
            Error::Closed => ("CLOSED", Value::Null),
            Error::ReadOnly => ("READ_ONLY", Value::Null),
            Error::NestedTransaction => ("NESTED_TRANSACTION", Value::Null),
            Error::ForeignTransaction => ("FOREIGN_TRANSACTION", Value::Null),
            Error::State(refusal) => return Self::from(*refusal),
            // The enum may grow in a later version of the crate.
            _ => ("UNKNOWN", Value::Null),
        };
        Self { code, message, data }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let message = error.to_string();
        let code = match error {
            StateError::IdentityRequired(_) => "IDENTITY_REQUIRED",
            StateError::InvalidRecord(_) => "INVALID_RECORD",
            StateError::NotFound => "NOT_FOUND",
            StateError::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            StateError::MaintenanceScopeRequired => "MAINTENANCE_SCOPE_REQUIRED",
            StateError::ConditionFailed => "CONDITION_FAILED",
            StateError::InvalidScan(_) => "INVALID_SCAN",
            StateError::StoreClosed => "CLOSED",
            StateError::Store(error) => return Self::from(error),
            _ => "UNKNOWN",
        };
        Self::new(code, message)
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        let message = error.to_string();
        let (code, data) = match error {
            WatchError::Overtaken { missed_from_lsn, resumes_at_lsn } => {
                let data =
                    json!({ "missedFromLsn": missed_from_lsn, "resumesAtLsn": resumes_at_lsn });
                ("WATCH_LAGGED", data)
            }
            WatchError::Poisoned { .. } => ("POISONED", Value::Null),
            WatchError::Unlinked { .. } => ("UNLINKED", Value::Null),
            WatchError::Forked => ("FORKED", Value::Null),
            WatchError::Closed => ("CLOSED", Value::Null),
            _ => ("UNKNOWN", Value::Null),
        };
        Self { code, message, data }
    }
}

impl From<page::CursorParseError> for Failure {
    fn from(error: page::CursorParseError) -> Self {
        Self::argument(error.to_string())
    }
}

impl From<dedupe::JobIdParseError> for Failure {
    fn from(error: dedupe::JobIdParseError) -> Self {
        Self::argument(error.to_string())
    }
}

impl From<handoff::ClaimIdParseError> for Failure {
    fn from(error: handoff::ClaimIdParseError) -> Self {
        Self::argument(error.to_string())
    }
}
