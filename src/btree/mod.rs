//! The B-tree: the sorted tables in the last checkpointed state, in redb, at the end of the file.
//!
//! One writer, the checkpointer, applies the rows of a frozen log segment in one durable
//! transaction together with the LSN reached. Any number of readers read through the view that the
//! last such transaction left. Guarantees:
//!
//! 1. A view never changes. A crash leaves the complete content of the last transaction that was
//!    applied, or of the one that was being applied, with its LSN.
//! 2. Every block is verified when it is read. A damaged block is an error only for reads that need
//!    it.
//! 3. Readers do not notice a failed apply. redb refuses every call after an I/O error; it is then
//!    reopened on what is known to be durable, and the views continue there.
//! 4. Readers write nothing. After a failed flush nothing is written at all.
//!
//! [`window`] is the storage that redb works on, [`layout`] and [`checksums`] its bytes, [`view`]
//! the read side, [`direct`] its way past redb to one row.

pub(crate) mod check;
mod checksums;
mod compact;
mod direct;
mod fault;
mod layout;
pub(crate) mod pages;
mod redb_call;
mod redb_tables;
mod regions;
mod space;
mod view;
mod window;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod crash_tests;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod direct_tests;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod redb_layout_tests;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod testing;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests;

pub(crate) use compact::Plan;
pub(crate) use space::Space;
pub(crate) use view::BtreeView;

use crate::error::{Error, Result};
use crate::observe;
use crate::storage::Storage;
use crate::sync::plain::{Mutex, RwLock};
use crate::tables::{Catalogue, Table, Value};
use fault::{WindowFailure, from_io};
use redb::Database;
use redb_call::{from_panic, from_redb};
use redb_tables::{LSN_KEY, META, definition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use view::{BtreeDatabase, BtreeSnapshot};
use window::{Mode, Window, WindowGauges};

/// How often an apply reopens the database because a reader found damage in it.
const MAX_ATTEMPTS: usize = 8;

/// The sorted tables: one writer, many readers.
pub(crate) struct Btree {
    shared: Arc<BtreeShared>,
}

/// What views need to continue when their database fails.
struct BtreeShared {
    cache_size: usize,
    /// Every table that a file has.
    tables: Catalogue,
    gauges: Arc<WindowGauges>,
    /// The newest view. Its snapshot belongs to the newest database.
    current: RwLock<Arc<BtreeView>>,
    /// Held while rows are applied or the database is reopened.
    writer: Mutex<WriterState>,
    /// The snapshots of earlier views, which may still be read.
    snapshots: Mutex<Vec<Weak<BtreeSnapshot>>>,
    /// The result of the last survey.
    last_space: Mutex<Option<Space>>,
}

#[derive(Default)]
struct WriterState {
    /// The failed flush after which nothing is written any more.
    flush_failure: Option<Error>,
}

/// Why rows were not applied.
#[derive(Debug, Clone)]
pub(crate) struct ApplyError {
    /// The cause.
    pub(crate) error: Error,
    /// A flush of the storage failed: nothing is known about the writes that it covered (the log's
    /// included), and it must not be retried.
    pub(crate) flush_failed: bool,
}

/// Figures of the B-tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BtreeStats {
    /// Bytes written to the storage since the B-tree was opened, with checksums and headers.
    pub(crate) bytes_written: u64,
    /// The bytes of the B-tree that the file has space for, with free pages, without checksums.
    pub(crate) len: u64,
    /// What the bytes were used for at the last survey, if there was one.
    pub(crate) space: Option<Space>,
}

impl Btree {
    /// Creates an empty B-tree on a storage whose length is `offset`. `max_row_bytes` is the
    /// largest size of a row with its key.
    pub(crate) fn create(
        storage: Arc<dyn Storage>,
        offset: u64,
        cache_size: usize,
        tables: Catalogue,
        max_row_bytes: u64,
    ) -> Result<Btree> {
        let gauges = Arc::new(WindowGauges::default());
        let region_blocks = regions::region_blocks(max_row_bytes);
        let window =
            Window::create(storage, offset, gauges.clone(), region_blocks).map_err(opening)?;
        let generation =
            BtreeDatabase::open(window, cache_size, tables).map_err(WindowFailure::into_error)?;
        write_rows(&generation, 0, std::iter::empty::<Result<(Table, &[u8], Option<Value>)>>())
            .map_err(WindowFailure::into_error)?;
        Self::on(generation, cache_size, gauges)
    }

    /// Opens the B-tree that begins at `offset` of the storage, and writes nothing to it. The
    /// caller calls [`begin_writing`](Self::begin_writing) before the first apply.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        offset: u64,
        cache_size: usize,
        tables: Catalogue,
    ) -> Result<Btree> {
        let gauges = Arc::new(WindowGauges::default());
        let window =
            Window::open(storage, offset, gauges.clone(), Mode::Frozen).map_err(opening)?;
        if window.data_len() == 0 {
            return Err(Error::corrupted(
                format!("B-tree (file offset {offset})"),
                "it has no content; the creation of the file was not completed",
            ));
        }
        let generation =
            BtreeDatabase::open(window, cache_size, tables).map_err(WindowFailure::into_error)?;
        Self::on(generation, cache_size, gauges)
    }

    /// From now on rows may be applied. The caller has decided that the whole file is sound: this
    /// may write.
    pub(crate) fn begin_writing(&self) -> Result<()> {
        self.shared.current_generation().window.admit_writes().map_err(opening)
    }

    fn on(
        generation: BtreeDatabase,
        cache_size: usize,
        gauges: Arc<WindowGauges>,
    ) -> Result<Btree> {
        let tables = generation.tables;
        let snapshot =
            BtreeSnapshot::first(&Arc::new(generation)).map_err(WindowFailure::into_error)?;
        let shared = Arc::new_cyclic(|shared| BtreeShared {
            cache_size,
            tables,
            gauges,
            current: RwLock::new(BtreeView::new(snapshot, shared.clone())),
            writer: Mutex::default(),
            snapshots: Mutex::default(),
            last_space: Mutex::default(),
        });
        Ok(Btree { shared })
    }

    /// The tables after the last apply.
    pub(crate) fn view(&self) -> Arc<BtreeView> {
        self.shared.current.read().clone()
    }

    /// Applies rows, sorted by table and key, in one durable transaction that also records that
    /// `lsn` was reached; `None` deletes a row. Returns the view that shows them.
    ///
    /// After an error the tables and the current view are unchanged; with `flush_failed` the state
    /// of the tables is unknown. `rows` must not read from a view.
    pub(crate) fn apply<K: AsRef<[u8]>>(
        &self,
        lsn: u64,
        rows: impl Iterator<Item = Result<(Table, K, Option<Value>)>>,
    ) -> Result<Arc<BtreeView>, ApplyError> {
        self.write(Some(lsn), |generation| write_rows(generation, lsn, rows))
    }

    /// Calls `commit` with a database that can be written, and returns the view of what it wrote.
    /// `lsn` is the LSN that it records, if it records one.
    fn write(
        &self,
        lsn: Option<u64>,
        commit: impl FnOnce(&BtreeDatabase) -> Result<(), WindowFailure>,
    ) -> Result<Arc<BtreeView>, ApplyError> {
        let shared = &self.shared;
        let mut writer = shared.writer.lock();
        if let Some(error) = &writer.flush_failure {
            return Err(ApplyError { error: error.clone(), flush_failed: true });
        }
        // A disk that is still full is found before redb is opened again for nothing, and readers
        // are left alone.
        let reserved = shared.current_generation().window.reserve_wanted();
        reserved.map_err(|error| ApplyError { error: opening(error), flush_failed: false })?;
        let mut attempts = 0;
        let (generation, applied) = loop {
            let generation = match shared.writable() {
                Ok(generation) => generation,
                Err(failure) => return Err(shared.give_up(&mut writer, failure)),
            };
            let turn = generation.window.take_turn();
            if generation.window.is_tainted() && attempts < MAX_ATTEMPTS {
                // A reader found damage just before the turn began. After too many attempts the
                // flush fails.
                attempts += 1;
                continue;
            }
            let applied = commit(&generation);
            drop(turn);
            break (generation, applied);
        };
        match applied.and_then(|()| BtreeSnapshot::take(&generation)) {
            Ok(snapshot) => Ok(shared.install(snapshot)),
            Err(failure) => {
                let before = self.view().lsn();
                let refused = shared.give_up(&mut writer, failure);
                let view = self.view();
                // The failure may have come after the commit, which is durable then.
                if lsn.is_some_and(|lsn| view.lsn() == lsn && before != lsn) {
                    Ok(view)
                } else {
                    Err(refused)
                }
            }
        }
    }

    /// Figures of the B-tree.
    pub(crate) fn stats(&self) -> BtreeStats {
        BtreeStats {
            bytes_written: self.shared.gauges.written.load(Ordering::Relaxed),
            len: self.view().snapshot().generation.window.present_len(),
            space: *self.shared.last_space.lock(),
        }
    }
}

impl Btree {
    /// Ends all writing. Views that are still held stay readable, and nothing is written for them.
    pub(crate) fn close(&self) {
        self.view().snapshot().generation.window.seal();
    }
}

impl Drop for Btree {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Btree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btree").field("view", &self.view()).finish_non_exhaustive()
    }
}

impl BtreeShared {
    fn current_generation(&self) -> Arc<BtreeDatabase> {
        self.current.read().snapshot().generation.clone()
    }

    fn install(self: &Arc<Self>, snapshot: BtreeSnapshot) -> Arc<BtreeView> {
        let view = BtreeView::new(snapshot, Arc::downgrade(self));
        let mut snapshots = self.snapshots.lock();
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        let replaced = std::mem::replace(&mut *self.current.write(), view.clone());
        snapshots.push(Arc::downgrade(replaced.snapshot()));
        drop(snapshots);
        drop(replaced);
        view
    }

    /// Whether another snapshot than this one may still be read.
    fn older_views_live(&self, newest: &Arc<BtreeSnapshot>) -> bool {
        let is_other = |snapshot: &Weak<BtreeSnapshot>| {
            snapshot.strong_count() > 0 && !std::ptr::eq(snapshot.as_ptr(), Arc::as_ptr(newest))
        };
        self.snapshots.lock().iter().any(is_other)
    }

    /// Reopens redb on what is durable. The caller holds the writer lock.
    fn reopen(self: &Arc<Self>, mode: Mode) -> Result<Arc<BtreeDatabase>, WindowFailure> {
        let window = self.current_generation().window.succeed(mode).map_err(from_io)?;
        let generation = Arc::new(BtreeDatabase::open(window, self.cache_size, self.tables)?);
        let view = self.install(BtreeSnapshot::first(&generation)?);
        observe::btree_reopened(view.lsn());
        Ok(generation)
    }

    /// A database that accepts writes. The caller holds the writer lock.
    fn writable(self: &Arc<Self>) -> Result<Arc<BtreeDatabase>, WindowFailure> {
        let current = self.current_generation();
        if is_healthy(&current) { Ok(current) } else { self.reopen(Mode::Writable) }
    }

    /// Leaves a database that readers can continue with, and returns why rows were not applied.
    fn give_up(self: &Arc<Self>, writer: &mut WriterState, failure: WindowFailure) -> ApplyError {
        let error = failure.into_error();
        let flush_failed = self.gauges.flush_failed.load(Ordering::SeqCst);
        if flush_failed {
            writer.flush_failure = Some(error.clone());
        }
        if flush_failed || !is_healthy(&self.current_generation()) {
            // If this fails too, readers retry when they need it.
            let _ = self.reopen(Mode::Frozen);
        }
        ApplyError { error, flush_failed }
    }

    /// Replaces a database that failed during a read. The new one is opened for reading only, so
    /// that readers write nothing; the next apply opens one that accepts writes.
    fn recover(self: &Arc<Self>, lost: &Arc<BtreeDatabase>) -> Result<Arc<BtreeSnapshot>> {
        let newest = || {
            let current = self.current.read();
            let snapshot = current.snapshot();
            (!Arc::ptr_eq(&snapshot.generation, lost)).then(|| snapshot.clone())
        };
        if let Some(snapshot) = newest() {
            return Ok(snapshot);
        }
        let _writer = self.writer.lock();
        if let Some(snapshot) = newest() {
            return Ok(snapshot);
        }
        self.reopen(Mode::Frozen).map_err(WindowFailure::into_error)?;
        Ok(self.current.read().snapshot().clone())
    }

    /// Gives `read` the snapshot of the newest database, which no one replaces meanwhile. A
    /// database that fails because of an earlier fault is reopened once.
    fn read_undisturbed<T>(
        self: &Arc<Self>,
        mut read: impl FnMut(&Arc<BtreeSnapshot>) -> Result<T, WindowFailure>,
    ) -> Result<T> {
        let _writer = self.writer.lock();
        let newest = self.current.read().snapshot().clone();
        match read(&newest) {
            Err(WindowFailure::Lost(_)) => {
                self.reopen(Mode::Frozen).map_err(WindowFailure::into_error)?;
                let reopened = self.current.read().snapshot().clone();
                read(&reopened).map_err(WindowFailure::into_error)
            }
            answer => answer.map_err(WindowFailure::into_error),
        }
    }
}

/// Whether this database accepts rows.
fn is_healthy(generation: &BtreeDatabase) -> bool {
    let begins =
        |db: &Database| db.begin_write().is_ok_and(|transaction| transaction.abort().is_ok());
    generation.window.accepts_writes() && generation.db().is_ok_and(begins)
}

/// Writes rows and the LSN in one durable transaction, in two phases and with the state of the
/// allocator, so that the last commit is valid and can be used without a repair after a crash.
fn write_rows<K: AsRef<[u8]>>(
    generation: &BtreeDatabase,
    lsn: u64,
    rows: impl Iterator<Item = Result<(Table, K, Option<Value>)>>,
) -> Result<(), WindowFailure> {
    let window = &generation.window;
    let db = generation.db()?;
    let call = AssertUnwindSafe(|| stage_and_commit(window, db, generation.tables, lsn, rows));
    catch_unwind(call).unwrap_or_else(|panic| {
        // The state that a panic left inside redb is never committed.
        window.seal();
        Err(from_panic(window, panic.as_ref()))
    })
}

fn stage_and_commit<K: AsRef<[u8]>>(
    window: &Window,
    db: &Database,
    tables: Catalogue,
    lsn: u64,
    rows: impl Iterator<Item = Result<(Table, K, Option<Value>)>>,
) -> Result<(), WindowFailure> {
    let redb = |error: redb::Error| from_redb(window, error);
    let mut transaction = db.begin_write().map_err(|error| redb(error.into()))?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    transaction
        .open_table(META)
        .and_then(|mut meta| Ok(meta.insert(LSN_KEY, lsn).map(drop)?))
        .map_err(|error| redb(error.into()))?;
    for &table in tables.all() {
        transaction.open_table(definition(table)).map_err(|error| redb(error.into()))?;
    }
    {
        let mut rows = rows.peekable();
        while let Some(first) = rows.next() {
            let (table, key, value) = first?;
            let mut open =
                transaction.open_table(definition(table)).map_err(|error| redb(error.into()))?;
            let mut next = Some((key, value));
            while let Some((key, value)) = next.take() {
                let changed = match &value {
                    Some(value) => open.insert(key.as_ref(), value.as_ref()).map(drop),
                    None => open.remove(key.as_ref()).map(drop),
                };
                changed.map_err(|error| redb(error.into()))?;
                if let Some(row) =
                    rows.next_if(|row| matches!(row, Ok((other, _, _)) if *other == table))
                {
                    let (_, key, value) = row?;
                    next = Some((key, value));
                }
            }
        }
    }
    transaction.commit().map_err(|error| redb(error.into()))
}

fn opening(error: std::io::Error) -> Error {
    from_io(error).into_error()
}
