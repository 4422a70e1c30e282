//! The listings of agent states.

use super::ops::indexed;
use super::record::{Identity, ListScope, StateRecord, validate_list_kind};
use super::row::{self, StateRow};
use super::{StateEntry, StateError, StateStats, check};
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::tables::Table;
use std::collections::BTreeSet;
use std::ops::Bound;

/// How many rows of other kinds a page of a tenant's scan passes before it asks the index by kind.
const MAX_PASSED: usize = 256;

/// Every state whose kind begins with `kind_prefix`, by kind and then identity. Reads the rows that
/// it answers, and no others.
pub(crate) fn list_kind(
    rows: &mut dyn Reader,
    scope: ListScope,
    kind_prefix: &str,
) -> Result<Vec<StateRecord>, StateError> {
    validate_list_kind(scope, kind_prefix)?;
    first_of_kinds(rows, kind_prefix, usize::MAX)
}

/// As [`list_kind`], the first `limit`.
pub(crate) fn list_kind_bounded(
    rows: &mut dyn Reader,
    scope: ListScope,
    kind_prefix: &str,
    limit: usize,
) -> Result<Vec<StateRecord>, StateError> {
    check::list_bounded(scope, kind_prefix, limit)?;
    first_of_kinds(rows, kind_prefix, limit)
}

fn first_of_kinds(
    rows: &mut dyn Reader,
    kind_prefix: &str,
    limit: usize,
) -> Result<Vec<StateRecord>, StateError> {
    let prefix = row::kinds_prefix(kind_prefix);
    let mut slots = RowCursor::prefix(Table::STATE_KIND, &prefix).up_to(limit);
    let mut items = Vec::new();
    while let Some((key, _)) = slots.next(rows)? {
        let slot = row::decode_kind_key(&key)?;
        let state = indexed(rows, Table::STATE_KIND, &row::slot_key(&slot.identity, &slot.kind))?;
        items.push(StateRow::decode(&state)?.record(slot));
    }
    Ok(items)
}

/// Up to `limit` states of an identity whose kind begins with `kind_prefix`, by kind.
pub(crate) fn list_kind_for_identity(
    rows: &mut dyn Reader,
    identity: &Identity,
    kind_prefix: &str,
    limit: Option<usize>,
) -> Result<Vec<StateRecord>, StateError> {
    let limit = check::list_for_identity(identity, kind_prefix, limit)?;
    let mut prefix = row::identity_prefix(identity);
    prefix.extend_from_slice(kind_prefix.as_bytes());
    let mut states = RowCursor::prefix(Table::STATE, &prefix).up_to(limit);
    let mut items = Vec::new();
    while let Some((key, state)) = states.next(rows)? {
        items.push(StateRow::decode(&state)?.record(row::decode_slot_key(&key)?));
    }
    Ok(items)
}

/// A page of a tenant's states whose kind begins with `kind_prefix`, by user, session, run and
/// kind.
///
/// A page walks the slots of the tenant, and skips kinds that do not match by a search. Where
/// matches are rare it changes to the index by kind: the first slots of each matching kind, merged.
/// So its cost is bounded by the size of the page and the number of different matching kinds,
/// whatever else the tenant holds.
pub(crate) fn scan_kind_for_tenant(
    rows: &mut dyn Reader,
    scope: ListScope,
    (tenant, kind_prefix): (&str, &str),
    limit: usize,
    cursor: Option<&Cursor>,
) -> Result<Page<StateRecord>, StateError> {
    check::scan(scope, tenant, kind_prefix, limit)?;
    let after = cursor.map(|cursor| row::scan_position(cursor, tenant, kind_prefix)).transpose()?;
    // One more than asked for tells whether there is a next page.
    let wanted = limit.saturating_add(1);
    let (mut keys, passed) = walk_slots(rows, tenant, kind_prefix, after, wanted)?;
    if let Some(passed) = passed {
        let more = merge_kinds(rows, tenant, kind_prefix, passed.as_deref(), wanted - keys.len())?;
        keys.extend(more);
    }
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next = match keys.last() {
        Some(last) if more => Some(row::scan_cursor(tenant, kind_prefix, last)),
        _ => None,
    };
    let mut items = Vec::with_capacity(keys.len());
    for key in keys {
        let state = indexed(rows, Table::STATE_TENANT_KIND, &key)?;
        items.push(StateRow::decode(&state)?.record(row::decode_slot_key(&key)?));
    }
    Ok(Page { items, next })
}

/// The keys of slots, and where the scan stopped early: `Some` of the key behind which nothing was
/// read.
type WalkedSlots = (Vec<Vec<u8>>, Option<Option<Vec<u8>>>);

/// Up to `wanted` keys of matching slots behind `after`, by a scan of the tenant's slots that skips
/// other kinds.
fn walk_slots(
    rows: &mut dyn Reader,
    tenant: &str,
    kind_prefix: &str,
    after: Option<Vec<u8>>,
    wanted: usize,
) -> Result<WalkedSlots, StateError> {
    let prefix = row::tenant_prefix(tenant);
    let end = row::end_of(&prefix);
    let end = end.as_ref().map(Vec::as_slice);
    let mut from = after.clone().map_or(Bound::Included(prefix), Bound::Excluded);
    let (mut found, mut passed, mut last) = (Vec::new(), 0, after);
    while found.len() < wanted {
        if passed == MAX_PASSED {
            return Ok((found, Some(last)));
        }
        let start = from.as_ref().map(Vec::as_slice);
        let mut next = RowCursor::range(Table::STATE, start, end).up_to(1);
        let Some((key, _)) = next.next(rows)? else { break };
        let slot = row::decode_slot_key(&key)?;
        last = Some(key.clone());
        from = if slot.kind.starts_with(kind_prefix) {
            found.push(key.clone());
            Bound::Excluded(key)
        } else {
            passed += 1;
            if slot.kind.as_str() < kind_prefix {
                Bound::Included(row::slot_key(&slot.identity, kind_prefix))
            } else {
                match row::end_of(&row::identity_prefix(&slot.identity)) {
                    // The first key of the next identity.
                    Bound::Excluded(next) => Bound::Included(next),
                    _ => break,
                }
            }
        };
    }
    Ok((found, None))
}

/// The least `wanted` keys of matching slots behind `after`, from the index by kind.
fn merge_kinds(
    rows: &mut dyn Reader,
    tenant: &str,
    kind_prefix: &str,
    after: Option<&[u8]>,
    wanted: usize,
) -> Result<BTreeSet<Vec<u8>>, StateError> {
    let after = after.map(row::decode_slot_key).transpose()?;
    let all = row::tenant_kinds_prefix(tenant, kind_prefix);
    let end = row::end_of(&all);
    let end = end.as_ref().map(Vec::as_slice);
    let mut least: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut next_kind = Bound::Included(all);
    loop {
        let start = next_kind.as_ref().map(Vec::as_slice);
        let mut next = RowCursor::range(Table::STATE_TENANT_KIND, start, end).up_to(1);
        let Some((key, _)) = next.next(rows)? else { break };
        let kind = row::decode_tenant_kind_key(&key)?.kind;
        let of_kind = row::tenant_kind_prefix(tenant, &kind);
        let end_of_kind = row::end_of(&of_kind);
        let from = match &after {
            None => Bound::Included(of_kind),
            // Of the identity where the walk stopped, only the kinds behind that key are still to
            // come.
            Some(slot) if kind > slot.kind => {
                Bound::Included(row::tenant_kind_key(&slot.identity, &kind))
            }
            Some(slot) => Bound::Excluded(row::tenant_kind_key(&slot.identity, &kind)),
        };
        let (start, end) =
            (from.as_ref().map(Vec::as_slice), end_of_kind.as_ref().map(Vec::as_slice));
        let mut slots = RowCursor::range(Table::STATE_TENANT_KIND, start, end);
        while let Some((key, _)) = slots.next(rows)? {
            let slot = row::decode_tenant_kind_key(&key)?;
            let slot_key = row::slot_key(&slot.identity, &slot.kind);
            if least.len() == wanted {
                if least.last().is_some_and(|greatest| slot_key > *greatest) {
                    break;
                }
                least.pop_last();
            }
            least.insert(slot_key);
        }
        next_kind = match end_of_kind {
            Bound::Excluded(next) => Bound::Included(next),
            _ => break,
        };
    }
    Ok(least)
}

/// A page of all states behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<StateEntry>, StateError> {
    check_limit(limit)?;
    let after = Cursor::position(cursor, Table::STATE, &[])?;
    let mut states = RowCursor::all(Table::STATE).after(after);
    page_of(Table::STATE, limit, || {
        let Some((key, value)) = states.next(rows)? else { return Ok(None) };
        let state = StateRow::decode(&value)?;
        let slot = row::decode_slot_key(&key)?;
        let entry = StateEntry {
            event_id: state.event_id.into(),
            identity: slot.identity,
            kind: slot.kind,
            version: state.version,
            bytes: state.bytes.len() as u64,
            updated_at: state.updated_at_ms,
        };
        Ok(Some((key, entry)))
    })
}

/// Counts every state.
pub(crate) fn stats(rows: &mut dyn Reader) -> Result<StateStats, StateError> {
    let mut stats = StateStats::default();
    let mut states = RowCursor::all(Table::STATE);
    while let Some((key, state)) = states.next(rows)? {
        stats.states += 1;
        stats.bytes += (key.len() + state.len()) as u64;
    }
    Ok(stats)
}
