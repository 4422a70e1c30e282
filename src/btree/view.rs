//! Read views: the tables after one checkpoint.

use super::BtreeShared;
use super::direct::{DirectTables, LeafBudget};
use super::fault::WindowFailure;
use super::redb_call::guarded;
use super::redb_tables::{LSN_KEY, META, definition};
use super::window::Window;
use crate::error::{Error, Result};
use crate::sync::plain::RwLock;
use crate::tables::{Catalogue, Row, Table, Value};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableError};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// What part of the page cache is for leaves, in which rows are looked up past redb. redb's own
/// part is what a checkpoint works in: one that changes more pages than half of that writes pages
/// twice.
pub(super) const LEAF_CACHE_DIVISOR: usize = 3;

type TableRows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// An open redb database and its window.
pub(super) struct BtreeDatabase {
    /// `None` only while it is dropped.
    db: Option<Database>,
    pub(super) window: Window,
    /// Every table that a file has.
    pub(super) tables: Catalogue,
    leaf_budget: Arc<LeafBudget>,
}

impl BtreeDatabase {
    /// Opens redb on the window, or creates a database if the window is empty. Half of the cache is
    /// redb's, through which checkpoints and listings read, and half is for looking up rows.
    pub(super) fn open(
        window: Window,
        cache_size: usize,
        tables: Catalogue,
    ) -> Result<BtreeDatabase, WindowFailure> {
        let of_leaves = cache_size / LEAF_CACHE_DIVISOR;
        let db = guarded(&window, || {
            Ok(Database::builder()
                .set_cache_size(cache_size - of_leaves)
                .create_with_backend(window.clone())?)
        })?;
        let leaf_budget = Arc::new(LeafBudget::of(of_leaves));
        Ok(BtreeDatabase { db: Some(db), window, tables, leaf_budget })
    }

    /// Runs redb's own compaction and closes it. No one may have begun to read from this database.
    /// The window that succeeds this one's has the result.
    pub(super) fn compact(mut self) -> Result<(), WindowFailure> {
        let mut db = self.db.take().ok_or(Error::Closed)?;
        guarded(&self.window, move || {
            let compacted = match db.compact() {
                Ok(_) => Ok(()),
                Err(redb::CompactionError::Storage(error)) => Err(error.into()),
                Err(other) => Err(redb::Error::Corrupted(other.to_string())),
            };
            // Closing trims the file again and records what is free.
            drop(db);
            compacted
        })
    }

    /// The database.
    pub(super) fn db(&self) -> Result<&Database> {
        self.db.as_ref().ok_or(Error::Closed)
    }
}

impl Drop for BtreeDatabase {
    /// When redb closes it trims the file, in a commit of its own. Every commit here is complete
    /// without that, so the window is sealed first: closing writes nothing, and a close and a kill
    /// leave the same file.
    fn drop(&mut self) {
        self.window.seal();
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }
}

/// A table of a snapshot.
enum TableSlot {
    Open(TableRows),
    /// The file has no such table yet, which counts as an empty one.
    Missing,
    /// Its root is damaged. The other tables stay readable.
    Damaged(Error),
}

/// The tables at one commit of one database.
pub(super) struct BtreeSnapshot {
    lsn: u64,
    /// The same tables past redb, if they could be found.
    direct: Option<DirectTables>,
    // Declared before the database, so that it is dropped before it.
    slots: Vec<TableSlot>,
    pub(super) generation: Arc<BtreeDatabase>,
}

impl BtreeSnapshot {
    /// The first snapshot of a database that was just opened. From then on there may be readers.
    pub(super) fn first(generation: &Arc<BtreeDatabase>) -> Result<BtreeSnapshot, WindowFailure> {
        generation.window.admit_first_view();
        let snapshot = Self::take(generation)?;
        generation.window.admit_readers();
        Ok(snapshot)
    }

    /// The tables after the last commit. Nothing is committed meanwhile.
    pub(super) fn take(generation: &Arc<BtreeDatabase>) -> Result<BtreeSnapshot, WindowFailure> {
        let window = &generation.window;
        let db = generation.db()?;
        let transaction = guarded(window, || Ok(db.begin_read()?))?;
        let lsn = guarded(window, || {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(LSN_KEY)?.map(|lsn| lsn.value()))
        })?;
        let Some(lsn) = lsn else {
            return Err(Error::corrupted("B-tree", "the row with its LSN is missing").into());
        };
        let mut slots = Vec::new();
        for &table in generation.tables.all() {
            let opened = guarded(window, || match transaction.open_table(definition(table)) {
                Ok(rows) => Ok(TableSlot::Open(rows)),
                Err(TableError::TableDoesNotExist(_)) => Ok(TableSlot::Missing),
                Err(error) => Err(error.into()),
            });
            // Numbers that no table has leave gaps.
            slots.resize_with(slot(table), || TableSlot::Missing);
            slots.push(match opened {
                Err(WindowFailure::Failed(error @ Error::Corrupted { .. })) => {
                    TableSlot::Damaged(error)
                }
                other => other?,
            });
        }
        let direct = DirectTables::newest(window, &generation.leaf_budget, generation.tables, lsn);
        Ok(BtreeSnapshot { lsn, direct, slots, generation: generation.clone() })
    }

    /// Reads from a table. `None` when it is missing.
    fn read<T>(
        &self,
        table: Table,
        call: &impl Fn(&TableRows) -> std::result::Result<T, redb::Error>,
    ) -> Result<Option<T>, WindowFailure> {
        match self.slots.get(slot(table)) {
            Some(TableSlot::Open(rows)) => {
                guarded(&self.generation.window, || call(rows)).map(Some)
            }
            Some(TableSlot::Damaged(error)) => Err(WindowFailure::Failed(error.clone())),
            Some(TableSlot::Missing) | None => Ok(None),
        }
    }
}

/// How often a read retries with another database before it fails.
const MAX_RECOVERIES: usize = 4;

/// The index of a table among the slots.
fn slot(table: Table) -> usize {
    usize::from(table.number()).saturating_sub(1)
}

/// The sorted tables after one checkpoint. Stays readable, at the same LSN, for as long as it is
/// held, whatever is applied in the meantime.
pub(crate) struct BtreeView {
    snapshot: Arc<BtreeSnapshot>,
    /// The snapshot of another database with the same content, after the first one failed.
    successor: RwLock<Option<Arc<BtreeSnapshot>>>,
    /// Whether there is a successor, so that reads need not take the lock.
    succeeded: AtomicBool,
    shared: Weak<BtreeShared>,
}

impl std::fmt::Debug for BtreeView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BtreeView").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}

impl BtreeView {
    pub(super) fn new(snapshot: BtreeSnapshot, shared: Weak<BtreeShared>) -> Arc<BtreeView> {
        Arc::new(BtreeView {
            snapshot: Arc::new(snapshot),
            successor: RwLock::new(None),
            succeeded: AtomicBool::new(false),
            shared,
        })
    }

    /// The LSN of this view: every frame up to it is in the view, and none after it.
    pub(crate) fn lsn(&self) -> u64 {
        self.snapshot.lsn
    }

    /// Every table that a file has.
    pub(crate) fn tables(&self) -> Catalogue {
        self.snapshot.generation.tables
    }

    /// The row at `key`. After a fault another commit may answer: see [`Self::read`].
    pub(crate) fn get(&self, table: Table, key: &[u8], up_to: u64) -> Result<Option<Value>> {
        if let Some(found) = self.get_directly(table, key) {
            return Ok(found);
        }
        self.read(table, up_to, |rows| Ok(rows.get(key)?.map(|row| Value::from(row.value()))))
            .map(Option::flatten)
    }

    /// The row at `key`, without redb. `None` where redb is to be asked.
    pub(super) fn get_directly(&self, table: Table, key: &[u8]) -> Option<Option<Value>> {
        if self.succeeded.load(Ordering::Acquire) {
            return None;
        }
        self.snapshot.direct.as_ref()?.get(table, key)
    }

    /// The number of rows of a table, as redb counts them. After a fault it may be that of a later
    /// commit.
    pub(crate) fn row_count(&self, table: Table) -> Result<u64> {
        self.read(table, u64::MAX, |rows| Ok(rows.len()?)).map(Option::unwrap_or_default)
    }

    /// The first rows of the range, in key order, up to `max_rows` or until they have `max_bytes`,
    /// and whether these are the last ones. Reads no row after them, so the flag may be `false`
    /// when no row follows. After a fault another commit may answer: see [`Self::read`].
    pub(crate) fn page(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        (max_rows, max_bytes): (usize, usize),
        up_to: u64,
    ) -> Result<(Vec<Row>, bool)> {
        let page = self.read(table, up_to, |rows| {
            let (mut page, mut bytes) = (Vec::new(), 0);
            for row in rows.range::<&[u8]>((from, to))? {
                let (key, value) = row?;
                let (key, value) = (key.value().to_vec(), Value::from(value.value()));
                bytes += key.len() + value.len();
                page.push((key, value));
                if page.len() >= max_rows || bytes >= max_bytes {
                    return Ok((page, false));
                }
            }
            Ok((page, true))
        })?;
        Ok(page.unwrap_or((Vec::new(), true)))
    }

    /// How many leaves more may be kept in memory, of all views of its database.
    #[cfg(test)]
    pub(super) fn leaves_left(&self) -> usize {
        self.snapshot.generation.leaf_budget.left()
    }

    pub(super) fn snapshot(&self) -> &Arc<BtreeSnapshot> {
        &self.snapshot
    }

    /// Reads from the database of this view, or from another one if that one failed because of a
    /// fault in another call.
    ///
    /// The other one may have a later commit, of an LSN up to `up_to`. The caller hides every row
    /// version of an LSN above [`lsn`](Self::lsn) and up to `up_to` with what it has in memory, so
    /// the answer is the same from either.
    fn read<T>(
        &self,
        table: Table,
        up_to: u64,
        call: impl Fn(&TableRows) -> std::result::Result<T, redb::Error>,
    ) -> Result<Option<T>> {
        if !self.succeeded.load(Ordering::Acquire) {
            match self.snapshot.read(table, &call) {
                Ok(answer) => return Ok(answer),
                Err(WindowFailure::Failed(error)) => return Err(error),
                Err(WindowFailure::Lost(_)) => {}
            }
        }
        let mut snapshot = self.successor.read().as_ref().unwrap_or(&self.snapshot).clone();
        for _ in 0..MAX_RECOVERIES {
            self.check_successor(&snapshot, up_to)?;
            match snapshot.read(table, &call) {
                Ok(answer) => return Ok(answer),
                Err(WindowFailure::Failed(error)) => return Err(error),
                Err(WindowFailure::Lost(_)) => snapshot = self.succeed(&snapshot)?,
            }
        }
        // The writer fails and reopens its database faster than this read goes on: it waits.
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        shared.read_undisturbed(|snapshot| {
            self.check_successor(snapshot, up_to)?;
            snapshot.read(table, &call)
        })
    }

    /// Continues with another database.
    fn succeed(&self, lost: &BtreeSnapshot) -> Result<Arc<BtreeSnapshot>> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        let successor = shared.recover(&lost.generation)?;
        *self.successor.write() = Some(successor.clone());
        self.succeeded.store(true, Ordering::Release);
        Ok(successor)
    }

    /// Whether a reader whose memory reaches `up_to` may read this snapshot in place of the one of
    /// this view.
    fn check_successor(&self, snapshot: &BtreeSnapshot, up_to: u64) -> Result<()> {
        if (self.lsn()..=up_to.max(self.lsn())).contains(&snapshot.lsn) {
            return Ok(());
        }
        let detail = format!(
            "the disk failed a checkpoint while this call read LSN {}, which later checkpoints have replaced since; \
             make the call again",
            self.lsn()
        );
        Err(Error::io("reading the B-tree", io::Error::other(detail)))
    }
}
