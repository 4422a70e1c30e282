//! Which rows of derived tables belong to a row: what a file must hold beside it, and what whoever
//! copies rows into another file writes beside it.
//!
//! A row of a derived table says nothing that its primary row does not say. Where the expiry index
//! may have a row at more than one time, there is one canonical time, which [`rows`] answers, and
//! [`may_be_indexed_at_ms`] tells which others a sound file may have.

use super::adaptive_rate_limit::ops::ResourceRow;
use super::cache::row::{self as cache_row, CacheRow, NEVER, TagsRow};
use super::codlet::row::{FailuresRow, Record};
use super::dedupe::row::JobRow;
use super::expiry;
use super::form_token::row::{TokenRow, UseRow};
use super::handoff::row::StateRow as HandoffRow;
use super::rate_limit::limiter::CooldownRow;
use super::rate_limit::ops::WindowRow;
use super::state::row::{self as state_row, StateRow};
use crate::codec;
use crate::error::Result;
use crate::tables::Table;

/// Whether the rows of `table` follow from the rows of others.
pub(crate) fn is_derived(table: Table) -> bool {
    matches!(
        table,
        Table::EXPIRY
            | Table::CACHE_BY_TAG
            | Table::STATE_EVENT
            | Table::STATE_KIND
            | Table::STATE_TENANT_KIND
            | Table::CODLET_CODE_KEY
            | Table::CODLET_SESSION_KEY
    )
}

/// Shows `emit` every row of a derived table that belongs to the row at `key` of `table`: table,
/// key, value. A derived row has none. The rows by tag belong to the row of tags, not to the cached
/// value.
///
/// An adaptive limiter that was cleared stands in the expiry index at the time of each clear until
/// a sweeper has seen to it, of which its row says nothing: a sound file has any number of such
/// rows, and none is canonical.
///
/// A form token that was consumed belongs under the end of its grace as soon as a sweeper has found
/// it; canonical is its own end, which never comes later, and where a sweeper finds it again.
pub(crate) fn rows(
    table: Table,
    key: &[u8],
    value: &[u8],
    emit: &mut dyn FnMut(Table, Vec<u8>, Vec<u8>),
) -> Result<()> {
    if let Some(time_ms) = indexed_at_ms(table, value)? {
        emit(Table::EXPIRY, expiry::encode_key(time_ms, table, key), Vec::new());
    }
    match table {
        Table::CACHE_TAGS => {
            for tag_key in cache_row::tag_keys(key, &TagsRow::decode(value)?)? {
                emit(Table::CACHE_BY_TAG, tag_key, Vec::new());
            }
        }
        Table::STATE => {
            let slot = state_row::decode_slot_key(key)?;
            let event_id = StateRow::decode(value)?.event_id;
            emit(Table::STATE_EVENT, event_id.as_bytes().to_vec(), key.to_vec());
            emit(Table::STATE_KIND, state_row::kind_key(&slot.identity, &slot.kind), Vec::new());
            emit(
                Table::STATE_TENANT_KIND,
                state_row::tenant_kind_key(&slot.identity, &slot.kind),
                Vec::new(),
            );
        }
        Table::CODLET_CODE => {
            emit(Table::CODLET_CODE_KEY, Record::decode(table, value)?.lookup_key, key.to_vec())
        }
        Table::CODLET_SESSION => {
            emit(Table::CODLET_SESSION_KEY, Record::decode(table, value)?.lookup_key, key.to_vec());
        }
        _ => {}
    }
    Ok(())
}

/// The canonical time of the expiry index for a row of `table`, in milliseconds since the Unix
/// epoch. `None` for what does not stand in the index.
fn indexed_at_ms(table: Table, value: &[u8]) -> Result<Option<u64>> {
    Ok(match table {
        Table::FORM_TOKEN => Some(TokenRow::decode(value)?.expiry_ms()),
        Table::HANDOFF => Some(HandoffRow::decode(value)?.expires_at_ms),
        Table::CACHE => {
            Some(CacheRow::decode(value)?.expires_at_ms).filter(|time_ms| *time_ms != NEVER)
        }
        Table::DEDUPE_JOB => JobRow::decode(value)?.ends_at_ms,
        Table::RATE_LIMIT => WindowRow::decode(value)?.indexed_at_ms,
        Table::ADAPTIVE_RATE_LIMIT => ResourceRow::decode(value)?.indexed_at_ms,
        Table::RATE_LIMIT_COOLDOWN => {
            Some(codec::decode_row::<CooldownRow>(table.name(), value)?.until_ms)
        }
        Table::CODLET_CODE | Table::CODLET_SESSION => {
            Some(Record::decode(table, value)?.keep_until_ms)
        }
        Table::CODLET_FAILURES => Some(FailuresRow::decode(value)?.ends_ms()),
        _ => None,
    })
}

/// Every time at which a sound file may have a row of `table` in the expiry index; it has it at
/// exactly one of them. The first is the canonical one. `used` is the row of
/// [`Table::FORM_TOKEN_USE`] beside a form token.
pub(crate) fn may_be_indexed_at_ms(
    table: Table,
    value: &[u8],
    used: Option<&[u8]>,
) -> Result<Vec<u64>> {
    let mut times: Vec<u64> = indexed_at_ms(table, value)?.into_iter().collect();
    if let (Table::FORM_TOKEN, Some(used), Some(expiry_ms)) = (table, used, times.first().copied())
    {
        let rescheduled_ms = expiry_ms.saturating_add(UseRow::decode(used)?.grace_ms);
        if rescheduled_ms != expiry_ms {
            times.push(rescheduled_ms);
        }
    }
    Ok(times)
}

#[cfg(test)]
pub(crate) mod tests;
