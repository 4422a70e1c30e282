//! The tables of adaptive rate limits.

use crate::tables::{Table, TableDef};

impl Table {
    /// The windows and the capacity of adaptive limiters by (limiter, resource).
    pub(crate) const ADAPTIVE_RATE_LIMIT: Table =
        Table::new(&TableDef { number: 17, name: "adaptive_rate_limit", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::ADAPTIVE_RATE_LIMIT];
