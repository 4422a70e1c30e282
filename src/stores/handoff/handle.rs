//! The claim checks of a room.

use super::json;
use super::ops::{self, ReadState};
use super::row::{STATE_ROW_OVERHEAD, key_of};
use super::{Claim, ClaimId, HandoffEntry, HandoffStateStore, HandoffStats, JsonObject, RawClaim};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::{DEFAULT_MAX_STATE_BYTES, in_memory};
use crate::stores::page::{Cursor, Page};
use crate::stores::span::span_ms;
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use crate::unique;
use std::fmt;
use std::time::Duration;

/// The claim checks of a room: a [`HandoffStateStore`]. A cheap clone.
#[derive(Clone)]
pub struct Handoff {
    handle: StoreHandle,
    max_state_bytes: usize,
}

impl Handoff {
    /// The claim checks of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        let max_state_bytes = default_max_state_bytes(engine.max_row_bytes());
        Self { handle: StoreHandle::new(engine, durability), max_state_bytes }
    }

    /// The same store, whose answers wait for this durability. The default is the room's.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    /// The same store; a state set through this handle may have this many bytes of JSON. The
    /// default is 4 MiB, or what one log segment can hold if that is less.
    ///
    /// Zero, and what no log segment of this room can hold, make every call through the handle
    /// answer [`InvalidConfig`](Error::InvalidConfig).
    #[must_use]
    pub fn with_max_state_bytes(self, max_state_bytes: u64) -> Self {
        let max_row_bytes = self.handle.engine().max_row_bytes();
        let checked = check_max_state_bytes(max_state_bytes, max_row_bytes);
        Self { handle: self.handle.with(checked), max_state_bytes: in_memory(max_state_bytes) }
    }

    /// What is common to all handles, and the maximum of a state.
    pub(super) fn options(&self) -> (&StoreHandle, usize) {
        (&self.handle, self.max_state_bytes)
    }

    /// Up to `limit` live states after `cursor`, or from the first one without a cursor, claimed
    /// ones included, in byte order of their ids.
    ///
    /// # Errors
    /// [`InvalidConfig`](Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<HandoffEntry>> {
        self.handle.read(|rows| ops::list(rows, cursor, limit))
    }

    /// Counts every state, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<HandoffStats> {
        self.handle.read(|rows| ops::stats(rows))
    }
}

/// The most bytes of JSON that fit in a row of `max_row_bytes`.
fn ceiling(max_row_bytes: usize) -> usize {
    max_row_bytes.saturating_sub(STATE_ROW_OVERHEAD)
}

/// The default maximum of a state.
pub(super) fn default_max_state_bytes(max_row_bytes: usize) -> usize {
    in_memory(DEFAULT_MAX_STATE_BYTES).min(ceiling(max_row_bytes))
}

/// Refuses a maximum of zero, and one that no log segment can hold.
pub(super) fn check_max_state_bytes(max_state_bytes: u64, max_row_bytes: usize) -> Result<()> {
    let ceiling = ceiling(max_row_bytes) as u64;
    if (1..=ceiling).contains(&max_state_bytes) {
        return Ok(());
    }
    Err(Error::InvalidConfig(format!(
        "max_state_bytes is {max_state_bytes}; it must be 1 to {ceiling}, which is what a segment of this room's log \
         can hold (open the room with a greater log_capacity for more)"
    )))
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff")
            .field("durability", &self.handle.durability())
            .field("max_state_bytes", &self.max_state_bytes)
            .finish_non_exhaustive()
    }
}

/// Both rows under `key`, to be read before the engine's lock is taken.
fn rows_of(key: &[u8]) -> [(Table, &[u8]); 2] {
    [(Table::HANDOFF, key), (Table::HANDOFF_CLAIM, key)]
}

/// The key of `state_id`, or else an answer that says why there is none.
macro_rules! key_or_answer {
    ($state_id:expr) => {
        match key_of($state_id) {
            Ok(key) => key,
            Err(error) => return Pending::ready(Err(error)),
        }
    };
}

impl Handoff {
    fn take<S>(&self, state_id: &str, read: ReadState<S>) -> Pending<Option<S>> {
        let key = key_or_answer!(state_id);
        self.handle.transact(&rows_of(key), |tx| ops::get_and_delete(tx, state_id, read))
    }

    fn claim_as<S, C>(
        &self,
        state_id: &str,
        lease: Duration,
        read: ReadState<S>,
        claimed: fn(S, ClaimId) -> C,
    ) -> Pending<Option<C>> {
        let key = key_or_answer!(state_id);
        let random = unique::ulid().random();
        self.handle.transact(&rows_of(key), |tx| {
            let claim = ops::claim(tx, state_id, lease, random, read)?;
            Ok(claim.map(|(state, id)| claimed(state, id)))
        })
    }
}

impl HandoffStateStore for Handoff {
    fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()> {
        let key = key_or_answer!(state_id);
        let json = match ops::encode_state(state, self.max_state_bytes) {
            Ok(json) => json,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.handle
            .transact(&rows_of(key), |tx| ops::set(tx, state_id, &json, ops::ttl_ms(ttl_seconds)))
    }

    fn set_for(&self, state_id: &str, state: &JsonObject, ttl: Duration) -> Pending<()> {
        let key = key_or_answer!(state_id);
        let json = match ops::encode_state(state, self.max_state_bytes) {
            Ok(json) => json,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.handle.transact(&rows_of(key), |tx| ops::set(tx, state_id, &json, span_ms(ttl)))
    }

    fn set_raw(&self, state_id: &str, json: &str, ttl: Duration) -> Pending<()> {
        let key = key_or_answer!(state_id);
        if let Err(error) = ops::check_raw(json, self.max_state_bytes) {
            return Pending::ready(Err(error));
        }
        self.handle
            .transact(&rows_of(key), |tx| ops::set(tx, state_id, json.as_bytes(), span_ms(ttl)))
    }

    fn get_raw(&self, state_id: &str) -> Pending<Option<String>> {
        self.handle.read(|rows| ops::get(rows, state_id, json::text))
    }

    fn get_and_delete_raw(&self, state_id: &str) -> Pending<Option<String>> {
        self.take(state_id, json::text)
    }

    fn claim_raw(&self, state_id: &str, lease: Duration) -> Pending<Option<RawClaim>> {
        self.claim_as(state_id, lease, json::text, |state, id| RawClaim { state, id })
    }

    fn get(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        self.handle.read(|rows| ops::get(rows, state_id, json::decode))
    }

    fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        self.take(state_id, json::decode)
    }

    fn delete(&self, state_id: &str) -> Pending<()> {
        let key = key_or_answer!(state_id);
        self.handle.transact(&rows_of(key), |tx| ops::delete(tx, state_id))
    }

    fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>> {
        self.claim_as(state_id, lease, json::decode, |state, id| Claim { state, id })
    }

    fn ack(&self, claim: &ClaimId) -> Pending<bool> {
        let key = key_or_answer!(claim.state_id());
        self.handle.transact(&rows_of(key), |tx| ops::ack(tx, claim))
    }

    fn release(&self, claim: &ClaimId) -> Pending<bool> {
        let key = key_or_answer!(claim.state_id());
        self.handle.transact(&rows_of(key), |tx| ops::release(tx, claim))
    }

    fn extend(&self, claim: &ClaimId, lease: Duration) -> Pending<bool> {
        let key = key_or_answer!(claim.state_id());
        self.handle.transact(&rows_of(key), |tx| ops::extend(tx, claim, lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_maximum_shrinks_to_a_segment_and_an_explicit_one_must_fit() {
        assert_eq!(default_max_state_bytes(100 << 20) as u64, DEFAULT_MAX_STATE_BYTES);
        let ceiling = 1_000 - STATE_ROW_OVERHEAD;
        assert_eq!(default_max_state_bytes(1_000), ceiling);
        for (maximum, fits) in [(0, false), (1, true), (ceiling, true), (ceiling + 1, false)] {
            let answer = check_max_state_bytes(maximum as u64, 1_000);
            assert_eq!(answer.is_ok(), fits, "{maximum}");
            assert!(fits || matches!(answer, Err(Error::InvalidConfig(_))));
        }
    }
}
