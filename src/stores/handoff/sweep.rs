//! What a sweeper does to claim checks.

use super::row::HandoffRow;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::sweep::{Due, Verdict};
use crate::tables::Table;

/// Removes the state that is due, and a claim on it, when it has expired. A claim on an
/// expired state is not live.
pub(crate) fn sweep(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let Some(state) = tx.get(Table::HANDOFF, due.key)? else { return Ok(Verdict::Stale) };
    let state = HandoffRow::decode(&state)?;
    if !tx.moment().has_surely_passed(state.expires_at) {
        return Ok(Verdict::Keep { until: state.expires_at });
    }
    let claimed = tx.get(Table::HANDOFF_CLAIM, due.key)?.is_some();
    tx.delete(Table::HANDOFF, due.key);
    due.unindex(tx, state.expires_at);
    if claimed {
        tx.delete(Table::HANDOFF_CLAIM, due.key);
    }
    Ok(Verdict::Removed)
}

#[cfg(test)]
mod tests {
    use crate::engine::time_line::Deadline;
    use crate::stores::StoreKind;
    use crate::stores::expiry;
    use crate::stores::handoff::json;
    use crate::stores::handoff::ops::{claim, get, set};
    use crate::stores::map_tx::MapTx;
    use crate::stores::sweep::sweep_all;
    use crate::tables::Table;
    use std::time::Duration;

    #[test]
    fn an_expired_state_goes_with_the_claim_on_it() {
        let mut tx = MapTx::at(0);
        set(&mut tx, "a", b"{}", 10_000).unwrap();
        set(&mut tx, "b", b"{}", 10_000).unwrap();
        set(&mut tx, "c", b"{}", 11_000).unwrap();
        assert!(claim(&mut tx, "a", Duration::from_secs(60), 1, json::decode).unwrap().is_some());
        tx.now_ms = 9_999;
        assert_eq!(sweep_all(&mut tx).total(), 0);
        tx.now_ms = 10_000;
        let report = sweep_all(&mut tx);
        assert_eq!(
            (report.removed(StoreKind::HANDOFF), report.total(), report.rescheduled),
            (2, 2, 0)
        );
        assert!(get(&mut tx, "c", json::decode).unwrap().is_some());
        assert_eq!(tx.snapshot().len(), 2);
    }

    #[test]
    fn a_stale_index_row_goes_and_the_real_one_stays() {
        let mut tx = MapTx::at(0);
        set(&mut tx, "a", b"{}", 10_000).unwrap();
        expiry::put(&mut tx, Deadline::at(5), Table::HANDOFF, b"a");
        expiry::put(&mut tx, Deadline::at(5), Table::HANDOFF, b"no one");
        tx.now_ms = 6;
        sweep_all(&mut tx);
        assert_eq!(
            tx.keys(Table::EXPIRY),
            [expiry::encode_key(Deadline::at(10_000), Table::HANDOFF, b"a")]
        );
        assert!(get(&mut tx, "a", json::decode).unwrap().is_some());
        expiry::put(&mut tx, Deadline::at(7), Table::HANDOFF, b"a");
        tx.now_ms = 10_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::HANDOFF), 1);
        assert!(tx.snapshot().is_empty());
    }
}
