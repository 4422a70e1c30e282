//! The view of every store that a transaction of several stores gives.

use crate::engine::Engine;
use crate::engine::access::Writer;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::stores::StoreStates;
use crate::stores::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitTx};
use crate::stores::cache::CacheTx;
use crate::stores::dedupe::DedupeTx;
use crate::stores::form_token::FormTokensTx;
use crate::stores::handoff::HandoffTx;
use crate::stores::rate_limit::{RateLimitConfig, RateLimitTx};
use crate::stores::state::StateTx;
use std::fmt;

/// The transaction that [`Cloakroom::atomically`](super::Cloakroom::atomically) gives its closure:
/// every store of the room, each with the operations of its trait. They answer at once and see what
/// the transaction has done so far; all of it is kept, or nothing.
///
/// The methods here give views with the default options of a store. The `within` of a handle, such
/// as [`Cache::within`](crate::cache::Cache::within), gives one with the options of the handle.
pub struct Transaction<'a> {
    tx: &'a mut dyn Writer,
    engine: &'a Engine,
    states: &'a StoreStates,
}

impl<'a> Transaction<'a> {
    /// The view of `tx`, a transaction of `engine`, which `states` observe.
    pub(super) fn new(tx: &'a mut dyn Writer, engine: &'a Engine, states: &'a StoreStates) -> Self {
        Self { tx, engine, states }
    }
}

impl Transaction<'_> {
    /// The engine whose transaction it is, and the transaction.
    pub(crate) fn parts(&mut self) -> (&Engine, &mut dyn Writer) {
        (self.engine, self.tx)
    }

    /// The form tokens.
    pub fn form_tokens(&mut self) -> FormTokensTx<'_> {
        FormTokensTx::new(self.tx)
    }

    /// The claim-check states.
    pub fn handoff(&mut self) -> HandoffTx<'_> {
        HandoffTx::new(self.tx, self.engine.max_row_bytes())
    }

    /// The jobs of the deduplicating store called `name`.
    pub fn dedupe<T>(&mut self, name: &str) -> DedupeTx<'_, T> {
        DedupeTx::new(self.tx, self.engine, name)
    }

    /// The cache called `name`.
    pub fn cache<T>(&mut self, name: &str) -> CacheTx<'_, T> {
        CacheTx::new(self.tx, self.engine, &self.states.caches, name)
    }

    /// The agent states.
    pub fn state(&mut self) -> StateTx<'_> {
        StateTx::new(self.tx)
    }

    /// The transaction, for the views of stores that are built on a room.
    #[cfg(feature = "codlet")]
    pub(crate) fn writer(&mut self) -> &mut dyn Writer {
        self.tx
    }

    /// The rate limiter called `name`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a window of zero.
    pub fn rate_limit<'b>(
        &'b mut self,
        name: &'b str,
        config: RateLimitConfig,
    ) -> Result<RateLimitTx<'b>> {
        RateLimitTx::new(self.tx, &self.states.longest_windows, name, config)
    }

    /// The adaptive rate limiter called `name`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a window of zero, and for an adaptive configuration that
    /// contradicts itself.
    pub fn adaptive_rate_limit<'b>(
        &'b mut self,
        name: &'b str,
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
    ) -> Result<AdaptiveRateLimitTx<'b>> {
        AdaptiveRateLimitTx::new(self.tx, &self.states.capacities, name, config, adaptive)
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}
