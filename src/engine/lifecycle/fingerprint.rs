//! What rows add up to, to tell whether two files hold the same.

use crate::tables::Table;
use std::collections::BTreeMap;

/// How many rows each table has, and a sum over their bytes. The order in which they are added
/// makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    counts: BTreeMap<Table, u64>,
    sum: u64,
}

impl Fingerprint {
    /// Counts a row in.
    pub(super) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        *self.counts.entry(table).or_default() += 1;
        let mut hasher = crc32fast::Hasher::new();
        // With the length of the key, so that no byte can move between key and value.
        hasher.update(&[table.number()]);
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        self.sum = self.sum.wrapping_add(u64::from(hasher.finalize()));
    }

    /// How many rows were counted.
    pub(super) fn rows(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How the rows that were found differ from these, in words; `None` when they do not.
    pub(super) fn difference(&self, found: &Fingerprint) -> Option<String> {
        let count = |fingerprint: &Fingerprint, table| {
            fingerprint.counts.get(table).copied().unwrap_or_default()
        };
        for table in self.counts.keys().chain(found.counts.keys()) {
            let (expected, found) = (count(self, table), count(found, table));
            if expected != found {
                return Some(format!(
                    "table {} has {found} rows instead of {expected}",
                    table.name()
                ));
            }
        }
        (self.sum != found.sum).then(|| "its rows have other bytes than were written".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestRow = (Table, &'static [u8], &'static [u8]);

    fn fingerprint(rows: &[TestRow]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        rows.iter().for_each(|(table, key, value)| fingerprint.add(*table, key, value));
        fingerprint
    }

    #[test]
    fn order_makes_no_difference_and_everything_else_does() {
        let (a, b): (TestRow, TestRow) = ((Table::CACHE, b"ab", b"c"), (Table::STATE, b"", b""));
        let both = fingerprint(&[a, b]);
        assert_eq!(both.difference(&fingerprint(&[b, a])), None);
        assert_eq!(both.rows(), 2);
        let others: [&[TestRow]; 6] = [
            &[],
            &[a],
            &[a, b, b],
            &[(Table::CACHE, b"a", b"bc"), b],
            &[(Table::HANDOFF, b"ab", b"c"), b],
            &[(Table::CACHE, b"ab", b"d"), b],
        ];
        for other in others {
            assert!(both.difference(&fingerprint(other)).is_some(), "{other:?}");
        }
        let missing = both.difference(&fingerprint(&[a])).unwrap();
        assert_eq!(missing, "table state has 0 rows instead of 1");
    }
}
