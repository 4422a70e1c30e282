//! The tables of a file: their numbers in the log, their names in the B-tree, and the direction of their order.
//!
//! Numbers and names are part of the file format and are never reused.

use std::sync::Arc;

/// The bytes of a row.
pub(crate) type Value = Arc<[u8]>;

/// A row of a scan: its key and its bytes.
pub(crate) type Row = (Vec<u8>, Value);

/// A table of the engine. Secondary tables change in the same frame as their primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Table {
    /// Form tokens by lookup key.
    FormToken = 1,
    /// What became of a consumed form token, by the same key. Apart from the token, so that a consume writes a
    /// few bytes into a dense table instead of rewriting the token's row.
    FormTokenUse = 2,
    /// Claim-check states by state id.
    Handoff = 3,
    /// The claim, live or stale, on a claim-check state, by the same key.
    HandoffClaim = 4,
    /// What expires when, over all stores: (time in ms, table number, primary key) with empty values.
    Expiry = 5,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub(crate) const ALL: [Table; 5] =
        [Table::FormToken, Table::FormTokenUse, Table::Handoff, Table::HandoffClaim, Table::Expiry];

    /// The number that stands for the table in keys and frames.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The table with this number.
    pub(crate) fn from_number(number: u8) -> Option<Table> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// The name of the table in the B-tree.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::FormToken => "form_token",
            Table::FormTokenUse => "form_token_use",
            Table::Handoff => "handoff",
            Table::HandoffClaim => "handoff_claim",
            Table::Expiry => "expiry",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_come_back() {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(table.number()), index + 1);
            assert_eq!(Table::from_number(table.number()), Some(table));
        }
        assert_eq!(Table::from_number(0), None);
        assert_eq!(Table::from_number(200), None);
    }
}
