//! The tables of the expiry index.

use crate::tables::{Table, TableDef};

impl Table {
    /// What expires when, over all stores: (time in ms, table number, primary key) with empty
    /// values.
    pub(crate) const EXPIRY: Table =
        Table::new(&TableDef { number: 5, name: "expiry", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::EXPIRY];
