//! Every table there is, store by store.

use super::{
    adaptive_rate_limit, cache, codlet, dedupe, expiry, form_token, handoff, rate_limit, state,
};
use crate::tables::{Catalogue, Table};
use std::sync::LazyLock;

/// The tables of each store.
const STORES: &[&[Table]] = &[
    form_token::schema::TABLES,
    handoff::schema::TABLES,
    expiry::schema::TABLES,
    cache::schema::TABLES,
    dedupe::schema::TABLES,
    rate_limit::schema::TABLES,
    adaptive_rate_limit::schema::TABLES,
    state::schema::TABLES,
    codlet::schema::TABLES,
];

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let mut tables = STORES.concat();
    tables.sort();
    tables
});

/// Every table of a room.
pub(crate) fn catalogue() -> Catalogue {
    Catalogue::new(&TABLES)
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
            assert_eq!(tables.iter().filter(|other| other.name() == table.name()).count(), 1);
        }
        assert_eq!((catalogue().numbered(0), catalogue().numbered(200)), (None, None));
    }
}
