//! The room: one open file, and the handles of the stores in it.

mod backup;
#[cfg(any(test, feature = "testing"))]
mod testing;

use crate::clock::{Clock, SystemClock};
use crate::durability::Durability;
use crate::engine::access::Writer;
use crate::engine::{CompactReport, Engine, EngineOptions, EngineStats, Job, Threads};
use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_CACHE_SIZE, DEFAULT_LOG_CAPACITY, DEFAULT_SWEEP_INTERVAL, MAX_LOG_CAPACITY,
    MIN_LOG_CAPACITY,
};
use crate::pending::Pending;
use crate::storage::MemoryStorage;
use crate::stores::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitTx};
use crate::stores::cache::{Cache, CacheTx, Turn};
use crate::stores::dedupe::{Dedupe, DedupeTx};
use crate::stores::form_token::{FormTokens, FormTokensTx};
use crate::stores::handoff::{Handoff, HandoffTx};
use crate::stores::migrations;
use crate::stores::rate_limit::{RateLimit, RateLimitConfig, RateLimitTx};
use crate::stores::state::{State, StateTx};
use crate::stores::sweep::{Foreign, SweepJob, SweepReport, Sweeper, backlog};
use crate::stores::watch::{Watch, WatchFilter};
use crate::stores::{RoomStats, stats};
use crate::verify::{self, VerifyReport};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What sweeps the tables of the adapter for `codlet`, in a program that has it.
#[cfg(feature = "codlet")]
const SWEEP_FOREIGN: Option<Foreign> = Some(|tx, table, key| crate::codlet::sweep(tx, table, key));
#[cfg(not(feature = "codlet"))]
const SWEEP_FOREIGN: Option<Foreign> = None;

/// An open cloakroom file. Cheap to clone; the file closes with [`close`](Cloakroom::close) or the
/// last handle.
///
/// ```
/// use cloakroom::{Cloakroom, HandoffStateStore};
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
#[derive(Debug, Clone)]
pub struct Cloakroom {
    engine: Engine,
    durability: Durability,
}

impl Cloakroom {
    /// Opens the file at `path` with the defaults of [`Builder`], creating it when it is missing.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Opens the file at `path`, which must exist, for reading only: nothing is written to it, not
    /// even to settle what a crash left. See [`Builder::read_only`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().read_only(true).open(path)
    }

    /// Options for opening a room.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The form tokens of this file.
    #[must_use]
    pub fn form_tokens(&self) -> FormTokens {
        FormTokens::new(self.engine.clone(), self.durability)
    }

    /// The claim-check states of this file.
    #[must_use]
    pub fn handoff(&self) -> Handoff {
        Handoff::new(self.engine.clone(), self.durability)
    }

    /// The jobs of the deduplicating store called `name`. Stores of different names live side by
    /// side. A name over [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN) bytes makes every call answer
    /// [`Error::TooLarge`].
    #[must_use]
    pub fn dedupe<T>(&self, name: &str) -> Dedupe<T> {
        Dedupe::new(self.engine.clone(), name)
    }

    /// The cache called `name` in this file: any string of up to 64 KiB, and each name is a cache
    /// of its own. Handles of one name share the entries, whatever their `T`; an entry that does
    /// not decode as a handle's `T` is a miss.
    #[must_use]
    pub fn cache<T>(&self, name: &str) -> Cache<T> {
        Cache::new(self.engine.clone(), name)
    }

    /// The agent states of this file.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.engine.clone(), self.durability)
    }

    /// The rate limiter called `name` of this file. `config` is that of the resources that have
    /// none of their own; it is not kept in the file.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a window of zero.
    pub fn rate_limit(&self, name: &str, config: RateLimitConfig) -> Result<RateLimit> {
        RateLimit::new(self.engine.clone(), name, config)
    }

    /// The adaptive rate limiter called `name` of this file. `config` is that of the resources that
    /// have none of their own. Neither configuration is kept in the file.
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
        AdaptiveRateLimit::new(self.engine.clone(), name, config, adaptive)
    }

    /// Runs operations on any stores of this file together, or not at all.
    ///
    /// Inside, every store of the [`Transaction`] offers its operations, answering at once; they
    /// see each other's effects, and nobody else's until the end. All of them become one frame of
    /// the log: after a crash either all are there or none is. While `operation` runs, every other
    /// writer waits, so it should be short.
    ///
    /// # Errors
    /// What `operation` answers: then, or when it panics, nothing was applied. [`Error::TooLarge`]
    /// when everything together does not fit a log segment (nothing was applied),
    /// [`Error::NestedTransaction`] when it is called from inside another transaction of the same
    /// room, and what any write may answer: [`Error::OutcomeUnknown`], [`Error::Poisoned`],
    /// [`Error::DiskFull`], [`Error::LogFull`], [`Error::Closed`].
    ///
    /// ```
    /// # use cloakroom::{Cloakroom, Error, FormTokenStore, HandoffStateStore, FormTokenRecord, LookupKey};
    /// # use cloakroom::{TokenConsumeOutcome, TokenSubject};
    /// # let room = Cloakroom::builder().open_in_memory()?;
    /// # let (key, subject) = (LookupKey::new("00ff"), TokenSubject::Anonymous);
    /// # room.form_tokens().insert_form_token(FormTokenRecord { lookup_key: key.clone(), key_version: "1".into(),
    /// #   subject: subject.clone(), purpose: "pay".into(), bound_resource: None, issued_at: 0,
    /// #   expires_at: u64::MAX }).wait()?;
    /// let order = serde_json::from_str(r#"{"amount": 12}"#).unwrap();
    /// let outcome = room.atomically(|tx| {
    ///     let (outcome, _) = tx.form_tokens().consume_form_token(&key, &subject, "pay", None, 1_000)?;
    ///     if outcome == TokenConsumeOutcome::Proceed {
    ///         tx.handoff().set("receipt-7", &order, 3_600)?;
    ///         tx.form_tokens().set_token_result(&key, "receipt-7")?;
    ///     }
    ///     Ok::<_, Error>(outcome)
    /// });
    /// assert_eq!(outcome.wait()?, TokenConsumeOutcome::Proceed);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn atomically<R, E: From<Error>>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        let engine = &self.engine;
        engine.transact(self.durability, &[], |tx| {
            operation(&mut Transaction { tx, engine, cache_turn: Turn::shared() })
        })
    }

    /// Moves everything that was written so far from the log into the B-tree, and waits for it.
    /// This happens by itself whenever half of the log is full.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`]: nothing changed, the log still holds everything, and
    /// the checkpoint is tried again when it is due. [`Error::Poisoned`], [`Error::Closed`].
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.checkpoint()
    }

    /// Gives the room that the tables do not use any more back to the file system. This happens by
    /// itself when more than half of it is free, unless [`Builder::sweep_interval`] says otherwise.
    ///
    /// Pages of rows move from the end of the file to free places before it, in small steps between
    /// which everything goes on, and the file is cut behind the last one. It never becomes longer
    /// by this. Up to half the log's capacity stays free, except in rooms whose tables use no more
    /// than 4 MiB: there redb moves all pages at once, unless a backup or an export is under way,
    /// and everybody waits for the few tens of flushes that it takes.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`]: no row is lost, and what was given back by then is.
    /// [`Error::Corrupted`] when damage keeps it from knowing what is used; nothing was cut.
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

    /// Removes everything that has ended by now, in all stores, and answers what that was. This
    /// happens by itself, in the background, unless [`Builder::sweep_interval`] says otherwise. No
    /// answer depends on it: what has ended is absent whether or not it was removed.
    ///
    /// Other writers go on between its steps, each of which takes about a millisecond. A sweep that
    /// is under way is waited for. What was removed is durable as soon as something written later
    /// is.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`] from inside a transaction of this room; [`Error::DiskFull`],
    /// [`Error::LogFull`], [`Error::Poisoned`], [`Error::Io`], [`Error::ReadOnly`],
    /// [`Error::Closed`]; [`Error::Corrupted`] when the index of what ends is damaged. What was
    /// removed before stays removed, and every entry is either gone whole or as it was.
    ///
    /// ```
    /// # use cloakroom::{Cloakroom, HandoffStateStore, JsonObject, ManualClock};
    /// # use std::{sync::Arc, time::Duration};
    /// let clock = Arc::new(ManualClock::new(0));
    /// let room = Cloakroom::builder().clock(clock.clone()).sweep_interval(None).open_in_memory()?;
    /// room.handoff().set("order-7", &JsonObject::new(), 600).wait()?;
    /// assert_eq!(room.sweep()?.total(), 0);
    /// clock.advance(Duration::from_secs(600));
    /// assert_eq!(room.sweep()?.handoff, 1);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn sweep(&self) -> Result<SweepReport> {
        if self.engine.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let maintenance = self.engine.maintenance()?;
        maintenance.shared::<Sweeper>().sweep(&maintenance, SWEEP_FOREIGN)
    }

    /// RowWaits what changes in the stores of this room, from now on, as far as `filter` lets it
    /// pass.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`], and [`Error::NestedTransaction`] from inside a
    /// transaction of this room.
    pub fn watch(&self, filter: WatchFilter) -> Result<Watch> {
        Watch::new(&self.engine, filter)
    }

    /// What the room holds, store by store, and what its engine counted.
    ///
    /// Every row of the room is read, at one position: the cost grows with what is stored. Other
    /// callers do not wait meanwhile, but [`close`](Self::close) does, and a checkpoint while the
    /// pages in use are counted.
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
        let swept = self.engine.shared::<Sweeper>("").counts();
        Ok(EngineStats {
            swept: swept.swept,
            sweep_rescheduled: swept.rescheduled,
            sweep_slices: swept.slices,
            sweep_rounds: swept.rounds,
            ..self.engine.stats()?
        })
    }

    /// Checks everything that the room consists of: the rows of one position, the blocks, the log.
    /// Writers go on meanwhile. See [`verify`](crate::verify()) for a file that nobody has open.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Io`] when the system fails a call. What is wrong with the
    /// file is in the report and is no error.
    pub fn verify(&self) -> Result<VerifyReport> {
        verify::verify_open(&self.engine)
    }

    /// Makes durable what was called before, then closes the file and gives up its lock. Every call
    /// made after it answers [`Error::Closed`]; a [`Pending`] from before it still answers. Closing
    /// twice is fine.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the last flush failed, or one had failed before: what was not
    /// acknowledged may be lost. The room is closed all the same. [`Error::NestedTransaction`] from
    /// inside a transaction of this room, which goes on.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }

    /// The engine, for what is built on a room.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The room's own durability.
    #[cfg(feature = "codlet")]
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }
}

/// The transaction that [`Cloakroom::atomically`] gives its closure.
pub struct Transaction<'a> {
    tx: &'a mut dyn Writer,
    engine: &'a Engine,
    cache_turn: Turn,
}

impl Transaction<'_> {
    /// The form tokens.
    pub fn form_tokens(&mut self) -> FormTokensTx<'_> {
        FormTokensTx::new(self.tx)
    }

    /// The claim-check states.
    pub fn handoff(&mut self) -> HandoffTx<'_> {
        HandoffTx::new(self.tx, self.engine.max_row_bytes())
    }

    /// The jobs of the deduplicating store called `name`.
    pub fn dedupe<'b, T: Serialize + DeserializeOwned>(
        &'b mut self,
        name: &'b str,
    ) -> DedupeTx<'b, T> {
        DedupeTx::new(self.tx, self.engine, name)
    }

    /// The cache called `name`.
    pub fn cache<T>(&mut self, name: &str) -> CacheTx<'_, T> {
        CacheTx::new(self.tx, self.engine, name, self.cache_turn)
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
        RateLimitTx::new(self.tx, name, config)
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
        AdaptiveRateLimitTx::new(self.tx, name, config, adaptive)
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

/// Options for opening a room.
///
/// | option | default | what it is |
/// |---|---|---|
/// | `durability` | `Sync` | of form tokens, claim checks, agent state and `atomically` |
/// | `log_capacity` | 16 MiB | bytes set aside for the log, when the file is created |
/// | `cache_size` | 64 MiB | bytes of page cache |
/// | `clock` | the system's | where the time comes from |
/// | `read_only` | `false` | whether nothing may be written to the file |
/// | `sweep_interval` | 30 s | how often the background looks for what has ended, at least |
#[derive(Debug)]
pub struct Builder {
    durability: Durability,
    log_capacity: u64,
    cache_size: usize,
    clock: Arc<dyn Clock>,
    sweep_interval: Option<Duration>,
    threads: Threads,
    read_only: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            log_capacity: DEFAULT_LOG_CAPACITY,
            cache_size: DEFAULT_CACHE_SIZE,
            clock: Arc::new(SystemClock::new()),
            sweep_interval: Some(DEFAULT_SWEEP_INTERVAL),
            threads: Threads::Background,
            read_only: false,
        }
    }
}

impl Builder {
    /// When a write of form tokens, claim checks, agent state and `atomically` is answered. A
    /// store's `with_durability` overrides it.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes set aside for the log when the file is created: two segments of half of it. An
    /// existing file keeps the capacity it was created with. Between [`MIN_LOG_CAPACITY`] and
    /// [`MAX_LOG_CAPACITY`], rounded up to whole blocks. Below
    /// [`LONGEST_KEYS_LOG_CAPACITY`](crate::limits::LONGEST_KEYS_LOG_CAPACITY) operations on
    /// several keys of the greatest length may answer [`Error::TooLarge`].
    #[must_use]
    pub fn log_capacity(mut self, bytes: u64) -> Self {
        self.log_capacity = bytes;
        self
    }

    /// Bytes of page cache for the B-tree.
    #[must_use]
    pub fn cache_size(mut self, bytes: usize) -> Self {
        self.cache_size = bytes;
        self
    }

    /// Where the room gets the time from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the file for reading only, which must exist. Nothing is ever written to it: it may lie
    /// on a medium, or have permissions, that allow no writing. What a crash left is recovered in
    /// memory, with the answers that a writing opener would give, and the file stays as it is. No
    /// threads are started.
    ///
    /// Any number of read-only openers may have a file open, and nobody can open it for writing as
    /// long. Whatever would change something (a write of any store, `atomically`, `checkpoint`,
    /// `sweep`, `compact`) answers [`Error::ReadOnly`]. `log_capacity` and `durability` mean
    /// nothing.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How often the background looks for entries that have ended, to remove them, at least; it
    /// sleeps until the next one ends when that is sooner, and goes on without a pause while there
    /// are any. When nothing is left to remove, it gives back what is free, if that is most of the
    /// file ([`Cloakroom::compact`]). `None`: both happen only when asked. 30 seconds by default;
    /// zero is an error.
    ///
    /// No answer depends on it. It decides how long what has ended takes up room.
    #[must_use]
    pub fn sweep_interval(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.sweep_interval = every.into();
        self
    }

    /// Opens the file at `path`, creating it (owner-only, atomically) when it is missing, and
    /// recovering what a crash left. With [`read_only`](Self::read_only) it is neither created nor
    /// changed.
    ///
    /// A file of an older format version is brought up to date first: its rows are copied into a
    /// new file beside it, which is read back and then takes its place in one step. That needs
    /// space for a second file. Until it is done, and when it fails, the old file is there
    /// untouched.
    ///
    /// # Errors
    /// In all cases the file is as it was before:
    /// - [`Error::Locked`]: another opener has it; when reading only, one that may write.
    /// - [`Error::NotCloakroom`], [`Error::UnsupportedVersion`]: not ours, or newer.
    ///   [`Error::VersionTooOld`]: older than what can be brought up to date;
    ///   [`Error::OutdatedVersion`]: older, and opened for reading only.
    /// - [`Error::Corrupted`]: something that was acknowledged is damaged or missing.
    /// - [`Error::InvalidConfig`]: an option is out of its range.
    /// - [`Error::Io`], [`Error::DiskFull`]: the system failed a call. A file that is missing and
    ///   may not be created is an [`Error::Io`] whose source is `NotFound`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Cloakroom> {
        let options = self.options()?;
        let engine = Engine::open_file(path.as_ref(), options)?;
        Ok(Cloakroom { engine, durability: self.durability })
    }

    /// Opens a room in memory: the same engine over a buffer that is gone when the last handle is.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]: an option is out of its range, or the room shall be read-only, in which case it would
    /// stay empty.
    pub fn open_in_memory(self) -> Result<Cloakroom> {
        let options = self.options()?;
        if self.read_only {
            return Err(Error::InvalidConfig("a new room in memory that is read-only".into()));
        }
        let engine = Engine::create_on(Arc::new(MemoryStorage::new()), options)?;
        Ok(Cloakroom { engine, durability: self.durability })
    }

    fn options(&self) -> Result<EngineOptions> {
        let (min, max) = (MIN_LOG_CAPACITY, MAX_LOG_CAPACITY);
        if !(min..=max).contains(&self.log_capacity) {
            let asked = self.log_capacity;
            return Err(Error::InvalidConfig(format!(
                "a log capacity of {asked} bytes; it must be from {min} to {max}"
            )));
        }
        if let Durability::Interval(interval) = self.durability
            && interval.is_zero()
        {
            return Err(Error::InvalidConfig(
                "a flush interval of zero; use `Durability::Sync`".into(),
            ));
        }
        if self.sweep_interval.is_some_and(|every| every.is_zero()) {
            return Err(Error::InvalidConfig(
                "a sweep interval of zero; it must be longer, or none".into(),
            ));
        }
        let sweep = |every| -> Arc<dyn Job> { Arc::new(SweepJob::new(every, SWEEP_FOREIGN)) };
        Ok(EngineOptions {
            maintenance: self.sweep_interval.map(sweep),
            log_capacity: self.log_capacity,
            cache_size: self.cache_size,
            clock: Arc::clone(&self.clock),
            threads: self.threads,
            read_only: self.read_only,
            migrations: migrations::ALL,
        })
    }
}
