//! What a store of agent state keeps, and what may be asked of it.

use super::StateError;
use crate::stores::hidden::Hidden;
use crate::stores::length::check_len;
use crate::sync::plain::Mutex;
use crate::unique::RisingUlids;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Names one event: what wrote a state. Usually a ULID, but any non-empty string will do.
///
/// ```
/// use cloakroom::state::EventId;
/// assert!(EventId::new() < EventId::new());
/// assert_eq!(EventId::from("order-7").as_str(), "order-7");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(String);

impl EventId {
    /// Mints a ULID. Within a process each is greater than the one before, also as a string. A
    /// forked child mints none that its parent mints.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that is another one each time would surprise"
    )]
    pub fn new() -> Self {
        static IDS: Mutex<RisingUlids> = Mutex::new(RisingUlids::new());
        Self(IDS.lock().next().to_string())
    }

    /// The id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EventId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl From<&str> for EventId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl FromStr for EventId {
    type Err = Infallible;

    fn from_str(id: &str) -> Result<Self, Infallible> {
        Ok(Self::from(id))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose state it is. Tenant, user and session must not be empty; a state with an empty run is the
/// session's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Identity {
    /// The tenant.
    pub tenant: String,
    /// The user of that tenant.
    pub user: String,
    /// The session of that user.
    pub session: String,
    /// The run of that session, or empty.
    pub run: String,
}

impl Identity {
    /// The identity of a run, or of a session when `run` is empty.
    pub fn new(
        tenant: impl Into<String>,
        user: impl Into<String>,
        session: impl Into<String>,
        run: impl Into<String>,
    ) -> Self {
        Self { tenant: tenant.into(), user: user.into(), session: session.into(), run: run.into() }
    }

    /// The same tenant, user and session, with this run; an empty one means the session itself.
    #[must_use]
    pub fn with_run(self, run: impl Into<String>) -> Self {
        Self { run: run.into(), ..self }
    }
}

/// One state. There is one per slot, which is an identity and a kind.
#[derive(Clone, PartialEq, Eq)]
pub struct StateRecord {
    /// The event that wrote it.
    pub id: EventId,
    /// Whose it is.
    pub identity: Identity,
    /// What it is.
    pub kind: String,
    /// A version for the caller's use; the store compares it and nothing else.
    pub version: i64,
    /// The state itself.
    pub bytes: Vec<u8>,
    /// When it was saved, in milliseconds since the Unix epoch. The store sets it when it is
    /// absent, so a record that was loaded always has it.
    pub updated_at: Option<u64>,
}

/// Shows everything but the content.
impl fmt::Debug for StateRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateRecord")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .field("kind", &self.kind)
            .field("version", &self.version)
            .field("bytes", &Hidden::bytes(&self.bytes))
            .field("updated_at", &self.updated_at)
            .finish()
    }
}

impl StateRecord {
    /// A record with a new event id and version 1, whose time the store sets.
    pub fn new(identity: Identity, kind: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let (kind, bytes) = (kind.into(), bytes.into());
        Self { id: EventId::new(), identity, kind, version: 1, bytes, updated_at: None }
    }

    /// The same record, written by this event.
    #[must_use]
    pub fn with_id(self, id: impl Into<EventId>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// The same record, with this version.
    #[must_use]
    pub fn with_version(self, version: i64) -> Self {
        Self { version, ..self }
    }

    /// The same record, saved at this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn with_updated_at(self, updated_at: u64) -> Self {
        Self { updated_at: Some(updated_at), ..self }
    }
}

/// What a slot must hold for a conditional operation to go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotExpectation {
    /// Whose slot it is.
    pub identity: Identity,
    /// The kind of the slot.
    pub kind: String,
    /// The event id that it must hold, or `None` when it must be absent.
    pub expected: Option<EventId>,
}

impl SlotExpectation {
    /// Expects the slot to be absent.
    pub fn absent(identity: Identity, kind: impl Into<String>) -> Self {
        Self { identity, kind: kind.into(), expected: None }
    }

    /// Expects the slot to hold what the event `id` wrote.
    pub fn current(identity: Identity, kind: impl Into<String>, id: EventId) -> Self {
        Self { identity, kind: kind.into(), expected: Some(id) }
    }
}

/// How far a listing may reach. The default reaches nowhere: listings over all identities are for
/// maintenance, and have to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ListScope {
    maintenance: bool,
}

impl ListScope {
    /// Allows listings across identities.
    #[must_use]
    pub fn maintenance() -> Self {
        Self { maintenance: true }
    }

    /// Whether listings across identities are allowed.
    #[must_use]
    pub fn is_maintenance(self) -> bool {
        self.maintenance
    }
}

/// Whether states can be this identity's.
///
/// # Errors
/// [`IdentityRequired`](StateError::IdentityRequired) when tenant, user or session is empty;
/// [`TooLarge`](crate::Error::TooLarge) when a part is over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN).
pub fn validate_identity(identity: &Identity) -> Result<(), StateError> {
    validate_session(&identity.tenant, &identity.user, &identity.session)?;
    Ok(check_len("the run", &identity.run)?)
}

/// Whether a record can be saved.
///
/// # Errors
/// As [`validate_identity`]; [`InvalidRecord`](StateError::InvalidRecord) when the kind or the
/// event id is empty; [`TooLarge`](crate::Error::TooLarge) when one of them is over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN).
pub fn validate_record(record: &StateRecord) -> Result<(), StateError> {
    validate_slot(&record.identity, &record.kind)?;
    validate_event_id(&record.id)
}

/// Whether all states whose kind starts with `kind_prefix` may be listed.
///
/// # Errors
/// [`MaintenanceScopeRequired`](StateError::MaintenanceScopeRequired) unless `scope` is that of
/// maintenance; [`InvalidRecord`](StateError::InvalidRecord) when the prefix is empty;
/// [`TooLarge`](crate::Error::TooLarge) when it is over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN).
pub fn validate_list_kind(scope: ListScope, kind_prefix: &str) -> Result<(), StateError> {
    if !scope.is_maintenance() {
        return Err(StateError::MaintenanceScopeRequired);
    }
    validate_kind_prefix(kind_prefix)
}

pub(crate) fn validate_session(tenant: &str, user: &str, session: &str) -> Result<(), StateError> {
    let parts = [("the tenant", tenant), ("the user", user), ("the session", session)];
    for (what, part) in parts {
        if part.is_empty() {
            return Err(StateError::IdentityRequired(what));
        }
    }
    parts.into_iter().try_for_each(|(what, part)| Ok(check_len(what, part)?))
}

pub(crate) fn validate_slot(identity: &Identity, kind: &str) -> Result<(), StateError> {
    validate_identity(identity)?;
    not_empty("the kind", kind)
}

pub(crate) fn validate_event_id(id: &EventId) -> Result<(), StateError> {
    not_empty("the event id", id.as_str())
}

pub(crate) fn validate_kind_prefix(kind_prefix: &str) -> Result<(), StateError> {
    not_empty("the kind prefix", kind_prefix)
}

fn not_empty(what: &'static str, text: &str) -> Result<(), StateError> {
    if text.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    Ok(check_len(what, text)?)
}

pub(crate) fn invalid(why: impl Into<String>) -> StateError {
    StateError::InvalidRecord(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::limits::MAX_KEY_LEN;

    #[test]
    fn minted_ids_rise_on_all_threads_and_are_ulids() {
        let mut minted: Vec<EventId> = std::thread::scope(|scope| {
            let mint = || {
                let ids: Vec<_> = (0..1_000).map(|_| EventId::new()).collect();
                assert!(ids.is_sorted_by(|a, b| a < b));
                ids
            };
            let minters: Vec<_> = (0..4).map(|_| scope.spawn(mint)).collect();
            minters.into_iter().flat_map(|minter| minter.join().unwrap()).collect()
        });
        minted.sort();
        minted.dedup();
        assert_eq!(minted.len(), 4_000);
        assert!(minted.iter().all(|id| ulid::Ulid::from_string(id.as_str()).is_ok()));
    }

    #[test]
    fn every_part_has_a_limit_and_its_own_refusal() {
        let long = "k".repeat(MAX_KEY_LEN + 1);
        let good = StateRecord::new(Identity::new("t", "u", "s", ""), "k", *b"b");
        assert!(validate_record(&good).is_ok());
        for (tenant, user, session) in [("", "u", "s"), ("t", "", "s"), ("t", "u", "")] {
            let bad =
                StateRecord { identity: Identity::new(tenant, user, session, "r"), ..good.clone() };
            assert!(matches!(validate_record(&bad), Err(StateError::IdentityRequired(_))));
        }
        for bad in [
            StateRecord { kind: String::new(), ..good.clone() },
            StateRecord { id: "".into(), ..good.clone() },
        ] {
            assert!(matches!(validate_record(&bad), Err(StateError::InvalidRecord(_))));
        }
        for bad in [
            StateRecord { identity: Identity::new(&long, "u", "s", "r"), ..good.clone() },
            StateRecord { identity: Identity::new("t", &long, "s", "r"), ..good.clone() },
            StateRecord { identity: Identity::new("t", "u", &long, "r"), ..good.clone() },
            StateRecord { identity: Identity::new("t", "u", "s", &long), ..good.clone() },
            StateRecord { kind: long.clone(), ..good.clone() },
            StateRecord { id: long.clone().into(), ..good.clone() },
        ] {
            assert!(matches!(
                validate_record(&bad),
                Err(StateError::Store(Error::TooLarge { .. }))
            ));
        }
    }

    #[test]
    fn a_listing_fails_closed() {
        use StateError::{InvalidRecord, MaintenanceScopeRequired};
        assert!(matches!(
            validate_list_kind(ListScope::default(), "k"),
            Err(MaintenanceScopeRequired)
        ));
        assert!(matches!(
            validate_list_kind(ListScope::default(), ""),
            Err(MaintenanceScopeRequired)
        ));
        assert!(matches!(validate_list_kind(ListScope::maintenance(), ""), Err(InvalidRecord(_))));
        assert!(validate_list_kind(ListScope::maintenance(), "k").is_ok());
    }
}
