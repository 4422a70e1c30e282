//! Creating a file, and opening one: what a crash left becomes the state that was acknowledged.
//!
//! Opening only reads until it is known that nothing acknowledged is missing. Then, in this order:
//! 1. stale frames behind a torn tail are erased and the erasure is flushed, so that they can never
//!    be reached again;
//! 2. everything is flushed, because a process that was killed may have left what was replayed with
//!    the operating system only; what no later frame vouches for is written again before, because
//!    after a failed flush the system takes it for flushed although the disk does not have it;
//! 3. a segment whose frames are all in the B-tree gets a new generation.
//!
//! A crash between any two of these leaves a file for which the same decisions are made again.
//!
//! A read-only opening makes the same decisions and stops there: what it replays is in memory, and
//! the file stays as the crash left it.

use super::background::Handles;
use super::checkpoint::Checkpointer;
use super::compaction::Compaction;
use super::format::{Geometry, format, layout_of};
use super::maintenance::{Maintenance, MaintenanceJob};
use super::migration::{Migration, bring_up_to_date};
use super::observer::CommitHook;
use super::row_wait::RowWaits;
use super::stats::EngineCounters;
use super::timer::Timer;
use super::view::View;
use super::{CloseOnDrop, Core, Engine, Scratch};
use crate::btree::Btree;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::log::batch::decode_batch;
use crate::log::plan::{Erase, RecoveryPlan, Spare, plan};
use crate::log::scan::scan_segment;
use crate::log::segment::SegmentHeader;
use crate::log::{Log, LogLayout, SEGMENTS};
use crate::memtable::Memtable;
use crate::observe;
use crate::storage::{FileStorage, Storage, Superblock};
use crate::tables::{Catalogue, Value};
use parking_lot::{Mutex, RwLock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// The least that a frame takes in the log: its header, one row and its key.
const MIN_FRAME_BYTES: u64 = 64;

/// How many rows a segment may hold at the most, if they are as small as rows are.
pub(super) fn keys_per_segment(segment_size: u64) -> usize {
    usize::try_from(segment_size / MIN_FRAME_BYTES).unwrap_or(usize::MAX)
}

/// Who does what nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Background threads.
    Background,
    /// Nobody: callers flush for themselves, and the writer that needs a checkpoint runs it. For
    /// simulations, and for tools that only read.
    None,
}

/// How to open an engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// Every table of the stores.
    pub(crate) tables: Catalogue,
    pub(crate) log_capacity: u64,
    pub(crate) cache_size: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) threads: Threads,
    /// Nothing is written to the file: what a crash left is recovered in memory alone, and every
    /// write is refused.
    pub(crate) read_only: bool,
    /// How files of older versions become files of this one, oldest first.
    pub(crate) migrations: &'static [Migration],
    /// What the maintenance thread does, if there are background threads.
    pub(crate) maintenance: Option<MaintenanceJob>,
    /// What is told of every transaction, beside the row waits.
    pub(crate) hook: CommitHook,
}

impl EngineOptions {
    /// Writes an empty room.
    fn format(&self, storage: Arc<dyn Storage>) -> Result<()> {
        let like = Geometry::new(self.log_capacity, self.clock.now_ms());
        format(storage, like, self.cache_size, self.tables)
    }
}

impl Engine {
    /// Opens the file at `path`, creating it when it is missing unless it is to be read only.
    pub(crate) fn open_file(path: &Path, options: EngineOptions) -> Result<Self> {
        if options.read_only {
            return Self::open_on(Arc::new(FileStorage::open_read_only(path)?), path, options);
        }
        let (storage, _created) =
            FileStorage::open_or_create(path, |new| options.format(Arc::new(new.clone())))?;
        let storage = bring_up_to_date(storage, path, options.tables, options.migrations)?;
        Self::open_on(Arc::new(storage), path, options)
    }

    /// Formats an empty storage and opens it.
    pub(crate) fn create_on(storage: Arc<dyn Storage>, options: EngineOptions) -> Result<Self> {
        options.format(Arc::clone(&storage))?;
        Self::open_on(storage, Path::new("(in memory)"), options)
    }

    /// Opens a storage that holds a room; `path` names it in errors.
    pub(crate) fn open_on(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: EngineOptions,
    ) -> Result<Self> {
        let _span = observe::opening(path);
        let started = Instant::now();
        let (engine, mut found) =
            Self::recover_on(storage, path, options).inspect_err(observe::not_opened)?;
        found.took = started.elapsed();
        observe::opened(found);
        Ok(engine)
    }

    fn recover_on(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: EngineOptions,
    ) -> Result<(Self, observe::Opened)> {
        let superblock = Superblock::read(storage.as_ref(), path)?;
        let read_only = options.read_only;
        let (offset, cache_size, tables) =
            (superblock.btree_offset, options.cache_size, options.tables);
        let btree = if read_only {
            Btree::open_read_only(Arc::clone(&storage), offset, cache_size, tables)?
        } else {
            // A failed flush of the B-tree must not hide one of the log, nor the other way round.
            let separate =
                storage.separate().map_err(|error| Error::io("opening the file again", error))?;
            let of_btree = separate.unwrap_or_else(|| Arc::clone(&storage));
            Btree::open(of_btree, offset, cache_size, tables)?
        };
        let layout = layout_of(&superblock);
        let recovered = recover(storage.as_ref(), &layout, tables, btree.view().lsn())?;
        if !read_only {
            recovered.settle(storage.as_ref(), &layout)?;
            superblock.repair(storage.as_ref())?;
        }

        let plan = recovered.plan;
        let torn_bytes = |erase: &Erase| erase.to.saturating_sub(erase.from) as u64;
        let found = observe::Opened {
            lsn: plan.next_lsn - 1,
            btree_lsn: recovered.btree_lsn,
            replayed: plan.replay.len() as u64,
            torn_bytes: plan.erase.iter().map(torn_bytes).sum(),
            took: Duration::ZERO,
        };
        let log = Log::new(Arc::clone(&storage), layout, &plan);
        let view = View {
            active: Arc::new(recovered.active),
            frozen: recovered.frozen.map(Arc::new),
            btree: btree.view(),
        };
        let in_background = options.threads == Threads::Background && !read_only;
        let mut hook = options.hook;
        let row_waits = Arc::new(RowWaits::new(hook.interest()));
        hook.add(Arc::clone(&row_waits) as _);
        let core = Arc::new(Core {
            storage,
            superblock,
            log: Arc::new(log),
            btree,
            clock: options.clock,
            serial: Mutex::new(Scratch::default()),
            view: RwLock::new(Arc::new(view)),
            published: AtomicU64::new(plan.next_lsn - 1),
            checkpointer: Checkpointer::new(in_background),
            compaction: Compaction::default(),
            reads: RwLock::new(()),
            closed: AtomicBool::new(false),
            read_only,
            counters: EngineCounters::default(),
            row_waits,
            hook,
            timer: Arc::new(Timer::new(in_background)),
            maintenance: Maintenance::default(),
            opening_id: random_u64(),
        });
        let threads = if in_background {
            Handles::spawn(&core, options.maintenance)
                .map_err(|error| Error::io("starting the background threads", error))?
        } else {
            Handles::default()
        };
        if !core.log.spare_is_free() {
            core.checkpointer.request();
        }
        let close_on_drop = CloseOnDrop {
            core: Arc::clone(&core),
            closing: Mutex::new(()),
            threads: Mutex::new(threads),
        };
        Ok((Self { core, close_on_drop: Arc::new(close_on_drop) }, found))
    }
}

/// A random number: eight of the ten random bytes of a ULID.
fn random_u64() -> u64 {
    let bytes = ulid::Ulid::generate().to_bytes();
    bytes.last_chunk::<8>().map_or(0, |random| u64::from_le_bytes(*random))
}

/// What the log says, decided and decoded; nothing is written yet.
pub(super) struct Recovered {
    pub(super) plan: RecoveryPlan,
    /// The newest header of each segment.
    headers: Vec<SegmentHeader>,
    btree_lsn: u64,
    /// The rows of the segment that is appended to.
    pub(super) active: Memtable,
    /// The rows of the other one, when the B-tree does not have them yet.
    pub(super) frozen: Option<Memtable>,
}

/// Scans both segments, decides, and decodes the frames that the B-tree does not have.
pub(super) fn recover(
    storage: &dyn Storage,
    layout: &LogLayout,
    tables: Catalogue,
    btree_lsn: u64,
) -> Result<Recovered> {
    let segment_len = usize::try_from(layout.segment_size).map_err(|_| {
        Error::corrupted("superblock", "the segment size does not fit this machine")
    })?;
    let mut segments = Vec::with_capacity(SEGMENTS);
    for index in 0..SEGMENTS {
        let view = storage
            .view(layout.segment_offset(index), segment_len)
            .map_err(|error| Error::io(format!("reading log segment {index}"), error))?;
        segments.push(view);
    }
    let (mut scans, mut headers) = ([None, None], Vec::new());
    for (index, (scan, segment)) in scans.iter_mut().zip(&segments).enumerate() {
        let header = SegmentHeader::read_newest(segment, &layout.file_id, index as u64);
        headers.extend(header);
        *scan = header.map(|header| scan_segment(segment, header));
    }
    let plan = plan(btree_lsn, scans)?;

    let new_table = || Memtable::for_keys(keys_per_segment(layout.segment_size));
    let (active, frozen) = (new_table(), new_table());
    for (index, frame) in &plan.replay {
        let payload = segments.get(*index).and_then(|segment| segment.get(frame.payload_range()));
        let rows = decode_batch(tables, payload.unwrap_or_default()).map_err(|detail| {
            Error::corrupted(format!("log segment {index}, offset {}", frame.offset), detail)
        })?;
        let table = if *index == plan.active.segment { &active } else { &frozen };
        for row in rows {
            table.insert(row.table, row.key.into(), frame.lsn, row.value.map(Value::from));
        }
    }
    let frozen = matches!(plan.spare, Spare::Frozen { .. }).then_some(frozen);
    Ok(Recovered { plan, headers, btree_lsn, active, frozen })
}

impl Recovered {
    /// Makes the file what was decided. See the module for the order.
    fn settle(&self, storage: &dyn Storage, layout: &LogLayout) -> Result<()> {
        let failed = |error| Error::io("settling what a crash left in the log", error);
        for erase in &self.plan.erase {
            let offset = layout.segment_offset(erase.segment) + erase.from as u64;
            storage
                .write_at(offset, &vec![0; erase.to.saturating_sub(erase.from)])
                .map_err(failed)?;
        }
        self.write_again(storage, layout).map_err(failed)?;
        storage.sync_data().map_err(failed)?;
        for recycle in &self.plan.recycle {
            let (generation, index) = (recycle.generation, recycle.segment);
            let header =
                SegmentHeader { generation, index: index as u64, btree_lsn: self.btree_lsn };
            header.write(storage, layout.segment_offset(index), &layout.file_id)?;
        }
        Ok(())
    }

    /// Writes what was recovered and is not known to be durable over itself. After a failed flush
    /// the system shows what it could not write as if it were on the disk, and the next flush does
    /// not cover it.
    fn write_again(&self, storage: &dyn Storage, layout: &LogLayout) -> std::io::Result<()> {
        for header in &self.headers {
            let index = usize::try_from(header.index).map_err(std::io::Error::other)?;
            let offset = layout.segment_offset(index) + header.slot_offset() as u64;
            storage.write_at(offset, &header.encode(&layout.file_id))?;
        }
        let replay = &self.plan.replay;
        let promised = replay.iter().map(|(_, frame)| frame.durable_lsn).max().unwrap_or_default();
        for (index, frame) in replay.iter().filter(|(_, frame)| frame.lsn > promised) {
            let offset = layout.segment_offset(*index) + frame.offset as u64;
            let mut bytes = vec![0; frame.end().saturating_sub(frame.offset)];
            storage.read_at(offset, &mut bytes)?;
            storage.write_at(offset, &bytes)?;
        }
        Ok(())
    }
}
