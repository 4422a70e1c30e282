//! What is done to cached values, over a reader or a transaction.
//!
//! # Invariants
//! 1. Each tagged row of `cache`, and no other, has a row of `cache_tags` under the same key and a
//!    row of `cache_by_tag` for each of its tags.
//! 2. An entry that expires has one row in the expiry index, at its expiry; one that never does has
//!    none.

use super::content::ValueContent;
use super::row::{CACHE_ROW_OVERHEAD, CacheRow, TagsRow, entry_key, hash_in, tag_key, tag_prefix};
use super::spec::Spec;
use super::state::{UseOrder, count, entry_bytes, stamp_of};
use super::{CacheEntry, CacheStats, Ttl};
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::expiry::{self, KEY_OVERHEAD};
use crate::stores::frame::{FrameBudget, StepRange, row_cost};
use crate::stores::length::check_len;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::tables::Table;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;

/// What is under a hash.
#[derive(Debug, PartialEq)]
pub(crate) enum Lookup<T> {
    Value(T),
    Nothing,
    /// A live row whose bytes are no value of this type.
    Undecodable,
}

/// Looks a value up, and counts whether it was there. A hit reads one row.
pub(crate) fn look_up<T: DeserializeOwned + 'static>(
    rows: &mut dyn Reader,
    spec: &Spec,
    hash: &str,
) -> Result<Lookup<T>> {
    let found = peek(rows, spec, hash)?;
    match found {
        Lookup::Value(_) => spec.state.hit(spec.is_limited(), hash),
        Lookup::Nothing | Lookup::Undecodable => count(&spec.state.counters.misses, 1),
    }
    Ok(found)
}

fn peek<T: DeserializeOwned + 'static>(
    rows: &mut dyn Reader,
    spec: &Spec,
    hash: &str,
) -> Result<Lookup<T>> {
    let key = spec.key(hash)?;
    let Some(bytes) = rows.get(Table::CACHE, &key)? else { return Ok(Lookup::Nothing) };
    let row = CacheRow::decode(&bytes)?;
    if !row.is_live(&rows.moment()) {
        return Ok(Lookup::Nothing);
    }
    Ok(row.content.value().map_or(Lookup::Undecodable, Lookup::Value))
}

/// The value, in a transaction that can remove it at once if it does not decode.
pub(crate) fn get<T: DeserializeOwned + 'static>(
    tx: &mut dyn Writer,
    spec: &Spec,
    hash: &str,
) -> Result<Option<T>> {
    match look_up(tx, spec, hash)? {
        Lookup::Value(value) => return Ok(Some(value)),
        Lookup::Nothing => {}
        Lookup::Undecodable => delete(tx, spec, hash)?,
    }
    Ok(None)
}

/// Removes the entry if it still does not decode.
pub(crate) fn delete_undecodable<T: DeserializeOwned + 'static>(
    tx: &mut dyn Writer,
    spec: &Spec,
    hash: &str,
) -> Result<()> {
    match peek::<T>(tx, spec, hash)? {
        Lookup::Undecodable => delete(tx, spec, hash),
        Lookup::Value(_) | Lookup::Nothing => Ok(()),
    }
}

/// What is known of an entry that is there, live or not.
struct StoredEntry {
    expires_at: Deadline,
    live: bool,
    tags: Vec<String>,
}

/// The entry's particulars. Its tags are read when it has any and `with_tags` or its end asks for
/// them.
fn old(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<StoredEntry>> {
    let Some(bytes) = rows.get(Table::CACHE, key)? else { return Ok(None) };
    stored_entry_of(rows, key, &CacheRow::decode(&bytes)?).map(Some)
}

/// The same, of the row at `key`.
fn stored_entry_of(rows: &mut dyn Reader, key: &[u8], row: &CacheRow<'_>) -> Result<StoredEntry> {
    let tags = if row.tagged { tags_of(rows, key)? } else { Vec::new() };
    Ok(StoredEntry { expires_at: row.expires_at, live: row.is_live(&rows.moment()), tags })
}

pub(super) fn tags_of(rows: &mut dyn Reader, key: &[u8]) -> Result<Vec<String>> {
    let bytes = rows.get(Table::CACHE_TAGS, key)?;
    Ok(bytes
        .map(|bytes| TagsRow::decode(&bytes))
        .transpose()?
        .map_or_else(Vec::new, |row| row.tags))
}

/// What the removal of an entry takes in a frame.
fn removal_cost(spec: &Spec, key: &[u8], hash: &str, old: &StoredEntry) -> usize {
    let expiry =
        if old.expires_at == Deadline::NEVER { 0 } else { row_cost(KEY_OVERHEAD + key.len()) };
    let tags = if old.tags.is_empty() { 0 } else { row_cost(key.len()) };
    let by_tag = |tag: &String| row_cost(tag_prefix(&spec.prefix, tag).len() + hash.len());
    row_cost(key.len()) + expiry + tags + old.tags.iter().map(by_tag).sum::<usize>()
}

/// Removes every row of an entry, if there are any.
fn remove(
    tx: &mut dyn Writer,
    spec: &Spec,
    order: Option<&mut UseOrder>,
    (key, hash): (&[u8], &str),
    old: Option<&StoredEntry>,
) {
    // Also of an entry that is not there: an order that knew it would ask for it again.
    if let Some(order) = order {
        order.removed(hash);
    }
    let Some(old) = old else { return };
    tx.delete(Table::CACHE, key);
    if old.expires_at != Deadline::NEVER {
        expiry::delete(tx, old.expires_at, Table::CACHE, key);
    }
    if !old.tags.is_empty() {
        tx.delete(Table::CACHE_TAGS, key);
    }
    for tag in &old.tags {
        tx.delete(Table::CACHE_BY_TAG, &tag_key(&spec.prefix, tag, hash));
    }
}

/// Removes the entry.
pub(crate) fn delete(tx: &mut dyn Writer, spec: &Spec, hash: &str) -> Result<()> {
    let key = spec.key(hash)?;
    let mut order = spec.state.begin(tx, &spec.prefix, spec.is_limited(), &spec.changed)?;
    let old = old(tx, &key)?;
    remove(tx, spec, order.as_deref_mut(), (&key, hash), old.as_ref());
    Ok(())
}

/// What [`set`] stores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    pub(crate) content: ValueContent<'a>,
    pub(crate) ttl: Ttl,
    /// The tags it has from now on; `None` leaves those it has.
    pub(crate) tags: Option<&'a [&'a str]>,
}

/// Stores a value, and evicts what is too much afterwards.
pub(crate) fn set(tx: &mut dyn Writer, spec: &Spec, hash: &str, new: NewEntry<'_>) -> Result<()> {
    let key = spec.key(hash)?;
    let tags: Option<BTreeSet<&str>> = new.tags.map(|tags| tags.iter().copied().collect());
    tags.iter().flatten().try_for_each(|tag| check_len("a tag", tag))?;
    let now = tx.moment();
    let Some(expires_at) = new.ttl.ends_at(&now) else { return delete(tx, spec, hash) };
    let mut order = spec.state.begin(tx, &spec.prefix, spec.is_limited(), &spec.changed)?;
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
    let mut cost = row_cost(CACHE_ROW_OVERHEAD + new.content.len() + key.len())
        + 3 * row_cost(KEY_OVERHEAD + key.len());
    if retagged {
        let index_key = |tag: &&str| row_cost(tag_prefix(&spec.prefix, tag).len() + hash.len());
        cost += tags.symmetric_difference(&old_tags).map(index_key).sum::<usize>();
        cost += tags.iter().map(|tag| row_cost(tag.len())).sum::<usize>();
    }
    let bytes = entry_bytes(hash, new.content);
    let mut budget = spec.frame_budget();
    if new.content.len() > spec.max_entry_bytes
        || !budget.fits(cost)
        || spec.max_bytes.is_some_and(|max_bytes| bytes > max_bytes)
    {
        remove(tx, spec, order.as_deref_mut(), (&key, hash), old.as_ref());
        drop(order);
        spec.state.count_oversized(&spec.changed);
        return Ok(());
    }
    budget.take(cost);

    let (tagged, content) = (!tags.is_empty(), new.content);
    let row = CacheRow { expires_at, stored_at_ms: now.line_ms(), tagged, content };
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
    index(tx, &key, old.as_ref(), expires_at);
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
    if let Some(order) = &mut order {
        evict(tx, spec, order, budget)?;
    }
    Ok(())
}

/// Indexes an entry under its new end.
fn index(tx: &mut dyn Writer, key: &[u8], old: Option<&StoredEntry>, expires_at: Deadline) {
    let indexed_at =
        old.map(|old| old.expires_at).filter(|indexed_at| *indexed_at != Deadline::NEVER);
    match (indexed_at, expires_at) {
        (None, Deadline::NEVER) => {}
        (Some(indexed_at), Deadline::NEVER) => {
            expiry::delete(tx, indexed_at, Table::CACHE, key);
        }
        (indexed_at, _) => expiry::move_to(tx, indexed_at, expires_at, Table::CACHE, key),
    }
}

/// Removes the least recently used entries until the limits hold, or the frame is full: then the
/// next set goes on.
fn evict(
    tx: &mut dyn Writer,
    spec: &Spec,
    order: &mut UseOrder,
    mut budget: FrameBudget,
) -> Result<()> {
    while let Some(victim) = order.victim(spec.max_entries, spec.max_bytes) {
        let key = spec.key(&victim)?;
        let old = old(tx, &key)?;
        if !budget.take(old.as_ref().map_or(0, |old| removal_cost(spec, &key, &victim, old))) {
            break;
        }
        remove(tx, spec, Some(order), (&key, &victim), old.as_ref());
        if old.is_some_and(|old| old.live) {
            order.count_eviction();
        }
    }
    Ok(())
}

/// The entries whose hash begins with `scope`, for [`clear`].
pub(crate) fn entries_in(
    rows: &mut dyn Reader,
    spec: &Spec,
    scope: &str,
) -> Result<Option<StepRange>> {
    spec.check_name()?;
    check_len("the scope", scope)?;
    StepRange::of(rows, Table::CACHE, &entry_key(&spec.prefix, scope))
}

/// Removes entries of `range` whose hash begins with `scope`, as many as the budget allows. Whether
/// none is left.
pub(crate) fn clear(
    tx: &mut dyn Writer,
    spec: &Spec,
    scope: &str,
    range: &mut StepRange,
    mut budget: FrameBudget,
) -> Result<bool> {
    spec.check_name()?;
    check_len("the scope", scope)?;
    let mut order = spec.state.begin(tx, &spec.prefix, spec.is_limited(), &spec.changed)?;
    let first = entry_key(&spec.prefix, scope);
    let mut entries = range.cursor(Table::CACHE, &first);
    while let Some((key, bytes)) = entries.next(tx)? {
        let hash = hash_in(Table::CACHE, &spec.prefix, &key)?;
        let old = stored_entry_of(tx, &key, &CacheRow::decode(&bytes)?)?;
        if !budget.take(removal_cost(spec, &key, hash, &old)) {
            return Ok(false);
        }
        remove(tx, spec, order.as_deref_mut(), (&key, hash), Some(&old));
        range.after = Some(key);
    }
    Ok(true)
}

/// A tag, and which of its entries are left to invalidate.
#[derive(Debug, Clone)]
pub(crate) struct TagRange {
    tag: String,
    range: StepRange,
}

/// Those of `tags` that have entries, for [`invalidate`].
pub(crate) fn tagged_with(
    rows: &mut dyn Reader,
    spec: &Spec,
    tags: &[&str],
) -> Result<VecDeque<TagRange>> {
    check_tags(spec, tags)?;
    let mut found = VecDeque::new();
    for tag in tags {
        let prefix = tag_prefix(&spec.prefix, tag);
        if let Some(range) = StepRange::of(rows, Table::CACHE_BY_TAG, &prefix)? {
            found.push_back(TagRange { tag: (*tag).to_owned(), range });
        }
    }
    Ok(found)
}

fn check_tags(spec: &Spec, tags: &[&str]) -> Result<()> {
    spec.check_name()?;
    tags.iter().try_for_each(|tag| check_len("a tag", tag))
}

/// Removes entries that have any of the tags, as many as the budget allows, and takes each tag that
/// is done off the list. Answers how many live entries were removed.
pub(crate) fn invalidate(
    tx: &mut dyn Writer,
    spec: &Spec,
    tags: &mut VecDeque<TagRange>,
    mut budget: FrameBudget,
) -> Result<u64> {
    let mut order = spec.state.begin(tx, &spec.prefix, spec.is_limited(), &spec.changed)?;
    let mut removed = 0;
    while let Some(TagRange { tag, range }) = tags.front_mut() {
        let prefix = tag_prefix(&spec.prefix, tag);
        let mut tagged = range.cursor(Table::CACHE_BY_TAG, &prefix);
        while let Some((tag_key, _)) = tagged.next(tx)? {
            let hash = hash_in(Table::CACHE_BY_TAG, &prefix, &tag_key)?;
            let key = spec.key(hash)?;
            let old = old(tx, &key)?;
            if !budget.take(old.as_ref().map_or(0, |old| removal_cost(spec, &key, hash, old))) {
                return Ok(removed);
            }
            remove(tx, spec, order.as_deref_mut(), (&key, hash), old.as_ref());
            removed += u64::from(old.is_some_and(|old| old.live));
            range.after = Some(tag_key);
        }
        tags.pop_front();
        // Looking for the entries of a tag takes time also when another tag has removed them.
        if !budget.take(row_cost(prefix.len())) {
            break;
        }
    }
    Ok(removed)
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
    let after = Cursor::position(cursor, Table::CACHE, &spec.prefix)?;
    let now = rows.moment();
    let mut entries = RowCursor::prefix(Table::CACHE, &spec.prefix).after(after);
    page_of(Table::CACHE, limit, || {
        while let Some((key, bytes)) = entries.next(rows)? {
            let row = CacheRow::decode(&bytes)?;
            if !row.is_live(&now) {
                continue;
            }
            let entry = CacheEntry {
                hash: hash_in(Table::CACHE, &spec.prefix, &key)?.to_owned(),
                created_at_ms: row.stored_at_ms,
                expires_at_ms: Some(row.expires_at)
                    .filter(|expires_at| *expires_at != Deadline::NEVER)
                    .map(|expires_at| now.wall_of(expires_at)),
                bytes: row.content.len() as u64,
                tags: if row.tagged { tags_of(rows, &key)? } else { Vec::new() },
            };
            return Ok(Some((key, entry)));
        }
        Ok(None)
    })
}

/// Reads every row, so that a change which needs them all finds them in memory.
pub(crate) fn warm(rows: &mut dyn Reader, spec: &Spec) -> Result<()> {
    let mut entries = RowCursor::prefix(Table::CACHE, &spec.prefix);
    while entries.next(rows)?.is_some() {}
    Ok(())
}

/// Counts every entry.
pub(crate) fn stats(rows: &mut dyn Reader, spec: &Spec) -> Result<CacheStats> {
    spec.check_name()?;
    let now = rows.moment();
    let counters = &spec.state.counters;
    let mut stats = CacheStats {
        hits: counters.hits.load(Ordering::Relaxed),
        misses: counters.misses.load(Ordering::Relaxed),
        evictions: counters.evictions.load(Ordering::Relaxed),
        oversized: counters.oversized.load(Ordering::Relaxed),
        ..CacheStats::default()
    };
    let mut entries = RowCursor::prefix(Table::CACHE, &spec.prefix);
    while let Some((key, bytes)) = entries.next(rows)? {
        let row = CacheRow::decode(&bytes)?;
        stats.bytes += entry_bytes(hash_in(Table::CACHE, &spec.prefix, &key)?, row.content);
        match row.is_live(&now) {
            true => stats.live += 1,
            false => stats.expired += 1,
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
