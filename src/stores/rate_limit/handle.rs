//! A plain limiter of a room.

use super::config::RateLimitConfig;
use super::limiter::{Kind, Limiter};
use super::{RateLimitEntry, RateLimitStats, RateLimitStatus, RateLimitStore, ops};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::{Engine, Tx};
use crate::error::Result;
use crate::stores::page::{Cursor, Page};
use crate::tables::Table;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A named limiter of a room: a [`RateLimitStore`]. A cheap clone.
#[derive(Clone)]
pub struct RateLimit {
    engine: Engine,
    durability: Durability,
    name: Arc<str>,
    config: RateLimitConfig,
}

impl RateLimit {
    /// The limiter called `name` of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, name: &str, config: RateLimitConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { engine, durability: Durability::Os, name: name.into(), config })
    }

    /// The same limiter, with answers that wait for this much. The default is [`Durability::Os`].
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Up to `limit` resources with counted requests behind `cursor` (from the first without one),
    /// in byte order.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<RateLimitEntry>> {
        self.engine.read(self.durability, |rows| ops::list(rows, &self.limiter(), cursor, limit))
    }

    /// Counts every resource of this limiter, by looking at every one of them; other callers do not
    /// wait meanwhile.
    pub fn stats(&self) -> Pending<RateLimitStats> {
        self.engine.read(self.durability, |rows| ops::stats(rows, &self.limiter()))
    }

    fn limiter(&self) -> Limiter<'_> {
        Limiter { kind: Kind::Plain, name: &self.name, config: self.config }
    }

    /// Runs an operation that writes the window of `resource`.
    fn write<R>(
        &self,
        resource: &str,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Pending<R> {
        let limiter = self.limiter();
        match (limiter.resource_key(resource), limiter.store_key()) {
            (Ok(key), Ok(store_key)) => {
                let wanted = [
                    (Table::RATE_LIMIT, key.as_slice()),
                    (Table::RATE_LIMIT_CONFIG, key.as_slice()),
                    (Table::RATE_LIMIT_STORE, store_key.as_slice()),
                ];
                self.engine.transact(self.durability, &wanted, operation)
            }
            (Err(error), _) | (_, Err(error)) => Pending::ready(Err(error)),
        }
    }

    /// Runs an operation that writes the cooldown of `origin`.
    fn note<R>(
        &self,
        origin: &str,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Pending<R> {
        match self.limiter().origin_key(origin) {
            Ok(key) => self.engine.transact(
                self.durability,
                &[(Table::RATE_LIMIT_COOLDOWN, &key)],
                operation,
            ),
            Err(error) => Pending::ready(Err(error)),
        }
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("name", &self.name)
            .field("durability", &self.durability)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl RateLimitStore for RateLimit {
    fn acquire(&self, resource: &str) -> Pending<bool> {
        self.write(resource, |tx| ops::acquire(tx, &self.limiter(), resource))
    }

    fn can_proceed(&self, resource: &str) -> Pending<bool> {
        self.engine.read(self.durability, |rows| ops::can_proceed(rows, &self.limiter(), resource))
    }

    fn record(&self, resource: &str) -> Pending<()> {
        self.write(resource, |tx| ops::record(tx, &self.limiter(), resource))
    }

    fn status(&self, resource: &str) -> Pending<RateLimitStatus> {
        self.engine.read(self.durability, |rows| ops::status(rows, &self.limiter(), resource))
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.write(resource, |tx| ops::reset(tx, &self.limiter(), resource))
    }

    fn wait_time(&self, resource: &str) -> Pending<Duration> {
        self.engine.read(self.durability, |rows| ops::wait_time(rows, &self.limiter(), resource))
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        self.write(resource, |tx| ops::set_resource_config(tx, &self.limiter(), resource, config))
    }

    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        self.engine
            .read(self.durability, |rows| ops::resource_config(rows, &self.limiter(), resource))
    }

    fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()> {
        self.note(origin, |tx| self.limiter().set_cooldown(tx, origin, until_ms))
    }

    fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        self.engine.read(self.durability, |rows| self.limiter().cooldown(rows, origin))
    }

    fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        self.note(origin, |tx| self.limiter().clear_cooldown(tx, origin))
    }

    fn clear(&self) -> Pending<()> {
        self.engine.transact(self.durability, &[], |tx| self.limiter().clear(tx))
    }
}
