//! What a checkpoint moves into the B-tree, and what it leaves out.

use super::access::Writer;
use super::{CommitHook, Engine, EngineOptions, Threads};
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::error::Error;
use crate::limits::{MAX_QUEUED_LOG_BYTES, MIN_LOG_CAPACITY};
use crate::log::QueueShare;
use crate::storage::sim::{CallKind, Fault, SimStorage};
use crate::tables::{Table, Value};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const TABLE: Table = Table::CACHE;

pub(super) fn options() -> EngineOptions {
    EngineOptions {
        tables: crate::stores::registry::catalogue(),
        log_capacity: MIN_LOG_CAPACITY,
        cache_size: 1 << 20,
        clock: Arc::new(ManualClock::new(0)),
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

pub(super) fn write(engine: &Engine, key: &[u8], value: Option<&[u8]>) {
    let written = engine.transact(Durability::Os, &[], |tx| {
        match value {
            Some(value) => tx.put(TABLE, key, value.to_vec()),
            None => tx.delete(TABLE, key),
        }
        Ok::<_, Error>(())
    });
    // What is not waited for is in the log's buffer only.
    drop(written);
}

fn in_btree(engine: &Engine, key: &[u8]) -> Option<Value> {
    engine.kernel.btree().view().get(TABLE, key, u64::MAX).unwrap()
}

fn in_room(engine: &Engine, key: &[u8]) -> Option<Value> {
    use super::access::Reader;
    engine.read(Durability::Os, |rows| rows.get(TABLE, key)).wait().unwrap()
}

/// A room whose frozen rows are `gone`, `changed` and `kept`, the first two of which are removed
/// and changed since.
fn room_with_frozen_rows(storage: &SimStorage) -> Engine {
    let engine = Engine::create_on(Arc::new(storage.clone()), options()).unwrap();
    for key in ["gone", "changed", "kept"] {
        write(&engine, key.as_bytes(), Some(b"old"));
    }
    let mut filler = 0_u32;
    while engine.kernel.log().spare_is_free() {
        write(&engine, &filler.to_be_bytes(), Some(&[1; 500]));
        filler += 1;
    }
    write(&engine, b"gone", None);
    write(&engine, b"changed", Some(b"new"));
    engine
}

#[test]
fn a_checkpoint_leaves_out_what_was_removed_or_changed_since() {
    let engine = room_with_frozen_rows(&SimStorage::new(1));
    engine.kernel.run_checkpoint().unwrap();
    assert_eq!(in_btree(&engine, b"kept").as_deref(), Some(&b"old"[..]));
    assert_eq!((in_btree(&engine, b"gone"), in_btree(&engine, b"changed")), (None, None));
    assert_eq!(in_room(&engine, b"kept").as_deref(), Some(&b"old"[..]));
    assert_eq!(in_room(&engine, b"gone"), None);
    assert_eq!(in_room(&engine, b"changed").as_deref(), Some(&b"new"[..]));
    // The newer versions are in the log for good, because the B-tree was committed without the
    // older ones.
    assert_eq!(engine.kernel.log().durable(), engine.kernel.log().appended());
    engine.checkpoint().unwrap();
    assert_eq!(in_btree(&engine, b"changed").as_deref(), Some(&b"new"[..]));
}

/// A room with a thread for checkpoints, whose callers wait for space in the log for so long.
fn room_that_waits(log_stall: Duration) -> Engine {
    let options = EngineOptions { threads: Threads::Background, log_stall, ..options() };
    Engine::create_on(Arc::new(SimStorage::new(1)), options).unwrap()
}

/// Writes new rows from this number on until the log is full for one, and answers its number, how
/// long it has waited, and whether it was applied.
fn write_until_full(engine: &Engine, from: u32) -> (u32, Duration, bool) {
    for number in from..from + 10_000 {
        let written = engine.transact(Durability::Os, &[], |tx| {
            tx.put(TABLE, &number.to_be_bytes(), vec![1; 500]);
            Ok::<_, Error>(())
        });
        match written.wait() {
            Ok(()) => {}
            Err(Error::LogFull { waited, is_applied, .. }) => {
                return (number, waited, is_applied);
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the log was never full");
}

#[test]
fn an_answer_waits_for_a_checkpoint_as_long_as_log_stall_says_and_the_write_stays() {
    for log_stall in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(20)] {
        let engine = room_that_waits(log_stall);
        let held = engine.hold_checkpoints();
        for refusal in 1..=2_u32 {
            let (number, waited, is_applied) = write_until_full(&engine, refusal * 10_000);
            assert!(waited >= log_stall, "{waited:?} of {log_stall:?}");
            assert_eq!(engine.stats().unwrap().stalls, u64::from(refusal));
            // Where no one may wait nothing is kept for later.
            assert_eq!(is_applied, !log_stall.is_zero());
            assert_eq!(in_room(&engine, &number.to_be_bytes()).is_some(), is_applied, "{number}");
        }
        drop(held);
        engine.checkpoint().unwrap();
        write(&engine, b"later", Some(b"new"));
        assert_eq!(in_room(&engine, b"later").as_deref(), Some(&b"new"[..]));
        engine.close().unwrap();
    }
}

#[test]
fn a_write_that_may_wait_for_ever_waits_until_the_checkpoint_is_done() {
    let engine = room_that_waits(Duration::MAX);
    let held = engine.hold_checkpoints();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..200_u32 {
                let written = engine.transact(Durability::Os, &[], |tx| {
                    tx.put(TABLE, &number.to_be_bytes(), vec![1; 500]);
                    Ok::<_, Error>(())
                });
                written.wait().unwrap();
            }
        });
        while engine.stats().unwrap().stalls == 0 {
            assert!(!writer.is_finished(), "the log was never full");
            thread::yield_now();
        }
        drop(held);
        writer.join().unwrap();
    });
    assert!(in_room(&engine, &199_u32.to_be_bytes()).is_some());
}

#[test]
fn a_crash_after_such_a_checkpoint_loses_no_version() {
    for seed in 0..20 {
        let storage = SimStorage::new(seed);
        let engine = room_with_frozen_rows(&storage);
        engine.kernel.run_checkpoint().unwrap();
        let image = storage.crash_image(seed);
        drop(engine);
        let path = std::path::Path::new("(crashed)");
        let engine =
            Engine::open_on(Arc::new(SimStorage::from_image(image, seed)), path, options())
                .unwrap();
        assert_eq!(in_room(&engine, b"kept").as_deref(), Some(&b"old"[..]), "{seed}");
        assert_eq!(in_room(&engine, b"gone"), None, "{seed}");
        assert_eq!(in_room(&engine, b"changed").as_deref(), Some(&b"new"[..]), "{seed}");
    }
}

#[test]
fn steps_of_a_change_leave_half_of_what_can_be_queued_to_others() {
    let half = MAX_QUEUED_LOG_BYTES / 2;
    let engine = room_that_waits(Duration::from_secs(60));
    let may_take = |bytes: u64| engine.has_space_for_step(usize::try_from(bytes).unwrap());
    assert!(may_take(2 * half), "nothing is queued");
    let held = engine.hold_checkpoints();
    let (log, mut number) = (engine.kernel.log(), 0_u32);
    while log.queued_bytes(QueueShare::Callers) == 0 {
        write(&engine, &number.to_be_bytes(), Some(&[1; 500]));
        number += 1;
    }
    let queued = log.queued_bytes(QueueShare::Callers);
    assert!(may_take(0) && may_take(half - queued));
    assert!(!may_take(half - queued + 1) && !may_take(2 * half));
    drop(held);
}

#[test]
fn what_a_durable_read_has_seen_is_durable() {
    use super::access::Reader;
    for in_transaction in [false, true] {
        let engine = Engine::create_on(Arc::new(SimStorage::new(1)), options()).unwrap();
        let log = engine.kernel.log();
        for key in [b"one", b"two"] {
            write(&engine, key, Some(b"value"));
            assert!(log.durable() < log.appended());
            let unseen = engine.read(Durability::Sync, |rows| rows.get(TABLE, b"none"));
            assert_eq!(unseen.wait().unwrap(), None);
            assert!(log.durable() < log.appended(), "it has seen none of it");
            let seen = if in_transaction {
                engine.transact(Durability::Sync, &[], |tx| tx.get(TABLE, key)).wait()
            } else {
                engine.read(Durability::Sync, |rows| rows.get(TABLE, key)).wait()
            };
            assert!(seen.unwrap().is_some());
            assert_eq!(log.durable(), log.appended());
        }
    }
}

#[test]
fn a_page_of_removed_rows_hides_none_behind_them() {
    use super::access::{PageSize, Reader, RestOfRange, RowRange};
    use std::ops::Bound;
    let engine = Engine::create_on(Arc::new(SimStorage::new(1)), options()).unwrap();
    for key in 1..=5_u8 {
        write(&engine, &[key], Some(&[1; 2_000]));
    }
    engine.checkpoint().unwrap();
    for key in 1..=3_u8 {
        write(&engine, &[key], None);
    }
    write(&engine, &[9], Some(b"in memory"));
    let found = engine.read(Durability::Os, |rows| {
        let (mut found, mut from) = (Vec::new(), Bound::Unbounded);
        loop {
            let range = RowRange {
                table: TABLE,
                from: from.as_ref().map(|key: &Vec<u8>| key.as_slice()),
                to: Bound::Unbounded,
            };
            // It holds fewer bytes than two of the rows have, and more rows than there are.
            let page = rows.page(range, PageSize::of_rows(4))?;
            found.extend(page.rows.iter().map(|(key, _)| key.to_vec()));
            from = match page.rest {
                RestOfRange::Empty => return Ok::<_, Error>(found),
                RestOfRange::BehindLastRow => Bound::Excluded(found.last().unwrap().clone()),
                RestOfRange::Behind(key) => Bound::Excluded(key),
            };
        }
    });
    assert_eq!(found.wait().unwrap(), [vec![4], vec![5], vec![9]]);
}

#[test]
fn closing_says_so_when_what_is_queued_cannot_be_written() {
    let storage = SimStorage::new(1);
    let options = EngineOptions { threads: Threads::Background, ..options() };
    let engine = Engine::create_on(Arc::new(storage.clone()), options).unwrap();
    let held = engine.hold_checkpoints();
    let (log, mut number) = (engine.kernel.log(), 0_u32);
    while log.queued_bytes(QueueShare::Callers) == 0 {
        write(&engine, &number.to_be_bytes(), Some(&[1; 500]));
        number += 1;
    }
    // The log is written with durable writes, so that only checkpoints find the disk full.
    (0..10_000).for_each(|_| storage.fail_call(CallKind::Sync, 0, Fault::Enospc));
    drop(held);
    let closed = engine.close();
    assert!(matches!(closed, Err(Error::DiskFull { .. })), "{closed:?}");
}
