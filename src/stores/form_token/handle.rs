//! The form tokens of a room.

use super::ops;
use super::row::TokenKey;
use super::{
    FormTokenEntry, FormTokenRecord, FormTokenStats, FormTokenStore, FormTokensTx, LookupKey,
    TokenConsume, TokenConsumeOutcome, TokenOutcome, TokenSubject,
};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::limits::DEFAULT_REPLAY_GRACE;
use crate::stores::page::{Cursor, Page};
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use std::fmt;
use std::slice;
use std::time::Duration;

/// The form tokens of a room: a [`FormTokenStore`]. A cheap clone.
#[derive(Clone)]
pub struct FormTokens {
    handle: StoreHandle,
    replay_grace: Duration,
}

impl FormTokens {
    /// The form tokens of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        Self { handle: StoreHandle::new(engine, durability), replay_grace: DEFAULT_REPLAY_GRACE }
    }

    /// The same store, whose answers wait for this durability. The default is the room's.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    /// The same store; tokens consumed through this handle answer `Replay` until this long after
    /// their expiry. The default is 24 hours. Tokens that are consumed already keep the grace that
    /// they were consumed with.
    #[must_use]
    pub fn with_replay_grace(self, replay_grace: Duration) -> Self {
        Self { replay_grace, ..self }
    }

    #[cfg(feature = "codlet")]
    pub(crate) fn replay_grace(&self) -> Duration {
        self.replay_grace
    }

    /// The tokens in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> FormTokensTx<'a> {
        FormTokensTx::of(self.handle.within(engine, tx), self.replay_grace)
    }

    /// Consumes a token, or says what happened to it: [`FormTokenStore::consume_form_token`] with
    /// one argument and one answer. See [`TokenConsume`] for an example.
    ///
    /// # Errors
    /// Those of [`FormTokenStore`].
    pub fn consume(&self, consume: TokenConsume<'_>) -> Pending<TokenOutcome> {
        self.consume_as(consume)
    }

    fn consume_as<R: From<(TokenConsumeOutcome, Option<String>)>>(
        &self,
        consume: TokenConsume<'_>,
    ) -> Pending<R> {
        let keys = match encode_keys(consume.candidates) {
            Ok(keys) => keys,
            Err(error) => return Pending::ready(Err(error)),
        };
        let grace_ms = super::grace_ms(self.replay_grace);
        self.handle.transact(&rows_of(&keys), |tx| {
            ops::consume(tx, &keys, consume.binding, consume.now, grace_ms).map(R::from)
        })
    }

    /// What [`consume`](Self::consume) would answer, and changes nothing:
    /// [`FormTokenStore::peek_form_token`] with one argument and one answer.
    ///
    /// ```
    /// # use cloakroom::form_token::{
    /// #     Consume, FormTokenRecord, FormTokenStore, LookupKey, Outcome, TokenSubject,
    /// # };
    /// # let room = cloakroom::Cloakroom::builder().open_in_memory()?;
    /// # let tokens = room.form_tokens();
    /// # let (key, subject) = (LookupKey::new("3fa9c1"), TokenSubject::Anonymous);
    /// # let record = FormTokenRecord::new(key.clone(), subject.clone(), "pay", u64::MAX);
    /// # tokens.insert_form_token(record).wait()?;
    /// let consume = Consume::new(&key, &subject, "pay", 1_700_000_000);
    /// // The mail scanner follows the link, and so does the reader; only the button consumes.
    /// assert_eq!(tokens.peek(consume).wait()?, Outcome::Proceed);
    /// assert_eq!(tokens.peek(consume).wait()?, Outcome::Proceed);
    /// assert_eq!(tokens.consume(consume).wait()?, Outcome::Proceed);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`FormTokenStore`].
    pub fn peek(&self, consume: TokenConsume<'_>) -> Pending<TokenOutcome> {
        self.peek_as(consume)
    }

    fn peek_as<R: From<(TokenConsumeOutcome, Option<String>)>>(
        &self,
        consume: TokenConsume<'_>,
    ) -> Pending<R> {
        self.handle.read(|rows| {
            let keys = encode_keys(consume.candidates)?;
            ops::peek(rows, &keys, consume.binding, consume.now).map(R::from)
        })
    }

    /// Up to `limit` live tokens after `cursor`, or from the first one without a cursor, consumed
    /// ones within their grace included, by the room's clock.
    ///
    /// The order is that of the stored keys: lookup keys that are no lowercase hex of even length
    /// first, then those that are, each in byte order.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<FormTokenEntry>> {
        self.handle.read(|rows| ops::list(rows, cursor, limit))
    }

    /// Counts every token, by reading every one of them: the cost grows with the number of tokens
    /// stored, and other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<FormTokenStats> {
        self.handle.read(|rows| ops::stats(rows))
    }
}

impl fmt::Debug for FormTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormTokens")
            .field("durability", &self.handle.durability())
            .field("replay_grace", &self.replay_grace)
            .finish_non_exhaustive()
    }
}

/// The keys of the rows that a decision about `lookup_keys` reads.
fn encode_keys(lookup_keys: &[LookupKey]) -> Result<Vec<TokenKey>> {
    lookup_keys.iter().map(TokenKey::encode).collect()
}

/// Both rows of each of `keys`, to be read before the engine's lock is taken.
fn rows_of(keys: &[TokenKey]) -> Vec<(Table, &[u8])> {
    keys.iter()
        .flat_map(|key| {
            [(Table::FORM_TOKEN, key.as_bytes()), (Table::FORM_TOKEN_USE, key.as_bytes())]
        })
        .collect()
}

impl FormTokenStore for FormTokens {
    fn insert_form_token(&self, record: FormTokenRecord) -> Pending<()> {
        let keys = match encode_keys(slice::from_ref(&record.lookup_key)) {
            Ok(keys) => keys,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.handle.transact(&rows_of(&keys), |tx| ops::insert(tx, &record))
    }

    fn consume_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        self.consume_form_token_any(
            slice::from_ref(lookup_key),
            subject,
            purpose,
            bound_resource,
            now,
        )
    }

    fn peek_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        let consume = TokenConsume::new(lookup_key, subject, purpose, now);
        self.peek_as(consume.with_bound_resource(bound_resource))
    }

    fn consume_form_token_any(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        let consume = TokenConsume::any(candidates, subject, purpose, now);
        self.consume_as(consume.with_bound_resource(bound_resource))
    }

    fn set_token_result(&self, lookup_key: &LookupKey, result_ref: &str) -> Pending<()> {
        self.set_token_result_any(slice::from_ref(lookup_key), result_ref)
    }

    fn set_token_result_any(&self, candidates: &[LookupKey], result_ref: &str) -> Pending<()> {
        let keys = match encode_keys(candidates) {
            Ok(keys) => keys,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.handle.transact(&rows_of(&keys), |tx| ops::set_result(tx, &keys, result_ref))
    }
}
