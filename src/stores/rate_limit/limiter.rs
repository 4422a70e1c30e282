//! What plain and adaptive limiters have in common: their keys, configurations and cooldowns, and
//! how all of one limiter is forgotten at once.

use super::config::RateLimitConfig;
use crate::codec::{self, key};
use crate::engine::access::{Reader, Writer};
use crate::engine::time_line::Deadline;
use crate::error::{Error, Result};
use crate::stores::expiry;
use crate::stores::length::check_len;
use crate::tables::Table;
use std::time::Duration;

/// The key of the last number that was given to a window; no limiter's key is empty.
pub(crate) const LAST_ID_KEY: &[u8] = &[];

/// Which limiters share a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Plain = 1,
    Adaptive = 2,
}

impl Kind {
    /// The table of the windows of these limiters.
    pub(crate) fn windows(self) -> Table {
        match self {
            Self::Plain => Table::RATE_LIMIT,
            Self::Adaptive => Table::ADAPTIVE_RATE_LIMIT,
        }
    }
}

/// A limiter of a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limiter<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    /// Of the resources that have no configuration of their own.
    pub(crate) config: RateLimitConfig,
    /// The longest window that a handle of it uses.
    pub(crate) longest_ms: u64,
}

/// A row of [`Table::RATE_LIMIT_STORE`]: how often the limiter was cleared. What was written before
/// the last time is absent, so that clearing costs the same however much there is.
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct StoreRow {
    pub(crate) clears: u64,
}

/// A row of [`Table::RATE_LIMIT_CONFIG`].
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct ConfigRow {
    pub(crate) limit: u64,
    pub(crate) window_seconds: u64,
    pub(crate) window_nanos: u32,
}

/// A row of [`Table::RATE_LIMIT_COOLDOWN`].
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct CooldownRow {
    /// The limiter's, when it was set.
    pub(crate) clears: u64,
    /// In milliseconds since the Unix epoch.
    pub(crate) until_ms: u64,
    /// The same on the time line, by the trusted wall clock.
    pub(crate) ends_at: Deadline,
}

impl Limiter<'_> {
    /// How long the requests of a resource with this configuration are kept: as long as any window
    /// that a handle of the limiter uses.
    pub(crate) fn keep_ms(&self, config: RateLimitConfig) -> u64 {
        config.window_ms().max(self.longest_ms)
    }

    /// The key of the limiter itself.
    pub(crate) fn store_key(&self) -> Result<Vec<u8>> {
        check_len("the name of the limiter", self.name)?;
        let mut key = vec![self.kind as u8];
        key.extend_from_slice(self.name.as_bytes());
        Ok(key)
    }

    /// What the keys of everything in the limiter start with.
    pub(crate) fn prefix(&self) -> Result<Vec<u8>> {
        check_len("the name of the limiter", self.name)?;
        let mut prefix = vec![self.kind as u8];
        key::push_bytes(&mut prefix, self.name.as_bytes());
        Ok(prefix)
    }

    /// The key of a resource.
    pub(crate) fn resource_key(&self, resource: &str) -> Result<Vec<u8>> {
        check_len("the resource", resource)?;
        let mut key = self.prefix()?;
        key.extend_from_slice(resource.as_bytes());
        Ok(key)
    }

    /// The key of an origin.
    pub(crate) fn origin_key(&self, origin: &str) -> Result<Vec<u8>> {
        check_len("the origin", origin)?;
        let mut key = self.prefix()?;
        key.extend_from_slice(origin.as_bytes());
        Ok(key)
    }

    /// How often the limiter was cleared.
    pub(crate) fn clears(&self, rows: &mut dyn Reader) -> Result<u64> {
        clears_at(rows, &self.store_key()?)
    }

    /// The configuration of a resource.
    pub(crate) fn resource_config(
        &self,
        rows: &mut dyn Reader,
        resource: &str,
    ) -> Result<RateLimitConfig> {
        let key = self.resource_key(resource)?;
        self.config_of(rows, &key)
    }

    /// The configuration of the resource at a key: its own, or else the limiter's.
    pub(crate) fn config_of(
        &self,
        rows: &mut dyn Reader,
        resource_key: &[u8],
    ) -> Result<RateLimitConfig> {
        let Some(value) = rows.get(Table::RATE_LIMIT_CONFIG, resource_key)? else {
            return Ok(self.config);
        };
        let row: ConfigRow = codec::decode_row(Table::RATE_LIMIT_CONFIG.name(), &value)?;
        if row.window_nanos >= 1_000_000_000 {
            return Err(Error::corrupted(
                format!("a row of table {}", Table::RATE_LIMIT_CONFIG.name()),
                "over 999,999,999 nanoseconds",
            ));
        }
        let window = Duration::new(row.window_seconds, row.window_nanos);
        Ok(RateLimitConfig { limit: row.limit, window })
    }

    /// Gives a resource a configuration of its own.
    pub(crate) fn put_config(
        tx: &mut dyn Writer,
        resource_key: &[u8],
        config: RateLimitConfig,
    ) -> Result<()> {
        let row = ConfigRow {
            limit: config.limit,
            window_seconds: config.window.as_secs(),
            window_nanos: config.window.subsec_nanos(),
        };
        let value = codec::encode(&row)?;
        tx.put(Table::RATE_LIMIT_CONFIG, resource_key, value);
        Ok(())
    }

    /// A number that no window of this file has had.
    pub(crate) fn new_id(tx: &mut dyn Writer) -> Result<u64> {
        let last: u64 = match tx.get(Table::RATE_LIMIT_STORE, LAST_ID_KEY)? {
            Some(value) => codec::decode_row(Table::RATE_LIMIT_STORE.name(), &value)?,
            None => 0,
        };
        let id = last.saturating_add(1);
        let value = codec::encode(&id)?;
        tx.put(Table::RATE_LIMIT_STORE, LAST_ID_KEY, value);
        Ok(id)
    }

    /// Forgets the windows and cooldowns of the limiter.
    pub(crate) fn clear(&self, tx: &mut dyn Writer) -> Result<()> {
        let key = self.store_key()?;
        let clears = self.clears(tx)?.saturating_add(1);
        let value = codec::encode(&StoreRow { clears })?;
        tx.put(Table::RATE_LIMIT_STORE, &key, value);
        if self.kind == Kind::Adaptive {
            // Resources without requests have no index row of their own.
            let now = tx.moment().deadline_in(0);
            expiry::put(tx, now, Table::RATE_LIMIT_STORE, &key);
        }
        Ok(())
    }

    /// The row of the cooldown at a key, also of one that has ended or was forgotten, because it
    /// says where it is indexed.
    fn load_cooldown(&self, rows: &mut dyn Reader, key: &[u8]) -> Result<Option<CooldownRow>> {
        let Some(value) = rows.get(Table::RATE_LIMIT_COOLDOWN, key)? else { return Ok(None) };
        codec::decode_row(Table::RATE_LIMIT_COOLDOWN.name(), &value).map(Some)
    }

    /// Sets a cooldown: no request is to be made to `origin` until `until_ms`.
    pub(crate) fn set_cooldown(
        &self,
        tx: &mut dyn Writer,
        origin: &str,
        until_ms: u64,
    ) -> Result<()> {
        let now = tx.moment();
        if until_ms <= now.wall_ms() {
            return self.clear_cooldown(tx, origin);
        }
        let key = self.origin_key(origin)?;
        let indexed_at = self.load_cooldown(tx, &key)?.map(|row| row.ends_at);
        let ends_at = now.deadline_at_trusted_wall(until_ms);
        let value = codec::encode(&CooldownRow { clears: self.clears(tx)?, until_ms, ends_at })?;
        tx.put(Table::RATE_LIMIT_COOLDOWN, &key, value);
        expiry::move_to(tx, indexed_at, ends_at, Table::RATE_LIMIT_COOLDOWN, &key);
        Ok(())
    }

    /// The end of the cooldown of `origin`, if there is one now.
    pub(crate) fn cooldown(&self, rows: &mut dyn Reader, origin: &str) -> Result<Option<u64>> {
        let key = self.origin_key(origin)?;
        let Some(row) = self.load_cooldown(rows, &key)? else { return Ok(None) };
        let is_live = rows.wall_ms() < row.until_ms && row.clears == self.clears(rows)?;
        Ok(is_live.then_some(row.until_ms))
    }

    /// Ends the cooldown of `origin`.
    pub(crate) fn clear_cooldown(&self, tx: &mut dyn Writer, origin: &str) -> Result<()> {
        let key = self.origin_key(origin)?;
        if let Some(row) = self.load_cooldown(tx, &key)? {
            tx.delete(Table::RATE_LIMIT_COOLDOWN, &key);
            expiry::delete(tx, row.ends_at, Table::RATE_LIMIT_COOLDOWN, &key);
        }
        Ok(())
    }
}

/// How often the limiter at `store_key` was cleared.
pub(crate) fn clears_at(rows: &mut dyn Reader, store_key: &[u8]) -> Result<u64> {
    let Some(value) = rows.get(Table::RATE_LIMIT_STORE, store_key)? else { return Ok(0) };
    let row: StoreRow = codec::decode_row(Table::RATE_LIMIT_STORE.name(), &value)?;
    Ok(row.clears)
}

/// The key in [`Table::RATE_LIMIT_STORE`] of the limiter that the row at `key` of `table` belongs
/// to.
pub(crate) fn store_key_of(table: Table, key: &[u8]) -> Result<Vec<u8>> {
    let store_key = key.split_first().and_then(|(&kind, mut rest)| {
        let name = key::take_bytes(&mut rest)?;
        Some([&[kind], &*name].concat())
    });
    store_key.ok_or_else(|| {
        Error::corrupted(format!("a key of table {}", table.name()), "it names no limiter")
    })
}

/// How often the limiter was cleared that the row at `key` of `table` belongs to.
pub(crate) fn clears_around(rows: &mut dyn Reader, table: Table, key: &[u8]) -> Result<u64> {
    clears_at(rows, &store_key_of(table, key)?)
}

/// The rest of `key` behind `prefix`, as text.
pub(crate) fn text_behind(table: Table, prefix: &[u8], key: &[u8]) -> Result<String> {
    key.strip_prefix(prefix)
        .and_then(|text| std::str::from_utf8(text).ok())
        .map(Into::into)
        .ok_or_else(|| {
            Error::corrupted(format!("a key of table {}", table.name()), "no text in its limiter")
        })
}

/// Where the expiry index should have a row that ends at `ends_at`, and is under `indexed_at` now.
///
/// A window's end moves with every request. The index row follows only when it is behind by more
/// than a quarter of what is kept, so that most requests leave it alone; a sweeper that comes early
/// finds the window live and reschedules it.
pub(crate) fn index_at(indexed_at: Option<Deadline>, ends_at: Deadline, keep_ms: u64) -> Deadline {
    match indexed_at {
        Some(indexed_at)
            if indexed_at.epoch == ends_at.epoch
                && indexed_at.at_ms <= ends_at.at_ms
                && ends_at.at_ms - indexed_at.at_ms <= keep_ms / 4 =>
        {
            indexed_at
        }
        _ => ends_at,
    }
}
