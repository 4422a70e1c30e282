//! The tables of agent states.

use crate::tables::{Table, TableDef};

impl Table {
    /// Agent states by slot: (tenant, user, session, run, kind).
    pub(crate) const STATE: Table =
        Table::new(&TableDef { number: 20, name: "state", is_waited_for: false });

    /// The slot of an agent state by its event id.
    pub(crate) const STATE_EVENT: Table =
        Table::new(&TableDef { number: 21, name: "state_event", is_waited_for: false });

    /// Which slots there are, by (kind, tenant, user, session, run).
    pub(crate) const STATE_KIND: Table =
        Table::new(&TableDef { number: 22, name: "state_kind", is_waited_for: false });

    /// Which slots there are, by (tenant, kind, user, session, run).
    pub(crate) const STATE_TENANT_KIND: Table =
        Table::new(&TableDef { number: 23, name: "state_tenant_kind", is_waited_for: false });
}

/// The tables, in the order of their numbers.
pub(crate) const TABLES: &[Table] =
    &[Table::STATE, Table::STATE_EVENT, Table::STATE_KIND, Table::STATE_TENANT_KIND];
