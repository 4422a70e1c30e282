//! An adaptive limiter of a room.

use super::capacities::{Capacities, CapacityView};
use super::ops::{self, Adaptive};
use super::{
    AdaptiveConfig, AdaptiveRateLimitEntry, AdaptiveRateLimitStats, AdaptiveRateLimitStatus,
    AdaptiveRateLimitStore, AdaptiveRateLimitTx, Priority,
};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::access::Writer;
use crate::engine::{Engine, Snapshot};
use crate::error::Result;
use crate::stores::page::{Cursor, Page};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::limiter::Kind;
use crate::stores::rate_limit::limiter_handle::LimiterHandle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A named limiter of a room: a [`AdaptiveRateLimitStore`]. A cheap clone.
#[derive(Clone)]
pub struct AdaptiveRateLimit {
    handle: LimiterHandle,
    adaptive: AdaptiveConfig,
    capacities: Arc<Capacities>,
}

impl AdaptiveRateLimit {
    /// The limiter called `name` of the room that `engine` runs, whose transactions
    /// `capacities` follow.
    pub(crate) fn new(
        engine: Engine,
        capacities: &Arc<Capacities>,
        name: &str,
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
    ) -> Result<Self> {
        config.check()?;
        adaptive.check()?;
        let longest = capacities.longest(name, config, &adaptive);
        let handle = LimiterHandle::new(engine, Kind::Adaptive, name, config, longest);
        Ok(Self { handle, adaptive, capacities: Arc::clone(capacities) })
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
        self.ask(|rows, adaptive| ops::list(rows, adaptive, cursor, limit))
    }

    /// Counts every resource of this limiter, by looking at every one of them; other callers do not
    /// wait meanwhile.
    pub fn stats(&self) -> Pending<AdaptiveRateLimitStats> {
        self.ask(|rows, adaptive| ops::stats(rows, adaptive))
    }

    /// The limiter in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(
        &'a self,
        engine: &Engine,
        tx: &'a mut dyn Writer,
    ) -> AdaptiveRateLimitTx<'a> {
        let tx = self.handle.handle().within(engine, tx);
        let limiter = self.handle.limiter();
        AdaptiveRateLimitTx::of(tx, limiter, self.adaptive, self.capacities.in_transaction())
    }

    /// The limiter as a transaction sees it.
    fn in_transaction(&self) -> Adaptive<'_> {
        self.seen_by(self.capacities.in_transaction())
    }

    fn seen_by<'a>(&'a self, capacities: CapacityView<'a>) -> Adaptive<'a> {
        Adaptive { limiter: self.handle.limiter(), config: &self.adaptive, capacities }
    }

    /// Answers from a snapshot, without waiting for a writer.
    fn ask<R>(&self, ask: impl FnOnce(&mut Snapshot, &Adaptive<'_>) -> Result<R>) -> Pending<R> {
        // Before the snapshot is taken.
        let adaptive = self.seen_by(self.capacities.asked());
        self.handle.read(|rows| ask(rows, &adaptive))
    }
}

impl fmt::Debug for AdaptiveRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveRateLimit")
            .field("handle", &self.handle)
            .field("adaptive", &self.adaptive)
            .finish_non_exhaustive()
    }
}

impl AdaptiveRateLimitStore for AdaptiveRateLimit {
    fn acquire(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.handle
            .write(resource, |tx| ops::acquire(tx, &self.in_transaction(), resource, priority))
    }

    fn can_proceed(&self, resource: &str, priority: Priority) -> Pending<bool> {
        self.ask(|rows, adaptive| ops::can_proceed(rows, adaptive, resource, priority))
    }

    fn record(&self, resource: &str, priority: Priority) -> Pending<()> {
        self.handle
            .write(resource, |tx| ops::record(tx, &self.in_transaction(), resource, priority))
    }

    fn status(&self, resource: &str) -> Pending<AdaptiveRateLimitStatus> {
        self.ask(|rows, adaptive| ops::status(rows, adaptive, resource))
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        self.handle.write(resource, |tx| ops::reset(tx, &self.in_transaction(), resource))
    }

    fn wait_time(&self, resource: &str, priority: Priority) -> Pending<Duration> {
        self.ask(|rows, adaptive| ops::wait_time(rows, adaptive, resource, priority))
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        self.handle.write(resource, |tx| {
            ops::set_resource_config(tx, &self.in_transaction(), resource, config)
        })
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
