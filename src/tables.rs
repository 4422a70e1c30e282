//! What a table is to the floors below the stores: a number in the log, a name in the B-tree, and
//! an order among the others.
//!
//! A store declares its tables in its own folder (`stores/<store>/schema.rs`), as constants of
//! [`Table`]. The floors below know none of them by name: they are given the [`Catalogue`] of all
//! tables when a file is opened.
//!
//! Numbers and names are part of the file format and are never reused.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The bytes of a row.
pub(crate) type Value = Arc<[u8]>;

/// A row of a scan: its key and its bytes.
pub(crate) type Row = (Vec<u8>, Value);

/// What the floors below the stores must know of a table.
#[derive(Debug)]
pub(crate) struct TableDef {
    /// Stands for the table in keys and frames. From 1, and never reused.
    pub(crate) number: u8,
    /// The name of the table in the B-tree. Never reused.
    pub(crate) name: &'static str,
    /// Whether callers may wait for a row of it to change.
    pub(crate) is_waited_for: bool,
}

/// A table. Two are the same when their numbers are, and they are ordered by number.
#[derive(Clone, Copy)]
pub(crate) struct Table(&'static TableDef);

impl Table {
    /// The table that `def` describes.
    pub(crate) const fn new(def: &'static TableDef) -> Self {
        Self(def)
    }

    /// The number that stands for the table in keys and frames.
    pub(crate) const fn number(self) -> u8 {
        self.0.number
    }

    /// The name of the table in the B-tree.
    pub(crate) const fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether callers may wait for a row of it to change.
    pub(crate) const fn is_waited_for(self) -> bool {
        self.0.is_waited_for
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Table {}

impl PartialOrd for Table {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Table {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.number.cmp(&other.0.number)
    }
}

impl Hash for Table {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Every table of a file, in the order of their numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Catalogue(&'static [Table]);

impl Catalogue {
    /// The catalogue of these tables, which are in the order of their numbers.
    pub(crate) const fn new(tables: &'static [Table]) -> Self {
        Self(tables)
    }

    /// Every table, in the order of their numbers.
    pub(crate) fn all(self) -> &'static [Table] {
        self.0
    }

    /// The table with this number.
    pub(crate) fn numbered(self, number: u8) -> Option<Table> {
        let at = self.0.binary_search_by_key(&number, |table| table.number()).ok()?;
        self.0.get(at).copied()
    }

    /// The table with this name.
    pub(crate) fn named(self, name: &str) -> Option<Table> {
        self.0.iter().copied().find(|table| table.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Table = Table::new(&TableDef { number: 1, name: "a", is_waited_for: false });
    const B: Table = Table::new(&TableDef { number: 7, name: "b", is_waited_for: true });

    #[test]
    fn a_table_is_its_number() {
        static AGAIN: TableDef = TableDef { number: 1, name: "a", is_waited_for: false };
        assert_eq!(A, Table::new(&AGAIN));
        assert!(A < B && A != B);
        assert_eq!(format!("{B:?}"), "b");
    }

    #[test]
    fn a_catalogue_finds_tables_by_number_and_by_name() {
        let catalogue = Catalogue::new(&[A, B]);
        assert_eq!((catalogue.numbered(1), catalogue.numbered(7)), (Some(A), Some(B)));
        assert_eq!((catalogue.numbered(0), catalogue.numbered(8)), (None, None));
        assert_eq!((catalogue.named("b"), catalogue.named("c")), (Some(B), None));
    }
}
