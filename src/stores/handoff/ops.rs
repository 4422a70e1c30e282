//! The operations on claim checks, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. There is no claim row without the state's own row.
//! 2. A state has exactly one row in the expiry index, at its expiry.
//! 3. A claim row that was removed or replaced never comes back, so a claim id identifies one
//!    claim.

use super::claim::{ClaimId, lease_ms};
use super::json;
use super::row::{ClaimRow, HandoffRow, key_of};
use super::{HandoffEntry, HandoffStats, JsonObject};
use crate::engine::access::{Reader, Value, Writer};
use crate::engine::cursor::RowJoin;
use crate::engine::time_line::Moment;
use crate::error::{Error, Result};
use crate::stores::expiry;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::tables::Table;
use std::time::Duration;
use ulid::Ulid;

/// A state's row, if it can be taken now: unexpired, and it is not claimed.
fn free(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<Value>> {
    let now = rows.moment();
    let Some(bytes) = rows.get(Table::HANDOFF, key)? else { return Ok(None) };
    if !HandoffRow::decode(&bytes)?.is_live(&now) {
        return Ok(None);
    }
    let claim = claim_on(rows, key)?;
    Ok((!claim.is_some_and(|claim| claim.is_live(&now))).then_some(bytes))
}

/// The claim row of a state, stale or not.
fn claim_on(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<ClaimRow>> {
    rows.get(Table::HANDOFF_CLAIM, key)?.map(|bytes| ClaimRow::decode(&bytes)).transpose()
}

/// Removes every row of a state, if there are any.
fn remove(tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
    let Some(state) = tx.get(Table::HANDOFF, key)? else { return Ok(()) };
    let expires_at = HandoffRow::decode(&state)?.expires_at;
    let claimed = tx.get(Table::HANDOFF_CLAIM, key)?.is_some();
    tx.delete(Table::HANDOFF, key);
    expiry::delete(tx, expires_at, Table::HANDOFF, key);
    if claimed {
        tx.delete(Table::HANDOFF_CLAIM, key);
    }
    Ok(())
}

/// The JSON of `state`, unless it is over `max_state_bytes`. Apart from [`set`], so that it is not
/// done under the engine's lock.
pub(crate) fn encode_state(state: &JsonObject, max_state_bytes: usize) -> Result<Vec<u8>> {
    let json = json::encode(state)?;
    check_size(&json, max_state_bytes)?;
    Ok(json)
}

/// Refuses JSON that is not one state, or over `max_state_bytes`.
pub(crate) fn check_raw(json: &str, max_state_bytes: usize) -> Result<()> {
    check_size(json.as_bytes(), max_state_bytes)?;
    json::check(json)
}

fn check_size(json: &[u8], max_state_bytes: usize) -> Result<()> {
    let (size, limit) = (json.len() as u64, max_state_bytes as u64);
    if size > limit {
        return Err(Error::TooLarge { what: "the encoded state", size, limit });
    }
    Ok(())
}

/// A TTL of whole seconds in milliseconds.
pub(crate) fn ttl_ms(ttl_seconds: u64) -> u64 {
    ttl_seconds.saturating_mul(1_000)
}

/// Leaves the state with this JSON under `state_id`.
pub(crate) fn set(tx: &mut dyn Writer, state_id: &str, json: &[u8], ttl_ms: u64) -> Result<()> {
    let key = key_of(state_id)?;
    let now = tx.moment();
    let expires_at = now.deadline_in(ttl_ms);
    let new = HandoffRow { expires_at, json };
    if !new.is_live(&now) {
        return remove(tx, key);
    }
    let value = new.encode()?;
    let old = tx.get(Table::HANDOFF, key)?;
    let indexed_at =
        old.map(|old| HandoffRow::decode(&old).map(|old| old.expires_at)).transpose()?;
    if tx.get(Table::HANDOFF_CLAIM, key)?.is_some() {
        tx.delete(Table::HANDOFF_CLAIM, key);
    }
    tx.put(Table::HANDOFF, key, value);
    expiry::move_to(tx, indexed_at, expires_at, Table::HANDOFF, key);
    Ok(())
}

/// How a state is read from its JSON: [`json::decode`], or [`json::text`].
pub(crate) type ReadState<S> = fn(&[u8]) -> Result<S>;

/// The state, which stays.
pub(crate) fn get<S>(
    rows: &mut dyn Reader,
    state_id: &str,
    read: ReadState<S>,
) -> Result<Option<S>> {
    free(rows, key_of(state_id)?)?.map(|bytes| read(HandoffRow::decode(&bytes)?.json)).transpose()
}

/// The state, which is gone afterwards. It is decoded before it is removed, so that damage takes
/// nothing away.
pub(crate) fn get_and_delete<S>(
    tx: &mut dyn Writer,
    state_id: &str,
    read: ReadState<S>,
) -> Result<Option<S>> {
    let key = key_of(state_id)?;
    let Some(bytes) = free(tx, key)? else { return Ok(None) };
    let state = read(HandoffRow::decode(&bytes)?.json)?;
    remove(tx, key)?;
    Ok(Some(state))
}

/// Removes the state and ends a claim on it.
pub(crate) fn delete(tx: &mut dyn Writer, state_id: &str) -> Result<()> {
    remove(tx, key_of(state_id)?)
}

/// The state, hidden for `lease`, and the claim on it. `random` makes the claim's id its own.
pub(crate) fn claim<S>(
    tx: &mut dyn Writer,
    state_id: &str,
    lease: Duration,
    random: u128,
    read: ReadState<S>,
) -> Result<Option<(S, ClaimId)>> {
    let key = key_of(state_id)?;
    let lease_ms = lease_ms(lease)?;
    let Some(bytes) = free(tx, key)? else { return Ok(None) };
    let state = read(HandoffRow::decode(&bytes)?.json)?;
    let ulid = Ulid::from_parts(tx.wall_ms(), random);
    put_claim(tx, key, ulid.to_bytes(), lease_ms)?;
    Ok(Some((state, ClaimId::new(ulid.into(), state_id))))
}

/// Hides a state from now on for `lease_ms`.
fn put_claim(tx: &mut dyn Writer, key: &[u8], ulid: [u8; 16], lease_ms: u64) -> Result<()> {
    let row = ClaimRow { ulid, lease_until: tx.moment().deadline_in(lease_ms) };
    tx.put(Table::HANDOFF_CLAIM, key, row.encode()?);
    Ok(())
}

/// Whether this claim holds its state now.
fn holds(rows: &mut dyn Reader, key: &[u8], claim: &ClaimId) -> Result<bool> {
    let now = rows.moment();
    let Some(state) = rows.get(Table::HANDOFF, key)? else { return Ok(false) };
    let Some(row) = claim_on(rows, key)? else { return Ok(false) };
    Ok(HandoffRow::decode(&state)?.is_live(&now)
        && row.is_live(&now)
        && Ulid::from_bytes(row.ulid) == Ulid::from(claim.ulid()))
}

/// Ends a claim by deleting the state.
pub(crate) fn ack(tx: &mut dyn Writer, claim: &ClaimId) -> Result<bool> {
    let key = key_of(claim.state_id())?;
    let held = holds(tx, key, claim)?;
    if held {
        remove(tx, key)?;
    }
    Ok(held)
}

/// Ends a claim by showing the state again.
pub(crate) fn release(tx: &mut dyn Writer, claim: &ClaimId) -> Result<bool> {
    let key = key_of(claim.state_id())?;
    let held = holds(tx, key, claim)?;
    if held {
        tx.delete(Table::HANDOFF_CLAIM, key);
    }
    Ok(held)
}

/// Hides the state of a claim that holds for `lease` from now on.
pub(crate) fn extend(tx: &mut dyn Writer, claim: &ClaimId, lease: Duration) -> Result<bool> {
    let key = key_of(claim.state_id())?;
    let lease_ms = lease_ms(lease)?;
    let held = holds(tx, key, claim)?;
    if held {
        put_claim(tx, key, Ulid::from(claim.ulid()).to_bytes(), lease_ms)?;
    }
    Ok(held)
}

/// A page of the live states behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<HandoffEntry>> {
    check_limit(limit)?;
    let after = Cursor::position(cursor, Table::HANDOFF, &[])?;
    let now = rows.moment();
    let mut states = RowJoin::all(Table::HANDOFF, Table::HANDOFF_CLAIM, after);
    page_of(Table::HANDOFF, limit, || {
        while let Some(((key, bytes), claim)) = states.next(rows)? {
            let row = HandoffRow::decode(&bytes)?;
            if row.is_live(&now) {
                let entry = entry(&key, row, claim.as_deref(), &now)?;
                return Ok(Some((key, entry)));
            }
        }
        Ok(None)
    })
}

fn entry(
    key: &[u8],
    row: HandoffRow<'_>,
    claim: Option<&[u8]>,
    now: &Moment,
) -> Result<HandoffEntry> {
    let state_id = std::str::from_utf8(key).map_err(|_| {
        Error::corrupted(
            format!("a key of table {}", Table::HANDOFF.name()),
            "a state id that is not UTF-8",
        )
    })?;
    let claim = claim.map(ClaimRow::decode).transpose()?;
    Ok(HandoffEntry {
        state_id: state_id.into(),
        expires_at_ms: now.wall_of(row.expires_at),
        bytes: row.json.len() as u64,
        claimed_until_ms: claim
            .filter(|claim| claim.is_live(now))
            .map(|claim| now.wall_of(claim.lease_until)),
    })
}

/// Counts every state.
pub(crate) fn stats(rows: &mut dyn Reader) -> Result<HandoffStats> {
    let now = rows.moment();
    let mut stats = HandoffStats::default();
    let mut states = RowJoin::all(Table::HANDOFF, Table::HANDOFF_CLAIM, None);
    while let Some(((key, bytes), claim)) = states.next(rows)? {
        stats.bytes += (key.len() + bytes.len()) as u64;
        stats.bytes += claim.as_ref().map_or(0, |claim| key.len() + claim.len()) as u64;
        let claimed = claim
            .map(|bytes| ClaimRow::decode(&bytes))
            .transpose()?
            .is_some_and(|claim| claim.is_live(&now));
        match (HandoffRow::decode(&bytes)?.is_live(&now), claimed) {
            (false, _) => stats.expired += 1,
            (true, true) => stats.claimed += 1,
            (true, false) => stats.live += 1,
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
