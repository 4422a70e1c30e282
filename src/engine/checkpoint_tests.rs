//! What a checkpoint moves into the B-tree, and what it leaves out.

use super::access::Writer;
use super::{CommitHook, Engine, EngineOptions, Threads};
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::error::Error;
use crate::limits::MIN_LOG_CAPACITY;
use crate::storage::sim::SimStorage;
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
