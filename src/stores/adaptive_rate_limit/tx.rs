//! An adaptive limiter as a transaction sees it.

use super::capacities::{Capacities, CapacityView};
use super::ops::{self, Adaptive};
use super::{AdaptiveConfig, AdaptiveRateLimitStatus, Priority};
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::limiter::{Kind, Limiter};
use crate::stores::store_tx::StoreTx;
use std::fmt;
use std::time::Duration;

/// A limiter inside a transaction: the operations of
/// [`AdaptiveRateLimitStore`](super::AdaptiveRateLimitStore), answering at once and seeing what the
/// transaction has done so far. What they change is kept or lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct AdaptiveRateLimitTx<'a> {
    tx: StoreTx<'a>,
    limiter: Limiter<'a>,
    config: AdaptiveConfig,
    capacities: CapacityView<'a>,
}

impl<'a> AdaptiveRateLimitTx<'a> {
    /// The limiter called `name` in `tx`, the transaction under way, which `capacities` follow.
    pub(crate) fn new(
        tx: &'a mut dyn Writer,
        capacities: &'a Capacities,
        name: &'a str,
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
    ) -> Result<Self> {
        config.check()?;
        adaptive.check()?;
        let longest_ms = capacities.longest(name, config, &adaptive).ms();
        let limiter = Limiter { kind: Kind::Adaptive, name, config, longest_ms };
        Ok(Self::of(StoreTx::new(tx), limiter, adaptive, capacities.in_transaction()))
    }

    /// This limiter in `tx`.
    pub(super) fn of(
        tx: StoreTx<'a>,
        limiter: Limiter<'a>,
        config: AdaptiveConfig,
        capacities: CapacityView<'a>,
    ) -> Self {
        Self { tx, limiter, config, capacities }
    }

    /// The transaction, and the limiter as it is seen in it.
    fn parts(&mut self) -> Result<(&mut dyn Writer, Adaptive<'_>)> {
        let Self { tx, limiter, config, capacities } = self;
        Ok((tx.get()?, Adaptive { limiter: *limiter, config, capacities: *capacities }))
    }

    /// See [`AdaptiveRateLimitStore::acquire`](super::AdaptiveRateLimitStore::acquire).
    pub fn acquire(&mut self, resource: &str, priority: Priority) -> Result<bool> {
        let (tx, adaptive) = self.parts()?;
        ops::acquire(tx, &adaptive, resource, priority)
    }

    /// See [`AdaptiveRateLimitStore::can_proceed`](super::AdaptiveRateLimitStore::can_proceed).
    pub fn can_proceed(&mut self, resource: &str, priority: Priority) -> Result<bool> {
        let (tx, adaptive) = self.parts()?;
        ops::can_proceed(tx, &adaptive, resource, priority)
    }

    /// See [`AdaptiveRateLimitStore::record`](super::AdaptiveRateLimitStore::record).
    pub fn record(&mut self, resource: &str, priority: Priority) -> Result<()> {
        let (tx, adaptive) = self.parts()?;
        ops::record(tx, &adaptive, resource, priority)
    }

    /// See [`AdaptiveRateLimitStore::status`](super::AdaptiveRateLimitStore::status).
    pub fn status(&mut self, resource: &str) -> Result<AdaptiveRateLimitStatus> {
        let (tx, adaptive) = self.parts()?;
        ops::status(tx, &adaptive, resource)
    }

    /// See [`AdaptiveRateLimitStore::reset`](super::AdaptiveRateLimitStore::reset).
    pub fn reset(&mut self, resource: &str) -> Result<()> {
        let (tx, adaptive) = self.parts()?;
        ops::reset(tx, &adaptive, resource)
    }

    /// See [`AdaptiveRateLimitStore::wait_time`](super::AdaptiveRateLimitStore::wait_time).
    pub fn wait_time(&mut self, resource: &str, priority: Priority) -> Result<Duration> {
        let (tx, adaptive) = self.parts()?;
        ops::wait_time(tx, &adaptive, resource, priority)
    }

    /// See
    /// [`AdaptiveRateLimitStore::set_resource_config`](super::AdaptiveRateLimitStore::set_resource_config).
    pub fn set_resource_config(&mut self, resource: &str, config: RateLimitConfig) -> Result<()> {
        let (tx, adaptive) = self.parts()?;
        ops::set_resource_config(tx, &adaptive, resource, config)
    }

    /// See
    /// [`AdaptiveRateLimitStore::resource_config`](super::AdaptiveRateLimitStore::resource_config).
    pub fn resource_config(&mut self, resource: &str) -> Result<RateLimitConfig> {
        self.limiter.resource_config(self.tx.get()?, resource)
    }

    /// See [`AdaptiveRateLimitStore::set_cooldown`](super::AdaptiveRateLimitStore::set_cooldown).
    pub fn set_cooldown(&mut self, origin: &str, until_ms: u64) -> Result<()> {
        self.limiter.set_cooldown(self.tx.get()?, origin, until_ms)
    }

    /// See [`AdaptiveRateLimitStore::cooldown`](super::AdaptiveRateLimitStore::cooldown).
    pub fn cooldown(&mut self, origin: &str) -> Result<Option<u64>> {
        self.limiter.cooldown(self.tx.get()?, origin)
    }

    /// See
    /// [`AdaptiveRateLimitStore::clear_cooldown`](super::AdaptiveRateLimitStore::clear_cooldown).
    pub fn clear_cooldown(&mut self, origin: &str) -> Result<()> {
        self.limiter.clear_cooldown(self.tx.get()?, origin)
    }

    /// See [`AdaptiveRateLimitStore::clear`](super::AdaptiveRateLimitStore::clear).
    pub fn clear(&mut self) -> Result<()> {
        self.limiter.clear(self.tx.get()?)
    }
}

impl fmt::Debug for AdaptiveRateLimitTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveRateLimitTx")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
