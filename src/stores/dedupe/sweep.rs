//! What a sweeper does to jobs.
//!
//! No waiter loses an answer: the wait for a pending job ends at the job's timeout with no value,
//! and so it does when a sweeper removes the row first. A waiter for a job that is done has had its
//! answer before.

use super::row::JobRow;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::sweep::{Due, Verdict};
use crate::tables::Table;

/// Removes the job that is due when its time is over: one that timed out, or that ended long enough
/// ago.
pub(crate) fn sweep(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let Some(bytes) = tx.get(Table::DEDUPE_JOB, due.key)? else { return Ok(Verdict::Stale) };
    let row = JobRow::decode(&bytes)?;
    let Some(ends_at) = row.ends_at else { return Ok(Verdict::Stale) };
    if !tx.moment().has_surely_passed(ends_at) {
        return Ok(Verdict::Keep { until: ends_at });
    }
    tx.delete(Table::DEDUPE_JOB, due.key);
    due.unindex(tx, ends_at);
    Ok(Verdict::Removed)
}

#[cfg(test)]
mod tests {
    use crate::stores::StoreKind;
    use crate::stores::dedupe::ops::{Terms, end, register_or_join};
    use crate::stores::dedupe::row::{Progress, key_of};
    use crate::stores::map_tx::MapTx;
    use crate::stores::sweep::sweep_all;
    use crate::tables::Table;

    fn terms(timeout_ms: Option<u64>) -> Terms {
        Terms { opening_id: 7, timeout_ms }
    }

    #[test]
    fn jobs_go_at_their_end_and_those_without_one_never() {
        let mut tx = MapTx::at(0);
        let key = |hash| key_of("jobs", hash).unwrap();
        for (hash, timeout_ms) in [("pending", Some(100)), ("done", Some(100)), ("never", None)] {
            register_or_join(&mut tx, &key(hash), terms(timeout_ms), 1).unwrap();
        }
        tx.now_ms = 60;
        assert!(
            end(&mut tx, &key("done"), terms(Some(100)), None, Progress::Completed(b"1")).unwrap()
        );
        tx.now_ms = 99;
        assert_eq!(sweep_all(&mut tx).total(), 0);
        tx.now_ms = 100;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::DEDUPE), 1);
        assert_eq!(tx.keys(Table::DEDUPE_JOB), [key("done"), key("never")]);
        tx.now_ms = 160;
        assert_eq!(sweep_all(&mut tx).removed(StoreKind::DEDUPE), 1);
        tx.now_ms = u64::MAX;
        assert_eq!(sweep_all(&mut tx).total(), 0);
        assert_eq!(tx.snapshot().len(), 1);
    }
}
