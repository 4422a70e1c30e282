//! The whole engine in random interleavings: answers and their wakers, the switch of segments and
//! memtables, waits for rows, the feed, and work that no caller waits for.
//!
//! The storage and the B-tree below are the real ones; each call into them is one step.

use super::access::{Reader, Writer};
use super::*;
use crate::clock::ManualClock;
use crate::limits::MIN_LOG_CAPACITY;
use crate::storage::MemoryStorage;
use crate::stores::registry::catalogue;
use crate::sync::explore::{block_on, sampled};
use crate::sync::thread::{self, JoinHandle};
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

const KEY: &[u8] = b"key";

/// An engine on an empty room.
fn engine(threads: Threads, hook: CommitHook) -> Engine {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    let options = EngineOptions {
        tables: catalogue(),
        log_capacity: MIN_LOG_CAPACITY,
        cache_size: 1 << 20,
        clock: Arc::new(ManualClock::new(77)),
        leap_hold: super::time_line::DEFAULT_LEAP_HOLD,
        newest_epoch: |_| Ok(None),
        threads,
        maintenance: None,
        read_only: false,
        log_stall: crate::limits::DEFAULT_LOG_STALL,
        migrations: &[],
        hook,
    };
    let image = EMPTY.get_or_init(|| {
        let empty: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        options.format(Arc::clone(&empty)).unwrap();
        let len = usize::try_from(empty.len().unwrap()).unwrap();
        empty.view(0, len).unwrap().to_vec()
    });
    let storage = Arc::new(MemoryStorage::from(image.clone()));
    Engine::open_on(storage, Path::new("(in memory)"), options).unwrap()
}

fn start(engine: &Engine, work: impl FnOnce(&Engine) + Send + 'static) -> JoinHandle<()> {
    let engine = engine.clone();
    thread::spawn(move || work(&engine))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Writes `value` to two rows. A segment of the log holds three such frames.
fn put(engine: &Engine, value: u8) -> Pending<()> {
    engine.transact(Durability::Sync, &[], |tx| {
        tx.put(Table::CACHE, KEY, vec![value; 6_000]);
        tx.put(Table::DEDUPE_JOB, KEY, vec![value]);
        Ok(())
    })
}

/// Reads the two rows: both at one position.
fn get(engine: &Engine) -> Option<u8> {
    let read = engine.read(Durability::Sync, |rows| {
        let first = rows.get(Table::CACHE, KEY)?.map(|value| value[0]);
        let second = rows.get(Table::DEDUPE_JOB, KEY)?.map(|value| value[0]);
        assert_eq!(first, second, "half of a transaction");
        Ok::<_, Error>(first)
    });
    read.wait().unwrap()
}

/// Waits as a task does.
fn await_task<T>(pending: Pending<T>) -> Result<T> {
    let mut pending = pin!(pending);
    block_on(|waker| match pending.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    })
}

/// Waits until the row of the job is at least `value`.
fn await_value(engine: &Engine, value: u8) -> Pending<Option<u8>> {
    let reached = move |row: Option<&Value>| row.filter(|row| row[0] >= value).cloned();
    let look = move |rows: &mut Snapshot| {
        let row = rows.get(Table::DEDUPE_JOB, KEY)?;
        Ok(match reached(row.as_ref()) {
            Some(row) => Found::Now(Some(row[0])),
            None => Found::Later(Arc::new(move |row| reached(row).map(Some)), None),
        })
    };
    let finish = |row: Option<Value>| Ok(row.map(|row| row[0]));
    engine.await_row(Durability::Sync, Table::DEDUPE_JOB, KEY, look, finish)
}

fn is_durable(engine: &Engine, lsn: u64) -> bool {
    engine.kernel().log().durable() >= lsn
}

#[test]
fn threads_and_tasks_are_answered_when_their_frames_are_durable() {
    sampled(500, || {
        let engine = engine(Threads::None, CommitHook::default());
        let task = start(&engine, |engine| await_task(put(engine, 1)).unwrap());
        let thread = start(&engine, |engine| put(engine, 2).wait().unwrap());
        let changing = start(&engine, |engine| {
            let mut pending = put(engine, 3);
            // Polled by a task that goes away, then waited for by a thread.
            let polled = pin!(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
            if polled.is_pending() {
                pending.wait().unwrap();
            }
        });
        let forgotten = start(&engine, |engine| {
            let mut pending = put(engine, 4);
            let _ = pin!(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
        });
        join([task, thread, changing, forgotten]);
        engine.flush::<Error>().wait().unwrap();
        assert!(is_durable(&engine, 4));
    });
}

#[test]
fn no_reader_sees_half_of_a_frame_or_an_older_one_while_segments_and_memtables_change_places() {
    sampled(400, || {
        let engine = engine(Threads::None, CommitHook::default());
        let writer = start(&engine, |engine| {
            for value in 1..=8 {
                put(engine, value).wait().unwrap();
            }
        });
        let checkpoints = start(&engine, |engine| {
            for _ in 0..2 {
                engine.checkpoint().unwrap();
            }
        });
        let reader = start(&engine, |engine| {
            let mut newest = None;
            for _ in 0..4 {
                let value = get(engine);
                assert!(value >= newest, "{value:?} after {newest:?}");
                newest = value;
            }
        });
        join([writer, checkpoints, reader]);
        assert_eq!(get(&engine), Some(8));
        engine.checkpoint().unwrap();
        assert_eq!(get(&engine), Some(8));
    });
}

#[test]
fn who_waits_for_a_row_is_told_of_the_transaction_that_changed_it() {
    sampled(500, || {
        let engine = engine(Threads::None, CommitHook::default());
        let thread = start(&engine, |engine| {
            let seen = await_value(engine, 2).wait().unwrap();
            assert_eq!(seen, Some(2));
            assert!(is_durable(engine, 2), "it depends on the frame that it saw");
        });
        let task = start(&engine, |engine| {
            let seen = await_task(await_value(engine, 1)).unwrap();
            assert!(seen == Some(1) || seen == Some(2), "{seen:?}");
        });
        let forgotten = start(&engine, |engine| drop(await_value(engine, 2)));
        // No caller waits for these, so the waiters make them durable.
        drop(put(&engine, 1));
        drop(put(&engine, 2));
        join([thread, task, forgotten]);
        assert_eq!(engine.waiters(Table::DEDUPE_JOB, &[], None), 0);
    });
}

#[test]
fn closing_answers_who_waits_for_a_row() {
    sampled(400, || {
        let engine = engine(Threads::None, CommitHook::default());
        let waiters = [
            start(&engine, |engine| match await_value(engine, 1).wait() {
                Ok(seen) => assert!(seen.is_none() || seen == Some(1), "{seen:?}"),
                Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
            }),
            start(&engine, |engine| match await_task(await_value(engine, 1)) {
                Ok(seen) => assert!(seen.is_none() || seen == Some(1), "{seen:?}"),
                Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
            }),
        ];
        let writer = start(&engine, |engine| drop(put(engine, 1)));
        engine.close().unwrap();
        join(waiters.into_iter().chain([writer]));
    });
}

#[test]
fn a_watcher_is_given_every_transaction_once_in_order_and_when_it_is_durable() {
    sampled(500, || {
        let interest = Interest::default();
        let feed = Arc::new(Feed::new(interest.clone()));
        let engine = engine(Threads::None, CommitHook::new(interest, Arc::clone(&feed) as _));
        let select = |rows: CommittedRows<'_>| {
            rows.get(Table::DEDUPE_JOB, KEY).flatten().map(|row| row[0]).into_iter().collect()
        };
        let mut watch = engine.subscribe(&feed, Box::new(select), 8).unwrap();
        let watcher = start(&engine, move |engine| {
            for lsn in 1..=3 {
                let next = block_on(|waker| match watch.poll_next(waker) {
                    Poll::Ready(next) => Some(next),
                    Poll::Pending => None,
                });
                let shown = next.unwrap_or_else(|none| panic!("{none:?}"));
                assert_eq!((shown.lsn, shown.items.len()), (lsn, 1));
                assert!(is_durable(engine, lsn), "a crash can take it away");
            }
        });
        let task = start(&engine, |engine| await_task(put(engine, 1)).unwrap());
        // Of these only the watcher asks.
        let silent = start(&engine, |engine| {
            drop(put(engine, 2));
            drop(put(engine, 3));
        });
        join([watcher, task, silent]);
    });
}

#[test]
fn what_no_caller_waits_for_becomes_durable_and_full_segments_are_moved_by_the_workers() {
    sampled(200, || {
        let engine = engine(Threads::Background, CommitHook::default());
        let writer = start(&engine, |engine| {
            for value in 1..=8 {
                // In a model the patience with a full log is over once the others have gone on: a
                // third of the schedules refuse a value, which no one would make durable then.
                while engine.kernel().log().appended() < u64::from(value) {
                    drop(put(engine, value));
                }
            }
        });
        join([writer]);
        // Ends under every scheduler: what it yields to are workers that have something to do.
        while !is_durable(&engine, 8) {
            thread::yield_now();
        }
        assert_eq!(get(&engine), Some(8));
        engine.close().unwrap();
    });
}

#[test]
fn what_is_queued_is_visible_at_once_and_answered_when_a_segment_was_freed() {
    sampled(200, || {
        let engine = engine(Threads::Background, CommitHook::default());
        // Three fill a segment.
        let pending = (1..=8).map(|value| put(&engine, value)).collect::<Vec<_>>();
        let seen = engine.read(Durability::Os, |rows| rows.get(Table::CACHE, KEY));
        assert_eq!(seen.wait().unwrap().map(|value| value[0]), Some(8));
        let waiters = (1..=8).zip(pending).skip(4).map(|(lsn, pending)| {
            start(&engine, move |engine| {
                match if lsn % 2 == 0 { await_task(pending) } else { pending.wait() } {
                    Ok(()) => assert!(is_durable(engine, lsn), "a crash can take it away"),
                    // In a model the patience with a full log is over once the others have gone on.
                    Err(Error::LogFull { is_applied: true, .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        });
        join(waiters.collect::<Vec<_>>());
        while !is_durable(&engine, 8) {
            thread::yield_now();
        }
        assert_eq!(get(&engine), Some(8));
        engine.close().unwrap();
    });
}
