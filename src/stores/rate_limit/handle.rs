//! A plain limiter of a room.

use super::config::RateLimitConfig;
use super::limiter::{Kind, Limiter};
use super::limiter_handle::LimiterHandle;
use super::longest_window::LongestWindows;
use super::{RateLimitEntry, RateLimitStats, RateLimitStatus, RateLimitStore, RateLimitTx, ops};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::page::{Cursor, Page};
use std::fmt;
use std::time::Duration;

/// A named limiter of a room: a [`RateLimitStore`]. A cheap clone.
#[derive(Clone)]
pub struct RateLimit {
    handle: LimiterHandle,
}

impl RateLimit {
    /// The limiter called `name` of the room that `engine` runs.
    pub(crate) fn new(
        engine: Engine,
        longest: &LongestWindows,
        name: &str,
        config: RateLimitConfig,
    ) -> Result<Self> {
        config.check()?;
        let longest = longest.used(name, config.window_ms());
        Ok(Self { handle: LimiterHandle::new(engine, Kind::Plain, name, config, longest) })
    }

    /// The same limiter, whose answers wait for this durability. The default is [`Durability::Os`].
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability) }
    }

    /// Up to `limit` resources with counted requests after `cursor`, or from the first one without
    /// a cursor, in byte order.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<RateLimitEntry>> {
        self.handle.read(|rows| ops::list(rows, &self.limiter(), cursor, limit))
    }

    /// Counts every resource of this limiter, by looking at every one of them; other callers do not
    /// wait meanwhile.
    pub fn stats(&self) -> Pending<RateLimitStats> {
        self.handle.read(|rows| ops::stats(rows, &self.limiter()))
    }

    /// The limiter in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&'a self, engine: &Engine, tx: &'a mut dyn Writer) -> RateLimitTx<'a> {
        RateLimitTx::of(self.handle.handle().within(engine, tx), self.limiter())
    }

    fn limiter(&self) -> Limiter<'_> {
        self.handle.limiter()
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("handle", &self.handle).finish()
    }
}

impl RateLimitStore for RateLimit {
    fn acquire(&self, resource: &str) -> Pending<bool> {
        self.handle.write(resource, |tx| ops::acquire(tx, &self.limiter(), resource))
    }

    fn can_proceed(&self, resource: &str) -> Pending<bool> {
        self.handle.read(|rows| ops::can_proceed(rows, &self.limiter(), resource))
    }

    fn record(&self, resource: &str) -> Pending<()> {
        self.handle.write(resource, |tx| ops::record(tx, &self.limiter(), resource))
    }

    fn status(&self, resource: &str) -> Pending<RateLimitStatus> {
        self.handle.read(|rows| ops::status(rows, &self.limiter(), resource))
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.handle.write(resource, |tx| ops::reset(tx, &self.limiter(), resource))
    }

    fn wait_time(&self, resource: &str) -> Pending<Duration> {
        self.handle.read(|rows| ops::wait_time(rows, &self.limiter(), resource))
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        self.handle
            .write(resource, |tx| ops::set_resource_config(tx, &self.limiter(), resource, config))
    }

    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        self.handle.resource_config(resource)
    }

    fn set_cooldown(&self, origin: &str, until: u64) -> Pending<()> {
        self.handle.set_cooldown(origin, until)
    }

    fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        self.handle.cooldown(origin)
    }

    fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        self.handle.clear_cooldown(origin)
    }

    fn clear(&self) -> Pending<()> {
        self.handle.clear()
    }
}
