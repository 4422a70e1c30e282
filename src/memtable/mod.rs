//! The in-memory table: every version of every row since the last checkpoint, ordered, readable without a lock.
//!
//! One writer inserts under the engine's serial lock; any number of readers look at the state as of a log position
//! (LSN) without blocking it. A version is never changed or removed: the whole table is dropped once a checkpoint
//! has moved its newest versions into the B-tree.

use crate::tables::{Table, Value};
use crossbeam_skiplist::SkipMap;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

/// The number of a table, then the key in it: one ordered space over all tables.
pub(crate) type FullKey = Box<[u8]>;

/// The full key of `key` in `table`.
pub(crate) fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table.number());
    full.extend_from_slice(key);
    full
}

/// A version of a row as the table orders them: by key, then the newest first.
trait Versioned {
    fn key(&self) -> &[u8];
    fn lsn(&self) -> u64;
}

#[derive(Debug)]
struct Version {
    key: FullKey,
    lsn: u64,
}

/// The same, borrowed, to look up without an allocation.
struct Probe<'a> {
    key: &'a [u8],
    lsn: u64,
}

impl Versioned for Version {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn lsn(&self) -> u64 {
        self.lsn
    }
}

impl Versioned for Probe<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }

    fn lsn(&self) -> u64 {
        self.lsn
    }
}

fn compare(a: &(impl Versioned + ?Sized), b: &(impl Versioned + ?Sized)) -> Ordering {
    a.key().cmp(b.key()).then_with(|| b.lsn().cmp(&a.lsn()))
}

impl<'a> Borrow<dyn Versioned + 'a> for Version {
    fn borrow(&self) -> &(dyn Versioned + 'a) {
        self
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
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
        compare(self, other)
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

/// What a lookup found: the version's position, and the row or its absence (a tombstone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) lsn: u64,
    pub(crate) value: Option<Value>,
}

/// The table. See the module.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    versions: SkipMap<Version, Option<Value>>,
    newest_lsn: AtomicU64,
}

impl Memtable {
    /// Adds the version of `key` that the frame at `lsn` wrote. Readers at an earlier position do not see it.
    pub(crate) fn insert(&self, key: FullKey, lsn: u64, value: Option<Value>) {
        self.versions.insert(Version { key, lsn }, value);
        self.newest_lsn.fetch_max(lsn, Atomic::Release);
    }

    /// The position of the newest version in the table; zero while it is empty.
    pub(crate) fn newest_lsn(&self) -> u64 {
        self.newest_lsn.load(Atomic::Acquire)
    }

    /// How many versions it holds.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// The newest version of `key` at or before `lsn`.
    pub(crate) fn get(&self, key: &[u8], lsn: u64) -> Option<Found> {
        let probe: &dyn Versioned = &Probe { key, lsn };
        let entry = self.versions.lower_bound(Bound::Included(probe))?;
        let version = entry.key();
        (*version.key == *key).then(|| Found { lsn: version.lsn, value: entry.value().clone() })
    }

    /// The first key of the range that has a version at or before `lsn`, with the newest such version.
    pub(crate) fn next(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, lsn: u64) -> Option<(FullKey, Found)> {
        let mut from = match from {
            // The newest possible version of the key comes first, the oldest possible last.
            Bound::Included(key) => Bound::Included((key.to_vec(), u64::MAX)),
            Bound::Excluded(key) => Bound::Excluded((key.to_vec(), 0)),
            Bound::Unbounded => Bound::Unbounded,
        };
        loop {
            let probe = from.as_ref().map(|(key, lsn)| Probe { key, lsn: *lsn });
            let probe: Bound<&dyn Versioned> = match &probe {
                Bound::Included(probe) => Bound::Included(probe),
                Bound::Excluded(probe) => Bound::Excluded(probe),
                Bound::Unbounded => Bound::Unbounded,
            };
            let entry = self.versions.lower_bound(probe)?;
            let version = entry.key();
            let inside = match to {
                Bound::Included(end) => *version.key <= *end,
                Bound::Excluded(end) => *version.key < *end,
                Bound::Unbounded => true,
            };
            if !inside {
                return None;
            }
            if version.lsn <= lsn {
                let found = Found { lsn: version.lsn, value: entry.value().clone() };
                return Some((version.key.clone(), found));
            }
            // This version is too new: the one to look at is the newest of the same key that is not, and the next
            // key when there is none.
            from = Bound::Included((version.key.to_vec(), lsn));
        }
    }

    /// The newest version of every key, in key order: what a checkpoint moves into the B-tree.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (FullKey, Option<Value>)> + '_ {
        let mut previous: Option<FullKey> = None;
        self.versions.iter().filter_map(move |entry| {
            let version = entry.key();
            if previous.as_ref() == Some(&version.key) {
                return None;
            }
            previous = Some(version.key.clone());
            Some((version.key.clone(), entry.value().clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn value(text: &str) -> Option<Value> {
        Some(text.as_bytes().into())
    }

    #[test]
    fn a_reader_sees_its_position_and_nothing_later() {
        let table = Memtable::default();
        table.insert(b"k"[..].into(), 3, value("three"));
        table.insert(b"k"[..].into(), 7, None);
        table.insert(b"k"[..].into(), 9, value("nine"));
        assert_eq!(table.get(b"k", 2), None);
        assert_eq!(table.get(b"k", 3), Some(Found { lsn: 3, value: value("three") }));
        assert_eq!(table.get(b"k", 8), Some(Found { lsn: 7, value: None }));
        assert_eq!(table.get(b"k", u64::MAX), Some(Found { lsn: 9, value: value("nine") }));
        assert_eq!(table.get(b"j", u64::MAX), None);
        assert_eq!(table.get(b"k\0", u64::MAX), None);
        assert_eq!(table.newest_lsn(), 9);
    }

    #[test]
    fn a_checkpoint_takes_the_newest_version_of_each_key_in_order() {
        let table = Memtable::default();
        table.insert(b"b"[..].into(), 1, value("old"));
        table.insert(b"a"[..].into(), 2, value("a"));
        table.insert(b"b"[..].into(), 3, value("new"));
        table.insert(b"c"[..].into(), 4, None);
        let newest: Vec<_> = table.newest().collect();
        assert_eq!(
            newest,
            [(b"a"[..].into(), value("a")), (b"b"[..].into(), value("new")), (b"c"[..].into(), None),]
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
            let table = Memtable::default();
            let mut model = BTreeMap::new();
            for (index, (key, live)) in writes.iter().enumerate() {
                let lsn = index as u64 + 1;
                let value = live.then(|| Value::from(&lsn.to_le_bytes()[..]));
                table.insert([*key][..].into(), lsn, value.clone());
                if lsn <= at {
                    model.insert([*key].to_vec(), Found { lsn, value });
                }
            }
            for key in 0..8u8 {
                prop_assert_eq!(table.get(&[key], at), model.get(&[key][..]).cloned());
            }
            let (from, to) = (from.min(to), from.max(to));
            let mut scanned = Vec::new();
            let mut start = Bound::Included(vec![from]);
            while let Some((key, found)) = table.next(
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
