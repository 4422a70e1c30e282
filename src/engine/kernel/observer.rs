//! The one hook on the end of a transaction.
//!
//! Everything that follows the changes of a room is a [`CommitObserver`]: the row waits, the change
//! feed, and what the stores keep in memory about their rows.
//!
//! # What an observer may rely on
//! 1. It is told of every transaction that wrote something, in the order of the log, and of nothing
//!    else: a dry run and a read are never shown.
//! 2. It is told under the serial lock, after the rows are visible to readers and before the next
//!    transaction is decided. So between two calls of [`CommitObserver::committed`] nothing has
//!    changed that it does not know of.
//! 3. For each transaction that ends while somebody holds the [`Interest`], `committed`,
//!    [`CommitObserver::unchanged`] or [`CommitObserver::aborted`] is called, the last also when
//!    the operation panicked.
//!
//! # What a transaction pays for it
//! One relaxed load while the interest is not held.

use super::staged::{Changes, Staged, Unseen};
use super::time_line::Moment;
use crate::pending::Event;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::tables::{Table, Value};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

/// What a transaction wrote.
#[derive(Clone, Copy)]
pub(crate) struct CommittedRows<'a> {
    staged: &'a Staged,
    changes: &'a Changes,
    unseen: &'a Unseen,
    /// The position of the transaction.
    pub(crate) lsn: u64,
    /// The room's time when it was decided.
    pub(crate) moment: &'a Moment,
}

impl<'a> CommittedRows<'a> {
    pub(super) fn new(
        (staged, changes, unseen): (&'a Staged, &'a Changes, &'a Unseen),
        lsn: u64,
        moment: &'a Moment,
    ) -> Self {
        Self { staged, changes, unseen, lsn, moment }
    }

    /// Whether the row changed and nothing of an entry did.
    pub(crate) fn is_unseen(self, table: Table, key: &[u8]) -> bool {
        !self.unseen.is_empty() && self.unseen.contains(&(table, key.to_vec()))
    }

    /// Every changed row by table and key, once, as the transaction left it; `None` when it was
    /// removed.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Table, &'a [u8], Option<&'a Value>)> {
        self.staged.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_ref()))
    }

    /// What the transaction did to one row: nothing, or else what it is now.
    pub(crate) fn get(self, table: Table, key: &[u8]) -> Option<Option<&'a Value>> {
        self.staged.get(&(table, key.to_vec())).map(Option::as_ref)
    }

    /// Every change of a row that can be waited for ([`Table::is_waited_for`]), in order, also one
    /// that the transaction overwrote itself.
    pub(crate) fn waited_for(
        self,
    ) -> impl Iterator<Item = (&'a (Table, Vec<u8>), Option<&'a Value>)> {
        self.changes.iter().map(|(at, value)| (at, value.as_ref()))
    }
}

/// Something that follows the transactions of a room. See the module.
///
/// Every method but `failed` and `closed` is called under the serial lock: it must be short, wake
/// no one, and call nothing of others. What is to be woken is returned, and woken when no lock is
/// held, because a waker may run anything.
pub(crate) trait CommitObserver: fmt::Debug + Send + Sync {
    /// The transaction under way has written `rows`, and they are visible.
    fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup>;

    /// The transaction under way has ended well and staged nothing.
    fn unchanged(&self) {}

    /// The transaction under way has changed nothing, because its operation failed or the log
    /// refused it.
    fn aborted(&self) {}

    /// The log has failed, so what is not durable may never be. May be called more than once, and
    /// without the serial lock.
    fn failed(&self) -> Vec<Wakeup> {
        Vec::new()
    }

    /// The room was closed: no transaction comes any more. Called without the serial lock.
    fn closed(&self) -> Vec<Wakeup> {
        Vec::new()
    }
}

/// Somebody who waits and is to be woken when no lock is held.
#[derive(Debug)]
pub(crate) enum Wakeup {
    /// A task that is to poll again.
    Task(Waker),
    /// The waiter for an event that was decided.
    Event(Arc<Event>),
}

impl Wakeup {
    /// Wakes the waiter. The caller holds no lock.
    pub(crate) fn wake(self) {
        match self {
            Wakeup::Task(waker) => waker.wake(),
            Wakeup::Event(event) => event.announce(),
        }
    }
}

/// Whether anybody wants transactions to be shown to the observers of a room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interest {
    holders: Arc<AtomicUsize>,
}

impl Interest {
    /// Has transactions shown for as long as the answer is kept. To miss none, the caller holds the
    /// serial lock, or is the operation of a transaction, which is the first one to be shown.
    pub(crate) fn hold(&self) -> HeldInterest {
        // Relaxed, because a transaction that looks has had the serial lock after this.
        self.holders.fetch_add(1, Ordering::Relaxed);
        HeldInterest { of: self.clone() }
    }

    fn is_held(&self) -> bool {
        self.holders.load(Ordering::Relaxed) > 0
    }
}

/// One reason to show transactions to the observers.
#[derive(Debug)]
pub(crate) struct HeldInterest {
    of: Interest,
}

impl Drop for HeldInterest {
    fn drop(&mut self) {
        self.of.holders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The observers of a room, in the order in which they are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitHook {
    interest: Interest,
    observers: Vec<Arc<dyn CommitObserver>>,
}

impl CommitHook {
    /// A hook with one observer, shown transactions while somebody holds `interest`.
    pub(crate) fn new(interest: Interest, observer: Arc<dyn CommitObserver>) -> Self {
        Self { interest, observers: vec![observer] }
    }

    /// The interest that observers hold to be shown transactions.
    pub(in crate::engine) fn interest(&self) -> Interest {
        self.interest.clone()
    }

    pub(in crate::engine) fn add(&mut self, observer: Arc<dyn CommitObserver>) {
        self.observers.push(observer);
    }

    /// Whether a transaction must be shown. The caller holds the serial lock.
    pub(super) fn is_observed(&self) -> bool {
        self.interest.is_held()
    }

    /// Shows a transaction. The caller holds the serial lock, and wakes who is returned when it
    /// holds no lock.
    #[cold]
    pub(super) fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup> {
        self.observers.iter().flat_map(|observer| observer.committed(rows)).collect()
    }

    #[cold]
    fn unchanged(&self) {
        self.observers.iter().for_each(|observer| observer.unchanged());
    }

    #[cold]
    fn aborted(&self) {
        self.observers.iter().for_each(|observer| observer.aborted());
    }

    /// Tells that the log has failed. The caller holds no lock.
    pub(super) fn failed(&self) {
        self.observers.iter().flat_map(|observer| observer.failed()).for_each(Wakeup::wake);
    }

    /// Tells that the room was closed. The caller holds no lock.
    pub(super) fn closed(&self) {
        self.observers.iter().flat_map(|observer| observer.closed()).for_each(Wakeup::wake);
    }

    /// A transaction that counts as aborted unless it says that it was committed.
    pub(super) fn transaction(&self) -> UnderWay<'_> {
        UnderWay { hook: self }
    }
}

/// A transaction under way: tells the observers of its end when it is dropped without having been
/// committed, by an error or a panic.
pub(super) struct UnderWay<'a> {
    hook: &'a CommitHook,
}

impl UnderWay<'_> {
    /// The transaction has ended well and staged nothing.
    pub(super) fn unchanged(self) {
        if self.hook.is_observed() {
            self.hook.unchanged();
        }
        std::mem::forget(self);
    }

    /// The transaction was committed, and is shown by the caller.
    pub(super) fn committed(self) {
        std::mem::forget(self);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.hook.is_observed() {
            self.hook.aborted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::Durability;
    use crate::engine::access::Writer;
    use crate::engine::{Engine, EngineOptions, Threads};
    use crate::error::Error;
    use crate::storage::MemoryStorage;
    use crate::sync::plain::Mutex;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    type Seen = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

    #[derive(Debug, PartialEq)]
    enum Told {
        Committed { lsn: u64, now_ms: u64, rows: Seen, changes: Seen },
        Unchanged,
        Aborted,
        Closed,
    }

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<Told>>);

    impl Notes {
        fn take(&self) -> Vec<Told> {
            std::mem::take(&mut self.0.lock())
        }
    }

    impl CommitObserver for Notes {
        fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup> {
            let bytes = |value: Option<&Value>| value.map(|value| value.to_vec());
            let changes = rows
                .waited_for()
                .map(|((table, key), value)| (*table, key.clone(), bytes(value)))
                .collect();
            let CommittedRows { lsn, moment, .. } = rows;
            let now_ms = moment.wall_ms();
            let rows = rows.iter().map(|(table, key, value)| (table, key.to_vec(), bytes(value)));
            self.0.lock().push(Told::Committed { lsn, now_ms, rows: rows.collect(), changes });
            Vec::new()
        }

        fn unchanged(&self) {
            self.0.lock().push(Told::Unchanged);
        }

        fn aborted(&self) {
            self.0.lock().push(Told::Aborted);
        }

        fn closed(&self) -> Vec<Wakeup> {
            self.0.lock().push(Told::Closed);
            Vec::new()
        }
    }

    fn engine(interest: &Interest, notes: &Arc<Notes>) -> Engine {
        let options = EngineOptions {
            tables: crate::stores::registry::catalogue(),
            log_capacity: 1 << 20,
            cache_size: 1 << 20,
            clock: Arc::new(crate::clock::ManualClock::new(77)),
            leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
            newest_epoch: |_| Ok(None),
            threads: Threads::None,
            maintenance: None,
            read_only: false,
            log_stall: crate::limits::DEFAULT_LOG_STALL,
            migrations: &[],
            hook: CommitHook::new(interest.clone(), Arc::clone(notes) as _),
        };
        Engine::create_on(Arc::new(MemoryStorage::new()), options).unwrap()
    }

    fn put(engine: &Engine, values: &[u8], fails: bool) -> Result<(), Error> {
        let answer = engine.transact(Durability::Sync, &[], |tx| {
            for value in values {
                tx.put(Table::DEDUPE_JOB, b"job", vec![*value]);
                tx.put(Table::CACHE, b"entry", vec![*value]);
            }
            if fails { Err(Error::AlreadyExists) } else { Ok(()) }
        });
        answer.wait()
    }

    #[test]
    fn each_transaction_is_told_of_once_and_every_change_of_a_waited_for_row() {
        let (interest, notes) = (Interest::default(), Arc::new(Notes::default()));
        let engine = engine(&interest, &notes);
        put(&engine, &[1], false).unwrap();
        assert_eq!(notes.take(), [], "no one was interested");
        let held = interest.hold();
        put(&engine, &[2, 3], false).unwrap();
        let job = |value| (Table::DEDUPE_JOB, b"job".to_vec(), Some(vec![value]));
        let entry = (Table::CACHE, b"entry".to_vec(), Some(vec![3]));
        let [Told::Committed { lsn: 2, now_ms: 77, rows, changes }] = &notes.take()[..] else {
            panic!("one transaction was committed")
        };
        assert_eq!(*changes, [job(2), job(3)]);
        assert_eq!(rows.len(), 2);
        assert!(rows.contains(&job(3)) && rows.contains(&entry));
        drop(held);
        put(&engine, &[4], false).unwrap();
        assert_eq!(notes.take(), []);
    }

    #[test]
    fn what_is_not_kept_is_aborted_and_what_only_looks_is_not_told_of() {
        let (interest, notes) = (Interest::default(), Arc::new(Notes::default()));
        let engine = engine(&interest, &notes);
        let held = interest.hold();
        put(&engine, &[1], true).unwrap_err();
        assert_eq!(notes.take(), [Told::Aborted]);
        put(&engine, &[], false).unwrap();
        assert_eq!(notes.take(), [Told::Unchanged]);
        let too_large = engine.transact(Durability::Sync, &[], |tx| {
            tx.put(Table::CACHE, b"entry", vec![0; 1 << 20]);
            Ok::<_, Error>(())
        });
        assert!(matches!(too_large.wait(), Err(Error::TooLarge { .. })));
        assert_eq!(notes.take(), [Told::Aborted]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            drop(engine.transact::<(), Error>(Durability::Sync, &[], |_| panic!("as planned")));
        }));
        assert!(panicked.is_err());
        assert_eq!(notes.take(), [Told::Aborted]);
        engine.read(Durability::Os, |_| Ok::<_, Error>(())).wait().unwrap();
        assert_eq!(notes.take(), []);
        drop(held);
        engine.close().unwrap();
        assert_eq!(notes.take(), [Told::Closed]);
    }
}
