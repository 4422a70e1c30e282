//! What an opening writes before it answers, and what it leaves alone.

use super::super::format::layout_of;
use super::super::recovered_image::RecoveredImage;
use crate::durability::Durability;
use crate::engine::access::{Reader, Writer};
use crate::engine::checkpoint_tests::options as small_options;
use crate::engine::{Engine, EngineOptions};
use crate::error::{Error, Result};
use crate::log::growth::with_least_log_space;
use crate::storage::Storage;
use crate::storage::recording::{Change, Recording};
use crate::storage::sim::{CallKind, Fault, SimStorage};
use crate::tables::Table;
use std::path::Path;
use std::sync::Arc;

const TABLE: Table = Table::CACHE;
const LEAST: u64 = 64 << 10;
const SEGMENT: u64 = 512 << 10;

fn options() -> EngineOptions {
    EngineOptions { log_capacity: 2 * SEGMENT, ..small_options() }
}

fn open_with(storage: Arc<dyn Storage>, least: u64, options: EngineOptions) -> Result<Engine> {
    with_least_log_space(least, || Engine::open_on(storage, Path::new("(simulated)"), options))
}

fn open(storage: &SimStorage) -> Result<Engine> {
    open_with(Arc::new(storage.clone()), LEAST, options())
}

fn create(storage: &SimStorage) -> Engine {
    with_least_log_space(LEAST, || Engine::create_on(Arc::new(storage.clone()), options()).unwrap())
}

fn write(engine: &Engine, key: &[u8], value: Vec<u8>) -> Result<()> {
    let written = engine.transact(Durability::Sync, &[], |tx| {
        tx.put(TABLE, key, value);
        Ok::<_, Error>(())
    });
    written.wait()
}

fn has(engine: &Engine, key: &[u8]) -> bool {
    engine.read(Durability::Sync, |rows| rows.get(TABLE, key)).wait().unwrap().is_some()
}

/// Writes rows until the log goes on in its other segment.
fn fill_segment(engine: &Engine) {
    for key in 0..1_000_u32 {
        if !engine.kernel().log().spare_is_free() {
            return;
        }
        write(engine, &key.to_be_bytes(), vec![1; 4_000]).unwrap();
    }
    panic!("the segment has not been left");
}

/// What an opening does with the space of the log, and where the segments begin.
fn space_taken(image: Vec<u8>, least: u64) -> (Vec<Change>, [u64; 2]) {
    let storage = Recording::new(SimStorage::from_image(image, 1));
    let engine = open_with(Arc::clone(&storage) as _, least, options()).unwrap();
    let layout = layout_of(engine.kernel().superblock());
    assert_eq!(layout.segment_size, SEGMENT);
    let of_space = |change: &Change| !matches!(change, Change::Write(..));
    let changes = storage.changes().into_iter().filter(of_space).collect();
    (changes, [0, 1].map(|index| layout.segment_offset(index)))
}

#[test]
fn each_segment_gets_the_space_that_it_begins_with_and_gives_the_rest_back() {
    use Change::{FillHoles, Release};
    let storage = SimStorage::new(1);
    let engine = create(&storage);
    let empty = storage.process_crash_image();
    let (changes, [first, second]) = space_taken(empty.clone(), LEAST);
    assert_eq!(
        changes,
        [
            FillHoles(first, LEAST),
            Release(first + LEAST, SEGMENT - LEAST),
            FillHoles(second, LEAST),
            Release(second + LEAST, SEGMENT - LEAST),
        ]
    );
    let (changes, _) = space_taken(empty, SEGMENT);
    assert_eq!(changes, [FillHoles(first, SEGMENT), FillHoles(second, SEGMENT)]);

    // One segment has frames that are not in the B-tree, and the other one more than that space.
    fill_segment(&engine);
    write(&engine, b"large", vec![2; 100_000]).unwrap();
    let (changes, _) = space_taken(storage.process_crash_image(), LEAST);
    let mut spaces = Vec::new();
    for change in changes {
        match change {
            FillHoles(at, len) => spaces.push((at, len, None)),
            Release(at, len) => {
                let space = spaces.last_mut().unwrap();
                assert_eq!(at, space.0 + space.1);
                space.2 = Some(len);
            }
            Change::Write(..) => {}
        }
    }
    let active = engine.kernel().log().active_space();
    assert!(active > 100_000, "{active}");
    let frozen_at = spaces.iter().position(|space| space.2.is_none()).unwrap();
    let mut expected = [first, second].map(|at| (at, active, Some(SEGMENT - active)));
    expected[frozen_at] = ([first, second][frozen_at], LEAST, None);
    assert_eq!(spaces, expected);
}

#[test]
fn what_a_failed_flush_left_is_on_the_disk_before_an_opening_answers() {
    let storage = SimStorage::new(1);
    let engine = create(&storage);
    write(&engine, b"durable", vec![1; 10]).unwrap();
    // The system shows what it could not write as if it were on the disk.
    storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    write(&engine, b"in limbo", vec![2; 10]).unwrap_err();
    drop(engine);
    let engine = open(&storage).unwrap();
    assert!(has(&engine, b"durable") && has(&engine, b"in limbo"));
    let after_power_failure = SimStorage::from_image(storage.crash_image(0), 1);
    let engine = open(&after_power_failure).unwrap();
    assert!(has(&engine, b"durable") && has(&engine, b"in limbo"));
}

#[test]
fn a_header_that_a_failed_flush_left_is_on_the_disk_before_frames_follow_it() {
    // Each of two segments has two slots for its headers.
    for checkpoints_before in 0..4 {
        let storage = SimStorage::new(1);
        let engine = create(&storage);
        for _ in 0..checkpoints_before {
            fill_segment(&engine);
            engine.kernel().run_checkpoint().unwrap();
        }
        fill_segment(&engine);
        storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        engine.kernel().run_checkpoint().unwrap_err();
        storage.clear_faults();
        drop(engine);
        let engine = open(&storage).unwrap();
        fill_segment(&engine);
        write(&engine, b"last", vec![3; 10]).unwrap();
        let after_power_failure = SimStorage::from_image(storage.crash_image(0), 1);
        let engine = open(&after_power_failure).unwrap();
        assert!(has(&engine, b"last"), "after {checkpoints_before} checkpoints");
    }
}

#[test]
fn an_opening_marks_what_it_recovered_and_one_for_reading_writes_nothing() {
    let storage = SimStorage::new(1);
    let engine = create(&storage);
    write(&engine, b"key", b"a value that is in the last frame".to_vec()).unwrap();
    let image = storage.process_crash_image();

    let storage = SimStorage::from_image(image.clone(), 1);
    let read_only = EngineOptions { read_only: true, ..options() };
    let engine = open_with(Arc::new(storage.clone()), LEAST, read_only).unwrap();
    assert!(has(&engine, b"key"));
    drop(engine);
    assert_eq!(storage.events(), 0);

    let damaged = |mut image: Vec<u8>| {
        let of_value = b"in the last frame";
        let at = image.windows(of_value.len()).position(|bytes| bytes == of_value).unwrap();
        image[at] ^= 1;
        open(&SimStorage::from_image(image, 1))
    };
    // Nothing says that the last frame was acknowledged, so it passes for a torn one.
    assert!(!has(&damaged(image).unwrap(), b"key"));
    let engine = open(&storage).unwrap();
    let found = damaged(storage.process_crash_image());
    assert!(matches!(found, Err(Error::Corrupted { .. })), "{found:?}");
    drop(engine);
}

#[test]
fn an_image_with_a_frame_to_replay_is_not_settled() {
    let storage = SimStorage::new(1);
    let engine = create(&storage);
    let superblock = engine.kernel().superblock();
    let is_settled = || {
        let image: Arc<dyn Storage> =
            Arc::new(SimStorage::from_image(storage.process_crash_image(), 1));
        let found = RecoveredImage::open(&image, superblock, 1 << 20, options().tables).unwrap();
        (found.is_settled(), found.lsn())
    };
    assert_eq!(is_settled(), (true, 0));
    write(&engine, b"key", b"value".to_vec()).unwrap();
    let (settled, lsn) = is_settled();
    assert!(!settled && lsn > 0);
    engine.close().unwrap();
    assert!(is_settled().0);
}
