//! What a store of agent state refuses, and why.
//!
//! It stands beside [`Error`], and not with its store, because each of the two holds the other:
//! the store answers what the engine says, and a transaction of several stores answers what the
//! store says.

use super::Error;

/// An error of a [`StateStore`](crate::state::StateStore). Nothing was applied, unless it is a
/// [`Store`](Self::Store) error that says otherwise ([`Error::OutcomeUnknown`]), or the answer of a
/// [`delete_scope`](crate::state::StateStore::delete_scope) in several steps, of which those before
/// the error stay.
///
/// A [`StateError`] becomes an [`Error`] and back without loss: `?` does both.
///
/// ```
/// use cloakroom::state::StateError;
/// use cloakroom::Error;
/// let error = Error::from(StateError::ConditionFailed);
/// assert!(matches!(StateError::from(error), StateError::ConditionFailed));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Tenant, user or session is empty. (An empty run is fine: the state is then the session's.)
    #[error("identity required: {0} is empty; tenant, user and session must all be given")]
    IdentityRequired(&'static str),

    /// The record, or another argument, is not one that the store works with. The text says why.
    #[error("invalid record: {0}")]
    InvalidRecord(String),

    /// There is no such state.
    #[error("no such state")]
    NotFound,

    /// The event id was saved before with other bytes, another version or another slot. That state
    /// is untouched.
    #[error(
        "this event id was saved before with other bytes, another version or another slot; mint a new id for a new \
         event"
    )]
    IdempotencyConflict,

    /// A listing over all tenants was asked for without [`ListScope::maintenance`], which says that
    /// it is meant.
    ///
    /// [`ListScope::maintenance`]: crate::state::ListScope::maintenance
    #[error("this reads across identities; pass `ListScope::maintenance()` if that is meant")]
    MaintenanceScopeRequired,

    /// A slot does not hold what was expected of it. Nothing was written.
    #[error("a slot does not hold what was expected of it; load it again and decide anew")]
    ConditionFailed,

    /// The limit, tenant, prefix or cursor of a scan is not one that the store works with. The text
    /// says why.
    #[error("invalid scan: {0}")]
    InvalidScan(String),

    /// The store was closed before this call.
    #[error("this call came after the state store was closed")]
    StoreClosed,

    /// No driver of this name is registered.
    #[error("no state driver is called {name:?}; the known ones are: {}", known.join(", "))]
    UnknownDriver {
        /// The name that was asked for.
        name: String,
        /// The names that are registered, sorted.
        known: Vec<String>,
    },

    /// An error of the engine: a string or record is too large, the disk failed, bytes are damaged.
    /// The inner error says what state it leaves behind.
    #[error(transparent)]
    Store(Error),
}

/// A closed room is a closed store; a refusal that went through a transaction of several stores is
/// itself again; every other error is the engine's.
impl From<Error> for StateError {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::StoreClosed,
            Error::State(refusal) => *refusal,
            error => Self::Store(error),
        }
    }
}

/// The inverse: what the engine said is itself again, and a refusal of the store is an
/// [`Error::State`].
impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::StoreClosed => Self::Closed,
            StateError::Store(error) => error,
            refusal => Self::State(Box::new(refusal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_errors_turn_into_each_other_and_back() {
        assert!(matches!(StateError::from(Error::Closed), StateError::StoreClosed));
        assert!(matches!(Error::from(StateError::StoreClosed), Error::Closed));
        let there = Error::from(StateError::ConditionFailed);
        assert_eq!(there.to_string(), StateError::ConditionFailed.to_string());
        assert!(matches!(StateError::from(there), StateError::ConditionFailed));
        let there = StateError::from(Error::AlreadyExists);
        assert!(matches!(there, StateError::Store(Error::AlreadyExists)));
        assert!(matches!(Error::from(there), Error::AlreadyExists));
    }

    #[test]
    fn an_unknown_driver_names_the_known_ones() {
        let error =
            StateError::UnknownDriver { name: "x".into(), known: vec!["a".into(), "b".into()] };
        assert_eq!(error.to_string(), "no state driver is called \"x\"; the known ones are: a, b");
    }
}
