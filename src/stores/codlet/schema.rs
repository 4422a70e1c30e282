//! The tables of the adapter for the crate `codlet`.

use crate::tables::{Table, TableDef};

impl Table {
    /// What the crate `codlet` stores: one-time codes by their id.
    pub(crate) const CODLET_CODE: Table =
        Table::new(&TableDef { number: 26, name: "codlet_code", is_waited_for: false });

    /// Ids of one-time codes by lookup key.
    pub(crate) const CODLET_CODE_KEY: Table =
        Table::new(&TableDef { number: 27, name: "codlet_code_key", is_waited_for: false });

    /// Sessions by their id.
    pub(crate) const CODLET_SESSION: Table =
        Table::new(&TableDef { number: 28, name: "codlet_session", is_waited_for: false });

    /// Ids of sessions by lookup key.
    pub(crate) const CODLET_SESSION_KEY: Table =
        Table::new(&TableDef { number: 29, name: "codlet_session_key", is_waited_for: false });

    /// Counted failures by the caller's key.
    pub(crate) const CODLET_FAILURES: Table =
        Table::new(&TableDef { number: 30, name: "codlet_failures", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[
    Table::CODLET_CODE,
    Table::CODLET_CODE_KEY,
    Table::CODLET_SESSION,
    Table::CODLET_SESSION_KEY,
    Table::CODLET_FAILURES,
];
