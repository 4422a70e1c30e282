//! Options for opening a room, and the opening.

use super::Cloakroom;
use crate::clock::{Clock, SystemClock};
use crate::durability::Durability;
use crate::engine::time_line::DEFAULT_LEAP_HOLD;
use crate::engine::{Engine, EngineOptions, Threads};
use crate::error::{Error, Result};
use crate::limits::{
    DEFAULT_CACHE_SIZE, DEFAULT_IN_MEMORY_LOG_CAPACITY, DEFAULT_LOG_CAPACITY, DEFAULT_LOG_STALL,
    DEFAULT_SWEEP_INTERVAL, MAX_LOG_CAPACITY, MIN_LOG_CAPACITY, in_memory,
};
use crate::storage::MemoryStorage;
use crate::stores::expiry;
use crate::stores::registry::catalogue;
use crate::stores::sweep::sweep_job;
use crate::stores::{StoreStates, migrations};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Options for opening a room.
///
/// | option | default | what it is |
/// |---|---|---|
/// | `durability` | `Sync` | of form tokens, claim checks, agent state and `atomically` |
/// | `log_capacity` | 64 MiB; in memory 16 MiB | the most that the log takes; it begins with 1 MiB |
/// | `cache_size` | 96 MiB | bytes of page cache |
/// | `clock` | the system's | where the time comes from |
/// | `leap_hold` | 10 min | how long a leap of the wall clock holds before what it ended is removed |
/// | `lock_timeout` | not at all | how long to wait for a file that another process has open |
/// | `read_only` | `false` | whether nothing may be written to the file |
/// | `log_stall` | 30 s | how long an answer may wait for space in the log |
/// | `sweep_interval` | 30 s | how often the background looks for what has ended, at least |
#[derive(Debug)]
pub struct Builder {
    pub(super) durability: Durability,
    log_capacity: Option<u64>,
    cache_size: u64,
    clock: Arc<dyn Clock>,
    leap_hold: Duration,
    sweep_interval: Option<Duration>,
    log_stall: Duration,
    pub(super) threads: Threads,
    pub(super) read_only: bool,
    lock_timeout: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            log_capacity: None,
            cache_size: DEFAULT_CACHE_SIZE,
            clock: Arc::new(SystemClock::new()),
            leap_hold: DEFAULT_LEAP_HOLD,
            sweep_interval: Some(DEFAULT_SWEEP_INTERVAL),
            log_stall: DEFAULT_LOG_STALL,
            threads: Threads::Background,
            read_only: false,
            lock_timeout: Duration::ZERO,
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

    /// The most bytes that the log may take: two segments, each half of it. They have their places
    /// in the file from its creation on, so the length of the file includes them, and an existing
    /// file keeps the capacity it was created with. But they take space on the disk only as the
    /// load needs it, beginning with [`LEAST_LOG_SPACE`](crate::limits::LEAST_LOG_SPACE), where the
    /// file system has sparse files.
    ///
    /// A larger log costs memory (about two and a half times what it holds) and a longer opening
    /// after a crash, and saves writes to the B-tree: its pages are written once for more rows.
    ///
    /// Between [`MIN_LOG_CAPACITY`] and [`MAX_LOG_CAPACITY`], rounded up to whole blocks. Below
    /// [`LONGEST_KEYS_LOG_CAPACITY`](crate::limits::LONGEST_KEYS_LOG_CAPACITY) operations on
    /// several keys of the greatest length may answer [`Error::TooLarge`].
    #[must_use]
    pub fn log_capacity(mut self, bytes: u64) -> Self {
        self.log_capacity = Some(bytes);
        self
    }

    /// Bytes of page cache for the B-tree, 96 MiB by default: two thirds for redb, through which
    /// checkpoints write and listings read, and a third for the leaves in which rows are looked up
    /// by their key. The branches above these come in addition, about a hundredth of the B-tree.
    #[must_use]
    pub fn cache_size(mut self, bytes: u64) -> Self {
        self.cache_size = bytes;
        self
    }

    /// How long a leap of the wall clock must hold, in elapsed time, before what only the leap
    /// ended is removed: ten minutes by default.
    ///
    /// A room that is opened believes what the wall clock says has passed since it was last open,
    /// and follows the clock when that is set. So that a wrong clock takes nothing away for good,
    /// the sweeper leaves alone what would be there without that time, until the clock has gone on
    /// for this long without being set.
    #[must_use]
    pub fn leap_hold(mut self, hold: Duration) -> Self {
        self.leap_hold = hold;
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
    /// `checkpoint`, `sweep`, `compact`) answers [`Error::ReadOnly`]. When the file is removed,
    /// replaced or cut short meanwhile, every read answers [`Error::Unlinked`] or
    /// [`Error::Corrupted`] within a second. `log_capacity` and `durability` have no effect.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How long the answer of a change may wait for space in the log: [`DEFAULT_LOG_STALL`], 30
    /// seconds, by default. The call itself never waits.
    ///
    /// - When both segments of the log are full, the change is kept in memory, and its answer waits
    ///   this long for the checkpoint that frees one. Then it is [`Error::LogFull`]: the change is
    ///   applied and visible, and is durable as soon as there is space.
    /// - When the disk has no space for what was appended (on copy-on-write filesystems and thin
    ///   volumes), [`wait`](crate::Pending::wait) waits until the disk has been full this long.
    ///   Then it answers [`Error::OutcomeUnknown`], because others may have seen the change: it
    ///   stays visible, and is durable as soon as there is space.
    ///
    /// With zero nothing is kept in memory, so a change that finds both segments full is refused,
    /// and one attempt is made to write. [`Duration::MAX`] waits for as long as it takes. Closing a
    /// room waits for a full disk as long, and for a second at the most. Sweeping is no change of a
    /// caller, and waits for a checkpoint by itself.
    #[must_use]
    pub fn log_stall(mut self, at_most: Duration) -> Self {
        self.log_stall = at_most;
        self
    }

    /// How long [`open`](Self::open) waits for a file that is open elsewhere before it answers
    /// [`Error::Locked`]. By default not at all. It is real time, whatever the clock of the room
    /// is. The first opener that asks after the file was closed gets it; there is no
    /// queue.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
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
    /// recovering what a crash left. An empty file becomes a room and keeps its owner and
    /// permissions. With [`read_only`](Self::read_only) it is neither created nor changed.
    ///
    /// A file of an older format version is migrated first: its rows are copied into a new file
    /// beside it, which is read back and then takes its place in one step, with its owner, group
    /// and permissions. That needs space for a second file. Until it is done, and when it fails,
    /// the old file is there untouched.
    ///
    /// It blocks until the room is open, and as long as [`lock_timeout`](Self::lock_timeout) says
    /// for a file that is open elsewhere.
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
        let engine =
            when_unlocked(self.lock_timeout, || Engine::open_file(path.as_ref(), options.clone()))?;
        Ok(Cloakroom { engine, states, durability: self.durability })
    }

    /// Opens a room in memory: the same engine over a buffer that is freed with the last handle.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]: an option is out of its range, or the room is to be read-only and
    /// would stay empty.
    pub fn open_in_memory(mut self) -> Result<Cloakroom> {
        self.log_capacity.get_or_insert(DEFAULT_IN_MEMORY_LOG_CAPACITY);
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
        let log_capacity = self.log_capacity.unwrap_or(DEFAULT_LOG_CAPACITY);
        if !(min..=max).contains(&log_capacity) {
            let asked = log_capacity;
            return Err(Error::InvalidConfig(format!(
                "a log capacity of {asked} bytes; it must be from {min} to {max}"
            )));
        }
        self.durability.check()?;
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
            log_capacity,
            cache_size: in_memory(self.cache_size),
            clock: Arc::clone(&self.clock),
            leap_hold: self.leap_hold,
            newest_epoch: expiry::newest_epoch,
            threads: self.threads,
            read_only: self.read_only,
            log_stall: self.log_stall,
            migrations: migrations::ALL,
            hook: states.hook(),
        };
        Ok((options, states))
    }
}

/// The first pause before a locked file is tried again.
const FIRST_LOCK_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause. Each is twice as long as the one before.
const LONGEST_LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Calls `open` again and again while the file is locked, for as long as `timeout`. The system
/// could wake a waiting thread, but not after a time.
fn when_unlocked<T>(timeout: Duration, mut open: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST_LOCK_PAUSE;
    loop {
        let locked = match open() {
            Err(locked @ Error::Locked { .. }) => locked,
            outcome => return outcome,
        };
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(locked);
        }
        thread::sleep(pause.min(left));
        pause = (2 * pause).min(LONGEST_LOCK_PAUSE);
    }
}
