//! The row of a resource, and what follows from it alone.

use super::capacity::{Activity, AdaptiveConfig, Trend};
use super::span_ms;
use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::engine::time_line::{Deadline, Moment};
use crate::error::Result;
use crate::stores::expiry;
use crate::stores::rate_limit::history::{History, HistoryId};
use crate::stores::rate_limit::limiter::index_at;
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
    /// The number of the resource in the keys of its requests.
    pub(crate) id: u64,
    /// How long requests are remembered.
    pub(crate) keep_ms: u64,
    /// Where the expiry index has the resource.
    pub(crate) indexed_at: Option<Deadline>,
    pub(crate) user: History,
    pub(crate) background: History,
    /// What `acquire` admitted, of both priorities.
    pub(crate) admitted: History,
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

    fn lane(&self, lane: u8) -> &History {
        match lane {
            USER => &self.user,
            BACKGROUND => &self.background,
            _ => &self.admitted,
        }
    }

    /// The histories of these lanes, and where their rows are.
    pub(super) fn lanes(&self, lanes: &[u8]) -> Vec<(HistoryId, &History)> {
        lanes.iter().map(|lane| (self.place(*lane), self.lane(*lane))).collect()
    }

    pub(super) fn count(&self, rows: &mut dyn Reader, lane: u8, window_ms: u64) -> Result<u64> {
        self.lane(lane).count(rows, self.place(lane), window_ms.min(self.keep_ms))
    }

    /// Forgets everything, as if the row were not there.
    pub(super) fn reset(&mut self) {
        for history in [&mut self.user, &mut self.background, &mut self.admitted] {
            history.reset();
        }
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

    /// Whether there was a request since the last reset, which is remembered for good.
    pub(crate) fn remembers(&self) -> bool {
        self.last_ms().is_some()
    }

    /// The time of the last request of any priority.
    pub(super) fn last_ms(&self) -> Option<u64> {
        self.user.last_ms().max(self.background.last_ms())
    }

    /// When the last request is forgotten; `keep_ms` from now on when there is none.
    pub(super) fn ends_at(&self, now: &Moment) -> Deadline {
        self.last_ms().map_or_else(
            || now.deadline_in(self.keep_ms),
            |last_ms| now.deadline_of(last_ms, self.keep_ms),
        )
    }

    /// Forgets what is out of every window, and remembers from now on for at least `keep_ms`; for
    /// `keep_ms` when nothing is left.
    pub(super) fn forget(&mut self, rows: &mut dyn Reader, keep_ms: u64) -> Result<()> {
        let kept_ms = self.keep_ms;
        for (place, history) in self.histories() {
            history.forget(rows, place, kept_ms)?;
        }
        let is_empty = self.histories().iter().all(|(_, history)| history.is_empty());
        self.keep_ms = if is_empty { keep_ms } else { kept_ms.max(keep_ms) };
        Ok(())
    }

    /// What users did, as far as the monitoring window of `config` tells.
    pub(super) fn activity(
        &self,
        rows: &mut dyn Reader,
        config: &AdaptiveConfig,
    ) -> Result<Activity> {
        let now = rows.moment();
        let monitoring_ms = span_ms(config.monitoring_window);
        let third_ms = (monitoring_ms / 3).max(1);
        let recent = self.count(rows, USER, third_ms)?;
        let both = self.count(rows, USER, third_ms.saturating_mul(2))?;
        Ok(Activity {
            recent: self.count(rows, USER, monitoring_ms)?,
            trend: Trend::of(recent, both.saturating_sub(recent)),
            ever: self.user.last_ms().or(self.background.last_ms()).is_some(),
            last_user_ago_ms: self.user.last_ms().map(|ms| now.since(ms)),
        })
    }

    /// Stages the row, and its index row where that has to move.
    pub(super) fn store(&mut self, tx: &mut dyn Writer, key: &[u8]) -> Result<()> {
        let was_at = self.indexed_at;
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
        let index_at = index_at(was_at, self.ends_at(&tx.moment()), self.keep_ms);
        self.indexed_at = Some(index_at);
        let value = self.encode()?;
        tx.put(Table::ADAPTIVE_RATE_LIMIT, key, value);
        expiry::move_to(tx, was_at, index_at, Table::ADAPTIVE_RATE_LIMIT, key);
        Ok(())
    }
}
