//! Reading everything: one durable position, table by table, in pages of bounded size, while
//! writing goes on.
//!
//! The position is made durable before the first row is read, so what is copied from it is never
//! something that a crash takes away. Between two pages nothing is held but the view: writers,
//! checkpoints and closing go on. Rows that are replaced meanwhile keep their space until the view
//! is dropped.

use crate::engine::kernel::access::{PageSize, Reader, RowPage, RowRange, Value};
use crate::engine::kernel::cursor::RowCursor;
use crate::engine::kernel::time_line::Moment;
use crate::engine::kernel::{Kernel, View, read_page};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::tables::{Catalogue, Table};
use std::sync::Arc;

/// Every row of one durable position.
#[derive(Debug)]
pub(crate) struct DurableSnapshot {
    kernel: Arc<Kernel>,
    view: Arc<View>,
    lsn: u64,
}

impl DurableSnapshot {
    /// Everything as of a durable position that is not before anything acknowledged so far. What
    /// was appended is flushed first, whatever durability it was appended with. When the log has
    /// failed, the position is the last that is known to be durable.
    ///
    /// # Errors
    /// [`Error::Closed`], and [`Error::DiskFull`] while the log cannot be written.
    pub(in crate::engine) fn take(kernel: &Arc<Kernel>) -> Result<Self> {
        let (view, mut lsn) = kernel.hold_open()?.newest();
        let log = kernel.log();
        if let Err(error) = log.flush_up_to(lsn) {
            if log.failure().is_none() {
                return Err(error);
            }
            // The B-tree of the view was made of durable frames, so this position is not before it.
            lsn = log.durable().min(lsn);
        }
        Ok(Self { kernel: Arc::clone(kernel), view, lsn })
    }

    /// The position: every frame up to it is in what is read, and none after it.
    pub(crate) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Every table of the room.
    pub(super) fn tables(&self) -> Catalogue {
        self.view.btree.tables()
    }

    /// About how many rows there are in all tables. Rows of which a newer version is in memory are
    /// counted twice.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Io`].
    pub(crate) fn estimate(&self) -> Result<u64> {
        let _open = self.kernel.hold_open()?;
        let (btree, in_memory) = (&self.view.btree, self.view.rows_in_memory());
        btree
            .tables()
            .all()
            .iter()
            .try_fold(in_memory as u64, |rows, &table| Ok(rows + btree.row_count(table)?))
    }

    /// Gives every row of every table, in order, to `each`.
    ///
    /// # Errors
    /// Those of `each`, [`Error::Closed`] when the room was closed meanwhile, [`Error::Corrupted`]
    /// for a damaged block, and [`Error::Io`].
    pub(crate) fn for_each(
        &mut self,
        mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        for &table in self.tables().all() {
            let mut cursor = RowCursor::all(table);
            while let Some((key, value)) = cursor.next(self)? {
                each(table, &key, &value)?;
            }
        }
        Ok(())
    }
}

impl Drop for DurableSnapshot {
    fn drop(&mut self) {
        if self.kernel.check_process().is_err() {
            // Freeing it would take locks that threads may hold which a forked child does not have.
            std::mem::forget(Arc::clone(&self.view));
        }
    }
}

/// Looks at rows by key and by range, for callers that need more than all of them in order. The
/// time is that of each look, and [`Error::Closed`] the answer when the room was closed meanwhile.
impl Reader for DurableSnapshot {
    fn moment(&self) -> Moment {
        self.kernel.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        let _open = self.kernel.hold_open()?;
        match self.view.in_memory(table, key, self.lsn) {
            Some(found) => Ok(found.value),
            None => self.view.btree.get(table, key, self.lsn),
        }
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        let _open = self.kernel.hold_open()?;
        read_page(&self.view, self.lsn, None, range, size, &mut 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::durability::Durability;
    use crate::engine::access::{RestOfRange, Writer};
    use crate::engine::kernel::time_line::TIME_LINE;
    use crate::engine::{CommitHook, Engine, EngineOptions, Threads};
    use crate::error::Error;
    use crate::storage::MemoryStorage;
    use crate::storage::sim::{CallKind, Fault, SimStorage};
    use crate::stores::registry::catalogue;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

    fn options() -> EngineOptions {
        EngineOptions {
            tables: catalogue(),
            log_capacity: 1 << 20,
            cache_size: 1 << 20,
            clock: Arc::new(SystemClock::new()),
            leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
            newest_epoch: |_| Ok(None),
            threads: Threads::None,
            maintenance: None,
            read_only: false,
            log_stall: crate::limits::DEFAULT_LOG_STALL,
            migrations: &[],
            hook: CommitHook::default(),
        }
    }

    fn write(engine: &Engine, durability: Durability, rows: &[(Table, u32, Option<Vec<u8>>)]) {
        let staged = engine.transact(durability, &[], |tx| {
            for (table, key, value) in rows {
                match value {
                    Some(value) => tx.put(*table, &key.to_be_bytes(), value.clone()),
                    None => tx.delete(*table, &key.to_be_bytes()),
                }
            }
            Ok::<_, Error>(())
        });
        staged.wait().unwrap();
    }

    fn all(read: &mut DurableSnapshot) -> Result<Rows> {
        let mut rows = Rows::new();
        read.for_each(|table, key, value| {
            let is_new = rows.insert((table.number(), key.to_vec()), value.to_vec()).is_none();
            assert!(is_new, "twice");
            Ok(())
        })?;
        rows.retain(|(table, _), _| *table != TIME_LINE.number());
        Ok(rows)
    }

    #[test]
    fn it_merges_memory_over_the_tree_at_one_position_whatever_is_written_meanwhile() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let engine = Engine::create_on(Arc::new(MemoryStorage::new()), options()).unwrap();
            let mut model = Rows::new();
            for _ in 0..random.usize(0..60) {
                let rows: Vec<_> = (0..random.usize(1..100))
                    .map(|_| {
                        let table =
                            random.choice([Table::HANDOFF, Table::CACHE, Table::STATE]).unwrap();
                        let value =
                            random.bool().then(|| vec![random.u8(..); random.usize(0..200)]);
                        (table, random.u32(0..3_000), value)
                    })
                    .collect();
                write(&engine, Durability::Sync, &rows);
                for (table, key, value) in rows {
                    let key = (table.number(), key.to_be_bytes().to_vec());
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                if random.u8(..) < 20 {
                    engine.checkpoint().unwrap();
                }
            }
            let mut read = engine.durable_snapshot().unwrap();
            let later: Vec<_> = (0..3_000).map(|key| (Table::CACHE, key, None)).collect();
            write(&engine, Durability::Sync, &later);
            if random.bool() {
                engine.checkpoint().unwrap();
            }
            assert_eq!(all(&mut read).unwrap(), model, "seed {seed}");
        }
    }

    #[test]
    fn pages_are_bounded_by_bytes_and_large_rows_come_one_by_one() {
        let engine = Engine::create_on(
            Arc::new(MemoryStorage::new()),
            EngineOptions { log_capacity: 16 << 20, ..options() },
        )
        .unwrap();
        for key in 0..12 {
            write(&engine, Durability::Sync, &[(Table::CACHE, key, Some(vec![1; 2 << 20]))]);
        }
        let mut read = engine.durable_snapshot().unwrap();
        let (mut from, mut seen) = (Bound::Unbounded, 0);
        loop {
            let to = Bound::Unbounded;
            let range =
                RowRange { table: Table::CACHE, from: from.as_ref().map(Vec::as_slice), to };
            let page = read.page(range, PageSize::of_rows(usize::MAX)).unwrap();
            assert!(page.rows.len() <= 1, "{} rows of 2 MiB in one page", page.rows.len());
            seen += page.rows.len();
            if page.rest == RestOfRange::Empty {
                break;
            }
            from = page.rows.into_iter().next_back().map_or(from, |(key, _)| Bound::Excluded(key));
        }
        assert_eq!(seen, 12);
    }

    #[test]
    fn what_is_read_is_durable_even_when_no_caller_asked_for_that() {
        let storage = Arc::new(SimStorage::new(1));
        let engine = Engine::create_on(storage.clone(), options()).unwrap();
        write(&engine, Durability::Os, &[(Table::CACHE, 1, Some(b"value".to_vec()))]);
        assert_eq!(engine.kernel().log().durable(), 0);
        let mut read = engine.durable_snapshot().unwrap();
        assert_eq!((read.lsn(), engine.kernel().log().durable()), (1, 1));
        assert_eq!(all(&mut read).unwrap().len(), 1);
    }

    #[test]
    fn of_a_poisoned_room_it_reads_what_is_durable() {
        let storage = Arc::new(SimStorage::new(1));
        let engine = Engine::create_on(storage.clone(), options()).unwrap();
        write(&engine, Durability::Sync, &[(Table::CACHE, 1, Some(b"kept".to_vec()))]);
        write(&engine, Durability::Os, &[(Table::CACHE, 1, Some(b"lost".to_vec()))]);
        storage.fail_call(CallKind::Sync, 0, Fault::Eio);
        storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        let mut read = engine.durable_snapshot().unwrap();
        assert!(engine.kernel().log().failure().is_some(), "the flush was to fail");
        assert_eq!(read.lsn(), 1);
        assert_eq!(all(&mut read).unwrap().into_values().collect::<Vec<_>>(), [b"kept".to_vec()]);
    }

    #[test]
    fn a_room_that_closes_meanwhile_ends_it() {
        let engine = Engine::create_on(Arc::new(MemoryStorage::new()), options()).unwrap();
        let mut read = engine.durable_snapshot().unwrap();
        engine.close().unwrap();
        assert!(matches!(all(&mut read), Err(Error::Closed)));
        assert!(matches!(engine.durable_snapshot(), Err(Error::Closed)));
    }
}
