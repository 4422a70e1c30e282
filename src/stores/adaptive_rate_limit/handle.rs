//! An adaptive limiter of a room.

use super::ops::{self, Adaptive};
use super::{
    AdaptiveConfig, AdaptiveRateLimitEntry, AdaptiveRateLimitStats, AdaptiveRateLimitStatus,
    AdaptiveRateLimitStore, Priority,
};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::{Engine, Snapshot, Tx};
use crate::error::Result;
use crate::stores::page::{Cursor, Page};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::limiter::Kind;
use crate::stores::rate_limit::limiter_handle::LimiterHandle;
use std::fmt;
use std::time::Duration;

/// A named limiter of a room: a [`AdaptiveRateLimitStore`]. A cheap clone.
#[derive(Clone)]
pub struct AdaptiveRateLimit {
    handle: LimiterHandle,
    adaptive: AdaptiveConfig,
}

impl AdaptiveRateLimit {
    /// The limiter called `name` of the room that `engine` runs.
    pub(crate) fn new(
        engine: Engine,
        name: &str,
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
    ) -> Result<Self> {
        let handle = LimiterHandle::new(engine, Kind::Adaptive, name, config)?;
        adaptive.check()?;
        Ok(Self { handle, adaptive })
    }

    /// The same limiter, whose answers wait for this durability. The default is [`Durability::Os`].
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    /// Up to `limit` resources with counted requests after `cursor`, or from the first one without
    /// a cursor, in byte order.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store.
    pub fn list(
        &self,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Pending<Page<AdaptiveRateLimitEntry>> {
        self.handle.read(|rows| ops::list(rows, &self.adaptive(), cursor, limit))
    }

    /// Counts every resource of this limiter, by looking at every one of them; other callers do not
    /// wait meanwhile.
    pub fn stats(&self) -> Pending<AdaptiveRateLimitStats> {
        self.handle.read(|rows| ops::stats(rows, &self.adaptive()))
    }

    fn adaptive(&self) -> Adaptive<'_> {
        Adaptive { limiter: self.handle.limiter(), config: &self.adaptive }
    }

    /// Answers from a snapshot, after it has stored the capacity of `resource` when that had to be
    /// computed. Only then does it wait for writers. A room that is read only computes it for the
    /// answer alone.
    fn ask<R>(
        &self,
        resource: &str,
        ask: impl FnOnce(&mut Snapshot) -> Result<R>,
        settle_and_ask: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Pending<R> {
        let engine = self.handle.engine();
        let is_settled =
            engine.read(Durability::Os, |rows| ops::is_settled(rows, &self.adaptive(), resource));
        match is_settled.wait() {
            Ok(true) => self.handle.read(ask),
            Ok(false) => {
                let operation = |tx: &mut Tx<'_>| {
                    ops::settle(tx, &self.adaptive(), resource)?;
                    settle_and_ask(tx)
                };
                if engine.is_read_only() {
                    return engine.dry_run(operation);
                }
                self.handle.write(resource, operation)
            }
            Err(error) => Pending::ready(Err(error)),
        }
    }
}

impl fmt::Debug for AdaptiveRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveRateLimit")
            .field("handle", &self.handle)
            .field("adaptive", &self.adaptive)
            .finish()
    }
}

impl AdaptiveRateLimitStore for AdaptiveRateLimit {
    fn acquire(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.handle.write(resource, |tx| ops::acquire(tx, &self.adaptive(), resource, priority))
    }

    fn can_proceed(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.ask(
            resource,
            |rows| ops::can_proceed(rows, &self.adaptive(), resource, priority),
            |tx| ops::can_proceed(tx, &self.adaptive(), resource, priority),
        )
    }

    fn record(&self, resource: &str, priority: Priority) -> Pending<()> {
        self.handle.write(resource, |tx| ops::record(tx, &self.adaptive(), resource, priority))
    }

    fn status(&self, resource: &str) -> Pending<AdaptiveRateLimitStatus> {
        self.ask(
            resource,
            |rows| ops::status(rows, &self.adaptive(), resource),
            |tx| ops::status(tx, &self.adaptive(), resource),
        )
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.handle.write(resource, |tx| ops::reset(tx, &self.adaptive(), resource))
    }

    fn wait_time(&self, resource: &str, priority: Priority) -> Pending<Duration> {
        self.ask(
            resource,
            |rows| ops::wait_time(rows, &self.adaptive(), resource, priority),
            |tx| ops::wait_time(tx, &self.adaptive(), resource, priority),
        )
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        self.handle
            .write(resource, |tx| ops::set_resource_config(tx, &self.adaptive(), resource, config))
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
