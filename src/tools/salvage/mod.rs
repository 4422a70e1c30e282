//! Salvage: copies what is intact in a damaged file into a new one.
//!
//! The damaged file is only read. There are four steps:
//!
//! 1. **Find the parts of the file** ([`geometry`]): by a copy of the superblock, or by the parts
//!    themselves, which can be recognized.
//! 2. **Gather the rows** in a file that never gets a name: those of every intact leaf of the
//!    B-tree, read page by page without redb, and over them those of the log ([`log`]). Rows of
//!    derived tables are not gathered.
//! 3. **Write what fits together** ([`rows`]) to the new file: rows that no store writes, and rows
//!    whose other half is lost, are left out; rows of derived tables are derived again.
//! 4. **Verify the new file** and give it its name.
//!
//! The report lists what was left out, and the ranges of keys and of operations in which something
//! is missing.

mod geometry;
mod log;
mod report;
mod rows;
mod sectors;
mod unsure;

pub use report::{Loss, SalvageReport};

use crate::btree::check::{FaultKind, check_window, in_use};
use crate::btree::pages::{Depth, KeyRange, TableRoot, Tables, Tree, Visit};
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::engine::new_file::NewFile;
use crate::engine::time_line::DEFAULT_LEAP_HOLD;
use crate::engine::{CommitHook, Engine, EngineOptions, Geometry, Threads};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::log::LogLayout;
use crate::storage::{FileStorage, Replace, Storage, Superblock, check_vacant};
use crate::stores::registry;
use crate::stores::registry::catalogue;
use crate::stores::schema::TableSchema;
use crate::tables::Table;
use crate::tools::verify::{location, verify_storage};
use log::LogRows;
use std::path::Path;
use std::sync::Arc;
use unsure::{Unsure, lose_range};

/// Bytes of page cache for each of the files that are built.
const CACHE_SIZE: usize = 8 << 20;

/// Copies what is intact in the file `from`, which must not be open for writing, into a new file
/// `to`, which must not exist. Nothing is written to `from`. The report says what is lost, as far
/// as that can be known.
///
/// The new file gets the owner, the group and the permissions of the damaged one. Where the system
/// does not allow that (usually only the superuser may give files away), it belongs to the caller
/// alone, and a note in the report says so.
///
/// Space for twice the rows is needed beside `to` for as long as it lasts.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let (path, whole) = (dir.path().join("edge.cloak"), dir.path().join("whole.cloak"));
/// cloakroom::Cloakroom::open(&path)?.close()?;
/// let report = cloakroom::tools::salvage(&path, &whole)?;
/// assert!(report.is_complete(), "{report}");
/// assert!(cloakroom::tools::verify(&whole)?.is_ok());
/// # Ok::<(), cloakroom::Error>(())
/// ```
///
/// # Errors
/// In all cases there is no file `to`, or the one that was there is as it was:
/// - [`Error::Io`] with `AlreadyExists`: something has the name `to`. With `NotFound`: there is no
///   file `from`.
/// - [`Error::Locked`]: `from` is open for writing.
/// - [`Error::NotCloakroom`], [`Error::UnsupportedVersion`]: not ours, or newer.
/// - [`Error::Corrupted`]: so little is left that it cannot even be told where the parts of the
///   file lie.
/// - [`Error::Io`], [`Error::DiskFull`]: the new file could not be written.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<SalvageReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    check_vacant(to)?;
    let source = FileStorage::open_read_only(from)?;
    let storage: Arc<dyn Storage> = Arc::new(source.clone());
    salvage_as(&storage, from, to, Some(&source))
}

/// Copies what is intact in a storage, which is not written to, into a new file `to`. `from` names
/// it in errors. For tests.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn salvage_storage(
    storage: &Arc<dyn Storage>,
    from: &Path,
    to: &Path,
) -> Result<SalvageReport> {
    salvage_as(storage, from, to, None)
}

/// The same, with a new file that is whose `source` is.
fn salvage_as(
    storage: &Arc<dyn Storage>,
    from: &Path,
    to: &Path,
    source: Option<&FileStorage>,
) -> Result<SalvageReport> {
    let mut report = SalvageReport::default();
    let superblock = geometry::find(storage.as_ref(), from, &mut report)?;
    note_damaged_blocks(storage, &superblock, &mut report)?;
    let tree = newest_tree(storage, &superblock, &mut report);
    let btree_lsn = tree.as_ref().and_then(|tree| tree.lsn().ok().flatten());
    if tree.is_some() && btree_lsn.is_none() {
        report.note("the B-tree does not tell any more which operations it has");
    }
    let layout = LogLayout::of(&superblock);
    let replayed = log::read(storage.as_ref(), &layout, btree_lsn, &mut report)?;

    let like = Geometry {
        file_id: Geometry::new(0, 0).file_id,
        lsn: replayed.lsn,
        ..Geometry::of(&superblock, replayed.lsn)
    };
    let mut gathered = NewFile::create(to, like, CACHE_SIZE, catalogue())?;
    let mut unsure = Unsure::new();
    if let Some(tree) = &tree {
        gather(tree, &replayed.rows, &mut gathered, &mut unsure, &mut report)?;
    }
    for ((table, key), value) in &replayed.rows {
        if let Some(value) = value
            && !registry::of(*table)?.is_derived()
        {
            gathered.put(*table, key, value)?;
        }
    }
    drop(replayed);
    let gathered = gathered.seal()?;
    let mut new = NewFile::create(to, like, CACHE_SIZE, catalogue())?;
    let engine = open(Arc::new(gathered.storage().clone()), to)?;
    engine
        .read(Durability::Os, |snapshot| rows::rebuild(snapshot, &unsure, &mut new, &mut report))
        .wait()?;
    drop((engine, gathered));

    let whole = new.seal()?;
    let written: Arc<dyn Storage> = Arc::new(whole.storage().clone());
    for finding in verify_storage(&written, to)?.findings {
        report.lose(format!("the new file, {}", finding.location), finding.problem);
    }
    report.bytes = whole.len()?;
    if let Some(Err(error)) = source.map(|source| whole.take_access_of(source)) {
        report.note(format!(
            "{}: {error}, with `chown` and `chmod`, before the file is used",
            to.display()
        ));
    }
    whole.publish(Replace::Nothing)?;
    Ok(report)
}

/// The rows that were gathered, to look things up in.
fn open(storage: Arc<dyn Storage>, path: &Path) -> Result<Engine> {
    let options = EngineOptions {
        tables: catalogue(),
        log_capacity: 0,
        cache_size: CACHE_SIZE,
        clock: Arc::new(ManualClock::new(0)),
        leap_hold: DEFAULT_LEAP_HOLD,
        newest_epoch: |_| Ok(None),
        threads: Threads::None,
        maintenance: None,
        read_only: true,
        log_stall: crate::limits::DEFAULT_LOG_STALL,
        migrations: &[],
        hook: CommitHook::default(),
    };
    Engine::open_on(storage, path, options)
}

fn note_damaged_blocks(
    storage: &Arc<dyn Storage>,
    superblock: &Superblock,
    report: &mut SalvageReport,
) -> Result<()> {
    let offset = superblock.btree_offset;
    let mut damaged = Vec::new();
    check_window(storage, offset, &mut |fault| match fault.kind {
        FaultKind::Block(_) => damaged.push(fault),
        FaultKind::HeaderCopy => {
            report.note(format!("file offset {}: {}", fault.offset, fault.detail))
        }
        FaultKind::Whole => {
            report.lose(format!("B-tree (file offset {})", fault.offset), fault.detail)
        }
        FaultKind::Harmless => {}
    })?;
    for block in in_use(storage, offset, &damaged) {
        report.damaged(block);
    }
    Ok(())
}

/// The newest state of the B-tree of which anything can be read.
fn newest_tree(
    storage: &Arc<dyn Storage>,
    superblock: &Superblock,
    report: &mut SalvageReport,
) -> Option<Tree> {
    let trees = Tree::open(storage, superblock.btree_offset).unwrap_or_default();
    let count = trees.len();
    for (index, tree) in trees.into_iter().enumerate() {
        let tables = tree.pages().tables(Tables::User, &mut |_| Ok(()));
        if tables.is_ok_and(|tables| !tables.is_empty()) {
            if index > 0 {
                report
                    .lose("B-tree", "its newest state cannot be read; the one before it was used");
            }
            return Some(tree);
        }
    }
    let what = if count == 0 { "both copies of its header" } else { "the list of its tables" };
    report.lose("B-tree", format!("{what}; nothing of it came out"));
    None
}

/// Puts every row of the B-tree that can be read and is not newer in the log into `gathered`. What
/// may be lost of it, and makes other rows unsure, goes into `unsure`.
fn gather(
    tree: &Tree,
    newer: &LogRows,
    gathered: &mut NewFile,
    unsure: &mut Unsure,
    report: &mut SalvageReport,
) -> Result<()> {
    let pages = tree.pages();
    let roots = pages.tables(Tables::User, &mut |visit| {
        if let Visit::Lost { error, .. } = visit {
            report.lose("B-tree, the list of its tables", error.cause());
        }
        Ok(())
    })?;
    for schema in registry::all().filter(|schema| !schema.is_derived()) {
        let (name, meaning) = (schema.table.name(), schema.loss.meaning);
        let Some(root) = roots.iter().find(|root| root.name == name) else {
            report.lose(format!("table {name}"), format!("all of it: {meaning}"));
            lose_range(schema, (None, None), unsure);
            continue;
        };
        let seen = gather_table(&pages, schema, root, newer, gathered, unsure, report)?;
        if seen < root.rows {
            let what = format!("{} rows: {meaning}", root.rows - seen);
            report.lose(format!("table {name}"), what);
        }
    }
    Ok(())
}

/// The same for one table. Returns how many rows there were, those included that are newer in the
/// log.
fn gather_table(
    pages: &crate::btree::pages::Pages<'_>,
    schema: &TableSchema,
    root: &TableRoot,
    newer: &LogRows,
    gathered: &mut NewFile,
    unsure: &mut Unsure,
    report: &mut SalvageReport,
) -> Result<u64> {
    let (table, mut seen) = (schema.table, 0);
    pages.visit(root, Depth::Rows, &mut |visit| {
        match visit {
            Visit::Page { .. } => {}
            Visit::Row { key, value } => {
                seen += 1;
                if !newer.contains_key(&(table, key.to_vec())) {
                    gathered.put(table, key, value)?;
                }
            }
            Visit::Lost { error, keys, .. } => {
                report.lose(range(table, &keys), format!("rows behind damage ({})", error.cause()));
                lose_range(schema, keys, unsure);
            }
        }
        Ok(())
    })?;
    Ok(seen)
}

/// A range of keys, in words.
fn range(table: Table, (after, to): &KeyRange) -> String {
    let key = |key: &[u8]| location(table, key);
    match (after, to) {
        (None, None) => format!("table {}", table.name()),
        (Some(after), None) => format!("{} and all greater ones", key(after)),
        (None, Some(to)) => format!("{} and all smaller ones", key(to)),
        (Some(after), Some(to)) => format!("behind {} up to {}", key(after), key(to)),
    }
}
