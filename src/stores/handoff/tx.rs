//! The claim checks as a transaction sees them.

use super::handle::{check_max_state_bytes, default_max_state_bytes};
use super::{Claim, ClaimId, JsonObject, ops};
use crate::engine::access::Writer;
use crate::error::Result;
use std::fmt;
use std::time::Duration;
use ulid::Ulid;

/// The claim checks inside a transaction: the operations of
/// [`HandoffStateStore`](super::HandoffStateStore), answering at once and seeing what the
/// transaction has done so far. What they change is kept or lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct HandoffTx<'a> {
    tx: &'a mut dyn Writer,
    max_row_bytes: usize,
    max_state_bytes: usize,
}

impl<'a> HandoffTx<'a> {
    /// The claim checks in `tx`, of a room whose rows may have `max_row_bytes`.
    pub(crate) fn new(tx: &'a mut dyn Writer, max_row_bytes: usize) -> Self {
        Self { tx, max_row_bytes, max_state_bytes: default_max_state_bytes(max_row_bytes) }
    }

    /// The same view; a state set through it may have this many bytes of JSON. See
    /// [`Handoff::with_max_state_bytes`](super::Handoff::with_max_state_bytes).
    pub fn with_max_state_bytes(self, max_state_bytes: usize) -> Result<Self> {
        check_max_state_bytes(max_state_bytes, self.max_row_bytes)?;
        Ok(Self { max_state_bytes, ..self })
    }

    /// See [`HandoffStateStore::set`](super::HandoffStateStore::set).
    pub fn set(&mut self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Result<()> {
        let json = ops::encode_state(state, self.max_state_bytes)?;
        ops::set(self.tx, state_id, &json, ttl_seconds)
    }

    /// See [`HandoffStateStore::get`](super::HandoffStateStore::get).
    pub fn get(&mut self, state_id: &str) -> Result<Option<JsonObject>> {
        ops::get(self.tx, state_id)
    }

    /// See [`HandoffStateStore::get_and_delete`](super::HandoffStateStore::get_and_delete).
    pub fn get_and_delete(&mut self, state_id: &str) -> Result<Option<JsonObject>> {
        ops::get_and_delete(self.tx, state_id)
    }

    /// See [`HandoffStateStore::delete`](super::HandoffStateStore::delete).
    pub fn delete(&mut self, state_id: &str) -> Result<()> {
        ops::delete(self.tx, state_id)
    }

    /// See [`HandoffStateStore::claim`](super::HandoffStateStore::claim).
    pub fn claim(&mut self, state_id: &str, lease: Duration) -> Result<Option<Claim>> {
        ops::claim(self.tx, state_id, lease, Ulid::generate().random())
    }

    /// See [`HandoffStateStore::ack`](super::HandoffStateStore::ack).
    pub fn ack(&mut self, claim: &ClaimId) -> Result<bool> {
        ops::ack(self.tx, claim)
    }

    /// See [`HandoffStateStore::release`](super::HandoffStateStore::release).
    pub fn release(&mut self, claim: &ClaimId) -> Result<bool> {
        ops::release(self.tx, claim)
    }
}

impl fmt::Debug for HandoffTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffTx")
            .field("max_state_bytes", &self.max_state_bytes)
            .finish_non_exhaustive()
    }
}
