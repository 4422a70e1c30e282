//! The table of adaptive limiters. The others they share with plain ones.

use super::row::{ADMITTED, BACKGROUND, ResourceRow, USER};
use super::sweep;
use crate::error::Result;
use crate::stores::dump;
use crate::stores::lines::EntryLines;
use crate::stores::owner::StoreKind;
use crate::stores::rate_limit::history::{History, HistoryId};
use crate::stores::rate_limit::limiter::Kind;
use crate::stores::rate_limit::schema::{
    Clears, changed_window, check_limiter_key, dump_limiter_key, lacks_requests, limiter_owner,
    without_requests,
};
use crate::stores::rate_limit::window_lines;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, CountEntry, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Role,
    StoreSchema, TableSchema, text_key,
};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// The windows and the capacity of adaptive limiters by (limiter, resource).
    pub(crate) const ADAPTIVE_RATE_LIMIT: Table =
        Table::new(&TableDef { number: 17, name: "adaptive_rate_limit", is_waited_for: false });
}

impl StoreKind {
    /// Adaptive limiters
    /// ([`Cloakroom::adaptive_rate_limit`](crate::Cloakroom::adaptive_rate_limit)), by name.
    pub const ADAPTIVE_RATE_LIMIT: StoreKind =
        StoreKind::new(6, "adaptive_rate_limit", "windows and cooldowns of adaptive rate limits");
}

pub(crate) const STORE: StoreSchema =
    StoreSchema { kinds: &[StoreKind::ADAPTIVE_RATE_LIMIT], tables: &[&WINDOWS] };

const WINDOWS: TableSchema = TableSchema {
    table: Table::ADAPTIVE_RATE_LIMIT,
    role: Role::Primary,
    owner: limiter_owner,
    check: |row| {
        check_limiter_key(row, &[Kind::Adaptive])?;
        ResourceRow::decode(row.value).map(drop)
    },
    derived: Derived::None,
    constraints: Constraints::Beside(|rows, _, value, report| {
        lacks_requests(rows, histories(value)?, report)
    }),
    numbers: Numbers::Given(|value| Ok(ResourceRow::decode(value)?.id)),
    ends: Ends::At {
        at: |value| Ok(ResourceRow::decode(value)?.indexed_at),
        sweep: |tx, due, turn| sweep::sweep(tx, due, turn.budget),
    },
    change: |row| changed_window(row, |value| Ok(ResourceRow::decode(value)?.remembers())),
    shown_key: text_key,
    counted: EntryCounting::Entries(counter),
    lines: Lines::Entries(EntryLines {
        write: window_lines::write_adaptive,
        // Those of plain windows, with which these share their numbers.
        reader: None,
        imported: None,
    }),
    dump_key: |key| dump_limiter_key(Table::ADAPTIVE_RATE_LIMIT, key, "resource"),
    dump_value: |_, value| dump_resource(value),
    loss: LossSchema {
        meaning: "such requests are forgotten",
        unsure: None,
        left_out: Some(|rows, _, value| without_requests(rows, histories(value)?)),
    },
};

fn histories(value: &[u8]) -> Result<Vec<(HistoryId, History)>> {
    let ResourceRow { id, user, background, admitted, .. } = ResourceRow::decode(value)?;
    let lanes = [(USER, user), (BACKGROUND, background), (ADMITTED, admitted)];
    Ok(lanes.map(|(lane, history)| (HistoryId { id, lane }, history)).to_vec())
}

/// A resource without counted requests is live: whether and when there was a request is remembered
/// for good.
fn counter() -> CountEntry {
    let mut cleared = Clears::default();
    Box::new(move |rows, row| {
        let resource = ResourceRow::decode(row.value)?;
        let at = (Table::ADAPTIVE_RATE_LIMIT, row.key);
        let is_hidden = cleared.hide(rows, at, resource.clears)?;
        Ok(EntryState::live_if(resource.remembers() && !is_hidden))
    })
}

fn dump_resource(value: &[u8]) -> Result<Value> {
    let row = ResourceRow::decode(value)?;
    Ok(json!({
        "clears": row.clears, "window": row.id, "keep_ms": row.keep_ms,
        "indexed_at": row.indexed_at.map(dump::deadline), "user": row.user.to_json(),
        "background": row.background.to_json(), "admitted": row.admitted.to_json(),
    }))
}
