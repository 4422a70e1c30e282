//! The form tokens as a transaction sees them.

use super::ops;
use super::row::TokenKey;
use super::{
    FormTokenRecord, LookupKey, TokenConsume, TokenConsumeOutcome, TokenOutcome, TokenSubject,
};
use crate::engine::access::Writer;
use crate::error::Result;
use crate::limits::DEFAULT_REPLAY_GRACE;
use crate::stores::store_tx::StoreTx;
use std::fmt;
use std::slice;
use std::time::Duration;

/// The form tokens inside a transaction: the operations of
/// [`FormTokenStore`](super::FormTokenStore), answering at once and seeing what the transaction has
/// done so far. What they change is kept or lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct FormTokensTx<'a> {
    tx: StoreTx<'a>,
    replay_grace: Duration,
}

impl<'a> FormTokensTx<'a> {
    /// The form tokens in `tx`.
    pub(crate) fn new(tx: &'a mut dyn Writer) -> Self {
        Self::of(StoreTx::new(tx), DEFAULT_REPLAY_GRACE)
    }

    /// The form tokens in `tx`, with the options of a handle.
    pub(super) fn of(tx: StoreTx<'a>, replay_grace: Duration) -> Self {
        Self { tx, replay_grace }
    }

    /// The same view; tokens consumed through it answer `Replay` until this long after their
    /// expiry. The default is 24 hours.
    #[must_use]
    pub fn with_replay_grace(self, replay_grace: Duration) -> Self {
        Self { replay_grace, ..self }
    }

    /// See [`FormTokenStore::insert_form_token`](super::FormTokenStore::insert_form_token).
    pub fn insert_form_token(&mut self, record: FormTokenRecord) -> Result<()> {
        ops::insert(self.tx.get()?, &record)
    }

    /// See [`FormTokens::consume`](super::FormTokens::consume).
    ///
    /// ```
    /// use cloakroom::form_token::{Consume, FormTokenRecord, LookupKey, Outcome, TokenSubject};
    /// use cloakroom::{Cloakroom, Error};
    ///
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    /// let (key, subject) = (LookupKey::new("3fa9c1"), TokenSubject::Anonymous);
    /// let outcome = room.atomically(|tx| {
    ///     let record = FormTokenRecord::new(key.clone(), subject.clone(), "pay", now + 600);
    ///     tx.form_tokens().insert_form_token(record)?;
    ///     tx.form_tokens().consume(Consume::new(&key, &subject, "pay", now))
    /// });
    /// assert_eq!(outcome.wait()?, Outcome::Proceed);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn consume(&mut self, consume: TokenConsume<'_>) -> Result<TokenOutcome> {
        self.consume_as(consume)
    }

    fn consume_as<R: From<(TokenConsumeOutcome, Option<String>)>>(
        &mut self,
        consume: TokenConsume<'_>,
    ) -> Result<R> {
        let keys = consume.candidates.iter().map(TokenKey::encode).collect::<Result<Vec<_>>>()?;
        let grace_ms = super::grace_ms(self.replay_grace);
        ops::consume(self.tx.get()?, &keys, consume.binding, consume.now, grace_ms).map(R::from)
    }

    /// See [`FormTokens::peek`](super::FormTokens::peek).
    pub fn peek(&mut self, consume: TokenConsume<'_>) -> Result<TokenOutcome> {
        self.peek_as(consume)
    }

    fn peek_as<R: From<(TokenConsumeOutcome, Option<String>)>>(
        &mut self,
        consume: TokenConsume<'_>,
    ) -> Result<R> {
        let keys = consume.candidates.iter().map(TokenKey::encode).collect::<Result<Vec<_>>>()?;
        ops::peek(self.tx.get()?, &keys, consume.binding, consume.now).map(R::from)
    }

    /// See [`FormTokenStore::peek_form_token`](super::FormTokenStore::peek_form_token).
    pub fn peek_form_token(
        &mut self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Result<(TokenConsumeOutcome, Option<String>)> {
        let consume = TokenConsume::new(lookup_key, subject, purpose, now);
        self.peek_as(consume.with_bound_resource(bound_resource))
    }

    /// See [`FormTokenStore::consume_form_token`](super::FormTokenStore::consume_form_token).
    pub fn consume_form_token(
        &mut self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Result<(TokenConsumeOutcome, Option<String>)> {
        self.consume_form_token_any(
            slice::from_ref(lookup_key),
            subject,
            purpose,
            bound_resource,
            now,
        )
    }

    /// See
    /// [`FormTokenStore::consume_form_token_any`](super::FormTokenStore::consume_form_token_any).
    pub fn consume_form_token_any(
        &mut self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Result<(TokenConsumeOutcome, Option<String>)> {
        let consume = TokenConsume::any(candidates, subject, purpose, now);
        self.consume_as(consume.with_bound_resource(bound_resource))
    }

    /// See [`FormTokenStore::set_token_result`](super::FormTokenStore::set_token_result).
    pub fn set_token_result(&mut self, lookup_key: &LookupKey, result_ref: &str) -> Result<()> {
        self.set_token_result_any(slice::from_ref(lookup_key), result_ref)
    }

    /// See [`FormTokenStore::set_token_result_any`](super::FormTokenStore::set_token_result_any).
    pub fn set_token_result_any(
        &mut self,
        candidates: &[LookupKey],
        result_ref: &str,
    ) -> Result<()> {
        let keys = candidates.iter().map(TokenKey::encode).collect::<Result<Vec<_>>>()?;
        ops::set_result(self.tx.get()?, &keys, result_ref)
    }
}

impl fmt::Debug for FormTokensTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormTokensTx")
            .field("replay_grace", &self.replay_grace)
            .finish_non_exhaustive()
    }
}
