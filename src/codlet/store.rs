//! The store that `codlet`'s managers are given.

use super::options::{DEFAULT_RETENTION, TxOptions, retention_ms};
use super::records::Kind;
use super::{code, convert, failures, session};
use crate::clock::Clock;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pending::Pending;
use crate::room::Cloakroom;
use crate::stores::form_token::row::TokenKey;
use crate::stores::form_token::{FormTokenStore as _, FormTokens};
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use ::codlet::admin::{CodeAdminStore, CodeListFilter, CodeMeta};
use ::codlet::store::{
    ClaimRequest, CodeRecord, CodeStore, FormTokenRecord, FormTokenStore, RateLimitKey,
    RateLimitOutcome, RateLimitPolicy, RateLimitStore, SessionRecord, SessionStore, StoreError,
    StoredCode, StoredSession, TokenSubject,
};
use ::codlet::{ClaimOutcome, CodeId, LookupKey, SessionId, TokenConsumeOutcome};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Everything that the crate `codlet` stores, in a room: a `FormTokenStore`, `CodeStore`,
/// `SessionStore`, `RateLimitStore` and `CodeAdminStore` of that crate. A cheap clone; give each
/// manager one.
///
/// See the [module](super) for what its answers mean.
///
/// # Errors
/// Of every method of those traits: `StoreError::InvariantViolation` for damaged bytes, and else
/// `StoreError::Backend` with the text of our [`Error`](crate::Error): a string over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), an id or lookup key that is taken, a closed room, a
/// failed disk. Nothing was applied, unless the text says that the outcome is unknown.
#[derive(Clone)]
pub struct CodletStore {
    /// For codes and sessions.
    handle: StoreHandle,
    /// For counted failures.
    failures: StoreHandle,
    form_tokens: FormTokens,
    retention: Duration,
}

impl Cloakroom {
    /// This file as the storage of the crate `codlet`.
    #[must_use]
    pub fn codlet(&self) -> CodletStore {
        self.into()
    }
}

impl From<&Cloakroom> for CodletStore {
    fn from(room: &Cloakroom) -> Self {
        Self {
            handle: StoreHandle::new(room.engine().clone(), room.durability()),
            failures: StoreHandle::new(room.engine().clone(), Durability::Os),
            form_tokens: room.form_tokens(),
            retention: DEFAULT_RETENTION,
        }
    }
}

impl CodletStore {
    /// The same store, with answers about form tokens, codes and sessions that wait for this
    /// durability. The default is the room's. With an interval of zero every call answers an error.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        let form_tokens = self.form_tokens.with_durability(durability);
        let handle = self.handle.with_durability(durability);
        Self { handle, form_tokens, ..self }
    }

    /// The same store, with answers about counted failures that wait for this durability. The
    /// default is [`Durability::Os`]: a power failure may forget the failures of the last moments,
    /// a crash of the process does not. With an interval of zero every such call answers an error.
    #[must_use]
    pub fn with_failures_durability(self, durability: Durability) -> Self {
        let failures = self.failures.with_durability(durability);
        Self { failures, ..self }
    }

    /// The same store; form tokens consumed through it answer `Replay` until this long after their
    /// expiry. The default is 24 hours.
    #[must_use]
    pub fn with_replay_grace(self, replay_grace: Duration) -> Self {
        let form_tokens = self.form_tokens.with_replay_grace(replay_grace);
        Self { form_tokens, ..self }
    }

    /// The same store; codes and sessions inserted through it are found until this long after their
    /// expiry, by the room's clock, whatever became of them. The default is [`DEFAULT_RETENTION`].
    /// Zero makes an expired record an unknown one.
    ///
    /// A record that is expired by the room's clock when it is inserted is kept this long from
    /// then.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// The room's clock as a clock of `codlet`, so that managers and room agree on what is expired.
    #[must_use]
    pub fn clock(&self) -> CodletClock {
        CodletClock { clock: self.handle.engine().clock() }
    }

    /// What holds in a transaction of `engine`.
    pub(super) fn options_within(&self, engine: &Engine) -> TxOptions {
        let foreign =
            if self.handle.engine().is(engine) { None } else { Some(Error::ForeignTransaction) };
        let checked = |handle: &StoreHandle| match (&foreign, handle.checked()) {
            (Some(foreign), _) => Err(foreign.clone()),
            (None, Err(refused)) => Err(refused),
            (None, Ok(_)) => Ok(handle.durability()),
        };
        TxOptions {
            records: checked(&self.handle),
            failures: checked(&self.failures),
            replay_grace: self.form_tokens.replay_grace(),
            retention: self.retention,
        }
    }

    fn retention_ms(&self) -> u64 {
        retention_ms(self.retention)
    }
}

impl fmt::Debug for CodletStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodletStore")
            .field("durability", &self.handle.durability())
            .field("failures_durability", &self.failures.durability())
            .field("form_tokens", &self.form_tokens)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// The clock of a room, as the managers of `codlet` take one. A cheap clone, which does not keep
/// the room open.
#[derive(Debug, Clone)]
pub struct CodletClock {
    clock: Arc<dyn Clock>,
}

impl ::codlet::Clock for CodletClock {
    fn unix_now(&self) -> u64 {
        self.clock.now_ms() / 1_000
    }
}

/// Waits for an answer whose change is applied already, and puts it in the words of `codlet`.
async fn answer<T, U>(pending: Pending<T>, into: impl FnOnce(T) -> U) -> Result<U, StoreError> {
    pending.await.map(into).map_err(convert::store_error)
}

impl FormTokenStore for CodletStore {
    fn insert_form_token(
        &self,
        record: FormTokenRecord,
    ) -> impl Future<Output = Result<(), StoreError>> {
        answer(self.form_tokens.insert_form_token(convert::form_token(record)), |()| ())
    }

    fn consume_form_token(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> impl Future<Output = Result<(TokenConsumeOutcome, Option<String>), StoreError>> {
        let keys = convert::lookup_keys(candidates);
        let subject = convert::subject(subject);
        let pending =
            self.form_tokens.consume_form_token_any(&keys, &subject, purpose, bound_resource, now);
        answer(pending, convert::outcome)
    }

    fn set_token_result(
        &self,
        candidates: &[LookupKey],
        result_ref: &str,
    ) -> impl Future<Output = Result<(), StoreError>> {
        answer(
            self.form_tokens.set_token_result_any(&convert::lookup_keys(candidates), result_ref),
            |()| (),
        )
    }
}

impl CodeStore for CodletStore {
    fn lookup_code(
        &self,
        candidates: &[LookupKey],
        scope: Option<&str>,
    ) -> impl Future<Output = Result<Option<StoredCode>, StoreError>> {
        let pending =
            self.handle.read(|rows| code::lookup(rows, &convert::encode_keys(candidates)?, scope));
        answer(pending, |found| found)
    }

    fn claim_code(
        &self,
        req: &ClaimRequest<'_>,
    ) -> impl Future<Output = Result<ClaimOutcome, StoreError>> {
        let row = [(Table::CODLET_CODE, req.code_id.as_str().as_bytes())];
        answer(self.handle.transact(&row, |tx| code::claim(tx, req)), |outcome| outcome)
    }

    fn insert_code(&self, record: CodeRecord) -> impl Future<Output = Result<(), StoreError>> {
        let retention_ms = self.retention_ms();
        answer(
            self.insert(Kind::Code, record.id.as_str(), &record.lookup_key, |tx| {
                code::insert(tx, &record, retention_ms)
            }),
            |()| (),
        )
    }

    fn revoke_code(
        &self,
        code_id: &CodeId,
        scope: Option<&str>,
        now: u64,
    ) -> impl Future<Output = Result<(), StoreError>> {
        let row = [(Table::CODLET_CODE, code_id.as_str().as_bytes())];
        let pending = self.handle.transact(&row, |tx| code::revoke(tx, code_id, scope, now));
        answer(pending, |()| ())
    }
}

impl CodletStore {
    /// Runs the insert of a record, with the rows looked up beforehand that decide whether it is
    /// there already.
    fn insert(
        &self,
        kind: Kind,
        id: &str,
        key: &LookupKey,
        operation: impl FnOnce(&mut crate::engine::Tx<'_>) -> Result<()>,
    ) -> Pending<()> {
        let key = match TokenKey::encode(&convert::lookup_key(key)) {
            Ok(key) => key,
            Err(error) => return Pending::ready(Err(error)),
        };
        let rows = [(kind.by_id(), id.as_bytes()), (kind.by_key(), key.as_bytes())];
        self.handle.transact(&rows, operation)
    }
}

impl CodeAdminStore for CodletStore {
    /// Reads every code there is; other callers do not wait meanwhile.
    fn list_codes(
        &self,
        filter: &CodeListFilter,
        now: u64,
    ) -> impl Future<Output = Result<Vec<CodeMeta>, StoreError>> {
        answer(self.handle.read(|rows| code::list(rows, filter, now)), |found| found)
    }

    fn get_code_meta(
        &self,
        code_id: &CodeId,
    ) -> impl Future<Output = Result<Option<CodeMeta>, StoreError>> {
        answer(self.handle.read(|rows| code::meta(rows, code_id)), |found| found)
    }
}

impl SessionStore for CodletStore {
    fn lookup_session(
        &self,
        candidates: &[LookupKey],
    ) -> impl Future<Output = Result<Option<StoredSession>, StoreError>> {
        let pending =
            self.handle.read(|rows| session::lookup(rows, &convert::encode_keys(candidates)?));
        answer(pending, |found| found)
    }

    fn insert_session(
        &self,
        record: SessionRecord,
    ) -> impl Future<Output = Result<(), StoreError>> {
        let retention_ms = self.retention_ms();
        answer(
            self.insert(Kind::Session, record.id.as_str(), &record.lookup_key, |tx| {
                session::insert(tx, &record, retention_ms)
            }),
            |()| (),
        )
    }

    fn revoke_session(
        &self,
        session_id: &SessionId,
        now: u64,
    ) -> impl Future<Output = Result<(), StoreError>> {
        let row = [(Table::CODLET_SESSION, session_id.as_str().as_bytes())];
        let pending = self.handle.transact(&row, |tx| session::revoke(tx, session_id, now));
        answer(pending, |()| ())
    }

    fn touch_session(
        &self,
        session_id: &SessionId,
        now: u64,
    ) -> impl Future<Output = Result<(), StoreError>> {
        let row = [(Table::CODLET_SESSION, session_id.as_str().as_bytes())];
        let pending = self.handle.transact(&row, |tx| session::touch(tx, session_id, now));
        answer(pending, |()| ())
    }
}

impl RateLimitStore for CodletStore {
    fn check(
        &self,
        key: &RateLimitKey,
        policy: &RateLimitPolicy,
    ) -> impl Future<Output = Result<RateLimitOutcome, StoreError>> {
        let pending = self.failures.read(|rows| failures::check(rows, key, policy));
        answer(pending, |outcome| outcome)
    }

    fn record_failure(
        &self,
        key: &RateLimitKey,
        policy: &RateLimitPolicy,
    ) -> impl Future<Output = Result<(), StoreError>> {
        let row = [(Table::CODLET_FAILURES, key.as_str().as_bytes())];
        let pending = self.failures.transact(&row, |tx| failures::record(tx, key, policy));
        answer(pending, |()| ())
    }

    fn clear_failures(&self, key: &RateLimitKey) -> impl Future<Output = Result<(), StoreError>> {
        let row = [(Table::CODLET_FAILURES, key.as_str().as_bytes())];
        let pending = self.failures.transact(&row, |tx| failures::clear(tx, key));
        answer(pending, |()| ())
    }
}
