//! The operations on adaptive rate limits, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. A computed capacity is kept until the recalculation interval has passed or the limit has
//!    changed, whichever operation computed it. So an operation that only reads stores it too.
//! 2. Whether and when there ever was a request is in the resource's own row, which outlives the
//!    rows of the requests.
//! 3. Shares move, and what was admitted under the old ones stays. So that both priorities together
//!    are never admitted more often than the limit, what `acquire` admitted is counted apart as
//!    well.

use super::capacity::{AdaptiveConfig, Reason};
use super::row::{ADMITTED, BACKGROUND, CapacityRow, ResourceRow, USER, recomputed_at_ms};
use super::{
    AdaptiveRateLimitEntry, AdaptiveRateLimitStats, AdaptiveRateLimitStatus, Priority, span_ms,
};
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::history::{Counted, HistoryId};
use crate::stores::rate_limit::limiter::{Limiter, text_behind};
use crate::tables::Table;
use std::time::Duration;

/// An adaptive limiter of a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adaptive<'a> {
    pub(crate) limiter: Limiter<'a>,
    pub(crate) config: &'a AdaptiveConfig,
}

/// The row at `key`, empty when there is none or the limiter was cleared after it was written.
fn load(rows: &mut dyn Reader, limiter: &Limiter<'_>, key: &[u8]) -> Result<ResourceRow> {
    let clears = limiter.clears(rows)?;
    let Some(value) = rows.get(Table::ADAPTIVE_RATE_LIMIT, key)? else {
        return Ok(ResourceRow { clears, ..ResourceRow::default() });
    };
    let mut row = ResourceRow::decode(&value)?;
    if row.clears != clears {
        row.clears = clears;
        row.reset();
    }
    Ok(row)
}

/// What an operation on one resource looks at.
struct AdaptiveUsage {
    key: Vec<u8>,
    config: RateLimitConfig,
    row: ResourceRow,
    capacity: CapacityRow,
    /// Whether the capacity is not in the row yet.
    is_new: bool,
    user: Counted,
    background: Counted,
    admitted: Counted,
}

impl AdaptiveUsage {
    /// Whether no request of anybody counts.
    fn is_idle(&self) -> bool {
        self.user.count == 0 && self.background.count == 0
    }

    fn of(&self, priority: Priority) -> (Counted, u64) {
        match priority {
            Priority::User => (self.user, self.capacity.user_reserved),
            Priority::Background => (self.background, self.capacity.background_max),
        }
    }

    fn is_paused(&self, priority: Priority) -> bool {
        priority == Priority::Background && self.capacity.reason == Reason::HighIncreasing
    }

    fn may_go(&self, priority: Priority) -> bool {
        let (counted, share) = self.of(priority);
        counted.count < share
            && self.admitted.count < self.config.limit
            && !self.is_paused(priority)
    }

    /// Stores the capacity, if it is new.
    fn keep(&mut self, tx: &mut dyn Writer, adaptive: &Adaptive<'_>) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        self.row.capacity = Some(self.capacity);
        self.row.forget(tx, adaptive.keep_ms(self.config))?;
        self.row.store(tx, &self.key)
    }
}

impl Adaptive<'_> {
    /// How long a request is needed.
    fn keep_ms(&self, config: RateLimitConfig) -> u64 {
        config.window_ms().max(span_ms(self.config.monitoring_window))
    }
}

fn look(rows: &mut dyn Reader, adaptive: &Adaptive<'_>, resource: &str) -> Result<AdaptiveUsage> {
    let key = adaptive.limiter.resource_key(resource)?;
    let config = adaptive.limiter.config_of(rows, &key)?;
    let row = load(rows, &adaptive.limiter, &key)?;
    let (capacity, is_new) = row.capacity(rows, config.limit, adaptive.config)?;
    let (now_ms, window_ms) = (rows.now_ms(), config.window_ms());
    Ok(AdaptiveUsage {
        user: row.count(rows, USER, now_ms, window_ms)?,
        background: row.count(rows, BACKGROUND, now_ms, window_ms)?,
        admitted: row.count(rows, ADMITTED, now_ms, window_ms)?,
        key,
        config,
        row,
        capacity,
        is_new,
    })
}

fn add(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    mut seen: AdaptiveUsage,
    priority: Priority,
    is_admitted: bool,
) -> Result<()> {
    let now_ms = tx.now_ms();
    let row = &mut seen.row;
    row.capacity = Some(seen.capacity);
    row.forget(tx, adaptive.keep_ms(seen.config))?;
    if row.id == 0 {
        row.id = Limiter::new_id(tx)?;
    }
    let id = row.id;
    let (lane, history) = match priority {
        Priority::User => (USER, &mut row.user),
        Priority::Background => (BACKGROUND, &mut row.background),
    };
    history.record(tx, HistoryId { id, lane }, now_ms)?;
    if is_admitted {
        row.admitted.record(tx, HistoryId { id, lane: ADMITTED }, now_ms)?;
    }
    row.store(tx, &seen.key)
}

/// Whether everything that only asks about `resource` can be answered without storing a capacity.
pub(crate) fn is_settled(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
    resource: &str,
) -> Result<bool> {
    let key = adaptive.limiter.resource_key(resource)?;
    let config = adaptive.limiter.config_of(rows, &key)?;
    let row = load(rows, &adaptive.limiter, &key)?;
    let now_ms = rows.now_ms();
    Ok(row.capacity.is_some_and(|capacity| {
        capacity.limit == config.limit && now_ms < recomputed_at_ms(&capacity, adaptive.config)
    }))
}

/// Stores the capacity of `resource` if it has to be computed.
pub(crate) fn settle(tx: &mut dyn Writer, adaptive: &Adaptive<'_>, resource: &str) -> Result<()> {
    look(tx, adaptive, resource)?.keep(tx, adaptive)
}

/// Records a request if its priority may go.
pub(crate) fn acquire(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    resource: &str,
    priority: Priority,
) -> Result<bool> {
    let mut seen = look(tx, adaptive, resource)?;
    if !seen.may_go(priority) {
        seen.keep(tx, adaptive)?;
        return Ok(false);
    }
    add(tx, adaptive, seen, priority, true)?;
    Ok(true)
}

/// Whether a priority may go.
pub(crate) fn can_proceed(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
    resource: &str,
    priority: Priority,
) -> Result<bool> {
    Ok(look(rows, adaptive, resource)?.may_go(priority))
}

/// Records a request, whether or not its priority may go.
pub(crate) fn record(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    resource: &str,
    priority: Priority,
) -> Result<()> {
    let seen = look(tx, adaptive, resource)?;
    add(tx, adaptive, seen, priority, false)
}

/// What is left of both shares, and why they are what they are.
pub(crate) fn status(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
    resource: &str,
) -> Result<AdaptiveRateLimitStatus> {
    let seen = look(rows, adaptive, resource)?;
    let left = |(counted, share): (Counted, u64)| share.saturating_sub(counted.count);
    Ok(AdaptiveRateLimitStatus {
        remaining: left(seen.of(Priority::User))
            .saturating_add(left(seen.of(Priority::Background))),
        reset_time: rows.now_ms().saturating_add(seen.config.window_ms()),
        limit: seen.config.limit,
        user_reserved: seen.capacity.user_reserved,
        background_max: seen.capacity.background_max,
        background_paused: seen.is_paused(Priority::Background),
        recent_user_activity: seen.capacity.recent,
        reason: seen.capacity.reason.text().into(),
    })
}

/// How long until a priority may be able to go.
pub(crate) fn wait_time(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
    resource: &str,
    priority: Priority,
) -> Result<Duration> {
    let seen = look(rows, adaptive, resource)?;
    if seen.config.limit == 0 {
        return Ok(seen.config.window);
    }
    if seen.may_go(priority) {
        return Ok(Duration::ZERO);
    }
    let (counted, share) = seen.of(priority);
    let oldest_ms = if counted.count < share { seen.admitted.oldest_ms } else { counted.oldest_ms };
    let until_ms = match oldest_ms {
        Some(oldest_ms) if !seen.is_paused(priority) => {
            oldest_ms.saturating_add(seen.config.window_ms().min(seen.row.keep_ms))
        }
        // Paused, or without a share: the next capacity may change that.
        _ => recomputed_at_ms(&seen.capacity, adaptive.config),
    };
    Ok(Duration::from_millis(until_ms.saturating_sub(rows.now_ms())))
}

/// Forgets the requests of a resource, and that there ever were any.
pub(crate) fn reset(tx: &mut dyn Writer, adaptive: &Adaptive<'_>, resource: &str) -> Result<()> {
    let key = adaptive.limiter.resource_key(resource)?;
    let mut row = load(tx, &adaptive.limiter, &key)?;
    if row.id == 0 {
        return Ok(());
    }
    row.reset();
    row.store(tx, &key)
}

/// Gives a resource a configuration of its own.
pub(crate) fn set_resource_config(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    resource: &str,
    config: RateLimitConfig,
) -> Result<()> {
    config.check()?;
    let key = adaptive.limiter.resource_key(resource)?;
    let mut row = load(tx, &adaptive.limiter, &key)?;
    if row.id != 0 {
        row.forget(tx, adaptive.keep_ms(config))?;
        row.store(tx, &key)?;
    }
    Limiter::put_config(tx, &key, config)
}

/// A page of the resources with counted requests, behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<AdaptiveRateLimitEntry>> {
    check_limit(limit)?;
    let (table, prefix) = (Table::ADAPTIVE_RATE_LIMIT, adaptive.limiter.prefix()?);
    let mut resources =
        RowCursor::prefix(table, &prefix).after(Cursor::position(cursor, table, &prefix)?);
    page_of(table, limit, || {
        while let Some((key, _)) = resources.next(rows)? {
            let resource = text_behind(table, &prefix, &key)?;
            let seen = look(rows, adaptive, &resource)?;
            if !seen.is_idle() {
                let entry = AdaptiveRateLimitEntry {
                    resource,
                    user_requests: seen.user.count,
                    background_requests: seen.background.count,
                    config: seen.config,
                };
                return Ok(Some((key, entry)));
            }
        }
        Ok(None)
    })
}

/// Counts every resource.
pub(crate) fn stats(
    rows: &mut dyn Reader,
    adaptive: &Adaptive<'_>,
) -> Result<AdaptiveRateLimitStats> {
    let (table, prefix) = (Table::ADAPTIVE_RATE_LIMIT, adaptive.limiter.prefix()?);
    let mut resources = RowCursor::prefix(table, &prefix);
    let mut stats = AdaptiveRateLimitStats::default();
    while let Some((key, value)) = resources.next(rows)? {
        let seen = look(rows, adaptive, &text_behind(table, &prefix, &key)?)?;
        stats.bytes += (key.len() + value.len()) as u64;
        stats.user_requests = stats.user_requests.saturating_add(seen.user.count);
        stats.background_requests = stats.background_requests.saturating_add(seen.background.count);
        match seen.is_idle() {
            true => stats.idle += 1,
            false => stats.live += 1,
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_row_round_trips_in_frozen_bytes() {
        let row = ResourceRow {
            clears: 1,
            id: 7,
            keep_ms: 300,
            indexed_at_ms: Some(9),
            capacity: Some(CapacityRow {
                computed_at_ms: 2,
                limit: 100,
                user_reserved: 30,
                background_max: 70,
                recent: 4,
                reason: Reason::Low,
            }),
            ..ResourceRow::default()
        };
        let bytes = row.encode().unwrap();
        let history = [0; 6];
        let head = [&[1, 7, 251, 44, 1, 1, 9][..], &history, &history, &history].concat();
        assert_eq!(bytes, [&head[..], &[1, 2, 100, 30, 70, 4, 7]].concat());
        assert_eq!(ResourceRow::decode(&bytes).unwrap(), row);
        for cut in 0..bytes.len() {
            assert!(ResourceRow::decode(&bytes[..cut]).is_err());
        }
    }
}
