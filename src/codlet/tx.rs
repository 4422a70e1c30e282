//! What `codlet` stores, as a transaction sees it.

use super::options::{TxOptions, retention_ms};
use super::store::CodletStore;
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
        CodletTx::of_store(self.writer(), TxOptions::default())
    }
}

/// What the crate `codlet` stores, inside a transaction: the operations of its traits, answering at
/// once and seeing what the transaction has done so far. What they change is kept or lost with the
/// transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct CodletTx<'a> {
    tx: &'a mut dyn Writer,
    options: TxOptions,
}

impl CodletStore {
    /// What this store keeps, in `tx`, a transaction of the same room, under the options of this
    /// store: those of [`Transaction::codlet`] are the defaults. The transaction becomes at least
    /// as durable as this store asks for what is done in it.
    ///
    /// When `tx` is of another room, every operation of the view answers
    /// [`ForeignTransaction`](crate::Error::ForeignTransaction); when an option of this store was
    /// refused, [`InvalidConfig`](crate::Error::InvalidConfig).
    pub fn within<'a>(&self, tx: &'a mut Transaction<'_>) -> CodletTx<'a> {
        let (engine, writer) = tx.parts();
        CodletTx::of_store(writer, self.options_within(engine))
    }
}

impl<'a> CodletTx<'a> {
    pub(super) fn of_store(tx: &'a mut dyn Writer, options: TxOptions) -> Self {
        Self { tx, options }
    }
}

impl CodletTx<'_> {
    /// The same view; see [`CodletStore::with_retention`](super::CodletStore::with_retention).
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.options.retention = retention;
        self
    }

    /// The same view; see
    /// [`CodletStore::with_replay_grace`](super::CodletStore::with_replay_grace).
    #[must_use]
    pub fn with_replay_grace(mut self, replay_grace: Duration) -> Self {
        self.options.replay_grace = replay_grace;
        self
    }

    fn retention_ms(&self) -> u64 {
        retention_ms(self.options.retention)
    }

    /// The transaction, for an operation on codes and sessions.
    fn records(&mut self) -> Result<&mut dyn Writer> {
        self.tx.require(self.options.records.clone()?);
        Ok(self.tx)
    }

    /// The transaction, for an operation on counted failures.
    fn failures(&mut self) -> Result<&mut dyn Writer> {
        self.tx.require(self.options.failures.clone()?);
        Ok(self.tx)
    }

    fn form_tokens(&mut self) -> Result<FormTokensTx<'_>> {
        let replay_grace = self.options.replay_grace;
        Ok(FormTokensTx::new(self.records()?).with_replay_grace(replay_grace))
    }

    /// See `codlet::store::FormTokenStore::insert_form_token`.
    pub fn insert_form_token(&mut self, record: FormTokenRecord) -> Result<()> {
        self.form_tokens()?.insert_form_token(convert::form_token(record))
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
        self.form_tokens()?
            .consume_form_token_any(&keys, &subject, purpose, bound_resource, now)
            .map(convert::outcome)
    }

    /// See `codlet::store::FormTokenStore::set_token_result`.
    pub fn set_token_result(&mut self, candidates: &[LookupKey], result_ref: &str) -> Result<()> {
        self.form_tokens()?.set_token_result_any(&convert::lookup_keys(candidates), result_ref)
    }

    /// See `codlet::store::CodeStore::lookup_code`.
    pub fn lookup_code(
        &mut self,
        candidates: &[LookupKey],
        scope: Option<&str>,
    ) -> Result<Option<StoredCode>> {
        code::lookup(self.records()?, &convert::encode_keys(candidates)?, scope)
    }

    /// See `codlet::store::CodeStore::claim_code`.
    pub fn claim_code(&mut self, request: &ClaimRequest<'_>) -> Result<ClaimOutcome> {
        code::claim(self.records()?, request)
    }

    /// See `codlet::store::CodeStore::insert_code`.
    pub fn insert_code(&mut self, record: &CodeRecord) -> Result<()> {
        let retention_ms = self.retention_ms();
        code::insert(self.records()?, record, retention_ms)
    }

    /// See `codlet::store::CodeStore::revoke_code`.
    pub fn revoke_code(&mut self, code_id: &CodeId, scope: Option<&str>, now: u64) -> Result<()> {
        code::revoke(self.records()?, code_id, scope, now)
    }

    /// See `codlet::store::SessionStore::lookup_session`.
    pub fn lookup_session(&mut self, candidates: &[LookupKey]) -> Result<Option<StoredSession>> {
        session::lookup(self.records()?, &convert::encode_keys(candidates)?)
    }

    /// See `codlet::store::SessionStore::insert_session`.
    pub fn insert_session(&mut self, record: &SessionRecord) -> Result<()> {
        let retention_ms = self.retention_ms();
        session::insert(self.records()?, record, retention_ms)
    }

    /// See `codlet::store::SessionStore::revoke_session`.
    pub fn revoke_session(&mut self, session_id: &SessionId, now: u64) -> Result<()> {
        session::revoke(self.records()?, session_id, now)
    }

    /// See `codlet::store::SessionStore::touch_session`.
    pub fn touch_session(&mut self, session_id: &SessionId, now: u64) -> Result<()> {
        session::touch(self.records()?, session_id, now)
    }

    /// See `codlet::store::RateLimitStore::check`.
    pub fn check(
        &mut self,
        key: &RateLimitKey,
        policy: &RateLimitPolicy,
    ) -> Result<RateLimitOutcome> {
        failures::check(self.failures()?, key, policy)
    }

    /// See `codlet::store::RateLimitStore::record_failure`.
    pub fn record_failure(&mut self, key: &RateLimitKey, policy: &RateLimitPolicy) -> Result<()> {
        failures::record(self.failures()?, key, policy)
    }

    /// See `codlet::store::RateLimitStore::clear_failures`.
    pub fn clear_failures(&mut self, key: &RateLimitKey) -> Result<()> {
        failures::clear(self.failures()?, key)
    }
}

impl fmt::Debug for CodletTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodletTx")
            .field("retention", &self.options.retention)
            .finish_non_exhaustive()
    }
}
