//! What a sweeper does to adaptive windows.
//!
//! Whether and when there ever was a request decides about capacity: a row that remembers one stays
//! for good, without requests and out of the expiry index, until its limiter is cleared.

use super::row::ResourceRow;
use crate::codec::key;
use crate::engine::access::Writer;
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::stores::rate_limit::limiter::clears_around;
use crate::stores::sweep::{Budget, Due, Verdict};
use crate::tables::Table;

const TABLE: Table = Table::ADAPTIVE_RATE_LIMIT;

/// Removes the requests of the resource that is due when none counts any more, as many rows at a
/// time as the budget has room for, and the resource itself when nothing else is to be remembered.
/// One that is still in use is indexed under its end.
pub(crate) fn sweep(tx: &mut dyn Writer, due: &Due<'_>, budget: Budget) -> Result<Verdict> {
    let Some(bytes) = tx.get(TABLE, due.key)? else { return Ok(Verdict::Stale) };
    let mut row = ResourceRow::decode(&bytes)?;
    if row.indexed_at.is_some_and(|indexed_at| indexed_at != due.at) {
        return Ok(Verdict::Stale);
    }
    let clears = clears_around(tx, TABLE, due.key)?;
    if row.clears != clears {
        row.clears = clears;
        row.reset();
    }
    row.forget(tx, row.keep_ms)?;
    if row.histories().iter().any(|(_, history)| !history.is_empty()) {
        let until = row.ends_at(&tx.moment());
        row.indexed_at = Some(until);
        tx.put(TABLE, due.key, row.encode()?);
        return Ok(Verdict::Keep { until });
    }
    let mut left = budget.changes;
    for (place, history) in row.histories() {
        if left > 0 {
            left -= history.remove_garbage(tx, place, left)?;
        }
    }
    if row.histories().iter().any(|(_, history)| history.has_garbage()) {
        tx.put(TABLE, due.key, row.encode()?);
        return Ok(Verdict::Partly);
    }
    if !row.remembers() {
        // What a reset or a clear has forgotten is gone already.
        tx.delete_gone(TABLE, due.key);
        return Ok(Verdict::Removed);
    }
    row.indexed_at = None;
    tx.put(TABLE, due.key, row.encode()?);
    Ok(Verdict::Emptied)
}

/// One step of a walk: removes resources of the limiter at `store_key`, behind the key `after`,
/// that were forgotten when it was cleared and stand nowhere in the expiry index. Those that do are
/// removed when they are due.
pub(crate) fn sweep_cleared(
    tx: &mut dyn Writer,
    store_key: &[u8],
    after: Option<&[u8]>,
    budget: Budget,
) -> Result<Verdict> {
    let Some((&kind, name)) = store_key.split_first() else {
        let detail = "an index row of no limiter";
        return Err(Error::corrupted(format!("a row of table {}", Table::EXPIRY.name()), detail));
    };
    let mut prefix = vec![kind];
    key::push_bytes(&mut prefix, name);
    let resources = RowCursor::prefix(TABLE, &prefix).after(after);
    let found = resources.up_to(budget.changes).collect(tx)?;
    let clears = clears_around(tx, TABLE, &prefix)?;
    let mut forgotten = Vec::new();
    for (key, value) in &found {
        let row = ResourceRow::decode(value)?;
        if row.clears != clears && row.indexed_at.is_none() {
            forgotten.push(key);
        }
    }
    for key in &forgotten {
        tx.delete_gone(TABLE, key);
    }
    let removed = forgotten.len() as u64;
    let is_over = found.len() < budget.changes;
    Ok(Verdict::Walked {
        removed,
        after: found.into_iter().next_back().map(|(key, _)| key).filter(|_| !is_over),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::StoreKind;
    use crate::stores::adaptive_rate_limit::capacities::Capacities;
    use crate::stores::adaptive_rate_limit::ops::{
        Adaptive, acquire, can_proceed, record, reset, set_resource_config, status,
    };
    use crate::stores::adaptive_rate_limit::{AdaptiveConfig, Priority};
    use crate::stores::map_tx::MapTx;
    use crate::stores::rate_limit::RateLimitConfig;
    use crate::stores::rate_limit::limiter::{Kind, Limiter};
    use crate::stores::sweep::{sweep_all, sweep_all_within};
    use std::time::Duration;

    /// Longer than everything is remembered.
    const LATER_MS: u64 = 10_000_000;

    fn config() -> AdaptiveConfig {
        AdaptiveConfig {
            recalculation_interval: Duration::from_secs(5),
            ..AdaptiveConfig::default()
        }
    }

    fn limiter<'a>(config: &'a AdaptiveConfig, capacities: &'a Capacities) -> Adaptive<'a> {
        let rate = RateLimitConfig { limit: 1_000, window: Duration::from_secs(1) };
        let limiter =
            Limiter { kind: Kind::Adaptive, name: "n\0", config: rate, longest_ms: 900_000 };
        Adaptive { limiter, config, capacities: capacities.in_transaction() }
    }

    fn is_clean(tx: &MapTx) -> bool {
        tx.snapshot().keys().all(|(table, _)| *table == Table::RATE_LIMIT_STORE)
    }

    #[test]
    fn the_requests_go_and_the_row_stays_out_of_the_index() {
        let (config, capacities, mut tx) = (config(), Capacities::default(), MapTx::at(0));
        let adaptive = limiter(&config, &capacities);
        for ms in 0..300 {
            tx.now_ms = ms;
            assert!(acquire(&mut tx, &adaptive, "r", Priority::User).unwrap());
            record(&mut tx, &adaptive, "r", Priority::Background).unwrap();
        }
        assert_eq!(tx.keys(Table::RATE_LIMIT_REQUEST).len(), 900);
        tx.now_ms = LATER_MS;
        let (mut steps, mut writes) = (0, tx.writes);
        let report = sweep_all_within(&mut tx, Budget { changes: 100, ..Budget::SLICE }, |tx| {
            steps += 1;
            assert!(tx.writes - writes <= 103);
            writes = tx.writes;
        });
        assert_eq!((report.removed(StoreKind::ADAPTIVE_RATE_LIMIT), steps), (1, 9));
        assert_eq!((tx.keys(TABLE).len(), tx.keys(Table::RATE_LIMIT_REQUEST).len()), (1, 0));
        assert!(tx.keys(Table::EXPIRY).is_empty());
        // A question about it writes nothing.
        let before = tx.writes;
        assert!(can_proceed(&mut tx, &adaptive, "r", Priority::Background).unwrap());
        assert_eq!(tx.writes, before);
        record(&mut tx, &adaptive, "r", Priority::User).unwrap();
        assert_eq!(tx.keys(Table::EXPIRY).len(), 1);
    }

    #[test]
    fn a_resource_in_use_is_filed_under_its_end() {
        let (config, capacities, mut tx) = (config(), Capacities::default(), MapTx::at(0));
        let adaptive = limiter(&config, &capacities);
        record(&mut tx, &adaptive, "r", Priority::User).unwrap();
        tx.now_ms = 200_000;
        record(&mut tx, &adaptive, "r", Priority::Background).unwrap();
        tx.now_ms = 950_000;
        let before = status(&mut tx, &adaptive, "r").unwrap();
        let report = sweep_all(&mut tx);
        assert_eq!((report.total(), report.rescheduled), (0, 1));
        assert_eq!(status(&mut tx, &adaptive, "r").unwrap(), before);
        tx.now_ms = 1_099_999;
        assert_eq!(sweep_all(&mut tx).rescheduled, 0);
        tx.now_ms = 1_100_000;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::ADAPTIVE_RATE_LIMIT), 1);
    }

    #[test]
    fn after_a_reset_nothing_is_left() {
        let (config, capacities, mut tx) = (config(), Capacities::default(), MapTx::at(0));
        let adaptive = limiter(&config, &capacities);
        for ms in 0..50 {
            tx.now_ms = ms;
            record(&mut tx, &adaptive, "r", Priority::User).unwrap();
        }
        reset(&mut tx, &adaptive, "r").unwrap();
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::ADAPTIVE_RATE_LIMIT), 1);
        assert!(is_clean(&tx));
    }

    #[test]
    fn after_a_clear_nothing_is_left_whether_it_was_filed_or_not() {
        let (config, capacities, mut tx) = (config(), Capacities::default(), MapTx::at(0));
        let adaptive = limiter(&config, &capacities);
        let other = Adaptive { limiter: Limiter { name: "n\0\0", ..adaptive.limiter }, ..adaptive };
        for resource in 0..40 {
            record(&mut tx, &adaptive, &format!("r{resource}"), Priority::User).unwrap();
            status(&mut tx, &adaptive, &format!("only asked {resource}")).unwrap();
        }
        record(&mut tx, &other, "r", Priority::User).unwrap();
        tx.now_ms = LATER_MS;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::ADAPTIVE_RATE_LIMIT), 41);
        record(&mut tx, &adaptive, "filed", Priority::User).unwrap();
        assert_eq!(tx.keys(TABLE).len(), 42);
        adaptive.limiter.clear(&mut tx).unwrap();
        record(&mut tx, &adaptive, "new", Priority::User).unwrap();
        let report = sweep_all_within(&mut tx, Budget { changes: 7, ..Budget::SLICE }, |_| {});
        assert_eq!(report.removed(StoreKind::ADAPTIVE_RATE_LIMIT), 40);
        assert_eq!(tx.keys(TABLE).len(), 3);
        tx.now_ms += LATER_MS;
        sweep_all(&mut tx);
        let left = [
            adaptive.limiter.resource_key("new").unwrap(),
            other.limiter.resource_key("r").unwrap(),
        ];
        assert_eq!(tx.keys(TABLE), left);
        assert!(tx.keys(Table::EXPIRY).is_empty());
        other.limiter.clear(&mut tx).unwrap();
        adaptive.limiter.clear(&mut tx).unwrap();
        sweep_all(&mut tx);
        assert!(is_clean(&tx));
    }

    #[test]
    fn a_cleared_resource_remembers_no_longer_for_not_having_been_swept() {
        let config = AdaptiveConfig { monitoring_window: Duration::from_secs(1), ..config() };
        let capacities = Capacities::default();
        let adaptive = limiter(&config, &capacities);
        let long = RateLimitConfig { limit: 1_000, window: Duration::from_secs(3_600) };
        let mut answers = Vec::new();
        for swept in [false, true] {
            let mut tx = MapTx::at(0);
            reset(&mut tx, &adaptive, "r").unwrap();
            set_resource_config(&mut tx, &adaptive, "r", long).unwrap();
            record(&mut tx, &adaptive, "r", Priority::User).unwrap();
            let short = RateLimitConfig { window: Duration::from_secs(1), ..long };
            set_resource_config(&mut tx, &adaptive, "r", short).unwrap();
            adaptive.limiter.clear(&mut tx).unwrap();
            tx.now_ms = LATER_MS;
            if swept {
                sweep_all(&mut tx);
                assert_eq!(tx.keys(TABLE).len(), 0);
            }
            record(&mut tx, &adaptive, "r", Priority::User).unwrap();
            tx.now_ms += 5_000;
            set_resource_config(&mut tx, &adaptive, "r", long).unwrap();
            answers.push(status(&mut tx, &adaptive, "r").unwrap());
        }
        assert_eq!(answers[0], answers[1]);
    }

    #[test]
    fn each_resource_has_an_id_of_its_own_and_keeps_it() {
        let (config, capacities, mut tx) = (config(), Capacities::default(), MapTx::at(0));
        let adaptive = limiter(&config, &capacities);
        let mut seen = Vec::new();
        for _ in 0..2 {
            for resource in ["a", "b"] {
                assert!(acquire(&mut tx, &adaptive, resource, Priority::User).unwrap());
            }
            let rows = tx.snapshot();
            let of_table = rows.iter().filter(|((table, _), _)| *table == TABLE);
            let ids = of_table.map(|(_, value)| ResourceRow::decode(value).unwrap().id);
            seen.push(ids.collect::<Vec<_>>());
        }
        assert_eq!(seen[0], seen[1]);
        assert!(seen[0].len() == 2 && seen[0][0] != seen[0][1] && !seen[0].contains(&0));
    }
}
