//! The tables of rate limits.

use crate::tables::{Table, TableDef};

impl Table {
    /// The windows of plain limiters by (limiter, resource).
    pub(crate) const RATE_LIMIT: Table =
        Table::new(&TableDef { number: 12, name: "rate_limit", is_waited_for: false });

    /// When the requests of a window were made, and how many came before.
    pub(crate) const RATE_LIMIT_REQUEST: Table =
        Table::new(&TableDef { number: 13, name: "rate_limit_request", is_waited_for: false });

    /// What a whole limiter has: how often it was cleared; and the last number that was given to a
    /// window.
    pub(crate) const RATE_LIMIT_STORE: Table =
        Table::new(&TableDef { number: 14, name: "rate_limit_store", is_waited_for: false });

    /// The configurations that resources have of their own, by (limiter, resource).
    pub(crate) const RATE_LIMIT_CONFIG: Table =
        Table::new(&TableDef { number: 15, name: "rate_limit_config", is_waited_for: false });

    /// Cooldowns by (limiter, origin).
    pub(crate) const RATE_LIMIT_COOLDOWN: Table =
        Table::new(&TableDef { number: 16, name: "rate_limit_cooldown", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[
    Table::RATE_LIMIT,
    Table::RATE_LIMIT_REQUEST,
    Table::RATE_LIMIT_STORE,
    Table::RATE_LIMIT_CONFIG,
    Table::RATE_LIMIT_COOLDOWN,
];
