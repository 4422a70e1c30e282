//! Claim checks: a state is left under an id, and handed over once.

mod claim;
mod handle;
pub(crate) mod json;
mod lines;
mod ops;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod sweep;
mod tx;

pub use claim::{Claim, ClaimId, ClaimIdParseError, RawClaim};
pub use handle::Handoff;
pub use json::JsonObject;
pub use tx::HandoffTx;

use crate::Pending;
use crate::stores::hidden::Hidden;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A store of claim checks.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for. Of any number of concurrent
/// [`get_and_delete`](Self::get_and_delete) or [`claim`](Self::claim) on one id exactly one gets
/// the state.
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when the id is over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the log. Nothing was
/// applied, unless the error is [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait HandoffStateStore: Send + Sync {
    /// Stores `state` under `state_id` for `ttl_seconds` from now. A state that is there already is
    /// replaced, with its time to live, and a claim on it ends. A TTL of zero has expired at once:
    /// the earlier state is removed, and the new one is not stored.
    ///
    /// [`TooLarge`](crate::Error::TooLarge) when the state is over the store's maximum, and
    /// [`Encode`](crate::Error::Encode) when it is nested deeper than
    /// [`MAX_STATE_DEPTH`](crate::limits::MAX_STATE_DEPTH); the
    /// earlier state is untouched.
    fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()>;

    /// As [`set`](Self::set), for a time to live that is rounded up to milliseconds.
    fn set_for(&self, state_id: &str, state: &JsonObject, ttl: Duration) -> Pending<()>;

    /// As [`set_for`](Self::set_for), of a state that is JSON already. It is not parsed into a
    /// value, and kept byte for byte.
    ///
    /// [`Encode`](crate::Error::Encode) when it is not exactly one JSON object that
    /// [`get`](Self::get) could read; the earlier state is untouched. A driver that does not say
    /// otherwise parses it, and keeps what it means.
    fn set_raw(&self, state_id: &str, json: &str, ttl: Duration) -> Pending<()> {
        match json::check(json).and_then(|()| json::decode(json.as_bytes())) {
            Ok(state) => self.set_for(state_id, &state, ttl),
            Err(error) => Pending::ready(Err(error)),
        }
    }

    /// As [`get`](Self::get), without parsing the state: the JSON as it was set with
    /// [`set_raw`](Self::set_raw), or that of the state.
    fn get_raw(&self, state_id: &str) -> Pending<Option<String>> {
        self.get(state_id).then(|state| state?.as_ref().map(json::encode_text).transpose())
    }

    /// As [`get_and_delete`](Self::get_and_delete), without parsing the state.
    fn get_and_delete_raw(&self, state_id: &str) -> Pending<Option<String>> {
        self.get_and_delete(state_id)
            .then(|state| state?.as_ref().map(json::encode_text).transpose())
    }

    /// As [`claim`](Self::claim), without parsing the state.
    fn claim_raw(&self, state_id: &str, lease: Duration) -> Pending<Option<RawClaim>> {
        self.claim(state_id, lease).then(|claim| {
            let raw = |claim: Claim| {
                Ok(RawClaim { state: json::encode_text(&claim.state)?, id: claim.id })
            };
            claim?.map(raw).transpose()
        })
    }

    /// Reads the state and leaves it. `None` when it is absent, expired or claimed.
    fn get(&self, state_id: &str) -> Pending<Option<JsonObject>>;

    /// Reads and removes the state, in one step. `None` when it is absent, expired or claimed.
    fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>>;

    /// Removes the state, and ends a claim on it. `Ok` when there is none.
    fn delete(&self, state_id: &str) -> Pending<()>;

    /// Reads the state and hides it from every other caller for `lease`. Then it comes back, unless
    /// the claim was acknowledged before, so a reader that dies loses nothing. `None` when the
    /// state is absent, expired or claimed.
    ///
    /// The state's own time to live goes on meanwhile. A lease is rounded up to milliseconds; a
    /// lease of zero is [`InvalidConfig`](crate::Error::InvalidConfig).
    fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>>;

    /// Ends a claim by deleting the state. `true` only within the lease, while the state has not
    /// expired, and when no caller has set or deleted it since; otherwise nothing changes.
    fn ack(&self, claim: &ClaimId) -> Pending<bool>;

    /// Ends a claim by showing the state again. `true` exactly when [`ack`](Self::ack) would answer
    /// `true`.
    fn release(&self, claim: &ClaimId) -> Pending<bool>;

    /// Gives a claim a new lease, from now on, which may also be shorter. `true` exactly when
    /// [`ack`](Self::ack) would answer `true`; otherwise nothing changes, and a claim that has
    /// ended does not come back.
    ///
    /// A lease of zero is [`InvalidConfig`](crate::Error::InvalidConfig), and the claim goes on.
    fn extend(&self, claim: &ClaimId, lease: Duration) -> Pending<bool>;
}

/// A state in a listing: its particulars without its content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandoffEntry {
    /// The id it is stored under.
    pub state_id: String,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// The size of the encoded state in bytes.
    pub bytes: u64,
    /// When the claim on it ends, in milliseconds since the Unix epoch, or `None` when it is not
    /// claimed.
    pub claimed_until_ms: Option<u64>,
}

/// Keeps the id to itself: a caller who has it can take the state.
impl fmt::Debug for HandoffEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffEntry")
            .field("state_id", &Hidden::bytes(&self.state_id))
            .field("expires_at_ms", &self.expires_at_ms)
            .field("bytes", &self.bytes)
            .field("claimed_until_ms", &self.claimed_until_ms)
            .finish()
    }
}

/// What a store of claim checks holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HandoffStats {
    /// States that can be taken.
    pub live: u64,
    /// States that are claimed.
    pub claimed: u64,
    /// States that have ended and were not swept yet.
    pub expired: u64,
    /// Bytes of keys and values of all these, those not swept yet included; index rows are not
    /// counted.
    pub bytes: u64,
}

/// A shared store is a store.
impl<S: HandoffStateStore + ?Sized> HandoffStateStore for Arc<S> {
    fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()> {
        (**self).set(state_id, state, ttl_seconds)
    }

    fn set_for(&self, state_id: &str, state: &JsonObject, ttl: Duration) -> Pending<()> {
        (**self).set_for(state_id, state, ttl)
    }

    fn set_raw(&self, state_id: &str, json: &str, ttl: Duration) -> Pending<()> {
        (**self).set_raw(state_id, json, ttl)
    }

    fn get_raw(&self, state_id: &str) -> Pending<Option<String>> {
        (**self).get_raw(state_id)
    }

    fn get_and_delete_raw(&self, state_id: &str) -> Pending<Option<String>> {
        (**self).get_and_delete_raw(state_id)
    }

    fn claim_raw(&self, state_id: &str, lease: Duration) -> Pending<Option<RawClaim>> {
        (**self).claim_raw(state_id, lease)
    }

    fn get(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        (**self).get(state_id)
    }

    fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        (**self).get_and_delete(state_id)
    }

    fn delete(&self, state_id: &str) -> Pending<()> {
        (**self).delete(state_id)
    }

    fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>> {
        (**self).claim(state_id, lease)
    }

    fn ack(&self, claim: &ClaimId) -> Pending<bool> {
        (**self).ack(claim)
    }

    fn release(&self, claim: &ClaimId) -> Pending<bool> {
        (**self).release(claim)
    }

    fn extend(&self, claim: &ClaimId, lease: Duration) -> Pending<bool> {
        (**self).extend(claim, lease)
    }
}
