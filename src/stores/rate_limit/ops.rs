//! The operations on rate limits, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. What is in a window depends on the calls and their times alone: a request is remembered for
//!    the longest window that applied while there were requests, and then gone, also when a longer
//!    one is configured afterwards.
//! 2. A window has at most one row in the expiry index: the one that its own row names.

use super::config::RateLimitConfig;
use super::history::{History, HistoryId, fewer_after};
use super::limiter::{Limiter, index_at, text_behind};
use super::{RateLimitEntry, RateLimitStats, RateLimitStatus};
use crate::codec;
use crate::engine::access::{Reader, Rewrites, Writer};
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::{Deadline, Moment};
use crate::error::Result;
use crate::stores::expiry;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::tables::Table;
use std::time::Duration;

/// The only history of a plain window.
pub(crate) const LANE: u8 = 0;

/// A row of [`Table::RATE_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct WindowRow {
    /// The limiter's, when this was written.
    pub(crate) clears: u64,
    /// The number of the window in the keys of its requests.
    pub(crate) id: u64,
    /// How long requests are remembered.
    pub(crate) keep_ms: u64,
    /// Where the expiry index has the window.
    pub(crate) indexed_at: Option<Deadline>,
    pub(crate) history: History,
}

impl WindowRow {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::RATE_LIMIT.name(), bytes)
    }

    pub(super) fn place(&self) -> HistoryId {
        HistoryId { id: self.id, lane: LANE }
    }

    /// How many requests count for a limit over `window_ms`.
    fn count(&self, rows: &mut dyn Reader, window_ms: u64) -> Result<u64> {
        self.history.count(rows, self.place(), window_ms.min(self.keep_ms))
    }

    /// Forgets what is kept no longer, and keeps from now on for at least `keep_ms`. A window
    /// without requests keeps for `keep_ms`, as one does whose row the sweeper has removed.
    fn forget(&mut self, rows: &mut dyn Reader, keep_ms: u64) -> Result<()> {
        let place = self.place();
        self.history.forget(rows, place, self.keep_ms)?;
        self.keep_ms = if self.history.is_empty() { keep_ms } else { self.keep_ms.max(keep_ms) };
        Ok(())
    }

    /// When the last request is forgotten; now when there is none.
    pub(super) fn ends_at(&self, now: &Moment) -> Deadline {
        self.history
            .last_ms()
            .map_or_else(|| now.deadline_in(0), |ms| now.deadline_of(ms, self.keep_ms))
    }

    /// Stages the row, and its index row where that has to move.
    fn store(&mut self, tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
        let was_at = self.indexed_at;
        let index_at = index_at(was_at, self.ends_at(&tx.moment()), self.keep_ms);
        self.indexed_at = Some(index_at);
        let value = self.encode()?;
        tx.put(Table::RATE_LIMIT, key, value);
        expiry::move_to(tx, was_at, index_at, Table::RATE_LIMIT, key);
        Ok(())
    }
}

/// The window at `key`, empty when the limiter was cleared after it was written.
fn load(rows: &mut dyn Reader, limiter: &Limiter<'_>, key: &[u8]) -> Result<Option<WindowRow>> {
    let Some(value) = rows.get(Table::RATE_LIMIT, key)? else { return Ok(None) };
    let mut row = WindowRow::decode(&value)?;
    let clears = limiter.clears(rows)?;
    if row.clears != clears {
        row.clears = clears;
        row.history.reset();
    }
    Ok(Some(row))
}

/// What an operation on one resource looks at.
struct PlainUsage {
    key: Vec<u8>,
    config: RateLimitConfig,
    window: Option<WindowRow>,
    counted: u64,
}

fn look(rows: &mut dyn Reader, limiter: &Limiter<'_>, resource: &str) -> Result<PlainUsage> {
    let key = limiter.resource_key(resource)?;
    let config = limiter.config_of(rows, &key)?;
    let window = load(rows, limiter, &key)?;
    let counted = match &window {
        Some(window) => window.count(rows, config.window_ms())?,
        None => 0,
    };
    Ok(PlainUsage { key, config, window, counted })
}

fn add(tx: &mut dyn Writer, limiter: &Limiter<'_>, seen: PlainUsage) -> Result<()> {
    let keep_ms = limiter.keep_ms(seen.config);
    let mut window = match seen.window {
        Some(window) => window,
        None => WindowRow {
            clears: limiter.clears(tx)?,
            id: Limiter::new_id(tx)?,
            keep_ms,
            indexed_at: None,
            history: History::default(),
        },
    };
    window.forget(tx, keep_ms)?;
    let place = window.place();
    window.history.record(tx, place)?;
    window.store(tx, &seen.key)
}

/// Records a request if the limit allows it.
pub(crate) fn acquire(tx: &mut dyn Writer, limiter: &Limiter<'_>, resource: &str) -> Result<bool> {
    let seen = look(tx, limiter, resource)?;
    if seen.counted >= seen.config.limit {
        return Ok(false);
    }
    add(tx, limiter, seen)?;
    Ok(true)
}

/// Whether the limit allows a request.
pub(crate) fn can_proceed(
    rows: &mut dyn Reader,
    limiter: &Limiter<'_>,
    resource: &str,
) -> Result<bool> {
    let seen = look(rows, limiter, resource)?;
    Ok(seen.counted < seen.config.limit)
}

/// Records a request, whether or not the limit allows it.
pub(crate) fn record(tx: &mut dyn Writer, limiter: &Limiter<'_>, resource: &str) -> Result<()> {
    let seen = look(tx, limiter, resource)?;
    add(tx, limiter, seen)
}

/// What is left of the limit.
pub(crate) fn status(
    rows: &mut dyn Reader,
    limiter: &Limiter<'_>,
    resource: &str,
) -> Result<RateLimitStatus> {
    let seen = look(rows, limiter, resource)?;
    Ok(RateLimitStatus {
        remaining: seen.config.limit.saturating_sub(seen.counted),
        reset_time: rows.wall_ms().saturating_add(seen.config.window_ms()),
        limit: seen.config.limit,
    })
}

/// How long until the limit allows a request, if none is made meanwhile.
pub(crate) fn wait_time(
    rows: &mut dyn Reader,
    limiter: &Limiter<'_>,
    resource: &str,
) -> Result<Duration> {
    let seen = look(rows, limiter, resource)?;
    if seen.config.limit == 0 {
        return Ok(seen.config.window);
    }
    let Some(window) = seen.window.filter(|_| seen.counted >= seen.config.limit) else {
        return Ok(Duration::ZERO);
    };
    let last_ms = fewer_after(rows, &[(window.place(), &window.history)], seen.config.limit)?;
    let now = rows.moment();
    let leaves_at = now.deadline_of(last_ms, seen.config.window_ms().min(window.keep_ms));
    Ok(Duration::from_millis(now.left_until(leaves_at)))
}

/// Forgets the requests of a resource.
pub(crate) fn reset(tx: &mut dyn Writer, limiter: &Limiter<'_>, resource: &str) -> Result<()> {
    let key = limiter.resource_key(resource)?;
    if let Some(mut window) = load(tx, limiter, &key)? {
        window.forget(tx, window.keep_ms)?;
        if window.history.is_empty() {
            // It is to every call as one that is not there.
            return Ok(());
        }
        window.history.reset();
        window.store(tx, &key)?;
    }
    Ok(())
}

/// Gives a resource a configuration of its own.
pub(crate) fn set_resource_config(
    tx: &mut dyn Writer,
    limiter: &Limiter<'_>,
    resource: &str,
    config: RateLimitConfig,
) -> Result<()> {
    config.check()?;
    let key = limiter.resource_key(resource)?;
    if let Some(mut window) = load(tx, limiter, &key)? {
        window.forget(tx, limiter.keep_ms(config))?;
        window.store(&mut Rewrites(tx), &key)?;
    }
    Limiter::put_config(tx, &key, config)
}

/// A page of the resources with counted requests, behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    limiter: &Limiter<'_>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<RateLimitEntry>> {
    check_limit(limit)?;
    let (table, prefix) = (Table::RATE_LIMIT, limiter.prefix()?);
    let mut windows =
        RowCursor::prefix(table, &prefix).after(Cursor::position(cursor, table, &prefix)?);
    page_of(table, limit, || {
        while let Some((key, _)) = windows.next(rows)? {
            let resource = text_behind(table, &prefix, &key)?;
            let seen = look(rows, limiter, &resource)?;
            if seen.counted > 0 {
                let (requests, config) = (seen.counted, seen.config);
                return Ok(Some((key, RateLimitEntry { resource, requests, config })));
            }
        }
        Ok(None)
    })
}

/// Counts every window.
pub(crate) fn stats(rows: &mut dyn Reader, limiter: &Limiter<'_>) -> Result<RateLimitStats> {
    let (table, prefix) = (Table::RATE_LIMIT, limiter.prefix()?);
    let mut windows = RowCursor::prefix(table, &prefix);
    let mut stats = RateLimitStats::default();
    while let Some((key, value)) = windows.next(rows)? {
        let seen = look(rows, limiter, &text_behind(table, &prefix, &key)?)?;
        stats.bytes += (key.len() + value.len()) as u64;
        if seen.counted == 0 {
            stats.expired += 1;
        } else {
            stats.live += 1;
            stats.requests = stats.requests.saturating_add(seen.counted);
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
