//! The names and types of the tables in redb.

use crate::tables::Table;
use redb::TableDefinition;

/// The table of values about all tables together.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// The LSN reached: every frame up to it is in the tables.
pub(super) const LSN_KEY: &str = "lsn";

pub(super) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}
