//! The room: one open file, and the handles of the stores in it.

mod backup;
mod builder;
mod export;
#[cfg(any(test, feature = "testing"))]
mod testing;
mod transaction;
mod within;

pub use builder::Builder;
pub use transaction::Transaction;

use crate::durability::Durability;
use crate::engine::{CompactReport, Engine, EngineStats};
use crate::error::{Error, Result};
use crate::pending::Pending;
use crate::stores::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimit};
use crate::stores::cache::Cache;
use crate::stores::dedupe::Dedupe;
use crate::stores::form_token::FormTokens;
use crate::stores::handoff::Handoff;
use crate::stores::rate_limit::{RateLimit, RateLimitConfig};
use crate::stores::state::State;
use crate::stores::sweep::{SweepReport, backlog};
use crate::stores::watch::{Watch, WatchFilter};
use crate::stores::{RoomStats, StoreStates, stats};
use crate::tools::{self, VerifyReport};
use std::fmt;
use std::sync::Arc;

/// An open cloakroom file. Cheap to clone; the file closes with [`close`](Cloakroom::close) or when
/// the last handle is dropped, which blocks as `close` does.
///
/// # Handles of stores
/// A store is reached through a handle: a cheap clone, with options of its own (`with_..`). An
/// option answers the handle, so that options can be chained. One that is refused, such as a
/// maximum that does not fit the log or a flush interval of zero, makes every call through that
/// handle answer [`Error::InvalidConfig`]. A name that is longer than a key may be is
/// [`Error::TooLarge`] from the calls. Only [`rate_limit`](Self::rate_limit) and
/// [`adaptive_rate_limit`](Self::adaptive_rate_limit) answer a `Result`: they are given a whole
/// configuration, which can contradict itself.
///
/// ```
/// use cloakroom::Cloakroom;
/// use cloakroom::handoff::HandoffStateStore;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("edge.cloak");
/// let room = Cloakroom::open(&path)?;
/// let state = serde_json::from_str(r#"{"cart": [1, 2]}"#).unwrap();
/// room.handoff().set("order-7", &state, 600).wait()?;
/// assert_eq!(room.handoff().get_and_delete("order-7").wait()?, Some(state));
/// assert_eq!(room.handoff().get_and_delete("order-7").wait()?, None);
/// room.close()?;
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Clone)]
pub struct Cloakroom {
    engine: Engine,
    states: Arc<StoreStates>,
    durability: Durability,
}

/// Shows nothing of what is in the room.
impl fmt::Debug for Cloakroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloakroom").field("durability", &self.durability).finish_non_exhaustive()
    }
}

impl Cloakroom {
    /// The form tokens of this file. Answers are as durable as the room's own durability says,
    /// unless [`FormTokens::with_durability`] says otherwise.
    #[must_use]
    pub fn form_tokens(&self) -> FormTokens {
        FormTokens::new(self.engine.clone(), self.durability)
    }

    /// The claim-check states of this file. Answers are as durable as the room's own durability
    /// says, unless [`Handoff::with_durability`] says otherwise.
    #[must_use]
    pub fn handoff(&self) -> Handoff {
        Handoff::new(self.engine.clone(), self.durability)
    }

    /// The jobs of the deduplicating store called `name`: any string of up to
    /// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN) bytes, and each name is a store of its own. With
    /// a longer name every call answers [`Error::TooLarge`].
    #[must_use]
    pub fn dedupe<T>(&self, name: &str) -> Dedupe<T> {
        Dedupe::new(self.engine.clone(), name)
    }

    /// The cache called `name` in this file: any string of up to
    /// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN) bytes, and each name is a cache of its own. With
    /// a longer name every call answers [`Error::TooLarge`]. Handles of one name share the entries,
    /// whatever their `T`; an entry that does not decode as a handle's `T` is a miss.
    #[must_use]
    pub fn cache<T>(&self, name: &str) -> Cache<T> {
        Cache::new(self.engine.clone(), &self.states.caches, name)
    }

    /// The agent states of this file. Answers are as durable as the room's own durability says,
    /// unless [`State::with_durability`] says otherwise.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.engine.clone(), self.durability)
    }

    /// The rate limiter called `name` of this file. `config` applies to the resources that have no
    /// configuration of their own; it is not kept in the file.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a window of zero.
    pub fn rate_limit(&self, name: &str, config: RateLimitConfig) -> Result<RateLimit> {
        RateLimit::new(self.engine.clone(), &self.states.longest_windows, name, config)
    }

    /// The adaptive rate limiter called `name` of this file. `config` applies to the resources that
    /// have no configuration of their own. Neither configuration is kept in the file.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a window of zero, and for an adaptive configuration that
    /// contradicts itself.
    pub fn adaptive_rate_limit(
        &self,
        name: &str,
        config: RateLimitConfig,
        adaptive: AdaptiveConfig,
    ) -> Result<AdaptiveRateLimit> {
        AdaptiveRateLimit::new(self.engine.clone(), &self.states.capacities, name, config, adaptive)
    }

    /// Runs operations on any stores of this file together, or not at all.
    ///
    /// Inside, every store of the [`Transaction`] offers its operations and answers at once. They
    /// see each other's effects and, until the end, no one else's. All of them become one frame of
    /// the log: after a crash either all are there or none is. While `operation` runs, every other
    /// writer waits, so it should be short.
    ///
    /// # Errors
    /// The error of `operation`: then, and when it panics, nothing was applied.
    /// [`Error::TooLarge`] when everything together does not fit a log segment (nothing was
    /// applied), [`Error::NestedTransaction`] when it is called from inside another transaction of
    /// the same room, and the errors of any write: [`Error::OutcomeUnknown`], [`Error::Poisoned`],
    /// [`Error::DiskFull`], [`Error::LogFull`], [`Error::Closed`].
    ///
    /// ```
    /// # use cloakroom::prelude::*;
    /// # let room = Cloakroom::builder().open_in_memory()?;
    /// # let (key, subject) = (LookupKey::new("00ff"), TokenSubject::Anonymous);
    /// # let record = FormTokenRecord::new(key.clone(), subject.clone(), "pay", u64::MAX);
    /// # room.form_tokens().insert_form_token(record).wait()?;
    /// # let now = 1_700_000_000;
    /// use cloakroom::form_token::{Consume, Outcome};
    /// let order = serde_json::from_str(r#"{"amount": 12}"#).unwrap();
    /// let outcome = room.atomically(|tx| {
    ///     let outcome = tx.form_tokens().consume(Consume::new(&key, &subject, "pay", now))?;
    ///     if outcome == Outcome::Proceed {
    ///         tx.handoff().set("receipt-7", &order, 3_600)?;
    ///         tx.form_tokens().set_token_result(&key, "receipt-7")?;
    ///     }
    ///     Ok::<_, Error>(outcome)
    /// });
    /// assert_eq!(outcome.wait()?, Outcome::Proceed);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn atomically<R, E: From<Error>>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        let (engine, states) = (&self.engine, &*self.states);
        engine.transact(self.durability, &[], |tx| {
            operation(&mut Transaction::new(tx, engine, states))
        })
    }

    /// Moves everything that was written so far from the log into the B-tree, and blocks until that
    /// is done. It happens by itself whenever half of the log is full.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`]: nothing changed, the log still holds everything, and
    /// the checkpoint is tried again when it is due. [`Error::Poisoned`], [`Error::Closed`].
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.checkpoint()
    }

    /// Gives the space that the tables do not use any more back to the file system, and blocks
    /// until that is done. It happens by itself when more than half of the file is free, unless
    /// [`Builder::sweep_interval`] says otherwise.
    ///
    /// Pages of rows move from the end of the file to free places before it, in small steps between
    /// which other calls go on, and the file is cut behind the last one. The file never becomes
    /// longer. Up to half the log's capacity stays free, except in rooms whose tables use no more
    /// than 4 MiB: there redb moves all pages at once, unless a backup or an export is under way,
    /// and every caller waits for the few tens of flushes that it takes.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`]: no row is lost, and the space that was given back
    /// before stays given back. [`Error::Corrupted`] when damage hides which pages are used;
    /// nothing was cut.
    /// [`Error::Poisoned`], [`Error::OutcomeUnknown`], [`Error::ReadOnly`], [`Error::Closed`],
    /// [`Error::NestedTransaction`].
    ///
    /// ```
    /// # let room = cloakroom::Cloakroom::builder().open_in_memory()?;
    /// let report = room.compact()?;
    /// assert!(report.bytes_after <= report.bytes_before);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn compact(&self) -> Result<CompactReport> {
        self.engine.compact()
    }

    /// Removes everything that has ended by now, in all stores, blocks until that is done, and
    /// counts what was removed. It happens by itself, in the background, unless
    /// [`Builder::sweep_interval`] says otherwise. No answer depends on it: an entry that has ended
    /// is absent whether or not it was removed.
    ///
    /// Other writers go on between its steps, each of which takes about a millisecond. A sweep that
    /// is under way is waited for. A removal is durable as soon as something written later is.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`] from inside a transaction of this room; [`Error::DiskFull`],
    /// [`Error::LogFull`], [`Error::Poisoned`], [`Error::Io`], [`Error::ReadOnly`],
    /// [`Error::Closed`]; [`Error::Corrupted`] when the expiry index is damaged. What was removed
    /// before the error stays removed, and every entry is either gone whole or as it was.
    ///
    /// ```
    /// # use cloakroom::{Cloakroom, ManualClock};
    /// # use cloakroom::handoff::{HandoffStateStore, JsonObject};
    /// # use cloakroom::stats::StoreKind;
    /// # use std::{sync::Arc, time::Duration};
    /// let clock = Arc::new(ManualClock::new(0));
    /// let room = Cloakroom::builder().clock(clock.clone()).sweep_interval(None).open_in_memory()?;
    /// room.handoff().set("order-7", &JsonObject::new(), 600).wait()?;
    /// assert_eq!(room.sweep()?.total(), 0);
    /// clock.advance(Duration::from_secs(600));
    /// assert_eq!(room.sweep()?.removed(StoreKind::HANDOFF), 1);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn sweep(&self) -> Result<SweepReport> {
        let maintenance = self.engine.maintenance()?;
        if self.engine.is_read_only() {
            return Err(Error::ReadOnly);
        }
        self.states.sweeper.sweep(&maintenance)
    }

    /// Subscribes to the changes of this room's stores, from now on, that pass `filter`.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], and [`Error::NestedTransaction`] from inside a
    /// transaction of this room.
    pub fn watch(&self, filter: WatchFilter) -> Result<Watch> {
        Watch::new(&self.engine, &self.states.feed, filter)
    }

    /// What the room holds, store by store, and what its engine counted. Blocks while it counts.
    ///
    /// Every row of the room is read, at one position: the cost grows with what is stored. Other
    /// callers do not wait meanwhile, but [`close`](Self::close) does, and so does a checkpoint
    /// while the pages in use are counted.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::NestedTransaction`] from inside a transaction of this room;
    /// [`Error::Io`] when the system fails a call, and [`Error::Corrupted`] when a row is damaged.
    pub fn stats(&self) -> Result<RoomStats> {
        let stores = self.engine.read(Durability::Os, |rows| stats::stores(rows)).wait()?;
        self.engine.measure_space()?;
        let sweep_backlog = backlog(&self.engine.maintenance()?, u64::MAX)?;
        Ok(RoomStats { engine: self.engine_stats()?, sweep_backlog, stores })
    }

    /// What the engine counted since the room was opened: the cheap part of [`stats`](Self::stats).
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Io`] when the system does not tell the length of the file.
    pub fn engine_stats(&self) -> Result<EngineStats> {
        let stats = self.engine.stats()?;
        let swept = self.states.sweeper.counts();
        let feed = self.states.feed.stats(stats.newest_lsn);
        Ok(EngineStats {
            swept: swept.swept,
            sweep_rescheduled: swept.rescheduled,
            sweep_slices: swept.slices,
            sweep_rounds: swept.rounds,
            watchers: feed.watchers,
            watch_buffered: feed.buffered,
            watch_lag: feed.lag,
            watch_overtaken: feed.overtaken,
            ..stats
        })
    }

    /// Checks everything that the room consists of: the rows of one position, the blocks, the log.
    /// Blocks until that is done; writers go on meanwhile. See [`verify`](crate::tools::verify())
    /// for a file that no one has open.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Io`] when the system fails a call. Damage is no error: it is
    /// in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        tools::verify_open(&self.engine)
    }

    /// Makes every earlier call durable, then closes the file and gives up its lock. Blocks until
    /// that is done: for a flush, two or three checkpoints, and the ends of the room's threads.
    /// Every later call answers [`Error::Closed`]; a [`Pending`] of an earlier one still answers.
    /// Closing twice is fine.
    ///
    /// Dropping the last handle of a room that is not closed closes it, blocks as long, and has no
    /// one to tell of an error. So call this before, in a task on a thread that may block (as
    /// `spawn_blocking` has them).
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the last flush failed, or one had failed before: what was not
    /// acknowledged may be lost. The room is closed all the same. [`Error::NestedTransaction`] from
    /// inside a transaction of this room, which goes on.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    /// The engine, for what is built on a room.
    #[cfg(any(test, feature = "codlet"))]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the stores keep in memory.
    pub(crate) fn states(&self) -> &Arc<StoreStates> {
        &self.states
    }

    /// The room's own durability.
    #[cfg(feature = "codlet")]
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }
}
