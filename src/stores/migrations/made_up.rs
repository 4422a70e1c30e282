//! A format version that never was, to test migrating with.
//!
//! Version 1 is version 2 with three differences:
//!
//! | table | version 1 |
//! |---|---|
//! | `expiry` | keys begin with the table number, and the end follows |
//! | `handoff` | the JSON comes first, and twelve bytes with the end of its life (epoch, ms, big-endian) follow |
//! | `state_tenant_kind` | has no rows; they follow from those of `state_kind` |

use crate::codec;
use crate::codec::key;
use crate::engine::testing::write_older;
use crate::engine::{Emit, Migration};
use crate::error::{Error, Result};
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::path::Path;

/// From version 1 to version 2.
pub(crate) const FROM_1: Migration = Migration { from: 1, row: to_version_2 };

fn damaged(table: Table) -> Error {
    Error::corrupted(format!("a row of table {}", table.name()), "it is not one of version 1")
}

fn to_version_2(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
    if table == Table::EXPIRY {
        let (number, rest) = key.split_first().ok_or_else(|| damaged(table))?;
        let (end, primary) = rest.split_first_chunk::<12>().ok_or_else(|| damaged(table))?;
        return emit(table, &[end, std::slice::from_ref(number), primary].concat(), value);
    }
    if table == Table::HANDOFF {
        let (rest, time) = value.split_last_chunk::<8>().ok_or_else(|| damaged(table))?;
        let (json, epoch) = rest.split_last_chunk::<4>().ok_or_else(|| damaged(table))?;
        let end = (u32::from_be_bytes(*epoch), u64::from_be_bytes(*time));
        return emit(table, key, &codec::encode(&(end, json))?);
    }
    emit(table, key, value)?;
    if table == Table::STATE_KIND {
        let mut rest = key;
        let kind = key::take_bytes(&mut rest).ok_or_else(|| damaged(table))?;
        let tenant = key::take_bytes(&mut rest).ok_or_else(|| damaged(table))?;
        emit(Table::STATE_TENANT_KIND, &two_first(&tenant, &kind, rest), value)?;
    }
    Ok(())
}

fn to_version_1(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
    if table == Table::EXPIRY {
        let (end, rest) = key.split_first_chunk::<12>().ok_or_else(|| damaged(table))?;
        let (number, primary) = rest.split_first().ok_or_else(|| damaged(table))?;
        return emit(table, &[std::slice::from_ref(number), end, primary].concat(), value);
    }
    if table == Table::HANDOFF {
        let ((epoch, time), json): ((u32, u64), &[u8]) = codec::decode_row(table.name(), value)?;
        return emit(table, key, &[json, &epoch.to_be_bytes(), &time.to_be_bytes()].concat());
    }
    if table == Table::STATE_TENANT_KIND {
        return Ok(());
    }
    emit(table, key, value)
}

/// The key of two strings and what follows them.
fn two_first(first: &[u8], second: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    key::push_bytes(&mut key, first);
    key::push_bytes(&mut key, second);
    key.extend_from_slice(rest);
    key
}

/// Writes the room at `from`, which no one has open, as a file of version 1 to `to`, half of it
/// still in the log.
///
/// # Errors
/// Those of opening the one and creating the other.
pub fn write_version_1(from: &Path, to: &Path) -> Result<()> {
    write_older(from, to, catalogue(), Migration { from: 1, row: to_version_1 })
}
