//! The registry of all stores and tables, and what is looked up in it.
//!
//! It imports the schema of every store, so no store imports it: what is given to a store's schema
//! is enough to answer. Only the expiry index, whose rows lead to those of every other table, looks
//! them up.

use super::owner::{Owner, StoreKind};
use super::schema::{Role, StoreSchema, TableSchema};
use super::{
    adaptive_rate_limit, cache, codlet, dedupe, expiry, form_token, handoff, rate_limit, state,
    time_line,
};
use crate::error::{Error, Result};
use crate::tables::{Catalogue, Table};
use std::sync::LazyLock;

/// The stores, and the expiry index, which serves them all.
const STORES: &[StoreSchema] = &[
    form_token::schema::STORE,
    handoff::schema::STORE,
    expiry::schema::STORE,
    cache::schema::STORE,
    dedupe::schema::STORE,
    rate_limit::schema::STORE,
    adaptive_rate_limit::schema::STORE,
    state::schema::STORE,
    codlet::schema::STORE,
    time_line::schema::STORE,
    #[cfg(test)]
    super::eighth::schema::STORE,
];

/// Every table, in the order of their numbers.
static SCHEMAS: LazyLock<Vec<&'static TableSchema>> = LazyLock::new(|| {
    let mut schemas: Vec<_> = STORES.iter().flat_map(|store| store.tables).copied().collect();
    schemas.sort_by_key(|schema| schema.table);
    schemas
});

static TABLES: LazyLock<Vec<Table>> =
    LazyLock::new(|| SCHEMAS.iter().map(|schema| schema.table).collect());

/// The schema of each table, at its number.
static BY_NUMBER: LazyLock<Vec<Option<&'static TableSchema>>> = LazyLock::new(|| {
    let by_number = |number| all().find(|schema| schema.table.number() == number);
    (0..=u8::MAX).map(by_number).collect()
});

/// The satellite of each table, at its number.
static SATELLITES: LazyLock<Vec<Option<Table>>> = LazyLock::new(|| {
    let beside = |number| {
        all().find_map(|schema| match schema.role {
            Role::Satellite { of, .. } if of.number() == number => Some(schema.table),
            Role::Satellite { .. } | Role::Primary | Role::Numbered { .. } | Role::Derived => None,
        })
    };
    (0..=u8::MAX).map(beside).collect()
});

/// The schemas of all tables, in the order of their numbers.
pub(crate) fn all() -> impl Iterator<Item = &'static TableSchema> {
    SCHEMAS.iter().copied()
}

/// The schema of `table`.
///
/// # Errors
/// [`Error::Corrupted`] for a table that is not in the registry.
pub(crate) fn of(table: Table) -> Result<&'static TableSchema> {
    let found = BY_NUMBER.get(usize::from(table.number())).copied().flatten();
    found.ok_or_else(|| {
        Error::corrupted(format!("a row of table {}", table.name()), "no store has this table")
    })
}

/// Every table of a room.
pub(crate) fn catalogue() -> Catalogue {
    Catalogue::new(&TABLES)
}

/// The kinds of all stores that have entries, in order.
fn kinds() -> &'static [StoreKind] {
    static KINDS: LazyLock<Vec<StoreKind>> = LazyLock::new(|| {
        let mut kinds: Vec<_> = STORES.iter().flat_map(|store| store.kinds).copied().collect();
        kinds.sort();
        kinds
    });
    &KINDS
}

impl TableSchema {
    /// The table beside it that has its satellites.
    pub(crate) fn satellite(&self) -> Option<Table> {
        SATELLITES.get(usize::from(self.table.number())).copied().flatten()
    }
}

impl StoreKind {
    /// Every kind, in order.
    #[must_use]
    pub fn all() -> &'static [StoreKind] {
        kinds()
    }
}

impl<'a> Owner<'a> {
    /// The owner of the row at `key` of `table`. `None` for a key that no store writes, and for a
    /// row of which its key does not say.
    pub(crate) fn of(table: Table, key: &'a [u8]) -> Option<Self> {
        (of(table).ok()?.owner)(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_given_once() {
        let tables = catalogue().all();
        assert!(tables.is_sorted_by(|a, b| a.number() < b.number()));
        for &table in tables {
            assert_eq!(catalogue().numbered(table.number()), Some(table));
            assert_eq!(of(table).unwrap().table, table);
            assert_eq!(tables.iter().filter(|other| other.name() == table.name()).count(), 1);
        }
        assert_eq!((catalogue().numbered(0), catalogue().numbered(200)), (None, None));
    }

    #[test]
    fn a_satellite_is_beside_a_table_that_exists_and_has_no_other() {
        for schema in all() {
            if let Role::Satellite { of: primary, .. } = schema.role {
                assert_eq!(of(primary).unwrap().satellite(), Some(schema.table));
                assert!(matches!(of(primary).unwrap().role, Role::Primary));
            }
        }
    }
}
