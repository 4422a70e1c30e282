//! The tables of claim checks.

use crate::tables::{Table, TableDef};

impl Table {
    /// Claim-check states by state id.
    pub(crate) const HANDOFF: Table =
        Table::new(&TableDef { number: 3, name: "handoff", is_waited_for: false });

    /// The claim, live or stale, on a claim-check state, by the same key.
    pub(crate) const HANDOFF_CLAIM: Table =
        Table::new(&TableDef { number: 4, name: "handoff_claim", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::HANDOFF, Table::HANDOFF_CLAIM];
