//! A plain limiter as a transaction sees it.

use super::config::RateLimitConfig;
use super::limiter::{Kind, Limiter};
use super::longest_window::LongestWindows;
use super::{RateLimitStatus, ops};
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::store_tx::StoreTx;
use std::fmt;
use std::time::Duration;

/// A limiter inside a transaction: the operations of [`RateLimitStore`](super::RateLimitStore),
/// answering at once and seeing what the transaction has done so far. What they change is kept or
/// lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct RateLimitTx<'a> {
    tx: StoreTx<'a>,
    limiter: Limiter<'a>,
}

impl<'a> RateLimitTx<'a> {
    /// The limiter called `name` in `tx`, whose handles share one of `longest`.
    pub(crate) fn new(
        tx: &'a mut dyn Writer,
        longest: &LongestWindows,
        name: &'a str,
        config: RateLimitConfig,
    ) -> Result<Self> {
        config.check()?;
        let longest_ms = longest.used(name, config.window_ms()).ms();
        Ok(Self::of(StoreTx::new(tx), Limiter { kind: Kind::Plain, name, config, longest_ms }))
    }

    /// This limiter in `tx`.
    pub(super) fn of(tx: StoreTx<'a>, limiter: Limiter<'a>) -> Self {
        Self { tx, limiter }
    }

    /// See [`RateLimitStore::acquire`](super::RateLimitStore::acquire).
    pub fn acquire(&mut self, resource: &str) -> Result<bool> {
        ops::acquire(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::can_proceed`](super::RateLimitStore::can_proceed).
    pub fn can_proceed(&mut self, resource: &str) -> Result<bool> {
        ops::can_proceed(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::record`](super::RateLimitStore::record).
    pub fn record(&mut self, resource: &str) -> Result<()> {
        ops::record(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::status`](super::RateLimitStore::status).
    pub fn status(&mut self, resource: &str) -> Result<RateLimitStatus> {
        ops::status(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::reset`](super::RateLimitStore::reset).
    pub fn reset(&mut self, resource: &str) -> Result<()> {
        ops::reset(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::wait_time`](super::RateLimitStore::wait_time).
    pub fn wait_time(&mut self, resource: &str) -> Result<Duration> {
        ops::wait_time(self.tx.get()?, &self.limiter, resource)
    }

    /// See [`RateLimitStore::set_resource_config`](super::RateLimitStore::set_resource_config).
    pub fn set_resource_config(&mut self, resource: &str, config: RateLimitConfig) -> Result<()> {
        ops::set_resource_config(self.tx.get()?, &self.limiter, resource, config)
    }

    /// See [`RateLimitStore::resource_config`](super::RateLimitStore::resource_config).
    pub fn resource_config(&mut self, resource: &str) -> Result<RateLimitConfig> {
        self.limiter.resource_config(self.tx.get()?, resource)
    }

    /// See [`RateLimitStore::set_cooldown`](super::RateLimitStore::set_cooldown).
    pub fn set_cooldown(&mut self, origin: &str, until_ms: u64) -> Result<()> {
        self.limiter.set_cooldown(self.tx.get()?, origin, until_ms)
    }

    /// See [`RateLimitStore::cooldown`](super::RateLimitStore::cooldown).
    pub fn cooldown(&mut self, origin: &str) -> Result<Option<u64>> {
        self.limiter.cooldown(self.tx.get()?, origin)
    }

    /// See [`RateLimitStore::clear_cooldown`](super::RateLimitStore::clear_cooldown).
    pub fn clear_cooldown(&mut self, origin: &str) -> Result<()> {
        self.limiter.clear_cooldown(self.tx.get()?, origin)
    }

    /// See [`RateLimitStore::clear`](super::RateLimitStore::clear).
    pub fn clear(&mut self) -> Result<()> {
        self.limiter.clear(self.tx.get()?)
    }
}

impl fmt::Debug for RateLimitTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitTx").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}
