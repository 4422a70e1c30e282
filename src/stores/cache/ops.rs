//! What is done to cached values, over a reader or a transaction.
//!
//! # Invariants
//! 1. A row of `cache_tags` stands exactly beside the tagged rows of `cache`, and there is a row of
//!    `cache_by_tag` for each of its tags.
//! 2. An entry that expires has one row in the expiry index, at its expiry; one that never does has
//!    none.

use super::row::{CACHE_ROW_OVERHEAD, CacheRow, NEVER, TagsRow, hash_in, tag_key, tag_prefix};
use super::spec::{Spec, row_cost};
use super::state::{Order, Turn, count, entry_bytes, stamp_of, visit};
use super::{CacheEntry, CacheStats, json};
use crate::codec::key::prefix_end;
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::limits::MAX_KEY_LEN;
use crate::stores::expiry;
use crate::stores::length::check_len;
use crate::stores::page::{Cursor, Page, check_limit};
use crate::tables::Table;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;

/// How many index rows one step of an invalidation reads.
const TAG_SLICE: usize = 1_024;

/// What is under a hash.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<T> {
    Value(T),
    Nothing,
    /// A live row whose bytes are no value of this type.
    Undecodable,
}

/// Looks a value up, and counts whether it was there. A hit reads one row.
pub(crate) fn look_up<T: DeserializeOwned>(
    rows: &mut dyn Reader,
    spec: &Spec,
    hash: &str,
) -> Result<Found<T>> {
    let found = peek(rows, spec, hash)?;
    match found {
        Found::Value(_) => spec.state.hit(spec, hash),
        Found::Nothing | Found::Undecodable => count(&spec.state.counters.misses),
    }
    Ok(found)
}

fn peek<T: DeserializeOwned>(rows: &mut dyn Reader, spec: &Spec, hash: &str) -> Result<Found<T>> {
    let key = spec.key(hash)?;
    let Some(bytes) = rows.get(Table::CACHE, &key)? else { return Ok(Found::Nothing) };
    let row = CacheRow::decode(&bytes)?;
    if !row.is_live(rows.now_ms()) {
        return Ok(Found::Nothing);
    }
    Ok(json::decode(row.json).map_or(Found::Undecodable, Found::Value))
}

/// The value, in a transaction that can remove it at once if it does not decode.
pub(crate) fn get<T: DeserializeOwned>(
    tx: &mut dyn Writer,
    spec: &Spec,
    turn: Turn,
    hash: &str,
) -> Result<Option<T>> {
    match look_up(tx, spec, hash)? {
        Found::Value(value) => return Ok(Some(value)),
        Found::Nothing => {}
        Found::Undecodable => delete(tx, spec, turn, hash)?,
    }
    Ok(None)
}

/// Removes the entry if it still does not decode.
pub(crate) fn delete_undecodable<T: DeserializeOwned>(
    tx: &mut dyn Writer,
    spec: &Spec,
    turn: Turn,
    hash: &str,
) -> Result<()> {
    match peek::<T>(tx, spec, hash)? {
        Found::Undecodable => delete(tx, spec, turn, hash),
        Found::Value(_) | Found::Nothing => Ok(()),
    }
}

/// What is known of an entry that is there, live or not.
struct Old {
    expires_at_ms: u64,
    live: bool,
    tags: Vec<String>,
}

/// The entry's particulars. Its tags are read when it has any and `with_tags` or its end asks for
/// them.
fn old(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<Old>> {
    let now_ms = rows.now_ms();
    let Some(bytes) = rows.get(Table::CACHE, key)? else { return Ok(None) };
    let row = CacheRow::decode(&bytes)?;
    let tags = if row.tagged { tags_of(rows, key)? } else { Vec::new() };
    Ok(Some(Old { expires_at_ms: row.expires_at_ms, live: row.is_live(now_ms), tags }))
}

pub(super) fn tags_of(rows: &mut dyn Reader, key: &[u8]) -> Result<Vec<String>> {
    let bytes = rows.get(Table::CACHE_TAGS, key)?;
    Ok(bytes
        .map(|bytes| TagsRow::decode(&bytes))
        .transpose()?
        .map_or_else(Vec::new, |row| row.tags))
}

/// What became of an entry that was to be removed.
struct Removed {
    live: bool,
    /// What the removal takes in a frame.
    cost: usize,
}

/// Removes every row of an entry, if there are any.
fn remove(
    tx: &mut dyn Writer,
    spec: &Spec,
    order: &mut Option<impl std::ops::DerefMut<Target = Order>>,
    key: &[u8],
    hash: &str,
) -> Result<Removed> {
    let Some(old) = old(tx, key)? else {
        // An order that still knew it would ask for it again.
        if let Some(order) = order {
            order.removed(hash);
        }
        return Ok(Removed { live: false, cost: 0 });
    };
    let mut cost = row_cost(key.len());
    if let Some(order) = order {
        order.removed(hash);
    }
    tx.delete(Table::CACHE, key);
    if old.expires_at_ms != NEVER {
        expiry::delete(tx, old.expires_at_ms, Table::CACHE, key);
        cost += row_cost(9 + key.len());
    }
    if !old.tags.is_empty() {
        tx.delete(Table::CACHE_TAGS, key);
        cost += row_cost(key.len());
    }
    for tag in &old.tags {
        let tag_key = tag_key(&spec.prefix, tag, hash);
        cost += row_cost(tag_key.len());
        tx.delete(Table::CACHE_BY_TAG, &tag_key);
    }
    Ok(Removed { live: old.live, cost })
}

/// Removes the entry.
pub(crate) fn delete(tx: &mut dyn Writer, spec: &Spec, turn: Turn, hash: &str) -> Result<()> {
    let key = spec.key(hash)?;
    let mut order = spec.state.begin(tx, spec, turn)?;
    remove(tx, spec, &mut order, &key, hash).map(|_| ())
}

/// What [`set`] stores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New<'a> {
    pub(crate) json: &'a [u8],
    pub(crate) ttl_seconds: i64,
    /// The tags it has from now on; `None` leaves those it has.
    pub(crate) tags: Option<&'a [&'a str]>,
}

/// Stores a value, and evicts what is too much afterwards.
pub(crate) fn set(
    tx: &mut dyn Writer,
    spec: &Spec,
    turn: Turn,
    hash: &str,
    new: New<'_>,
) -> Result<()> {
    let key = spec.key(hash)?;
    let tags: Option<BTreeSet<&str>> = new.tags.map(|tags| tags.iter().copied().collect());
    tags.iter().flatten().try_for_each(|tag| check_len("a tag", tag))?;
    let now_ms = tx.now_ms();
    let ttl_ms = u64::try_from(new.ttl_seconds).ok().map(|seconds| seconds.saturating_mul(1_000));
    let expires_at_ms = match ttl_ms {
        None => return delete(tx, spec, turn, hash),
        Some(0) => NEVER,
        Some(ttl_ms) => now_ms.saturating_add(ttl_ms),
    };
    let mut order = spec.state.begin(tx, spec, turn)?;
    let old = old(tx, &key)?;
    let old_tags: BTreeSet<&str> =
        old.iter().flat_map(|old| old.tags.iter().map(String::as_str)).collect();
    let tags = match tags {
        Some(tags) => tags,
        // An entry that has expired leaves no tags to the next.
        None if old.as_ref().is_some_and(|old| old.live) => old_tags.clone(),
        None => BTreeSet::new(),
    };
    let retagged = tags != old_tags;

    // Keys: the entry, its tags, and its old and new place in the expiry index.
    let mut cost =
        row_cost(CACHE_ROW_OVERHEAD + new.json.len() + key.len()) + 3 * row_cost(9 + key.len());
    if retagged {
        let index_key = |tag: &&str| row_cost(tag_prefix(&spec.prefix, tag).len() + hash.len());
        cost += tags.symmetric_difference(&old_tags).map(index_key).sum::<usize>();
        cost += tags.iter().map(|tag| row_cost(tag.len())).sum::<usize>();
    }
    let bytes = entry_bytes(hash, new.json);
    if new.json.len() > spec.max_entry_bytes
        || cost > spec.frame_bytes()
        || spec.max_bytes.is_some_and(|max_bytes| bytes > max_bytes)
    {
        count(&spec.state.counters.oversized);
        return remove(tx, spec, &mut order, &key, hash).map(|_| ());
    }

    let row =
        CacheRow { expires_at_ms, stored_at_ms: now_ms, tagged: !tags.is_empty(), json: new.json };
    let value = row.encode()?;
    let tags_value = match retagged && !tags.is_empty() {
        true => {
            Some(TagsRow { tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }.encode()?)
        }
        false => None,
    };
    if let Some(order) = &mut order {
        order.stored(hash, stamp_of(hash, &row));
    }
    tx.put(Table::CACHE, &key, value);
    let indexed_at_ms =
        old.as_ref().map(|old| old.expires_at_ms).filter(|indexed_at_ms| *indexed_at_ms != NEVER);
    match (indexed_at_ms, expires_at_ms) {
        (None, NEVER) => {}
        (Some(indexed_at_ms), NEVER) => expiry::delete(tx, indexed_at_ms, Table::CACHE, &key),
        (indexed_at_ms, _) => expiry::move_to(tx, indexed_at_ms, expires_at_ms, Table::CACHE, &key),
    }
    for gone in old_tags.difference(&tags) {
        tx.delete(Table::CACHE_BY_TAG, &tag_key(&spec.prefix, gone, hash));
    }
    for added in tags.difference(&old_tags) {
        tx.put(Table::CACHE_BY_TAG, &tag_key(&spec.prefix, added, hash), Vec::new());
    }
    match tags_value {
        Some(tags_value) => tx.put(Table::CACHE_TAGS, &key, tags_value),
        None if retagged => tx.delete(Table::CACHE_TAGS, &key),
        None => {}
    }
    if let Some(order) = order {
        evict(tx, spec, order, spec.frame_bytes().saturating_sub(cost))?;
    }
    Ok(())
}

/// Removes the least recently used entries until the limits hold, or the frame is full: then the
/// next set goes on.
fn evict(
    tx: &mut dyn Writer,
    spec: &Spec,
    order: impl std::ops::DerefMut<Target = Order>,
    mut room: usize,
) -> Result<()> {
    let mut order = Some(order);
    while let Some(victim) = order.as_ref().and_then(|order| order.victim(spec)) {
        let key = spec.key(&victim)?;
        let most = removal_cost(tx, spec, &key, &victim)?;
        if most > room {
            break;
        }
        let removed = remove(tx, spec, &mut order, &key, &victim)?;
        room = room.saturating_sub(removed.cost);
        if removed.live {
            count(&spec.state.counters.evictions);
        }
    }
    Ok(())
}

/// What the removal of an entry takes in a frame at most.
fn removal_cost(rows: &mut dyn Reader, spec: &Spec, key: &[u8], hash: &str) -> Result<usize> {
    let tags = old(rows, key)?.map_or_else(Vec::new, |old| old.tags);
    let by_tag = |tag: &String| row_cost(tag_prefix(&spec.prefix, tag).len() + hash.len());
    Ok(3 * row_cost(9 + key.len()) + tags.iter().map(by_tag).sum::<usize>())
}

/// Removes entries whose hash begins with `scope`, behind the key `after`, until a frame is full.
/// `Some` is where to go on.
pub(crate) fn clear(
    tx: &mut dyn Writer,
    spec: &Spec,
    turn: Turn,
    scope: &str,
    after: Option<Vec<u8>>,
    room: usize,
) -> Result<Option<Vec<u8>>> {
    spec.check_name()?;
    check_len("the scope", scope)?;
    let mut order = spec.state.begin(tx, spec, turn)?;
    let mut last = after;
    let (mut taken, mut full) = (0, false);
    while !full {
        let mut slice: Vec<(Vec<u8>, String)> = Vec::new();
        visit(tx, spec, scope, last.clone(), |key, hash, _| {
            slice.push((key.to_vec(), hash.to_owned()));
            Ok(slice.len() < super::state::SCAN_SLICE)
        })?;
        if slice.is_empty() {
            return Ok(None);
        }
        for (key, hash) in slice {
            if taken > 0 && taken + removal_cost(tx, spec, &key, &hash)? > room {
                full = true;
                break;
            }
            taken += remove(tx, spec, &mut order, &key, &hash)?.cost;
            last = Some(key);
        }
    }
    Ok(last)
}

/// What an invalidation did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Invalidated {
    /// How many live entries were removed.
    pub(crate) removed: u64,
    /// Whether entries are left because the frame is full.
    pub(crate) more: bool,
}

/// Removes entries that have any of `tags` until a frame is full.
pub(crate) fn invalidate(
    tx: &mut dyn Writer,
    spec: &Spec,
    turn: Turn,
    tags: &[&str],
    room: usize,
) -> Result<Invalidated> {
    spec.check_name()?;
    tags.iter().try_for_each(|tag| check_len("a tag", tag))?;
    let mut order = spec.state.begin(tx, spec, turn)?;
    let mut done = Invalidated::default();
    let mut taken = 0;
    for tag in tags {
        let prefix = tag_prefix(&spec.prefix, tag);
        let end = prefix_end(&prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let from = after.as_deref().map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
            let found = tx.scan(Table::CACHE_BY_TAG, from, to, TAG_SLICE)?;
            for (tag_key, _) in &found {
                let hash = hash_in(Table::CACHE_BY_TAG, &prefix, tag_key)?;
                let key = spec.key(hash)?;
                if taken > 0 && taken + removal_cost(tx, spec, &key, hash)? > room {
                    done.more = true;
                    return Ok(done);
                }
                let removed = remove(tx, spec, &mut order, &key, hash)?;
                taken += removed.cost;
                done.removed += u64::from(removed.live);
            }
            if found.len() < TAG_SLICE {
                break;
            }
            after = found.into_iter().next_back().map(|(key, _)| key);
        }
    }
    Ok(done)
}

/// A page of the live entries behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    spec: &Spec,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<CacheEntry>> {
    spec.check_name()?;
    check_limit(limit)?;
    let after = cursor.map(|cursor| cursor.key_in(Table::CACHE)).transpose()?;
    if let Some(after) = after {
        check_cursor(spec, after)?;
    }
    let now_ms = rows.now_ms();
    let mut found: Vec<(Vec<u8>, bool, CacheEntry)> = Vec::new();
    let mut more = false;
    visit(rows, spec, "", after.map(<[u8]>::to_vec), |key, hash, row| {
        if !row.is_live(now_ms) {
            return Ok(true);
        }
        more = found.len() == limit;
        if !more {
            let expires_at_ms =
                Some(row.expires_at_ms).filter(|expires_at_ms| *expires_at_ms != NEVER);
            let bytes = row.json.len() as u64;
            let entry =
                CacheEntry { hash: hash.to_owned(), expires_at_ms, bytes, tags: Vec::new() };
            found.push((key.to_vec(), row.tagged, entry));
        }
        Ok(!more)
    })?;
    let next =
        found.last().filter(|_| more).map(|(key, ..)| Cursor::new(Table::CACHE, key.clone()));
    let mut items = Vec::with_capacity(found.len());
    for (key, tagged, mut entry) in found {
        if tagged {
            entry.tags = tags_of(rows, &key)?;
        }
        items.push(entry);
    }
    Ok(Page { items, next })
}

/// Refuses a cursor of a cache with another name.
fn check_cursor(spec: &Spec, key: &[u8]) -> Result<()> {
    if key.starts_with(&spec.prefix) && key.len() <= spec.prefix.len() + MAX_KEY_LEN {
        return Ok(());
    }
    Err(crate::error::Error::InvalidConfig(
        "the cursor is of another cache; pass one that a page of this listing gave".into(),
    ))
}

/// Reads every row, so that a change which needs them all finds them in memory.
pub(crate) fn warm(rows: &mut dyn Reader, spec: &Spec) -> Result<()> {
    visit(rows, spec, "", None, |_, _, _| Ok(true))
}

/// Counts every entry.
pub(crate) fn stats(rows: &mut dyn Reader, spec: &Spec) -> Result<CacheStats> {
    spec.check_name()?;
    let now_ms = rows.now_ms();
    let counters = &spec.state.counters;
    let mut stats = CacheStats {
        hits: counters.hits.load(Ordering::Relaxed),
        misses: counters.misses.load(Ordering::Relaxed),
        evictions: counters.evictions.load(Ordering::Relaxed),
        oversized: counters.oversized.load(Ordering::Relaxed),
        ..CacheStats::default()
    };
    visit(rows, spec, "", None, |_, hash, row| {
        stats.bytes += entry_bytes(hash, row.json);
        match row.is_live(now_ms) {
            true => stats.live += 1,
            false => stats.expired += 1,
        }
        Ok(true)
    })?;
    Ok(stats)
}

#[cfg(test)]
mod tests;
