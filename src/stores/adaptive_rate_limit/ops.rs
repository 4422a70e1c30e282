//! The operations on adaptive rate limits, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. A computed capacity is kept in memory until the recalculation interval has passed, the limit
//!    has changed or the resource is reset, whichever operation computed it. `record` computes
//!    none. Everything else about a resource is counted anew by every operation.
//! 2. An operation that only asks writes no row.
//! 3. Whether and when there ever was a request is in the resource's own row, which outlives the
//!    rows of the requests.
//! 4. Shares move, and what was admitted under the old ones stays. So that both priorities together
//!    are never admitted more often than the limit, what `acquire` admitted is counted apart as
//!    well.

use super::capacities::{Capacity, CapacityView};
use super::capacity::{AdaptiveConfig, Reason, share};
use super::row::{ADMITTED, BACKGROUND, ResourceRow, USER};
use super::{
    AdaptiveRateLimitEntry, AdaptiveRateLimitStats, AdaptiveRateLimitStatus, Priority, span_ms,
};
use crate::engine::access::{Reader, Rewrites, Writer};
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::history::{HistoryId, fewer_after};
use crate::stores::rate_limit::limiter::{Limiter, text_behind};
use crate::tables::Table;
use std::time::Duration;

/// An adaptive limiter of a room, as one call uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adaptive<'a> {
    pub(crate) limiter: Limiter<'a>,
    pub(crate) config: &'a AdaptiveConfig,
    pub(crate) capacities: CapacityView<'a>,
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
    user: u64,
    background: u64,
    admitted: u64,
}

impl AdaptiveUsage {
    /// Whether no request of anybody counts.
    fn is_idle(&self) -> bool {
        self.user == 0 && self.background == 0
    }

    fn of(&self, priority: Priority) -> u64 {
        match priority {
            Priority::User => self.user,
            Priority::Background => self.background,
        }
    }

    /// The histories in which there must be room for a request of `priority`, each with the number
    /// of requests that may count in it.
    fn bounds(&self, capacity: &Capacity, priority: Priority) -> [(&'static [u8], u64); 2] {
        let limit = self.config.limit;
        let own = match priority {
            // Else no user could ever return.
            Priority::User if capacity.reason == Reason::SustainedInactivity => {
                (&[USER, BACKGROUND][..], limit)
            }
            Priority::User => (&[USER][..], capacity.user_reserved),
            Priority::Background => (&[BACKGROUND][..], capacity.background_max),
        };
        [own, (&[ADMITTED], limit)]
    }

    fn counted(&self, lanes: &[u8]) -> u64 {
        let counts = lanes.iter().map(|lane| match *lane {
            USER => self.user,
            BACKGROUND => self.background,
            _ => self.admitted,
        });
        counts.fold(0, u64::saturating_add)
    }

    fn may_go(&self, capacity: &Capacity, priority: Priority) -> bool {
        !is_paused(capacity, priority)
            && self
                .bounds(capacity, priority)
                .iter()
                .all(|(lanes, most)| self.counted(lanes) < *most)
    }
}

fn is_paused(capacity: &Capacity, priority: Priority) -> bool {
    priority == Priority::Background && capacity.reason == Reason::HighIncreasing
}

impl Adaptive<'_> {
    /// The capacity that holds now, computed if none is kept.
    fn capacity(&self, rows: &mut dyn Reader, seen: &AdaptiveUsage) -> Result<Capacity> {
        let (now_ms, limit) = (rows.moment().line_ms(), seen.config.limit);
        let holds = |capacity: &Capacity| {
            capacity.clears == seen.row.clears
                && capacity.limit == limit
                && now_ms < capacity.recomputed_at_ms(self.config)
        };
        if let Some(capacity) = self.capacities.get(&seen.key).filter(holds) {
            return Ok(capacity);
        }
        let shares = share(limit, &seen.row.activity(rows, self.config)?, self.config);
        let capacity = Capacity {
            clears: seen.row.clears,
            computed_at_ms: now_ms,
            limit,
            user_reserved: shares.user_reserved,
            background_max: shares.background_max,
            reason: shares.reason,
        };
        self.capacities.keep(&seen.key, capacity);
        Ok(capacity)
    }
}

fn look(rows: &mut dyn Reader, adaptive: &Adaptive<'_>, resource: &str) -> Result<AdaptiveUsage> {
    let key = adaptive.limiter.resource_key(resource)?;
    let config = adaptive.limiter.config_of(rows, &key)?;
    let row = load(rows, &adaptive.limiter, &key)?;
    let window_ms = config.window_ms();
    Ok(AdaptiveUsage {
        user: row.count(rows, USER, window_ms)?,
        background: row.count(rows, BACKGROUND, window_ms)?,
        admitted: row.count(rows, ADMITTED, window_ms)?,
        key,
        config,
        row,
    })
}

fn add(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    mut seen: AdaptiveUsage,
    priority: Priority,
    is_admitted: bool,
) -> Result<()> {
    let row = &mut seen.row;
    row.forget(tx, adaptive.limiter.keep_ms(seen.config))?;
    if row.id == 0 {
        row.id = Limiter::new_id(tx)?;
    }
    let id = row.id;
    let (lane, history) = match priority {
        Priority::User => (USER, &mut row.user),
        Priority::Background => (BACKGROUND, &mut row.background),
    };
    history.record(tx, HistoryId { id, lane })?;
    if is_admitted {
        row.admitted.record(tx, HistoryId { id, lane: ADMITTED })?;
    }
    row.store(tx, &seen.key)
}

/// Records a request if its priority may go.
pub(crate) fn acquire(
    tx: &mut dyn Writer,
    adaptive: &Adaptive<'_>,
    resource: &str,
    priority: Priority,
) -> Result<bool> {
    let seen = look(tx, adaptive, resource)?;
    let capacity = adaptive.capacity(tx, &seen)?;
    if !seen.may_go(&capacity, priority) {
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
    let seen = look(rows, adaptive, resource)?;
    let capacity = adaptive.capacity(rows, &seen)?;
    Ok(seen.may_go(&capacity, priority))
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
    let capacity = adaptive.capacity(rows, &seen)?;
    let monitoring_ms = span_ms(adaptive.config.monitoring_window);
    let left = |priority, share: u64| share.saturating_sub(seen.of(priority));
    Ok(AdaptiveRateLimitStatus {
        remaining: left(Priority::User, capacity.user_reserved)
            .saturating_add(left(Priority::Background, capacity.background_max)),
        reset_time: rows.wall_ms().saturating_add(seen.config.window_ms()),
        limit: seen.config.limit,
        user_reserved: capacity.user_reserved,
        background_max: capacity.background_max,
        background_paused: is_paused(&capacity, Priority::Background),
        recent_user_activity: seen.row.count(rows, USER, monitoring_ms)?,
        reason: capacity.reason.text().into(),
    })
}

/// How long until a priority may go, if no request is made and no capacity is computed meanwhile.
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
    let capacity = adaptive.capacity(rows, &seen)?;
    let now = rows.moment();
    let bounds = seen.bounds(&capacity, priority);
    if is_paused(&capacity, priority) || bounds.iter().any(|(_, most)| *most == 0) {
        // However many leave: only another capacity changes that.
        let until_ms = capacity.recomputed_at_ms(adaptive.config);
        return Ok(Duration::from_millis(until_ms.saturating_sub(now.line_ms())));
    }
    let window_ms = seen.config.window_ms().min(seen.row.keep_ms);
    let mut wait_ms = 0;
    for (lanes, most) in bounds {
        if seen.counted(lanes) >= most {
            let last_ms = fewer_after(rows, &seen.row.lanes(lanes), most)?;
            wait_ms = wait_ms.max(now.left_until(now.deadline_of(last_ms, window_ms)));
        }
    }
    Ok(Duration::from_millis(wait_ms))
}

/// Forgets the requests of a resource, and that there ever were any.
pub(crate) fn reset(tx: &mut dyn Writer, adaptive: &Adaptive<'_>, resource: &str) -> Result<()> {
    let key = adaptive.limiter.resource_key(resource)?;
    let mut row = load(tx, &adaptive.limiter, &key)?;
    adaptive.capacities.forget(&key);
    if !row.remembers() {
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
        row.forget(tx, adaptive.limiter.keep_ms(config))?;
        row.store(&mut Rewrites(tx), &key)?;
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
                    user_requests: seen.user,
                    background_requests: seen.background,
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
        stats.user_requests = stats.user_requests.saturating_add(seen.user);
        stats.background_requests = stats.background_requests.saturating_add(seen.background);
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
    use crate::engine::time_line::Deadline;

    #[test]
    fn a_resource_row_round_trips_in_frozen_bytes() {
        let row = ResourceRow {
            clears: 1,
            id: 7,
            keep_ms: 300,
            indexed_at: Some(Deadline::at(9)),
            ..ResourceRow::default()
        };
        let bytes = row.encode().unwrap();
        let history = [0; 6];
        let head = &[1, 7, 251, 44, 1, 1, 0, 9][..];
        assert_eq!(bytes, [head, &history, &history, &history].concat());
        assert_eq!(ResourceRow::decode(&bytes).unwrap(), row);
        for cut in 0..bytes.len() {
            assert!(ResourceRow::decode(&bytes[..cut]).is_err());
        }
    }
}
