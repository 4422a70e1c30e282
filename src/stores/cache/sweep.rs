//! What a sweeper does to cached values.
//!
//! The order of use needs no word of it: it forgets what has expired by itself, before a change
//! looks at it.

use super::ops::tags_of;
use super::row::{CacheRow, TagsRow, hash_in, tag_key};

use crate::codec::key;
use crate::engine::access::Writer;
use crate::engine::time_line::Deadline;
use crate::error::{Error, Result};
use crate::stores::frame::row_cost;
use crate::stores::sweep::{Budget, Due, Verdict};
use crate::tables::Table;

/// Removes the entry that is due, with its tags, when it has expired. One with more tags than the
/// budget has room for loses some of them first.
pub(crate) fn sweep(tx: &mut dyn Writer, due: &Due<'_>, budget: Budget) -> Result<Verdict> {
    let Some(bytes) = tx.get(Table::CACHE, due.key)? else { return Ok(Verdict::Stale) };
    let row = CacheRow::decode(&bytes)?;
    if row.expires_at == Deadline::NEVER {
        return Ok(Verdict::Stale);
    }
    if !tx.moment().has_surely_passed(row.expires_at) {
        return Ok(Verdict::Keep { until: row.expires_at });
    }
    let mut tags = if row.tagged { tags_of(tx, due.key)? } else { Vec::new() };
    let prefix = name_in(due.key)?;
    let hash = hash_in(Table::CACHE, prefix, due.key)?;
    let (mut gone, mut cost) = (Vec::new(), 0);
    while let Some(tag) = tags.pop() {
        let tag_key = tag_key(prefix, &tag, hash);
        cost += row_cost(tag_key.len());
        let is_too_much = cost > budget.frame_bytes || gone.len() >= budget.changes;
        if is_too_much && !gone.is_empty() {
            tags.push(tag);
            break;
        }
        gone.push(tag_key);
    }
    let some_left = !tags.is_empty();
    let left = if some_left { Some(TagsRow { tags }.encode()?) } else { None };
    for tag_key in &gone {
        tx.delete(Table::CACHE_BY_TAG, tag_key);
    }
    if let Some(left) = left {
        tx.put(Table::CACHE_TAGS, due.key, left);
        return Ok(Verdict::Partly);
    }
    if row.tagged {
        tx.delete(Table::CACHE_TAGS, due.key);
    }
    tx.delete(Table::CACHE, due.key);
    due.unindex(tx, row.expires_at);
    Ok(Verdict::Removed)
}

/// What the key of an entry begins with: the name of its cache.
fn name_in(entry_key: &[u8]) -> Result<&[u8]> {
    let mut hash = entry_key;
    key::take_bytes(&mut hash).and_then(|_| entry_key.strip_suffix(hash)).ok_or_else(|| {
        Error::corrupted(format!("a key of table {}", Table::CACHE.name()), "it names no cache")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::StoreKind;
    use crate::stores::cache::Ttl;
    use crate::stores::cache::content::ValueContent;
    use crate::stores::cache::ops::{NewEntry, set};
    use crate::stores::cache::spec::Spec;
    use crate::stores::map_tx::MapTx;
    use crate::stores::sweep::{sweep_all, sweep_all_within};

    fn put(tx: &mut MapTx, name: &str, hash: &str, ttl_seconds: i64, tags: &[&str]) {
        let spec = Spec::of_state(name, Default::default(), 1 << 20, 1 << 20);
        let new = NewEntry {
            content: ValueContent::Json(b"1"),
            ttl: Ttl::of_seconds(ttl_seconds),
            tags: Some(tags),
        };
        set(tx, &spec, hash, new).unwrap();
    }

    #[test]
    fn an_expired_entry_goes_with_its_tags_and_others_stay() {
        let mut tx = MapTx::at(0);
        put(&mut tx, "a\0", "h\0", 10, &["x", "y\0"]);
        put(&mut tx, "", "", 10, &[]);
        put(&mut tx, "a\0", "never", 0, &["x"]);
        put(&mut tx, "a", "\0h", 11, &["x"]);
        tx.now_ms = 10_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::CACHE), 2);
        assert_eq!(tx.keys(Table::CACHE).len(), 2);
        assert_eq!((tx.keys(Table::CACHE_TAGS).len(), tx.keys(Table::CACHE_BY_TAG).len()), (2, 2));
        tx.now_ms = 11_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::CACHE), 1);
        assert_eq!((tx.snapshot().len(), tx.keys(Table::EXPIRY).len()), (3, 0));
    }

    #[test]
    fn an_entry_with_many_tags_goes_in_parts_each_of_which_keeps_tags_and_entries_together() {
        let mut tx = MapTx::at(0);
        let tags: Vec<_> = (0..25).map(|tag| format!("tag {tag:02}")).collect();
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        put(&mut tx, "a", "h", 10, &tags);
        tx.now_ms = 10_000;
        let mut steps = 0;
        for budget in
            [Budget { changes: 10, frame_bytes: 10_000 }, Budget { changes: 99, frame_bytes: 1 }]
        {
            let mut tx = tx.clone();
            let report = sweep_all_within(&mut tx, budget, |tx| {
                steps += 1;
                let left = tx.get(Table::CACHE_TAGS, b"a\0\0h").unwrap();
                let left = left.map_or(0, |left| TagsRow::decode(&left).unwrap().tags.len());
                assert_eq!(tx.keys(Table::CACHE_BY_TAG).len(), left);
                assert_eq!(tx.keys(Table::CACHE).is_empty(), left == 0);
            });
            assert_eq!(report.removed(StoreKind::CACHE), 1);
            assert!(tx.snapshot().is_empty());
        }
        assert_eq!(steps, 3 + 25);
    }

    use crate::engine::access::Reader;

    #[test]
    fn a_key_without_a_name_is_damage() {
        let mut tx = MapTx::at(10);
        let row = CacheRow {
            expires_at: Deadline::at(1),
            stored_at_ms: 0,
            tagged: false,
            content: ValueContent::Json(b"1"),
        };
        tx.put(Table::CACHE, b"name", row.encode().unwrap());
        let due = Due { at: Deadline::at(1), table: Table::CACHE, key: b"name" };
        assert!(matches!(sweep(&mut tx, &due, Budget::SLICE), Err(Error::Corrupted { .. })));
        assert_eq!(tx.writes, 1);
    }
}
