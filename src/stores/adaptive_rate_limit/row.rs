//! The row of a resource, and what follows from it alone.

use super::capacity::{Activity, AdaptiveConfig, Reason, Trend, share};
use super::span_ms;
use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::stores::expiry;
use crate::stores::rate_limit::history::{Counted, History, HistoryId};
use crate::stores::rate_limit::limiter::{Limiter, index_at};
use crate::tables::Table;

/// The histories of a resource.
pub(crate) const USER: u8 = 0;
pub(crate) const BACKGROUND: u8 = 1;
pub(crate) const ADMITTED: u8 = 2;

/// A row of [`Table::ADAPTIVE_RATE_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub(crate) struct ResourceRow {
    /// The limiter's, when this was written.
    pub(crate) clears: u64,
    /// The number of the resource in the keys of its requests; 0 before it has one.
    pub(crate) id: u64,
    /// How long requests are remembered.
    pub(crate) keep_ms: u64,
    /// Where the expiry index has the resource.
    pub(crate) indexed_at_ms: Option<u64>,
    pub(crate) user: History,
    pub(crate) background: History,
    /// What `acquire` admitted, of both priorities.
    pub(crate) admitted: History,
    pub(crate) capacity: Option<CapacityRow>,
}

/// A computed capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct CapacityRow {
    pub(crate) computed_at_ms: u64,
    pub(crate) limit: u64,
    pub(crate) user_reserved: u64,
    pub(crate) background_max: u64,
    pub(crate) recent: u64,
    pub(crate) reason: Reason,
}

impl ResourceRow {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::ADAPTIVE_RATE_LIMIT.name(), bytes)
    }

    pub(super) fn place(&self, lane: u8) -> HistoryId {
        HistoryId { id: self.id, lane }
    }

    pub(super) fn count(
        &self,
        rows: &mut dyn Reader,
        lane: u8,
        now_ms: u64,
        window_ms: u64,
    ) -> Result<Counted> {
        let history = match lane {
            USER => &self.user,
            BACKGROUND => &self.background,
            _ => &self.admitted,
        };
        history.count(rows, self.place(lane), now_ms, window_ms.min(self.keep_ms))
    }

    /// Forgets everything, as if the row were not there.
    pub(super) fn reset(&mut self) {
        for history in [&mut self.user, &mut self.background, &mut self.admitted] {
            history.reset();
        }
        self.capacity = None;
        self.keep_ms = 0;
    }

    /// The histories, and where their rows are.
    pub(super) fn histories(&mut self) -> [(HistoryId, &mut History); 3] {
        let place = |lane| HistoryId { id: self.id, lane };
        [
            (place(USER), &mut self.user),
            (place(BACKGROUND), &mut self.background),
            (place(ADMITTED), &mut self.admitted),
        ]
    }

    /// Whether and when there was a request is remembered, or a capacity.
    pub(super) fn remembers(&self) -> bool {
        self.last_ms().is_some() || self.capacity.is_some()
    }

    /// The time of the last request of any priority.
    pub(super) fn last_ms(&self) -> Option<u64> {
        self.user.last_ms().max(self.background.last_ms())
    }

    /// When the last request is forgotten; `keep_ms` from `now_ms` on when there is none.
    pub(super) fn ends_at_ms(&self, now_ms: u64) -> u64 {
        self.last_ms().unwrap_or(now_ms).saturating_add(self.keep_ms)
    }

    /// Forgets what is out of every window, and remembers from now on for at least `keep_ms`.
    pub(super) fn forget(&mut self, rows: &mut dyn Reader, keep_ms: u64) -> Result<()> {
        let (now_ms, kept_ms) = (rows.now_ms(), self.keep_ms);
        for (place, history) in self.histories() {
            history.forget(rows, place, now_ms, kept_ms)?;
        }
        self.keep_ms = kept_ms.max(keep_ms);
        Ok(())
    }

    /// What users did, as far as the monitoring window of `config` tells.
    pub(super) fn activity(
        &self,
        rows: &mut dyn Reader,
        config: &AdaptiveConfig,
    ) -> Result<Activity> {
        let now_ms = rows.now_ms();
        let monitoring_ms = span_ms(config.monitoring_window);
        let third_ms = (monitoring_ms / 3).max(1);
        let recent = self.count(rows, USER, now_ms, third_ms)?.count;
        let both = self.count(rows, USER, now_ms, third_ms.saturating_mul(2))?.count;
        Ok(Activity {
            recent: self.count(rows, USER, now_ms, monitoring_ms)?.count,
            trend: Trend::of(recent, both.saturating_sub(recent)),
            ever: self.user.last_ms().or(self.background.last_ms()).is_some(),
            last_user_ago_ms: self.user.last_ms().map(|ms| now_ms.saturating_sub(ms)),
        })
    }

    /// The capacity that holds now, and whether it was computed just now.
    pub(super) fn capacity(
        &self,
        rows: &mut dyn Reader,
        limit: u64,
        config: &AdaptiveConfig,
    ) -> Result<(CapacityRow, bool)> {
        let now_ms = rows.now_ms();
        let stands = |capacity: &CapacityRow| {
            capacity.limit == limit && now_ms < recomputed_at_ms(capacity, config)
        };
        if let Some(capacity) = self.capacity.filter(stands) {
            return Ok((capacity, false));
        }
        let activity = self.activity(rows, config)?;
        let shares = share(limit, &activity, config);
        let capacity = CapacityRow {
            computed_at_ms: now_ms,
            limit,
            user_reserved: shares.user_reserved,
            background_max: shares.background_max,
            recent: activity.recent,
            reason: shares.reason,
        };
        Ok((capacity, true))
    }

    /// Stages the row, and its index row where that has to move.
    pub(super) fn store(&mut self, tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
        if self.id == 0 {
            self.id = Limiter::new_id(tx)?;
        }
        let indexed_at_ms = self.indexed_at_ms;
        let has_rows = self
            .histories()
            .iter()
            .any(|(_, history)| !history.is_empty() || history.has_garbage());
        if !has_rows && self.remembers() {
            // There is nothing that a sweeper could remove. One that has it in the index takes it
            // from there.
            tx.put(Table::ADAPTIVE_RATE_LIMIT, key, self.encode()?);
            return Ok(());
        }
        let index_at_ms = index_at(indexed_at_ms, self.ends_at_ms(tx.now_ms()), self.keep_ms);
        self.indexed_at_ms = Some(index_at_ms);
        let value = self.encode()?;
        tx.put(Table::ADAPTIVE_RATE_LIMIT, key, value);
        expiry::move_to(tx, indexed_at_ms, index_at_ms, Table::ADAPTIVE_RATE_LIMIT, key);
        Ok(())
    }
}

/// When a capacity may be computed again.
pub(super) fn recomputed_at_ms(capacity: &CapacityRow, config: &AdaptiveConfig) -> u64 {
    capacity.computed_at_ms.saturating_add(span_ms(config.recalculation_interval))
}
