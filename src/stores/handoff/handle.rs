//! The claim checks of a room.

use super::row::{STATE_ROW_OVERHEAD, key_of};
use super::{Claim, ClaimId, HandoffEntry, HandoffStateStore, HandoffStats, JsonObject, ops};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::DEFAULT_MAX_STATE_BYTES;
use crate::stores::page::{Cursor, Page};
use crate::tables::Table;
use std::fmt;
use std::time::Duration;
use ulid::Ulid;

/// The claim checks of a room: a [`HandoffStateStore`]. A cheap clone.
#[derive(Clone)]
pub struct Handoff {
    engine: Engine,
    durability: Durability,
    max_state_bytes: usize,
}

impl Handoff {
    /// The claim checks of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        let max_state_bytes = default_max_state_bytes(engine.max_row_bytes());
        Self { engine, durability, max_state_bytes }
    }

    /// The same store, whose answers wait for this durability. The default is the room's.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// The same store; a state set through this handle may have this many bytes of JSON. The
    /// default is 4 MiB, or what one log segment can hold if that is less.
    ///
    /// # Errors
    /// [`InvalidConfig`](Error::InvalidConfig) for zero, and for what no log segment of this room
    /// can hold.
    pub fn with_max_state_bytes(self, max_state_bytes: usize) -> Result<Self> {
        check_max_state_bytes(max_state_bytes, self.engine.max_row_bytes())?;
        Ok(Self { max_state_bytes, ..self })
    }

    /// Up to `limit` live states after `cursor`, or from the first one without a cursor, claimed
    /// ones included, in byte order of their ids.
    ///
    /// # Errors
    /// [`InvalidConfig`](Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<HandoffEntry>> {
        self.engine.read(self.durability, |rows| ops::list(rows, cursor, limit))
    }

    /// Counts every state, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<HandoffStats> {
        self.engine.read(self.durability, |rows| ops::stats(rows))
    }
}

/// The most bytes of JSON that fit in a row of `max_row_bytes`.
fn ceiling(max_row_bytes: usize) -> usize {
    max_row_bytes.saturating_sub(STATE_ROW_OVERHEAD)
}

/// The default maximum of a state.
pub(super) fn default_max_state_bytes(max_row_bytes: usize) -> usize {
    DEFAULT_MAX_STATE_BYTES.min(ceiling(max_row_bytes))
}

/// Refuses a maximum of zero, and one that no log segment can hold.
pub(super) fn check_max_state_bytes(max_state_bytes: usize, max_row_bytes: usize) -> Result<()> {
    let ceiling = ceiling(max_row_bytes);
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
            .field("durability", &self.durability)
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

impl HandoffStateStore for Handoff {
    fn set(&self, state_id: &str, state: &JsonObject, ttl_seconds: u64) -> Pending<()> {
        let key = key_or_answer!(state_id);
        let json = match ops::encode_state(state, self.max_state_bytes) {
            Ok(json) => json,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.engine.transact(self.durability, &rows_of(key), |tx| {
            ops::set(tx, state_id, &json, ttl_seconds)
        })
    }

    fn get(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        self.engine.read(self.durability, |rows| ops::get(rows, state_id))
    }

    fn get_and_delete(&self, state_id: &str) -> Pending<Option<JsonObject>> {
        let key = key_or_answer!(state_id);
        self.engine.transact(self.durability, &rows_of(key), |tx| ops::get_and_delete(tx, state_id))
    }

    fn delete(&self, state_id: &str) -> Pending<()> {
        let key = key_or_answer!(state_id);
        self.engine.transact(self.durability, &rows_of(key), |tx| ops::delete(tx, state_id))
    }

    fn claim(&self, state_id: &str, lease: Duration) -> Pending<Option<Claim>> {
        let key = key_or_answer!(state_id);
        let random = Ulid::generate().random();
        self.engine
            .transact(self.durability, &rows_of(key), |tx| ops::claim(tx, state_id, lease, random))
    }

    fn ack(&self, claim: &ClaimId) -> Pending<bool> {
        let key = key_or_answer!(claim.state_id());
        self.engine.transact(self.durability, &rows_of(key), |tx| ops::ack(tx, claim))
    }

    fn release(&self, claim: &ClaimId) -> Pending<bool> {
        let key = key_or_answer!(claim.state_id());
        self.engine.transact(self.durability, &rows_of(key), |tx| ops::release(tx, claim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_maximum_shrinks_to_a_segment_and_an_explicit_one_must_fit() {
        assert_eq!(default_max_state_bytes(100 << 20), DEFAULT_MAX_STATE_BYTES);
        let ceiling = 1_000 - STATE_ROW_OVERHEAD;
        assert_eq!(default_max_state_bytes(1_000), ceiling);
        for (maximum, fits) in [(0, false), (1, true), (ceiling, true), (ceiling + 1, false)] {
            let answer = check_max_state_bytes(maximum, 1_000);
            assert_eq!(answer.is_ok(), fits, "{maximum}");
            assert!(fits || matches!(answer, Err(Error::InvalidConfig(_))));
        }
    }
}
