//! A format version that never was, to test migrating with.
//!
//! Version 0 is version 1 with three differences:
//!
//! | table | version 0 |
//! |---|---|
//! | `expiry` | keys begin with the table number, and the time follows |
//! | `handoff` | the JSON comes first, and eight bytes with the end of its life (ms, big-endian) follow |
//! | `state_tenant_kind` | has no rows; they follow from those of `state_kind` |

use crate::codec;
use crate::codec::key;
use crate::engine::testing::write_older;
use crate::engine::{Emit, Migration};
use crate::error::{Error, Result};
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::path::Path;

/// From version 0 to version 1.
pub(crate) const FROM_0: Migration = Migration { from: 0, row: to_version_1 };

fn damaged(table: Table) -> Error {
    Error::corrupted(format!("a row of table {}", table.name()), "it is not one of version 0")
}

fn to_version_1(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
    if table == Table::EXPIRY {
        let (number, rest) = key.split_first().ok_or_else(|| damaged(table))?;
        let (time, primary) = rest.split_first_chunk::<8>().ok_or_else(|| damaged(table))?;
        return emit(table, &[time, std::slice::from_ref(number), primary].concat(), value);
    }
    if table == Table::HANDOFF {
        let (json, end) = value.split_last_chunk::<8>().ok_or_else(|| damaged(table))?;
        return emit(table, key, &codec::encode(&(u64::from_be_bytes(*end), json))?);
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

fn to_version_0(table: Table, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<()> {
    if table == Table::EXPIRY {
        let (time, rest) = key.split_first_chunk::<8>().ok_or_else(|| damaged(table))?;
        let (number, primary) = rest.split_first().ok_or_else(|| damaged(table))?;
        return emit(table, &[std::slice::from_ref(number), time, primary].concat(), value);
    }
    if table == Table::HANDOFF {
        let (end, json): (u64, &[u8]) = codec::decode_row(table.name(), value)?;
        return emit(table, key, &[json, &end.to_be_bytes()].concat());
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

/// Writes the room at `from`, which no one has open, as a file of version 0 to `to`, half of it
/// still in the log.
///
/// # Errors
/// Those of opening the one and creating the other.
pub fn write_version_0(from: &Path, to: &Path) -> Result<()> {
    write_older(from, to, catalogue(), Migration { from: 0, row: to_version_0 })
}
