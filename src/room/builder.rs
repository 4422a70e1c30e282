//! Options for opening a room, and the opening.

use super::Cloakroom;
use crate::clock::{Clock, SystemClock};
use crate::durability::Durability;
use crate::engine::{Engine, EngineOptions, Threads};
use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_CACHE_SIZE, DEFAULT_LOG_CAPACITY, DEFAULT_SWEEP_INTERVAL, MAX_LOG_CAPACITY,
    MIN_LOG_CAPACITY,
};
use crate::storage::MemoryStorage;
use crate::stores::registry::catalogue;
use crate::stores::sweep::sweep_job;
use crate::stores::{StoreStates, migrations};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
    pub(super) durability: Durability,
    log_capacity: u64,
    cache_size: usize,
    clock: Arc<dyn Clock>,
    sweep_interval: Option<Duration>,
    pub(super) threads: Threads,
    pub(super) read_only: bool,
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

impl Cloakroom {
    /// Opens the file at `path` with the defaults of [`Builder`], creating it when it is missing.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Opens the file at `path`, which must exist, for reading only. Nothing is written to it: what
    /// a crash left is recovered in memory. See [`Builder::read_only`].
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
}

impl Builder {
    /// How durable a write of form tokens, claim checks, agent state and `atomically` is when it is
    /// answered: [`Durability::Sync`] by default. A store's `with_durability` overrides it. An
    /// interval of zero is an error.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Bytes set aside for the log when the file is created: two segments, each half of it. An
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

    /// Where the room gets the time from: the system's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the file, which must exist, for reading only. Nothing is ever written to it, so the
    /// medium and the permissions may forbid writing. What a crash left is recovered in memory,
    /// with the answers that a writing opener would give, and the file stays as it is. No threads
    /// are started.
    ///
    /// Any number of read-only openers may have a file open; as long as one has, no one can open it
    /// for writing. A call that would change something (a write of any store, `atomically`,
    /// `checkpoint`, `sweep`, `compact`) answers [`Error::ReadOnly`]. `log_capacity` and
    /// `durability` have no effect.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The longest time between two sweeps in the background, which remove the entries that have
    /// ended. A sweep comes sooner when the next entry ends sooner, and goes on without a pause
    /// while there are any. When nothing is left to remove, free space is given back, if it is most
    /// of the file ([`Cloakroom::compact`]). `None`: both happen only when asked. 30 seconds by
    /// default; zero is an error.
    ///
    /// No answer depends on it. It decides how long an entry that has ended takes up space.
    #[must_use]
    pub fn sweep_interval(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.sweep_interval = every.into();
        self
    }

    /// Opens the file at `path`, creating it (owner-only, atomically) when it is missing, and
    /// recovering what a crash left. With [`read_only`](Self::read_only) it is neither created nor
    /// changed.
    ///
    /// A file of an older format version is migrated first: its rows are copied into a new file
    /// beside it, which is read back and then takes its place in one step. That needs space for a
    /// second file. Until it is done, and when it fails, the old file is there untouched.
    ///
    /// It blocks until the room is open.
    ///
    /// # Errors
    /// In all cases the file is as it was before:
    /// - [`Error::Locked`]: another opener has it; when reading only, one that may write.
    /// - [`Error::NotCloakroom`], [`Error::UnsupportedVersion`]: not a room, or newer.
    ///   [`Error::VersionTooOld`]: older than the oldest version that can be migrated;
    ///   [`Error::OutdatedVersion`]: older, and opened for reading only.
    /// - [`Error::Corrupted`]: something that was acknowledged is damaged or missing.
    /// - [`Error::InvalidConfig`]: an option is out of its range.
    /// - [`Error::Io`], [`Error::DiskFull`]: the system failed a call. A file that is missing and
    ///   may not be created is an [`Error::Io`] whose source is `NotFound`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Cloakroom> {
        let (options, states) = self.options()?;
        let engine = Engine::open_file(path.as_ref(), options)?;
        Ok(Cloakroom { engine, states, durability: self.durability })
    }

    /// Opens a room in memory: the same engine over a buffer that is freed with the last handle.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]: an option is out of its range, or the room is to be read-only and
    /// would stay empty.
    pub fn open_in_memory(self) -> Result<Cloakroom> {
        let (options, states) = self.options()?;
        if self.read_only {
            return Err(Error::InvalidConfig("a new room in memory that is read-only".into()));
        }
        let engine = Engine::create_on(Arc::new(MemoryStorage::new()), options)?;
        Ok(Cloakroom { engine, states, durability: self.durability })
    }

    /// The options of the engine, checked, and the states of the stores that will observe it.
    pub(super) fn options(&self) -> Result<(EngineOptions, Arc<StoreStates>)> {
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
        let states = StoreStates::new();
        let sweep = |every| sweep_job(Arc::clone(&states), every);
        let options = EngineOptions {
            tables: catalogue(),
            maintenance: self.sweep_interval.map(sweep),
            log_capacity: self.log_capacity,
            cache_size: self.cache_size,
            clock: Arc::clone(&self.clock),
            threads: self.threads,
            read_only: self.read_only,
            migrations: migrations::ALL,
            hook: states.hook(),
        };
        Ok((options, states))
    }
}
