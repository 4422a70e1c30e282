//! What the handles of plain and adaptive limiters have in common.

use super::config::RateLimitConfig;
use super::limiter::{Kind, Limiter};
use super::longest_window::LongestWindow;
use crate::Pending;
use crate::durability::Durability;
use crate::engine::{Engine, Snapshot, Tx};
use crate::error::Result;
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use std::fmt;
use std::sync::Arc;

/// A limiter of a room, of either kind, with the durability of its answers. A cheap clone.
#[derive(Clone)]
pub(crate) struct LimiterHandle {
    handle: StoreHandle,
    kind: Kind,
    name: Arc<str>,
    config: RateLimitConfig,
    longest: Arc<LongestWindow>,
}

impl LimiterHandle {
    /// The limiter called `name` of the room that `engine` runs, whose handles share `longest`.
    pub(crate) fn new(
        engine: Engine,
        kind: Kind,
        name: &str,
        config: RateLimitConfig,
        longest: Arc<LongestWindow>,
    ) -> Self {
        let (handle, name) = (StoreHandle::new(engine, Durability::Os), name.into());
        Self { handle, kind, name, config, longest }
    }

    pub(crate) fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    pub(crate) fn handle(&self) -> &StoreHandle {
        &self.handle
    }

    pub(crate) fn limiter(&self) -> Limiter<'_> {
        let longest_ms = self.longest.ms();
        Limiter { kind: self.kind, name: &self.name, config: self.config, longest_ms }
    }

    /// Runs an operation that only reads.
    pub(crate) fn read<R>(&self, operation: impl FnOnce(&mut Snapshot) -> Result<R>) -> Pending<R> {
        self.handle.read(operation)
    }

    /// Runs an operation that writes the window of `resource`.
    pub(crate) fn write<R>(
        &self,
        resource: &str,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Pending<R> {
        let limiter = self.limiter();
        match (limiter.resource_key(resource), limiter.store_key()) {
            (Ok(key), Ok(store_key)) => {
                let wanted = [
                    (self.kind.windows(), key.as_slice()),
                    (Table::RATE_LIMIT_CONFIG, key.as_slice()),
                    (Table::RATE_LIMIT_STORE, store_key.as_slice()),
                ];
                self.handle.transact(&wanted, operation)
            }
            (Err(error), _) | (_, Err(error)) => Pending::ready(Err(error)),
        }
    }

    /// The configuration of a resource.
    pub(crate) fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        self.read(|rows| self.limiter().resource_config(rows, resource))
    }

    /// Sets a cooldown: no request is to be made to `origin` until `until_ms`.
    pub(crate) fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()> {
        self.write_cooldown(origin, |tx| self.limiter().set_cooldown(tx, origin, until_ms))
    }

    /// The end of the cooldown of `origin`, if there is one now.
    pub(crate) fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        self.read(|rows| self.limiter().cooldown(rows, origin))
    }

    /// Ends the cooldown of `origin`.
    pub(crate) fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        self.write_cooldown(origin, |tx| self.limiter().clear_cooldown(tx, origin))
    }

    /// Forgets everything in the limiter but the configurations.
    pub(crate) fn clear(&self) -> Pending<()> {
        self.handle.transact(&[], |tx| self.limiter().clear(tx))
    }

    fn write_cooldown(
        &self,
        origin: &str,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<()>,
    ) -> Pending<()> {
        match self.limiter().origin_key(origin) {
            Ok(key) => {
                let wanted = [(Table::RATE_LIMIT_COOLDOWN, key.as_slice())];
                self.handle.transact(&wanted, operation)
            }
            Err(error) => Pending::ready(Err(error)),
        }
    }
}

impl fmt::Debug for LimiterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimiterHandle")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("durability", &self.handle.durability())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
