//! A Bloom filter over the keys of an in-memory table.
//!
//! Most lookups in the in-memory table are for keys that it does not hold: a token that is consumed
//! was usually issued long ago. The filter answers those with two probes of a small bit array,
//! instead of a walk through the ordered map, whose nodes are spread over the heap. (Bloom,
//! "Space/time trade-offs in hash coding with allowable errors", 1970.)

use crate::tables::Table;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

const WORD_BITS: usize = 64;

/// Bits per expected key. With two probes, about one absent key in twenty is a false positive when
/// the table is full, and far fewer before.
const BITS_PER_KEY: usize = 8;

/// The most words of one filter, 8 MiB. Beyond about eight million expected keys there are more
/// false positives.
const MAX_WORDS: usize = 1 << 20;

/// The filter. Bits are set and read atomically, and never cleared.
#[derive(Debug)]
pub(super) struct KeyFilter {
    words: Box<[AtomicU64]>,
}

impl KeyFilter {
    /// A filter for about `keys` keys.
    pub(super) fn for_keys(keys: usize) -> Self {
        let words = (keys * BITS_PER_KEY / WORD_BITS).next_power_of_two().clamp(1, MAX_WORDS);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds a key.
    pub(super) fn insert(&self, table: Table, key: &[u8]) {
        for (word, bit) in self.probes(table, key).into_iter().flatten() {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// `false` only when the key was not inserted.
    pub(super) fn may_contain(&self, table: Table, key: &[u8]) -> bool {
        self.probes(table, key)
            .into_iter()
            .flatten()
            .all(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    fn probes(&self, table: Table, key: &[u8]) -> [Option<(&AtomicU64, u64)>; 2] {
        let mut hasher = DefaultHasher::new();
        (table, key).hash(&mut hasher);
        let hash = hasher.finish();
        // The number of words is a power of two.
        let mask = self.words.len() - 1;
        [hash & u64::from(u32::MAX), hash >> 32].map(|probe| {
            let word = usize::try_from(probe / WORD_BITS as u64).unwrap_or_default() & mask;
            Some((self.words.get(word)?, 1 << (probe % WORD_BITS as u64)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_false_negative_and_few_false_positives() {
        let filter = KeyFilter::for_keys(10_000);
        for number in 0..10_000_u32 {
            filter.insert(Table::FORM_TOKEN, &number.to_le_bytes());
        }
        for number in 0..10_000_u32 {
            assert!(filter.may_contain(Table::FORM_TOKEN, &number.to_le_bytes()));
        }
        let admitted = (10_000..20_000_u32)
            .filter(|number| filter.may_contain(Table::FORM_TOKEN, &number.to_le_bytes()))
            .count();
        assert!(admitted < 1_000, "{admitted} of 10,000 absent keys were admitted");
        let other_table = (0..10_000_u32)
            .filter(|number| filter.may_contain(Table::HANDOFF, &number.to_le_bytes()))
            .count();
        assert!(
            other_table < 1_000,
            "{other_table} of 10,000 keys were admitted for another table"
        );
    }
}
