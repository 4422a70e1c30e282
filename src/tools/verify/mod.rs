//! Verification: whether a file holds what was written to it, and whether what it holds fits
//! together.
//!
//! It only reads, and continues after what it finds. Each part looks at:
//!
//! | part | what |
//! |---|---|
//! | superblock | both copies |
//! | [`log`] | both headers of each segment, every frame and its rows, what opening would decide |
//! | B-tree | both copies of its header, every block against its checksum, redb's own check |
//! | [`rows`] | every row of every table, both directions of every derived table, satellites, limits |
//!
//! The rows are those that opening would give: the B-tree under the frames that it does not have
//! yet.

mod log;
mod report;
mod rows;

pub use report::{Finding, VerifyReport};
pub(crate) use rows::location;

use crate::btree::Btree;
use crate::btree::check::{Checked, FaultKind, WindowFault, check_tree, check_window, in_use};
use crate::btree::pages::Tree;
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::engine::time_line::DEFAULT_LEAP_HOLD;
use crate::engine::{CommitHook, Engine, EngineOptions, Threads};
use crate::error::{Error, Result};
use crate::limits::{DEFAULT_CACHE_SIZE, DEFAULT_LOG_CAPACITY, in_memory};
use crate::log::{LogLayout, SEGMENTS};
use crate::storage::{FileStorage, Storage, Superblock};
use crate::stores::expiry;
use crate::stores::registry::catalogue;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const SALVAGE: &str =
    "restore a backup, or let `cloakroom salvage` copy what is intact into a new file";
const REPAIRS: &str = "open the room for writing once, which writes it anew from the other copy";
const REWRITES: &str =
    "the next checkpoint writes it anew; if the disk goes on damaging blocks, replace it";

/// How often the log of an open room is looked at again when something seems to be wrong with it:
/// segments may change places while they are read.
const LOG_ATTEMPTS: usize = 3;

/// Checks the file at `path`, which must not be open for writing. Nothing is written to it.
///
/// The report lists everything that is wrong, not only the first thing. Damage is in the report and
/// is not an error.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("edge.cloak");
/// cloakroom::Cloakroom::open(&path)?.close()?;
/// let report = cloakroom::tools::verify(&path)?;
/// assert!(report.is_ok(), "{report}");
/// # Ok::<(), cloakroom::Error>(())
/// ```
///
/// # Errors
/// - [`Error::Locked`]: it is open for writing; ask the room itself, with
///   [`Cloakroom::verify`](crate::Cloakroom::verify).
/// - [`Error::NotCloakroom`], [`Error::UnsupportedVersion`]: not ours, or newer.
/// - [`Error::Io`]: there is no such file, or the system failed a call that says nothing about the
///   file.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport> {
    let path = path.as_ref();
    verify_storage(&(Arc::new(FileStorage::open_read_only(path)?) as Arc<dyn Storage>), path)
}

/// Checks a storage that is not written to meanwhile; `path` names it in errors.
pub(crate) fn verify_storage(storage: &Arc<dyn Storage>, path: &Path) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let superblock = match Superblock::read(storage.as_ref(), path) {
        Ok(superblock) => superblock,
        Err(error) => {
            rows::find_damage(&mut report, error)?;
            report.note("without a superblock nothing else of the file could be looked at");
            return Ok(report);
        }
    };
    check_superblock(storage.as_ref(), &mut report);
    let btree_lsn = match Tree::open(storage, superblock.btree_offset) {
        Ok(trees) => trees.first().and_then(|tree| tree.lsn().ok().flatten()),
        Err(_) => None,
    };
    check_log(storage.as_ref(), &superblock, btree_lsn, &mut report)?;
    check_base(storage, &superblock, &mut report)?;
    check_rows(storage, path, &mut report)?;
    Ok(report)
}

fn check_superblock(storage: &dyn Storage, report: &mut VerifyReport) {
    for (copy, name) in Superblock::read_copies(storage).into_iter().zip(["A", "B"]) {
        if let Err(detail) = copy {
            report.find(format!("superblock, copy {name}"), detail, REPAIRS);
        }
    }
}

fn check_log(
    storage: &dyn Storage,
    superblock: &Superblock,
    btree_lsn: Option<u64>,
    report: &mut VerifyReport,
) -> Result<()> {
    let layout = LogLayout::of(superblock);
    let len = usize::try_from(layout.segment_size).map_err(|_| {
        Error::corrupted("superblock", "the segment size does not fit this machine")
    })?;
    let mut segments = Vec::with_capacity(SEGMENTS);
    for index in 0..SEGMENTS {
        let at = layout.segment_offset(index);
        // Read and not mapped: a map of a file that somebody cuts short would end the process.
        let mut segment = vec![0; len];
        match storage.read_at(at, &mut segment) {
            Ok(()) => segments.push(segment),
            Err(error) => {
                let location = format!("log segment {index} (file offset {at})");
                report.find(location, format!("it cannot be read: {error}"), SALVAGE);
                return Ok(());
            }
        }
    }
    log::verify(&segments, &layout, btree_lsn, report)
}

fn check_base(
    storage: &Arc<dyn Storage>,
    superblock: &Superblock,
    report: &mut VerifyReport,
) -> Result<()> {
    let offset = superblock.btree_offset;
    let mut faults = Vec::new();
    let Checked { blocks, unused } =
        check_window(storage, offset, &mut |fault| faults.push(fault))?;
    report.blocks = blocks;
    report.unused.extend(unused);
    let needed = in_use(storage, offset, &faults);
    report_faults(faults, &needed, report);
    if report.is_ok() {
        // It stops at the first damage, so it has nothing to add when there is some.
        if let Err(error) = check_tree(Arc::clone(storage), offset, in_memory(DEFAULT_CACHE_SIZE)) {
            rows::find_damage(report, error)?;
        }
    }
    Ok(())
}

fn report_faults(faults: Vec<WindowFault>, needed: &BTreeSet<u64>, report: &mut VerifyReport) {
    for WindowFault { offset, kind, detail } in faults {
        match kind {
            FaultKind::Whole => report.find(format!("B-tree (file offset {offset})"), detail, SALVAGE),
            FaultKind::HeaderCopy => {
                report.find(format!("header of the B-tree (file offset {offset})"), detail, REWRITES);
            }
            FaultKind::Block(block) if needed.contains(&block) => {
                report.find(format!("B-tree block {block} (file offset {offset})"), detail, SALVAGE);
            }
            FaultKind::Block(block) => report.note(format!(
                "B-tree block {block} (file offset {offset}): {detail}; no row is in it, as after a crash or in a \
                 free block"
            )),
            FaultKind::Harmless => report.note(format!("file offset {offset}: {detail}")),
        }
    }
}

/// Checks the rows that opening would give.
fn check_rows(storage: &Arc<dyn Storage>, path: &Path, report: &mut VerifyReport) -> Result<()> {
    let options = EngineOptions {
        tables: catalogue(),
        log_capacity: DEFAULT_LOG_CAPACITY,
        cache_size: in_memory(DEFAULT_CACHE_SIZE),
        // The time makes no difference: what has ended is checked like everything else.
        clock: Arc::new(ManualClock::new(0)),
        leap_hold: DEFAULT_LEAP_HOLD,
        newest_epoch: expiry::newest_epoch,
        threads: Threads::None,
        maintenance: None,
        read_only: true,
        log_stall: crate::limits::DEFAULT_LOG_STALL,
        migrations: &[],
        hook: CommitHook::default(),
    };
    let engine = match Engine::open_on(Arc::clone(storage), path, options) {
        Ok(engine) => engine,
        Err(error) => {
            rows::find_damage(report, error)?;
            report.note("the room cannot be opened, so its rows were not looked at");
            return Ok(());
        }
    };
    engine.read(Durability::Os, |snapshot| rows::verify(snapshot, report)).wait()
}

/// Checks an open room: one position of it, while writers go on.
pub(crate) fn verify_open(engine: &Engine) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    engine.read(Durability::Os, |snapshot| rows::verify(snapshot, &mut report)).wait()?;
    let open = engine.hold_open()?;
    check_superblock(open.storage(), &mut report);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut of_log = VerifyReport::default();
        let segments = open.read_log().map_err(|error| Error::reading("the log", error))?;
        // What the B-tree reached is asked afterwards, so that it is not behind what the log says
        // of it.
        log::verify(&segments, &open.log_layout(), Some(open.btree_lsn()), &mut of_log)?;
        if of_log.is_ok() || attempt == LOG_ATTEMPTS {
            of_log
                .findings
                .iter()
                .for_each(|found| report.find(&*found.location, &*found.problem, &found.advice));
            of_log.notes.into_iter().for_each(|note| report.note(note));
            report.frames = of_log.frames;
            report.unused = of_log.unused;
            break;
        }
    }
    check_open_btree(open.btree(), &mut report, || {});
    report.note(
        "redb's own check needs the file for itself: close the room and verify the file, or verify a backup",
    );
    Ok(report)
}

/// Checks the blocks of a B-tree into which checkpoints go on. `meanwhile` runs between the two
/// looks at damaged blocks, for tests.
fn check_open_btree(btree: &Btree, report: &mut VerifyReport, meanwhile: impl FnOnce()) {
    let mut faults = Vec::new();
    report.blocks = btree.check_blocks(&mut |fault| faults.push(fault));
    meanwhile();
    let needed = btree.recheck(&mut faults);
    report_faults(faults, &needed, report);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Writer;
    use crate::limits::{BLOCK_SIZE, MIN_LOG_CAPACITY};
    use crate::storage::sim::SimStorage;
    use crate::tables::Table;

    fn engine_on(storage: &SimStorage) -> Engine {
        let options = EngineOptions {
            tables: catalogue(),
            log_stall: crate::limits::DEFAULT_LOG_STALL,
            log_capacity: MIN_LOG_CAPACITY,
            cache_size: 8 << 20,
            clock: Arc::new(ManualClock::new(0)),
            leap_hold: DEFAULT_LEAP_HOLD,
            newest_epoch: expiry::newest_epoch,
            threads: Threads::None,
            maintenance: None,
            read_only: false,
            migrations: &[],
            hook: CommitHook::default(),
        };
        Engine::create_on(Arc::new(storage.clone()), options).unwrap()
    }

    /// Rows over many pages, each with `content`, in the B-tree.
    fn checkpoint_rows(engine: &Engine, content: u8) {
        for number in 0..60_u32 {
            let put = engine.transact(Durability::Sync, &[], |tx| {
                tx.put(Table::STATE, &number.to_be_bytes(), vec![content; 3_000]);
                Ok::<_, Error>(())
            });
            put.wait().unwrap();
        }
        engine.checkpoint().unwrap();
    }

    /// Damages every block that the newest commit does not need. Returns how many.
    fn damage_free_blocks(engine: &Engine, storage: &SimStorage) -> usize {
        let open = engine.hold_open().unwrap();
        let superblock = Superblock::read(storage, Path::new("test")).unwrap();
        let from = usize::try_from(superblock.btree_offset).unwrap() + 3 * BLOCK_SIZE;
        let len = usize::try_from(storage.len().unwrap()).unwrap();
        let flip = |at: u64| storage.flip_bit(at, 3);
        (from..len).step_by(BLOCK_SIZE).for_each(|at| flip(at as u64));
        let mut faults = Vec::new();
        open.btree().check_blocks(&mut |fault| faults.push(fault));
        (from..len).step_by(BLOCK_SIZE).for_each(|at| flip(at as u64));
        let sound: Arc<dyn Storage> = Arc::new(storage.clone());
        let needed = in_use(&sound, superblock.btree_offset, &faults);
        faults.retain(
            |fault| matches!(fault.kind, FaultKind::Block(block) if !needed.contains(&block)),
        );
        faults.iter().for_each(|fault| flip(fault.offset));
        faults.len()
    }

    #[test]
    fn blocks_that_a_checkpoint_writes_during_a_verification_are_looked_at_again() {
        let storage = SimStorage::new(1);
        let engine = engine_on(&storage);
        for content in 1..4 {
            checkpoint_rows(&engine, content);
        }
        assert!(damage_free_blocks(&engine, &storage) > 20);
        let open = engine.hold_open().unwrap();
        let mut quiet = VerifyReport::default();
        check_open_btree(open.btree(), &mut quiet, || {});
        assert!(quiet.is_ok() && !quiet.notes.is_empty(), "{quiet}");
        // The next commits take the free blocks, and write them.
        let mut report = VerifyReport::default();
        check_open_btree(open.btree(), &mut report, || {
            (4..8).for_each(|content| checkpoint_rows(&engine, content));
        });
        assert!(report.is_ok(), "{report}");
        assert!(report.notes.len() < quiet.notes.len(), "no damaged block was written");
        // What is damaged and needed is told all the same.
        let superblock = Superblock::read(&storage, Path::new("test")).unwrap();
        (superblock.btree_offset + 3 * 4_096..storage.len().unwrap())
            .step_by(4_096)
            .for_each(|at| storage.flip_bit(at, 3));
        let mut report = VerifyReport::default();
        check_open_btree(open.btree(), &mut report, || {});
        assert!(!report.is_ok());
    }
}
