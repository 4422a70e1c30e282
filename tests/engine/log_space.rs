//! The log takes as much of the disk as the load needs.

use cloakroom::cache::{Bytes, CacheStore};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::{DEFAULT_LOG_CAPACITY, LEAST_LOG_SPACE};
use cloakroom::testing::{SimStorage, Storage, StorageView};
use cloakroom::{Cloakroom, Durability, ManualClock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Longer than any test goes on.
const TTL: Duration = Duration::from_secs(1_000_000);

/// What both segments get beside a small B-tree.
const MOST_BESIDE_A_SMALL_BTREE: u64 = 16 * MIB;

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        Self { _dir: dir, path, clock: Arc::new(ManualClock::new(1_000_000)) }
    }

    fn open(&self) -> Cloakroom {
        let builder = Cloakroom::builder().clock(self.clock.clone());
        builder.without_threads().open(&self.path).unwrap()
    }
}

/// Replaces so many states of 64 KiB, of which there are ten.
fn write(room: &Cloakroom, count: u64) {
    let handoff = room.handoff().with_durability(Durability::Os);
    for number in 0..count {
        let state = format!("{{\"n\":{number},\"x\":\"{}\"}}", "x".repeat(64 << 10));
        handoff.set_raw(&(number % 10).to_string(), &state, TTL).wait().unwrap();
    }
}

fn check(room: &Cloakroom, count: u64) {
    for number in count - 10..count {
        let state = room.handoff().get_raw(&(number % 10).to_string()).wait().unwrap().unwrap();
        assert!(state.starts_with(&format!("{{\"n\":{number},")), "{number}");
    }
}

fn space(room: &Cloakroom) -> u64 {
    room.engine_stats().unwrap().log_space
}

/// The bytes of a file that have space on the disk.
#[cfg(unix)]
fn on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Where the file system has no holes, or does not tell.
#[cfg(not(unix))]
fn on_disk(_: &Path) -> u64 {
    u64::MAX
}

fn has_holes(path: &Path) -> bool {
    on_disk(path) < DEFAULT_LOG_CAPACITY
}

#[test]
fn a_room_of_one_entry_takes_little_of_the_disk() {
    let place = Place::new();
    let room = place.open();
    write(&room, 1);
    assert_eq!(space(&room), LEAST_LOG_SPACE);
    assert!(room.engine_stats().unwrap().file_bytes > DEFAULT_LOG_CAPACITY);
    room.close().unwrap();
    if has_holes(&place.path) {
        let bytes = on_disk(&place.path);
        assert!(bytes < 3 * MIB, "{bytes}");
    }
}

#[test]
fn the_log_grows_while_it_fills_quickly_and_a_closed_room_gives_that_back() {
    let place = Place::new();
    let room = place.open();
    let count = 20 * MOST_BESIDE_A_SMALL_BTREE / MIB;
    let mut spaces = vec![space(&room)];
    for _ in 0..40 {
        write(&room, count / 8);
        spaces.push(space(&room));
    }
    spaces.dedup();
    assert!(spaces.is_sorted() && spaces.len() > 6, "{spaces:?}");
    assert_eq!(spaces.last(), Some(&MOST_BESIDE_A_SMALL_BTREE));
    let (holes, full) = (has_holes(&place.path), on_disk(&place.path));
    // What was written last is in the log alone.
    write(&room, 10);
    drop(room);
    let closed = on_disk(&place.path);
    if holes {
        assert!(full > MOST_BESIDE_A_SMALL_BTREE && closed < full / 2, "{full}, {closed}");
    }
    let room = place.open();
    check(&room, 10);
    assert_eq!(space(&room), LEAST_LOG_SPACE);
}

#[test]
fn the_log_of_a_room_that_becomes_quiet_gets_smaller() {
    let place = Place::new();
    let room = place.open();
    while space(&room) < MOST_BESIDE_A_SMALL_BTREE {
        write(&room, 16);
    }
    let full = on_disk(&place.path);
    for _ in 0..800 {
        place.clock.advance(Duration::from_secs(2 * 60));
        write(&room, 1);
    }
    assert_eq!(space(&room), LEAST_LOG_SPACE);
    if has_holes(&place.path) {
        assert!(on_disk(&place.path) < full / 2, "{} of {full}", on_disk(&place.path));
    }
    write(&room, 10);
    check(&room, 10);
}

/// A disk that has no space for a larger log while it is full, and writes into holes all the same.
#[derive(Debug)]
struct FullForMore {
    disk: SimStorage,
    is_full: AtomicBool,
    refused: AtomicU64,
}

impl Storage for FullForMore {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_at_durable(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        self.disk.view(offset, len)
    }

    fn fill_holes(&self, offset: u64, len: u64) -> io::Result<u64> {
        if self.is_full.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.fill_holes(offset, len)
    }
}

#[test]
fn a_disk_too_full_for_a_larger_log_leaves_it_as_it_is_and_no_caller_notices() {
    let disk = Arc::new(FullForMore {
        disk: SimStorage::new(5),
        is_full: AtomicBool::new(false),
        refused: AtomicU64::new(0),
    });
    let builder = Cloakroom::builder().log_capacity(8 * MIB).without_threads();
    let clock = Arc::new(ManualClock::new(1_000_000));
    let room = builder.clock(clock).open_on(disk.clone()).unwrap();
    disk.is_full.store(true, Ordering::Relaxed);
    write(&room, 60);
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.log_space, stats.disk_full, stats.disk_full_stalls), (MIB, false, 0));
    assert!(disk.refused.load(Ordering::Relaxed) > 2 && stats.checkpoint_failures == 0);
    disk.is_full.store(false, Ordering::Relaxed);
    write(&room, 60);
    assert!(space(&room) > 2 * MIB, "{}", space(&room));
    check(&room, 60);
}

#[test]
fn a_frame_larger_than_the_space_is_whole_after_a_crash_or_not_there() {
    let states: Vec<String> =
        (1..6).map(|size| format!("\"{}\"", "y".repeat(size * (700 << 10)))).collect();
    let open = |storage: &SimStorage| {
        let builder = Cloakroom::builder().log_capacity(8 * MIB).without_threads();
        builder.clock(Arc::new(ManualClock::new(1_000_000))).open_on(Arc::new(storage.clone()))
    };
    let storage = SimStorage::new(7);
    let room = open(&storage).unwrap();
    for (number, state) in states.iter().enumerate() {
        let state = format!("{{\"s\":{state}}}");
        room.handoff().set_raw(&number.to_string(), &state, TTL).wait().unwrap();
        // Every one is in the log when the process ends here.
        let image = SimStorage::from_image(storage.process_crash_image(), 7);
        let again = open(&image).unwrap();
        for (number, state) in states.iter().enumerate().take(number + 1) {
            let found = again.handoff().get_raw(&number.to_string()).wait().unwrap();
            assert_eq!(found.map(|found| found.len()), Some(state.len() + 6), "{number}");
        }
        assert!(space(&room) <= 8 * MIB);
    }
    assert!(space(&room) > 3 * MIB, "{}", space(&room));
}

#[test]
fn a_frame_that_ends_among_the_zeros_behind_it_is_recovered() {
    let open = |storage: &SimStorage| {
        let builder = Cloakroom::builder().without_threads();
        let clock = Arc::new(ManualClock::new(1_000_000));
        builder.clock(clock).open_on(Arc::new(storage.clone())).unwrap()
    };
    let storage = SimStorage::new(9);
    let room = open(&storage);
    // In a sparse copy the end of this value is a part of the hole in which the segment ends, and
    // so it is for this storage, which takes the zeros at the end for a hole.
    let zeros = Bytes::from(vec![0; 40_000]);
    let cache = room.cache::<Bytes>("c").with_durability(Durability::Sync);
    // The first frame also has rows of the time line, behind those of the cache.
    for value in [&Bytes::from(vec![1]), &zeros] {
        cache.set("key", value, 600).wait().unwrap();
    }
    let image = SimStorage::from_image(storage.process_crash_image(), 9);
    let again = open(&image);
    assert_eq!(again.cache::<Bytes>("c").get("key").wait().unwrap(), Some(zeros));
}
