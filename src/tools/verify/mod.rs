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

use crate::btree::check::{Checked, FaultKind, WindowFault, check_tree, check_window, in_use};
use crate::btree::pages::Tree;
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::engine::{CommitHook, Engine, EngineOptions, Threads};
use crate::error::{Error, Result};
use crate::limits::{DEFAULT_CACHE_SIZE, DEFAULT_LOG_CAPACITY};
use crate::log::{LogLayout, SEGMENTS};
use crate::storage::{FileStorage, Storage, Superblock};
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

/// The most damaged blocks for which it is found out whether anything needs them.
const MAX_BLOCKS_TRACED: usize = 1 << 20;

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
        match storage.view(at, len) {
            Ok(segment) => segments.push(segment.to_vec()),
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
    let needed = trace(&faults, |blocks| in_use(storage, offset, blocks))?;
    report_faults(faults, &needed, report);
    if report.is_ok() {
        // It stops at the first damage, so it has nothing to add when there is some.
        if let Err(error) = check_tree(Arc::clone(storage), offset, DEFAULT_CACHE_SIZE) {
            rows::find_damage(report, error)?;
        }
    }
    Ok(())
}

/// Which of the damaged blocks are needed, as `in_use` says; all of them when there are too many to
/// ask.
fn trace(
    faults: &[WindowFault],
    in_use: impl FnOnce(BTreeSet<u64>) -> Result<BTreeSet<u64>>,
) -> Result<BTreeSet<u64>> {
    let damaged = faults.iter().filter_map(|fault| match fault.kind {
        FaultKind::Block(block) => Some(block),
        _ => None,
    });
    let damaged: BTreeSet<u64> = damaged.collect();
    if damaged.is_empty() || damaged.len() > MAX_BLOCKS_TRACED {
        return Ok(damaged);
    }
    let all = damaged.clone();
    // A tree that cannot be walked leaves every block suspect.
    Ok(in_use(damaged).unwrap_or(all))
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
        cache_size: DEFAULT_CACHE_SIZE,
        // The time makes no difference: what has ended is checked like everything else.
        clock: Arc::new(ManualClock::new(0)),
        threads: Threads::None,
        maintenance: None,
        read_only: true,
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
        let segments = open.read_log().map_err(|error| Error::io("reading the log", error))?;
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
    let mut faults = Vec::new();
    report.blocks = open.btree().check_blocks(&mut |fault| faults.push(fault));
    let needed = trace(&faults, |blocks| open.btree().in_use(blocks))?;
    report_faults(faults, &needed, &mut report);
    report.note(
        "redb's own check needs the file for itself: close the room and verify the file, or verify a backup",
    );
    Ok(report)
}
