//! The in-memory table: every version of every row since the last checkpoint, ordered, readable
//! without a lock.
//!
//! One writer inserts under the engine's serial lock. Any number of readers read the state as of an
//! LSN without blocking the writer. A version is never changed or removed: the whole table is
//! dropped when a checkpoint has moved its newest versions into the B-tree.

mod filter;

use crate::tables::{Table, Value};
use crossbeam_skiplist::SkipMap;
use filter::KeyFilter;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

/// A key and its table. The rows of all tables are in one order, table by table.
pub(crate) type TableKey = (Table, Box<[u8]>);

/// A version of a row, ordered by table and key, then the newest first.
trait Versioned {
    fn parts(&self) -> (Head, &[u8], u64);
}

/// A table's number and the first seven bytes of a key. They decide most comparisons without
/// reading the key, which is elsewhere in memory. Shorter keys are padded with zeros, so equal
/// heads decide nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head(u64);

impl Head {
    fn new(table: Table, key: &[u8]) -> Self {
        let mut bytes = [0; 8];
        for (slot, byte) in bytes.iter_mut().zip([table.number()].iter().chain(key)) {
            *slot = *byte;
        }
        Self(u64::from_be_bytes(bytes))
    }
}

#[derive(Debug)]
struct Version {
    head: Head,
    table: Table,
    lsn: u64,
    key: Box<[u8]>,
}

/// A borrowed version, to look up without an allocation.
struct Probe<'a> {
    head: Head,
    key: &'a [u8],
    lsn: u64,
}

impl<'a> Probe<'a> {
    fn new(table: Table, key: &'a [u8], lsn: u64) -> Self {
        Self { head: Head::new(table, key), key, lsn }
    }
}

impl Versioned for Version {
    fn parts(&self) -> (Head, &[u8], u64) {
        (self.head, &self.key, self.lsn)
    }
}

impl Versioned for Probe<'_> {
    fn parts(&self) -> (Head, &[u8], u64) {
        (self.head, self.key, self.lsn)
    }
}

fn compare(a: (Head, &[u8], u64), b: (Head, &[u8], u64)) -> Ordering {
    a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)).then_with(|| b.2.cmp(&a.2))
}

impl<'a> Borrow<dyn Versioned + 'a> for Version {
    fn borrow(&self) -> &(dyn Versioned + 'a) {
        self
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.parts(), other.parts())
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl Ord for dyn Versioned + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.parts(), other.parts())
    }
}

impl PartialOrd for dyn Versioned + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Versioned + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Versioned + '_ {}

/// The version that a lookup found: its LSN, and the row or `None` for a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionFound {
    pub(crate) lsn: u64,
    pub(crate) value: Option<Value>,
}

/// The table. See the module.
#[derive(Debug)]
pub(crate) struct Memtable {
    versions: SkipMap<Version, Option<Value>>,
    filter: KeyFilter,
    newest_lsn: AtomicU64,
}

impl Memtable {
    /// A table for about `keys` keys. It takes more, with slower lookups.
    pub(crate) fn for_keys(keys: usize) -> Self {
        Self {
            versions: SkipMap::new(),
            filter: KeyFilter::for_keys(keys),
            newest_lsn: AtomicU64::new(0),
        }
    }

    /// Adds the version of `key` that the frame at `lsn` wrote. Readers at an earlier LSN do not
    /// see it.
    pub(crate) fn insert(&self, table: Table, key: Box<[u8]>, lsn: u64, value: Option<Value>) {
        self.filter.insert(table, &key);
        let head = Head::new(table, &key);
        self.versions.insert(Version { head, table, lsn, key }, value);
        self.newest_lsn.fetch_max(lsn, Atomic::Release);
    }

    /// The LSN of the newest version in the table, or zero while it is empty.
    pub(crate) fn newest_lsn(&self) -> u64 {
        self.newest_lsn.load(Atomic::Acquire)
    }

    /// The number of versions.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// The newest version of `key` at or before `lsn`.
    pub(crate) fn get(&self, table: Table, key: &[u8], lsn: u64) -> Option<VersionFound> {
        if !self.filter.may_contain(table, key) {
            return None;
        }
        let probe: &dyn Versioned = &Probe::new(table, key, lsn);
        let entry = self.versions.lower_bound(Bound::Included(probe))?;
        let version = entry.key();
        (version.table == table && *version.key == *key)
            .then(|| VersionFound { lsn: version.lsn, value: entry.value().clone() })
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
        let (mut key, mut at, mut included) = match from {
            // The newest possible version of a key comes first, the oldest possible last.
            Bound::Included(key) => (key.to_vec(), u64::MAX, true),
            Bound::Excluded(key) => (key.to_vec(), 0, false),
            Bound::Unbounded => (Vec::new(), u64::MAX, true),
        };
        loop {
            let probe: &dyn Versioned = &Probe::new(table, &key, at);
            let bound = if included { Bound::Included(probe) } else { Bound::Excluded(probe) };
            let entry = self.versions.lower_bound(bound)?;
            let version = entry.key();
            let inside = match to {
                Bound::Included(end) => *version.key <= *end,
                Bound::Excluded(end) => *version.key < *end,
                Bound::Unbounded => true,
            };
            if version.table != table || !inside {
                return None;
            }
            if version.lsn <= lsn {
                let found = VersionFound { lsn: version.lsn, value: entry.value().clone() };
                return Some((version.key.clone(), found));
            }
            // This version is too new. Next is the newest version of the same key that is not, or
            // the next key when there is none.
            (key, at, included) = (version.key.to_vec(), lsn, true);
        }
    }

    /// The newest version of every key, in the order of tables and keys: what a checkpoint moves
    /// into the B-tree.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (TableKey, Option<Value>)> + '_ {
        let mut previous: Option<TableKey> = None;
        self.versions.iter().filter_map(move |entry| {
            let version = entry.key();
            if previous
                .as_ref()
                .is_some_and(|(table, key)| *table == version.table && *key == version.key)
            {
                return None;
            }
            let key = (version.table, version.key.clone());
            previous = Some(key.clone());
            Some((key, entry.value().clone()))
        })
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

    #[test]
    fn a_reader_sees_its_lsn_and_nothing_later() {
        let table = Memtable::for_keys(16);
        table.insert(T, b"k"[..].into(), 3, value("three"));
        table.insert(T, b"k"[..].into(), 7, None);
        table.insert(T, b"k"[..].into(), 9, value("nine"));
        assert_eq!(table.get(T, b"k", 2), None);
        assert_eq!(table.get(T, b"k", 3), Some(VersionFound { lsn: 3, value: value("three") }));
        assert_eq!(table.get(T, b"k", 8), Some(VersionFound { lsn: 7, value: None }));
        assert_eq!(
            table.get(T, b"k", u64::MAX),
            Some(VersionFound { lsn: 9, value: value("nine") })
        );
        assert_eq!(table.get(T, b"j", u64::MAX), None);
        assert_eq!(table.get(T, b"k\0", u64::MAX), None);
        assert_eq!(table.newest_lsn(), 9);
    }

    #[test]
    fn a_lookup_does_not_find_rows_of_another_table() {
        let table = Memtable::for_keys(16);
        table.insert(Table::FORM_TOKEN, b"k"[..].into(), 1, value("token"));
        table.insert(Table::HANDOFF_CLAIM, b"k"[..].into(), 2, value("claim"));
        assert_eq!(table.get(T, b"k", u64::MAX), None);
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
            [
                ((T, b"a"[..].into()), value("a")),
                ((T, b"b"[..].into()), value("new")),
                ((T, b"c"[..].into()), None),
            ]
        );
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
                prop_assert_eq!(table.get(T, &[key], at), model.get(&[key][..]).cloned());
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
