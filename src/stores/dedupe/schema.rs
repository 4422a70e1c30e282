//! The tables of the deduplicating stores.

use crate::tables::{Table, TableDef};

impl Table {
    /// Jobs of the deduplicating stores by (name, hash).
    pub(crate) const DEDUPE_JOB: Table =
        Table::new(&TableDef { number: 10, name: "dedupe_job", is_waited_for: true });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::DEDUPE_JOB];
