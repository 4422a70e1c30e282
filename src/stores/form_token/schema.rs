//! The tables of form tokens.

use crate::tables::{Table, TableDef};

impl Table {
    /// Form tokens by lookup key.
    pub(crate) const FORM_TOKEN: Table =
        Table::new(&TableDef { number: 1, name: "form_token", is_waited_for: false });

    /// What became of a consumed form token, by the same key. Apart from the token, so that a
    /// consume writes a few bytes into a dense table instead of rewriting the token's row.
    pub(crate) const FORM_TOKEN_USE: Table =
        Table::new(&TableDef { number: 2, name: "form_token_use", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] = &[Table::FORM_TOKEN, Table::FORM_TOKEN_USE];
