//! The tables of caches.

use crate::tables::{Table, TableDef};

impl Table {
    /// Cached values by (name of the cache, hash).
    pub(crate) const CACHE: Table =
        Table::new(&TableDef { number: 6, name: "cache", is_waited_for: false });

    /// The tags of a cached value, by the same key. Apart from the value, so that a plain `set`
    /// leaves them alone.
    pub(crate) const CACHE_TAGS: Table =
        Table::new(&TableDef { number: 7, name: "cache_tags", is_waited_for: false });

    /// Which cached values have a tag: (name of the cache, tag, hash) with empty values.
    pub(crate) const CACHE_BY_TAG: Table =
        Table::new(&TableDef { number: 8, name: "cache_by_tag", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::CACHE, Table::CACHE_TAGS, Table::CACHE_BY_TAG];
