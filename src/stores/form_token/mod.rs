//! One-time form tokens: each is consumed by exactly one caller, ever.

mod consume;
mod handle;
mod lines;
mod ops;
mod record;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod sweep;
mod tx;

pub use consume::{TokenConsume, TokenOutcome};
pub use handle::FormTokens;
pub use record::{
    FormTokenEntry, FormTokenRecord, FormTokenStats, LookupKey, TokenConsumeOutcome, TokenSubject,
    TokenUse, classify_token_consume,
};
pub use tx::FormTokensTx;

use crate::Pending;
use std::sync::Arc;
use std::time::Duration;

/// A store of one-time form tokens.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for. Points in time are seconds since the Unix epoch.
///
#[doc = include_str!("../../../docs/tables/consume-outcomes.md")]
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when a string is over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the log. Nothing was
/// applied, unless the error is [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait FormTokenStore: Send + Sync {
    /// Stores a token.
    ///
    /// A token lives while it is unexpired, or consumed and within its grace, by the clock of the
    /// store. When one lives under this lookup key the answer is
    /// [`AlreadyExists`](crate::Error::AlreadyExists), and that token is untouched.
    fn insert_form_token(&self, record: FormTokenRecord) -> Pending<()>;

    /// Consumes a token, or says what happened to it. `now` is the caller's time, in seconds since
    /// the Unix epoch; it alone decides what is expired.
    ///
    /// The answer never tells which part of the binding differed. On a room's handle,
    /// [`FormTokens::consume`] is the same operation with one argument and one answer.
    fn consume_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)>;

    /// What a consume with the same arguments would answer, and changes nothing: for the page that
    /// asks for a confirmation, and for whatever follows a link before its reader does, such as a
    /// mail scanner.
    ///
    /// `Proceed` promises nothing: another caller may consume the token before this one does. On a
    /// room's handle, [`FormTokens::peek`] is the same operation with one argument and one answer,
    /// also for several candidates.
    fn peek_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)>;

    /// Consumes the first of `candidates` that exists: the lookup keys of one token under several
    /// versions of the hashing key, the current one first. An expired token does not exist. Without
    /// a candidate the outcome is `Invalid`.
    fn consume_form_token_any(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)>;

    /// Stores what a replay answers. A later call overwrites. On a token that is unknown,
    /// unconsumed or past its grace by the clock of the store, nothing changes, and the answer is
    /// `Ok`.
    fn set_token_result(&self, lookup_key: &LookupKey, result_ref: &str) -> Pending<()>;

    /// Stores what a replay answers at the first of `candidates` that is consumed and within its
    /// grace.
    fn set_token_result_any(&self, candidates: &[LookupKey], result_ref: &str) -> Pending<()>;
}

/// A grace in the milliseconds of a row. One over 584 million years is one of that.
fn grace_ms(replay_grace: Duration) -> u64 {
    u64::try_from(replay_grace.as_millis()).unwrap_or(u64::MAX)
}

/// A shared store is a store.
impl<S: FormTokenStore + ?Sized> FormTokenStore for Arc<S> {
    fn insert_form_token(&self, record: FormTokenRecord) -> Pending<()> {
        (**self).insert_form_token(record)
    }

    fn consume_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        (**self).consume_form_token(lookup_key, subject, purpose, bound_resource, now)
    }

    fn peek_form_token(
        &self,
        lookup_key: &LookupKey,
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        (**self).peek_form_token(lookup_key, subject, purpose, bound_resource, now)
    }

    fn consume_form_token_any(
        &self,
        candidates: &[LookupKey],
        subject: &TokenSubject,
        purpose: &str,
        bound_resource: Option<&str>,
        now: u64,
    ) -> Pending<(TokenConsumeOutcome, Option<String>)> {
        (**self).consume_form_token_any(candidates, subject, purpose, bound_resource, now)
    }

    fn set_token_result(&self, lookup_key: &LookupKey, result_ref: &str) -> Pending<()> {
        (**self).set_token_result(lookup_key, result_ref)
    }

    fn set_token_result_any(&self, candidates: &[LookupKey], result_ref: &str) -> Pending<()> {
        (**self).set_token_result_any(candidates, result_ref)
    }
}
