//! Space that is given back, by itself and when the room closes.

use super::access::Writer;
use super::{CommitHook, Engine, EngineOptions, Threads};
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::error::Error;
use crate::storage::Storage;
use crate::storage::sim::SimStorage;
use crate::tables::Table;
use std::sync::Arc;

const TABLE: Table = Table::CACHE;
const ROWS: u32 = 3_000;
const MIB: u64 = 1 << 20;

fn options() -> EngineOptions {
    EngineOptions {
        tables: crate::stores::registry::catalogue(),
        log_capacity: 2 * MIB,
        cache_size: 4 << 20,
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

/// Rows of some KiB each, or their removal.
fn write_all(engine: &Engine, is_there: bool) {
    for numbers in (0..ROWS).collect::<Vec<_>>().chunks(50) {
        let written = engine.transact(Durability::Os, &[], |tx| {
            for number in numbers {
                let key = number.to_be_bytes();
                match is_there {
                    true => tx.put(TABLE, &key, vec![1; 8_000]),
                    false => tx.delete(TABLE, &key),
                }
            }
            Ok::<_, Error>(())
        });
        written.wait().unwrap();
    }
    engine.checkpoint().unwrap();
}

#[test]
fn what_a_reader_keeps_from_being_cut_is_cut_when_the_reader_is_gone() {
    let storage = SimStorage::new(1);
    let engine = Engine::create_on(Arc::new(storage.clone()), options()).unwrap();
    write_all(&engine, true);
    let reader = engine.kernel.btree().view();
    write_all(&engine, false);
    let compactor = engine.wiring.workers.compactor();
    // The first look only says that there will be something to do when the room is idle.
    for _ in 0..4 {
        assert!(compactor.compact_if_worthwhile().unwrap(), "it is to look again soon");
        assert!(storage.len().unwrap() > 20 * MIB);
    }
    assert_eq!(reader.row_count(TABLE).unwrap(), u64::from(ROWS));
    drop(reader);
    let mut looks = 0;
    while compactor.compact_if_worthwhile().unwrap() {
        looks += 1;
        assert!(looks < 10);
    }
    let len = storage.len().unwrap();
    assert!(len < 6 * MIB, "{len}");
    assert!(!compactor.compact_if_worthwhile().unwrap());
}

#[test]
fn a_room_that_closes_with_nothing_in_it_leaves_a_small_file() {
    let storage = SimStorage::new(1);
    let engine = Engine::create_on(Arc::new(storage.clone()), options()).unwrap();
    write_all(&engine, true);
    write_all(&engine, false);
    assert!(storage.len().unwrap() > 20 * MIB);
    engine.close().unwrap();
    let len = storage.len().unwrap();
    assert!(len < 6 * MIB, "{len}");
    let image = storage.process_crash_image();
    let storage = SimStorage::from_image(image, 1);
    let path = std::path::Path::new("(closed)");
    let engine = Engine::open_on(Arc::new(storage), path, options()).unwrap();
    assert_eq!(engine.kernel.btree().view().row_count(TABLE).unwrap(), 0);
}
