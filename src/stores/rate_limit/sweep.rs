//! What a sweeper does to windows and cooldowns.
//!
//! A window without requests may go: one that begins anew is the same. What was written before its
//! limiter was cleared last is forgotten, and goes whatever its time.

use super::limiter::{CooldownRow, clears_around};
use super::ops::WindowRow;
use crate::codec;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::expiry;
use crate::stores::sweep::{Budget, Due, Verdict};
use crate::tables::Table;

/// Removes the window that is due when no request counts any more, with the rows of its requests,
/// as many at a time as the budget has room for. One that is still in use is indexed under its end.
pub(crate) fn sweep_window(tx: &mut dyn Writer, due: &Due<'_>, budget: Budget) -> Result<Verdict> {
    let Some(bytes) = tx.get(Table::RATE_LIMIT, due.key)? else { return Ok(Verdict::Stale) };
    let mut row = WindowRow::decode(&bytes)?;
    if row.indexed_at.is_some_and(|indexed_at| indexed_at != due.at) {
        return Ok(Verdict::Stale);
    }
    let clears = clears_around(tx, due.table, due.key)?;
    if row.clears != clears {
        row.clears = clears;
        row.history.reset();
    }
    let place = row.place();
    row.history.forget(tx, place, row.keep_ms)?;
    if !row.history.is_empty() {
        let until = row.ends_at(&tx.moment());
        row.indexed_at = Some(until);
        tx.put(Table::RATE_LIMIT, due.key, row.encode()?);
        return Ok(Verdict::Keep { until });
    }
    row.history.remove_garbage(tx, place, budget.changes)?;
    if row.history.has_garbage() {
        tx.put(Table::RATE_LIMIT, due.key, row.encode()?);
        return Ok(Verdict::Partly);
    }
    // What a reset or a clear has forgotten is gone already.
    match row.history.last_ms() {
        Some(_) => tx.delete(Table::RATE_LIMIT, due.key),
        None => tx.delete_gone(Table::RATE_LIMIT, due.key),
    }
    Ok(Verdict::Removed)
}

/// Removes the cooldown that is due when it is over.
pub(crate) fn sweep_cooldown(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let table = Table::RATE_LIMIT_COOLDOWN;
    let Some(bytes) = tx.get(table, due.key)? else { return Ok(Verdict::Stale) };
    let row: CooldownRow = codec::decode_row(table.name(), &bytes)?;
    let is_over = row.until_ms <= tx.moment().sure_wall_ms();
    let is_cleared = row.clears != clears_around(tx, table, due.key)?;
    if !is_over && !is_cleared {
        return Ok(Verdict::Keep { until: row.ends_at });
    }
    match is_cleared {
        true => tx.delete_gone(table, due.key),
        false => tx.delete(table, due.key),
    }
    due.unindex(tx, row.ends_at);
    Ok(Verdict::Removed)
}

/// Indexes the cooldown under its end as the trusted wall clock has it now.
pub(crate) fn follow_wall(tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
    let table = Table::RATE_LIMIT_COOLDOWN;
    let Some(bytes) = tx.get(table, key)? else { return Ok(()) };
    let mut row: CooldownRow = codec::decode_row(table.name(), &bytes)?;
    let ends_at = tx.moment().deadline_at_trusted_wall(row.until_ms);
    if ends_at != row.ends_at {
        expiry::move_to(tx, Some(row.ends_at), ends_at, table, key);
        row.ends_at = ends_at;
        tx.put(table, key, codec::encode(&row)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time_line::Deadline;
    use crate::stores::StoreKind;
    use crate::stores::expiry;
    use crate::stores::map_tx::MapTx;
    use crate::stores::rate_limit::RateLimitConfig;
    use crate::stores::rate_limit::limiter::{Kind, Limiter};
    use crate::stores::rate_limit::ops::{acquire, record, reset, set_resource_config, status};
    use crate::stores::sweep::{sweep_all, sweep_all_within};
    use std::time::Duration;

    const LIMITER: Limiter<'_> = Limiter {
        kind: Kind::Plain,
        name: "a\0b",
        config: RateLimitConfig { limit: 1_000, window: Duration::from_millis(1_000) },
        longest_ms: 1_000,
    };

    /// What is left when every window is gone: the counters of the limiter.
    fn is_clean(tx: &MapTx) -> bool {
        tx.snapshot().keys().all(|(table, _)| *table == Table::RATE_LIMIT_STORE)
    }

    #[test]
    fn an_idle_window_goes_with_its_requests_and_a_busy_one_is_filed_under_its_end() {
        let mut tx = MapTx::at(0);
        for ms in [0, 100, 200] {
            tx.now_ms = ms;
            assert!(acquire(&mut tx, &LIMITER, "r").unwrap());
        }
        tx.now_ms = 1_150;
        let report = sweep_all(&mut tx);
        assert_eq!((report.total(), report.rescheduled), (0, 1));
        assert_eq!(status(&mut tx, &LIMITER, "r").unwrap().remaining, 999);
        let resource_key = LIMITER.resource_key("r").unwrap();
        assert_eq!(
            tx.keys(Table::EXPIRY),
            [expiry::encode_key(Deadline::at(1_200), Table::RATE_LIMIT, &resource_key)]
        );
        tx.now_ms = 1_200;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::RATE_LIMIT), 1);
        assert!(is_clean(&tx));
    }

    #[test]
    fn a_window_of_many_requests_goes_in_parts() {
        let mut tx = MapTx::at(0);
        for ms in 0..400 {
            tx.now_ms = ms;
            record(&mut tx, &LIMITER, "r").unwrap();
        }
        assert_eq!(tx.keys(Table::RATE_LIMIT_REQUEST).len(), 400);
        tx.now_ms = 10_000;
        let mut steps = 0;
        let mut writes = tx.writes;
        let report = sweep_all_within(&mut tx, Budget { changes: 50, ..Budget::SLICE }, |tx| {
            steps += 1;
            assert!(tx.writes - writes <= 53);
            writes = tx.writes;
        });
        assert_eq!((report.removed(StoreKind::RATE_LIMIT), steps), (1, 8));
        assert!(is_clean(&tx));
    }

    #[test]
    fn a_window_that_is_used_again_while_it_is_swept_counts_only_what_is_new() {
        let mut tx = MapTx::at(0);
        for ms in 0..100 {
            tx.now_ms = ms;
            record(&mut tx, &LIMITER, "r").unwrap();
        }
        tx.now_ms = 5_000;
        let mut used = false;
        sweep_all_within(&mut tx, Budget { changes: 10, ..Budget::SLICE }, |tx| {
            if !used {
                used = true;
                record(tx, &LIMITER, "r").unwrap();
            }
            assert_eq!(status(tx, &LIMITER, "r").unwrap().remaining, 999);
        });
        tx.now_ms = 6_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::RATE_LIMIT), 1);
        assert!(is_clean(&tx));
    }

    #[test]
    fn what_a_reset_or_a_clear_left_behind_goes() {
        let mut tx = MapTx::at(0);
        for ms in 0..100 {
            tx.now_ms = ms;
            record(&mut tx, &LIMITER, "reset").unwrap();
            record(&mut tx, &LIMITER, "cleared").unwrap();
        }
        reset(&mut tx, &LIMITER, "reset").unwrap();
        record(&mut tx, &LIMITER, "reset").unwrap();
        LIMITER.set_cooldown(&mut tx, "o", 500).unwrap();
        LIMITER.clear(&mut tx).unwrap();
        LIMITER.set_cooldown(&mut tx, "p", 20_000).unwrap();
        tx.now_ms = 2_000;
        let report = sweep_all(&mut tx);
        assert_eq!((report.removed(StoreKind::RATE_LIMIT), report.rescheduled), (3, 0));
        assert_eq!(tx.keys(Table::RATE_LIMIT_REQUEST).len(), 0);
        assert_eq!(LIMITER.cooldown(&mut tx, "p").unwrap(), Some(20_000));
        tx.now_ms = 20_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::RATE_LIMIT), 1);
        assert!(is_clean(&tx));
    }

    #[test]
    fn a_cleared_window_goes_although_its_requests_would_still_count() {
        let mut tx = MapTx::at(0);
        record(&mut tx, &LIMITER, "r").unwrap();
        tx.now_ms = 900;
        // The window goes on, and the index row is behind.
        record(&mut tx, &LIMITER, "r").unwrap();
        LIMITER.clear(&mut tx).unwrap();
        tx.now_ms = 1_900;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::RATE_LIMIT), 1);
        assert!(is_clean(&tx));
    }

    #[test]
    fn a_window_remembers_no_longer_or_shorter_for_having_been_swept() {
        let long = RateLimitConfig { limit: 1_000, window: Duration::from_secs(3_600) };
        for swept in [false, true] {
            let mut tx = MapTx::at(0);
            record(&mut tx, &LIMITER, "r").unwrap();
            tx.now_ms = 5_000;
            if swept {
                assert_eq!(sweep_all(&mut tx).removed(StoreKind::RATE_LIMIT), 1);
            }
            set_resource_config(&mut tx, &LIMITER, "r", long).unwrap();
            assert_eq!(status(&mut tx, &LIMITER, "r").unwrap().remaining, 1_000);
            record(&mut tx, &LIMITER, "r").unwrap();
            tx.now_ms = 3_604_999;
            if swept {
                sweep_all(&mut tx);
            }
            assert_eq!(status(&mut tx, &LIMITER, "r").unwrap().remaining, 999);
        }
    }

    #[test]
    fn an_index_row_that_is_not_the_windows_own_goes_alone() {
        let mut tx = MapTx::at(0);
        record(&mut tx, &LIMITER, "r").unwrap();
        let resource_key = LIMITER.resource_key("r").unwrap();
        let before = tx.snapshot();
        expiry::put(&mut tx, Deadline::at(7), Table::RATE_LIMIT, &resource_key);
        tx.now_ms = 8;
        assert_eq!(sweep_all(&mut tx).total(), 0);
        assert_eq!(tx.snapshot(), before);
    }
}
