//! What `codlet` stores, as a transaction sees it.

use super::store::DEFAULT_RETENTION;
use super::{code, convert, failures, session};
use crate::engine::access::Writer;
use crate::error::Result;
use crate::room::Transaction;
use crate::stores::form_token::FormTokensTx;
use ::codlet::store::{
    ClaimRequest, CodeRecord, FormTokenRecord, RateLimitKey, RateLimitOutcome, RateLimitPolicy,
    SessionRecord, StoredCode, StoredSession, TokenSubject,
};
use ::codlet::{ClaimOutcome, CodeId, LookupKey, SessionId, TokenConsumeOutcome};
use std::fmt;
use std::time::Duration;

impl Transaction<'_> {
    /// What the crate `codlet` stores: the operations of its traits, answering at once.
    ///
    /// It closes a gap that those traits leave open: a code is claimed and its session stored, or
    /// neither.
    pub fn codlet(&mut self) -> CodletTx<'_> {
        CodletTx { tx: self.writer(), retention: DEFAULT_RETENTION }
    }
}

/// What the crate `codlet` stores, inside a transaction: the operations of its traits, answering at
/// once and seeing what the transaction has done so far. What they change is kept or lost with the
/// transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct CodletTx<'a> {
    tx: &'a mut dyn Writer,
    retention: Duration,
}

impl CodletTx<'_> {
    /// The same view; see [`CodletStore::with_retention`](super::CodletStore::with_retention).
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    fn retention_ms(&self) -> u64 {
        u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX)
    }

    /// See `codlet::store::FormTokenStore::insert_form_token`.
    pub fn insert_form_token(&mut self, record: FormTokenRecord) -> Result<()> {
        FormTokensTx::new(self.tx).insert_form_token(convert::form_token(record))
    }

    /// See `codlet::store::FormTokenStore::consume_form_token`.
    pub fn consume_form_token(
        &mut self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Result<(TokenConsumeOutcome, Option<String>)> {
        let keys = convert::lookup_keys(candidates);
        let subject = convert::subject(subject);
        FormTokensTx::new(self.tx)
            .consume_form_token_any(&keys, &subject, purpose, bound_resource, now)
            .map(convert::outcome)
    }

    /// See `codlet::store::FormTokenStore::set_token_result`.
    pub fn set_token_result(&mut self, candidates: &[LookupKey], result_ref: &str) -> Result<()> {
        FormTokensTx::new(self.tx)
            .set_token_result_any(&convert::lookup_keys(candidates), result_ref)
    }

    /// See `codlet::store::CodeStore::lookup_code`.
    pub fn lookup_code(
        &mut self,
        candidates: &[LookupKey],
        scope: Option<&str>,
    ) -> Result<Option<StoredCode>> {
        code::lookup(self.tx, &convert::encode_keys(candidates)?, scope)
    }

    /// See `codlet::store::CodeStore::claim_code`.
    pub fn claim_code(&mut self, request: &ClaimRequest<'_>) -> Result<ClaimOutcome> {
        code::claim(self.tx, request)
    }

    /// See `codlet::store::CodeStore::insert_code`.
    pub fn insert_code(&mut self, record: &CodeRecord) -> Result<()> {
        let retention_ms = self.retention_ms();
        code::insert(self.tx, record, retention_ms)
    }

    /// See `codlet::store::CodeStore::revoke_code`.
    pub fn revoke_code(&mut self, code_id: &CodeId, scope: Option<&str>, now: u64) -> Result<()> {
        code::revoke(self.tx, code_id, scope, now)
    }

    /// See `codlet::store::SessionStore::lookup_session`.
    pub fn lookup_session(&mut self, candidates: &[LookupKey]) -> Result<Option<StoredSession>> {
        session::lookup(self.tx, &convert::encode_keys(candidates)?)
    }

    /// See `codlet::store::SessionStore::insert_session`.
    pub fn insert_session(&mut self, record: &SessionRecord) -> Result<()> {
        let retention_ms = self.retention_ms();
        session::insert(self.tx, record, retention_ms)
    }

    /// See `codlet::store::SessionStore::revoke_session`.
    pub fn revoke_session(&mut self, session_id: &SessionId, now: u64) -> Result<()> {
        session::revoke(self.tx, session_id, now)
    }

    /// See `codlet::store::SessionStore::touch_session`.
    pub fn touch_session(&mut self, session_id: &SessionId, now: u64) -> Result<()> {
        session::touch(self.tx, session_id, now)
    }

    /// See `codlet::store::RateLimitStore::check`.
    pub fn check(
        &mut self,
        key: &RateLimitKey,
        policy: &RateLimitPolicy,
    ) -> Result<RateLimitOutcome> {
        failures::check(self.tx, key, policy)
    }

    /// See `codlet::store::RateLimitStore::record_failure`.
    pub fn record_failure(&mut self, key: &RateLimitKey, policy: &RateLimitPolicy) -> Result<()> {
        failures::record(self.tx, key, policy)
    }

    /// See `codlet::store::RateLimitStore::clear_failures`.
    pub fn clear_failures(&mut self, key: &RateLimitKey) -> Result<()> {
        failures::clear(self.tx, key)
    }
}

impl fmt::Debug for CodletTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodletTx").field("retention", &self.retention).finish_non_exhaustive()
    }
}
