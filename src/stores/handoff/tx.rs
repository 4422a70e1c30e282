//! The claim checks as a transaction sees them.

use super::handle::{check_max_state_bytes, default_max_state_bytes};
use super::json;
use super::{Claim, ClaimId, Handoff, JsonObject, RawClaim, ops};
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::limits::in_memory;
use crate::stores::span::span_ms;
use crate::stores::store_tx::StoreTx;
use crate::unique;
use std::fmt;
use std::time::Duration;

/// The claim checks inside a transaction: the operations of
/// [`HandoffStateStore`](super::HandoffStateStore), answering at once and seeing what the
/// transaction has done so far. What they change is kept or lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct HandoffTx<'a> {
    tx: StoreTx<'a>,
    max_row_bytes: usize,
    max_state_bytes: usize,
}

impl Handoff {
    /// The states in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> HandoffTx<'a> {
        let (handle, max_state_bytes) = self.options();
        HandoffTx::of(handle.within(engine, tx), engine.max_row_bytes(), max_state_bytes)
    }
}

impl<'a> HandoffTx<'a> {
    /// The claim checks in `tx`, of a room whose rows may have `max_row_bytes`.
    pub(crate) fn new(tx: &'a mut dyn Writer, max_row_bytes: usize) -> Self {
        Self::of(StoreTx::new(tx), max_row_bytes, default_max_state_bytes(max_row_bytes))
    }

    /// The claim checks in `tx`, with the options of a handle.
    fn of(tx: StoreTx<'a>, max_row_bytes: usize, max_state_bytes: usize) -> Self {
        Self { tx, max_row_bytes, max_state_bytes }
    }

    /// The same view; a state set through it may have this many bytes of JSON. See
    /// [`Handoff::with_max_state_bytes`](super::Handoff::with_max_state_bytes).
    #[must_use]
    pub fn with_max_state_bytes(self, max_state_bytes: u64) -> Self {
        let checked = check_max_state_bytes(max_state_bytes, self.max_row_bytes);
        Self { tx: self.tx.with(checked), max_state_bytes: in_memory(max_state_bytes), ..self }
    }

    /// See [`HandoffStateStore::set`](super::HandoffStateStore::set).
    pub fn set(&mut self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Result<()> {
        let json = ops::encode_state(state, self.max_state_bytes)?;
        ops::set(self.tx.get()?, state_id, &json, ops::ttl_ms(ttl_seconds))
    }

    /// See [`HandoffStateStore::set_for`](super::HandoffStateStore::set_for).
    pub fn set_for(&mut self, state_id: &str, state: &JsonObject, ttl: Duration) -> Result<()> {
        let json = ops::encode_state(state, self.max_state_bytes)?;
        ops::set(self.tx.get()?, state_id, &json, span_ms(ttl))
    }

    /// See [`HandoffStateStore::set_raw`](super::HandoffStateStore::set_raw).
    pub fn set_raw(&mut self, state_id: &str, json: &str, ttl: Duration) -> Result<()> {
        ops::check_raw(json, self.max_state_bytes)?;
        ops::set(self.tx.get()?, state_id, json.as_bytes(), span_ms(ttl))
    }

    /// See [`HandoffStateStore::get_raw`](super::HandoffStateStore::get_raw).
    pub fn get_raw(&mut self, state_id: &str) -> Result<Option<String>> {
        ops::get(self.tx.get()?, state_id, json::text)
    }

    /// See [`HandoffStateStore::get_and_delete_raw`](super::HandoffStateStore::get_and_delete_raw).
    pub fn get_and_delete_raw(&mut self, state_id: &str) -> Result<Option<String>> {
        ops::get_and_delete(self.tx.get()?, state_id, json::text)
    }

    /// See [`HandoffStateStore::claim_raw`](super::HandoffStateStore::claim_raw).
    pub fn claim_raw(&mut self, state_id: &str, lease: Duration) -> Result<Option<RawClaim>> {
        let random = unique::ulid().random();
        let claim = ops::claim(self.tx.get()?, state_id, lease, random, json::text)?;
        Ok(claim.map(|(state, id)| RawClaim { state, id }))
    }

    /// See [`HandoffStateStore::get`](super::HandoffStateStore::get).
    pub fn get(&mut self, state_id: &str) -> Result<Option<JsonObject>> {
        ops::get(self.tx.get()?, state_id, json::decode)
    }

    /// See [`HandoffStateStore::get_and_delete`](super::HandoffStateStore::get_and_delete).
    pub fn get_and_delete(&mut self, state_id: &str) -> Result<Option<JsonObject>> {
        ops::get_and_delete(self.tx.get()?, state_id, json::decode)
    }

    /// See [`HandoffStateStore::delete`](super::HandoffStateStore::delete).
    pub fn delete(&mut self, state_id: &str) -> Result<()> {
        ops::delete(self.tx.get()?, state_id)
    }

    /// See [`HandoffStateStore::claim`](super::HandoffStateStore::claim).
    pub fn claim(&mut self, state_id: &str, lease: Duration) -> Result<Option<Claim>> {
        let random = unique::ulid().random();
        let claim = ops::claim(self.tx.get()?, state_id, lease, random, json::decode)?;
        Ok(claim.map(|(state, id)| Claim { state, id }))
    }

    /// See [`HandoffStateStore::ack`](super::HandoffStateStore::ack).
    pub fn ack(&mut self, claim: &ClaimId) -> Result<bool> {
        ops::ack(self.tx.get()?, claim)
    }

    /// See [`HandoffStateStore::release`](super::HandoffStateStore::release).
    pub fn release(&mut self, claim: &ClaimId) -> Result<bool> {
        ops::release(self.tx.get()?, claim)
    }

    /// See [`HandoffStateStore::extend`](super::HandoffStateStore::extend).
    pub fn extend(&mut self, claim: &ClaimId, lease: Duration) -> Result<bool> {
        ops::extend(self.tx.get()?, claim, lease)
    }
}

impl fmt::Debug for HandoffTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffTx")
            .field("max_state_bytes", &self.max_state_bytes)
            .finish_non_exhaustive()
    }
}
