//! The in-memory table: every version of every row since the last checkpoint, readable without
//! waiting for the writer.
//!
//! One writer inserts under the engine's serial lock. Any number of readers read the state as of an
//! LSN without blocking the writer. A version is never changed or removed: the whole table is
//! dropped when a checkpoint has moved its newest versions into the B-tree.
//!
//! # Look-ups by hash, order on demand
//! Most reads ask for one key, and most tables are never walked through while their rows are in
//! memory. So a version is appended to an [arena](arena) and found by the hash of its key: an
//! insert and a look-up touch two or three cache lines, however many versions there are. Only the
//! tables that somebody walks through are kept [in order](order) as well, for a while, and the
//! checkpoint sorts everything once.

mod arena;
mod order;
mod version;

use crate::sync::atomic::{AtomicU64, Ordering as Atomic};
use crate::tables::{Table, Value};
use arena::VersionArena;
use foldhash::quality::RandomState;
use order::{OrderedTables, Probe, Versioned};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, LazyLock};
pub(crate) use version::VersionFound;
use version::{Version, VersionNumber};

/// The fewest and the most buckets of a table. Beyond the most, look-ups become slower.
const MIN_BUCKETS: usize = 16;
const MAX_BUCKETS: usize = 1 << 24;

/// Hashes the keys of this process. It is drawn at random, so that no caller can choose keys that
/// share a bucket.
static KEY_HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The versions whose hashes end alike, the newest first.
///
/// The lower half of the word is the number of the newest one. The upper half has a bit for the
/// hash of each, so that a look-up of a key that is not there, which is the rule, reads no version.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    fn newest(&self) -> VersionNumber {
        number_of(self.0.load(Atomic::Relaxed))
    }

    /// For the writer.
    fn add(&self, hash: u64, number: VersionNumber) {
        let bits = self.0.load(Atomic::Relaxed) & !u64::from(u32::MAX);
        self.0.store(bits | bit_of(hash) | u64::from(number.0), Atomic::Release);
    }

    /// The newest version, if one of them may have this hash.
    fn newest_with(&self, hash: u64) -> VersionNumber {
        let word = self.0.load(Atomic::Acquire);
        if word & bit_of(hash) == 0 { VersionNumber::NONE } else { number_of(word) }
    }
}

/// One of the bits of the upper half of a word, by the part of a hash that chooses no bucket.
fn bit_of(hash: u64) -> u64 {
    1 << (32 + (hash >> 59))
}

fn number_of(word: u64) -> VersionNumber {
    VersionNumber(u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default())
}

/// A key that is looked up in one table after the other, and hashed once.
#[derive(Clone, Copy)]
pub(crate) struct HashedKey<'a> {
    table: Table,
    key: &'a [u8],
    hash: u64,
}

impl<'a> HashedKey<'a> {
    pub(crate) fn new(table: Table, key: &'a [u8]) -> Self {
        let mut hasher = KEY_HASHER.build_hasher();
        table.number().hash(&mut hasher);
        hasher.write(key);
        Self { table, key, hash: hasher.finish() }
    }
}

/// The table. See the module.
pub(crate) struct Memtable {
    versions: Arc<VersionArena>,
    /// Their number is a power of two.
    buckets: Box<[Bucket]>,
    ordered: OrderedTables,
    newest_lsn: AtomicU64,
}

/// Shows nothing of the rows.
impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable").field("newest_lsn", &self.newest_lsn).finish_non_exhaustive()
    }
}

impl Memtable {
    /// A table for about `keys` keys. It takes more, with slower look-ups.
    pub(crate) fn for_keys(keys: usize) -> Self {
        let buckets = keys.clamp(MIN_BUCKETS, MAX_BUCKETS).next_power_of_two();
        Self {
            versions: Arc::new(VersionArena::new()),
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            ordered: OrderedTables::new(),
            newest_lsn: AtomicU64::new(0),
        }
    }

    /// A table for about `keys` keys that is written and read as `before` was: what was walked
    /// through in that one is kept in order in this one, too.
    pub(crate) fn after(before: &Self, keys: usize) -> Self {
        let this = Self::for_keys(keys);
        this.ordered.expect_those_of(&before.ordered);
        this
    }

    /// Adds the version of `key` that the frame at `lsn` wrote, which is at or behind that of every
    /// version before. Readers at an earlier LSN do not see it.
    pub(crate) fn insert(&self, table: Table, key: Box<[u8]>, lsn: u64, value: Option<Value>) {
        let hash = HashedKey::new(table, &key).hash;
        let Some(bucket) = self.bucket(hash) else { return };
        let next_in_bucket = bucket.newest();
        let before_in_table = self.ordered.newest_of(table);
        let version = Version { hash, lsn, table, key, value, next_in_bucket, before_in_table };
        let number = self.versions.push(version);
        bucket.add(hash, number);
        self.ordered.inserted(&self.versions, table, number);
        self.newest_lsn.fetch_max(lsn, Atomic::Release);
    }

    /// The LSN of the newest version in the table, or zero while it is empty.
    pub(crate) fn newest_lsn(&self) -> u64 {
        self.newest_lsn.load(Atomic::Acquire)
    }

    /// The number of versions.
    pub(crate) fn len(&self) -> usize {
        self.versions.len() as usize
    }

    /// The newest version of `key` at or before `lsn`.
    pub(crate) fn get(&self, key: HashedKey<'_>, lsn: u64) -> Option<VersionFound> {
        let mut number = self.bucket(key.hash)?.newest_with(key.hash);
        while let Some(version) = self.versions.get(number) {
            let is_asked = version.hash == key.hash && version.lsn <= lsn;
            if is_asked && version.table == key.table && *version.key == *key.key {
                return Some(version.found());
            }
            number = version.next_in_bucket;
        }
        None
    }

    /// The first key of the range of `table` that has a version at or before `lsn`, with the newest
    /// such version.
    pub(crate) fn next(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        lsn: u64,
    ) -> Option<(Box<[u8]>, VersionFound)> {
        let (least, greatest) = self.ordered.ends_of(&self.versions, table)?;
        let is_behind_all = match from {
            Bound::Included(from) => greatest < from,
            Bound::Excluded(from) => greatest <= from,
            Bound::Unbounded => false,
        };
        if is_behind_all || !ends_behind(to, least) {
            return None;
        }
        let is_before_all = match from {
            Bound::Included(from) => from <= least,
            Bound::Excluded(from) => from < least,
            Bound::Unbounded => true,
        };
        if is_before_all && let Some(found) = self.get(HashedKey::new(table, least), lsn) {
            return Some((least.into(), found));
        }
        let (mut key, mut at, mut included) = match from {
            // The newest possible version of a key comes first, the oldest possible last.
            Bound::Included(key) => (key.to_vec(), u64::MAX, true),
            Bound::Excluded(key) => (key.to_vec(), 0, false),
            Bound::Unbounded => (Vec::new(), u64::MAX, true),
        };
        let ordered = self.ordered.all_of(&self.versions, table);
        loop {
            let probe: &dyn Versioned = &Probe::new(table, &key, at);
            let bound = if included { Bound::Included(probe) } else { Bound::Excluded(probe) };
            let entry = ordered.lower_bound(bound)?;
            let version = entry.key().version()?;
            if version.table != table || !ends_behind(to, &version.key) {
                return None;
            }
            if version.lsn <= lsn {
                return Some((version.key.clone(), version.found()));
            }
            // This version is too new. Next is the newest version of the same key that is not, or
            // the next key when there is none.
            (key, at, included) = (version.key.to_vec(), lsn, true);
        }
    }

    /// The newest version of every key, in the order of tables and keys: what a checkpoint moves
    /// into the B-tree.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (Table, &[u8], Option<Value>)> + '_ {
        let mut sorted: Vec<_> = self
            .versions
            .iter()
            .map(|(number, version)| (version.head(), number, version))
            .collect();
        sorted.sort_unstable_by(|a, b| {
            // A later number is a newer version.
            a.0.cmp(&b.0).then_with(|| a.2.key.cmp(&b.2.key)).then_with(|| b.1.cmp(&a.1))
        });
        let mut previous: Option<&Version> = None;
        sorted.into_iter().filter_map(move |(_, _, version)| {
            let is_older = previous
                .is_some_and(|newer| newer.table == version.table && newer.key == version.key);
            previous = Some(version);
            (!is_older).then(|| (version.table, &*version.key, version.value.clone()))
        })
    }

    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        // The number of buckets is a power of two, and fits.
        let index = usize::try_from(hash & (self.buckets.len() as u64 - 1)).unwrap_or_default();
        self.buckets.get(index)
    }
}

/// Whether a range that ends at `to` ends behind `key`.
fn ends_behind(to: Bound<&[u8]>, key: &[u8]) -> bool {
    match to {
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const T: Table = Table::HANDOFF;

    fn value(text: &str) -> Option<Value> {
        Some(text.as_bytes().into())
    }

    fn get(table: &Memtable, of: Table, key: &[u8], lsn: u64) -> Option<VersionFound> {
        table.get(HashedKey::new(of, key), lsn)
    }

    #[test]
    fn a_reader_sees_its_lsn_and_nothing_later() {
        let table = Memtable::for_keys(16);
        table.insert(T, b"k"[..].into(), 3, value("three"));
        table.insert(T, b"k"[..].into(), 7, None);
        table.insert(T, b"k"[..].into(), 9, value("nine"));
        assert_eq!(get(&table, T, b"k", 2), None);
        assert_eq!(get(&table, T, b"k", 3), Some(VersionFound { lsn: 3, value: value("three") }));
        assert_eq!(get(&table, T, b"k", 8), Some(VersionFound { lsn: 7, value: None }));
        assert_eq!(
            get(&table, T, b"k", u64::MAX),
            Some(VersionFound { lsn: 9, value: value("nine") })
        );
        assert_eq!(get(&table, T, b"j", u64::MAX), None);
        assert_eq!(get(&table, T, b"k\0", u64::MAX), None);
        assert_eq!(table.newest_lsn(), 9);
    }

    #[test]
    fn a_lookup_does_not_find_rows_of_another_table() {
        let table = Memtable::for_keys(16);
        table.insert(Table::FORM_TOKEN, b"k"[..].into(), 1, value("token"));
        table.insert(Table::HANDOFF_CLAIM, b"k"[..].into(), 2, value("claim"));
        assert_eq!(get(&table, T, b"k", u64::MAX), None);
        assert_eq!(table.next(T, Bound::Unbounded, Bound::Unbounded, u64::MAX), None);
        assert!(
            table.next(Table::FORM_TOKEN, Bound::Unbounded, Bound::Unbounded, u64::MAX).is_some()
        );
    }

    #[test]
    fn a_checkpoint_takes_the_newest_version_of_each_key_in_order() {
        let table = Memtable::for_keys(16);
        table.insert(T, b"b"[..].into(), 1, value("old"));
        table.insert(T, b"a"[..].into(), 2, value("a"));
        table.insert(T, b"b"[..].into(), 3, value("new"));
        table.insert(T, b"c"[..].into(), 4, None);
        let newest: Vec<_> = table.newest().collect();
        assert_eq!(
            newest,
            [(T, &b"a"[..], value("a")), (T, &b"b"[..], value("new")), (T, &b"c"[..], None),]
        );
    }

    #[test]
    fn rows_whose_buckets_are_shared_are_told_apart() {
        let table = Memtable::for_keys(0);
        for number in 0..5_000_u32 {
            let (key, value) = (number.to_le_bytes(), Value::from(number.to_be_bytes()));
            table.insert(T, key[..].into(), number.into(), Some(value));
        }
        for number in 0..5_000_u32 {
            let found = get(&table, T, &number.to_le_bytes(), u64::MAX).unwrap();
            let value = Some(Value::from(number.to_be_bytes()));
            assert_eq!(found, VersionFound { lsn: number.into(), value });
            assert_eq!(get(&table, Table::CACHE, &number.to_le_bytes(), u64::MAX), None);
        }
        assert_eq!(table.len(), 5_000);
    }

    fn walk(table: &Memtable, lsn: u64) -> Vec<(Vec<u8>, VersionFound)> {
        let (mut rows, mut from) = (Vec::new(), Bound::Unbounded);
        while let Some((key, found)) =
            table.next(T, from.as_ref().map(Vec::as_slice), Bound::Unbounded, lsn)
        {
            from = Bound::Excluded(key.to_vec());
            rows.push((key.into_vec(), found));
        }
        rows
    }

    #[test]
    fn a_table_is_put_in_order_when_it_is_walked_through_and_kept_so_from_then_on() {
        let first = Memtable::for_keys(16);
        let insert = |table: &Memtable, key: &[u8], lsn| {
            table.insert(Table::CACHE, key.into(), lsn, None);
            table.insert(T, key.into(), lsn, value("v"));
        };
        insert(&first, b"b", 1);
        insert(&first, b"a", 2);
        assert_eq!(first.ordered.len(), 0);
        let keys = |table: &Memtable| -> Vec<Vec<u8>> {
            walk(table, u64::MAX).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&first), [b"a", b"b"]);
        assert_eq!(first.ordered.len(), 2);
        insert(&first, b"aa", 3);
        assert_eq!(first.ordered.len(), 3);

        let second = Memtable::after(&first, 16);
        insert(&second, b"c", 4);
        assert_eq!(second.ordered.len(), 1);
        let third = Memtable::after(&second, 16);
        insert(&third, b"c", 5);
        assert_eq!(third.ordered.len(), 0, "no one walked through the table before");
        assert_eq!((keys(&second), keys(&third)), (vec![b"c".to_vec()], vec![b"c".to_vec()]));
    }

    #[test]
    fn the_first_row_and_ranges_beside_all_rows_need_no_order() {
        let table = Memtable::for_keys(16);
        let next =
            |from, to, lsn| table.next(T, from, to, lsn).map(|(key, found)| (key, found.lsn));
        assert_eq!(next(Bound::Unbounded, Bound::Unbounded, 9), None);
        for (key, lsn) in [("m", 1), ("t", 2), ("c", 3), ("m", 4), ("c", 5)] {
            table.insert(T, key.as_bytes().into(), lsn, value("v"));
        }
        let first = |lsn| Some((Box::from(&b"c"[..]), lsn));
        assert_eq!(next(Bound::Unbounded, Bound::Unbounded, 9), first(5));
        assert_eq!(next(Bound::Included(b"c"), Bound::Included(b"c"), 4), first(3));
        assert_eq!(next(Bound::Excluded(b"b"), Bound::Excluded(b"d"), 9), first(5));
        assert_eq!(next(Bound::Unbounded, Bound::Excluded(b"c"), 9), None);
        assert_eq!(next(Bound::Included(b"u"), Bound::Unbounded, 9), None);
        assert_eq!(next(Bound::Excluded(b"t"), Bound::Unbounded, 9), None);
        assert_eq!(table.ordered.len(), 0);
        let other = |key: &[u8], lsn| Some((Box::from(key), lsn));
        assert_eq!(next(Bound::Included(b"t"), Bound::Unbounded, 9), other(b"t", 2));
        assert_eq!(next(Bound::Excluded(b"c"), Bound::Unbounded, 9), other(b"m", 4));
        // Every version of the least key is too new.
        assert_eq!(next(Bound::Unbounded, Bound::Unbounded, 2), other(b"m", 1));
        assert_eq!(next(Bound::Unbounded, Bound::Unbounded, 0), None);
        assert_eq!(table.ordered.len(), 5);
    }

    #[test]
    fn a_table_that_no_one_walks_through_any_more_falls_out_of_the_order_until_the_next_walk() {
        let table = Memtable::for_keys(16);
        let insert = |lsn: u64| table.insert(T, lsn.to_be_bytes()[..].into(), lsn, value("v"));
        (1..=2).for_each(insert);
        for round in 1..3 {
            assert_eq!(walk(&table, u64::MAX).len(), table.len());
            let before = table.ordered.len();
            (1..=5_000).for_each(|number| insert(5_000 * round + number));
            assert_eq!(table.ordered.len(), before + order::KEPT_FOR as usize);
        }
    }

    #[test]
    fn walks_beside_the_writer_see_every_version_up_to_theirs() {
        const ROWS: u64 = 4_000;
        let table = Memtable::for_keys(64);
        let published = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < ROWS {
                        seen = published.load(Atomic::Acquire);
                        let rows = walk(&table, seen);
                        // Every third row replaces the one before it.
                        assert_eq!(rows.len() as u64, seen - seen / 3);
                        let lsns = rows.iter().map(|(_, found)| found.lsn);
                        assert_eq!(lsns.max().unwrap_or(0), seen);
                    }
                });
            }
            for lsn in 1..=ROWS {
                let key = if lsn % 3 == 0 { lsn - 1 } else { lsn };
                let key = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
                table.insert(T, key[..].into(), lsn, value("v"));
                published.store(lsn, Atomic::Release);
            }
        });
    }

    proptest! {
        #[test]
        fn lookups_and_scans_agree_with_a_model(
            writes in prop::collection::vec((0u8..8, any::<bool>()), 1..60),
            at in 0u64..70,
            from in 0u8..9,
            to in 0u8..9,
        ) {
            let table = Memtable::for_keys(16);
            let mut model = BTreeMap::new();
            for (index, (key, live)) in writes.iter().enumerate() {
                let lsn = index as u64 + 1;
                let value = live.then(|| Value::from(&lsn.to_le_bytes()[..]));
                table.insert(T, [*key][..].into(), lsn, value.clone());
                if lsn <= at {
                    model.insert([*key].to_vec(), VersionFound { lsn, value });
                }
            }
            for key in 0..8u8 {
                prop_assert_eq!(get(&table, T, &[key], at), model.get(&[key][..]).cloned());
            }
            let (from, to) = (from.min(to), from.max(to));
            let mut scanned = Vec::new();
            let mut start = Bound::Included(vec![from]);
            while let Some((key, found)) = table.next(
                T,
                start.as_ref().map(Vec::as_slice),
                Bound::Excluded(&[to][..]),
                at,
            ) {
                start = Bound::Excluded(key.to_vec());
                scanned.push((key.to_vec(), found));
            }
            let expected: Vec<_> = model
                .range(vec![from]..vec![to])
                .map(|(key, found)| (key.clone(), found.clone()))
                .collect();
            prop_assert_eq!(scanned, expected);
        }
    }
}
