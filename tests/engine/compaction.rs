//! What is free is given back to the file system while the room is in use, and nothing is lost by
//! it.

use crate::scale::scaled;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn open(path: &Path) -> Cloakroom {
    Cloakroom::builder()
        .log_capacity(256 << 10)
        .clock(Arc::new(ManualClock::new(1_000)))
        .open(path)
        .unwrap()
}

fn state(number: usize) -> JsonObject {
    let text = "x".repeat(number % 900);
    serde_json::from_value(serde_json::json!({ "number": number, "text": text })).unwrap()
}

/// Keys in an order that has nothing to do with their numbers.
fn key(number: usize) -> String {
    format!("{:016x}", (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Fills the room with `count` states and deletes all but one of `keep_each`.
fn churn(room: &Cloakroom, count: usize, keep_each: usize) {
    let states = room.handoff().with_durability(Durability::Os);
    let mut pending = Vec::new();
    for number in 0..count {
        pending.push(states.set(&key(number), &state(number), 1 << 40));
    }
    for number in (0..count).filter(|number| number % keep_each != 0) {
        pending.push(states.delete(&key(number)));
    }
    pending.into_iter().for_each(|pending| pending.wait().unwrap());
    room.checkpoint().unwrap();
}

fn check(room: &Cloakroom, count: usize, keep_each: usize) {
    for number in 0..count {
        let expected = (number % keep_each == 0).then(|| state(number));
        assert_eq!(room.handoff().get(&key(number)).wait().unwrap(), expected, "{number}");
    }
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn a_file_shrinks_to_what_it_needs() {
    let many = scaled(10_000, 30_000);
    for (count, keep_each) in [(many, 3), (many, 30), (8_000, 8_000)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("room.cloak");
        let room = open(&path);
        churn(&room, count, keep_each);
        let before = len(&path);
        let report = room.compact().unwrap();
        assert_eq!((report.bytes_before, report.bytes_after), (before, len(&path)));
        // What the rows that are left take in a file of their own.
        let needed = {
            let path = dir.path().join("fresh.cloak");
            let fresh = open(&path);
            for number in (0..count).step_by(keep_each) {
                let states = fresh.handoff().with_durability(Durability::Os);
                states.set(&key(number), &state(number), 1 << 40).wait().unwrap();
            }
            fresh.close().unwrap();
            len(&path)
        };
        println!(
            "1 of {keep_each}: {before} -> {} bytes, a fresh file has {needed}",
            report.bytes_after
        );
        assert!(report.bytes_after <= 2 * needed, "{} of {needed}", report.bytes_after);
        assert!(report.bytes_after < before);
        check(&room, count, keep_each);
        let again = room.compact().unwrap();
        assert!(again.bytes_after <= again.bytes_before);
        room.close().unwrap();
        check(&open(&path), count, keep_each);
    }
}

#[test]
fn readers_and_writers_go_on_while_pages_move() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("room.cloak");
    let room = open(&path);
    churn(&room, 30_000, 4);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (room, done) = (&room, &done);
            scope.spawn(move || {
                let mut number = thread;
                while !done.load(Ordering::SeqCst) {
                    let expected = (number % 4 == 0).then(|| state(number));
                    assert_eq!(room.handoff().get(&key(number)).wait().unwrap(), expected);
                    number = (number + 7) % 30_000;
                }
            });
        }
        let written = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::SeqCst) {
                room.handoff()
                    .set(&format!("new {written}"), &state(written), 1 << 40)
                    .wait()
                    .unwrap();
                assert!(
                    room.handoff()
                        .get_and_delete(&format!("new {written}"))
                        .wait()
                        .unwrap()
                        .is_some()
                );
                written += 1;
            }
            written
        });
        for _ in 0..3 {
            room.compact().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert!(written.join().unwrap() > 0);
    });
    check(&room, 30_000, 4);
    room.close().unwrap();
    assert!(matches!(room.compact(), Err(Error::Closed)));
    check(&open(&path), 30_000, 4);
}

#[test]
fn a_compaction_inside_a_transaction_is_refused() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let inside = room.clone();
    let answer = room.atomically(|_| Ok::<_, Error>(inside.compact())).wait().unwrap();
    assert!(matches!(answer, Err(Error::NestedTransaction)));
    let nothing = room.compact().unwrap();
    assert_eq!(nothing.pages_moved, 0);
}

#[test]
fn an_idle_room_returns_free_space_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("room.cloak");
    let clock = Arc::new(ManualClock::new(1_000));
    let room =
        Cloakroom::builder().log_capacity(256 << 10).clock(clock.clone()).open(&path).unwrap();
    let states = room.handoff().with_durability(Durability::Os);
    let set = |number: usize, seconds| states.set(&key(number), &state(number), seconds);
    let pending: Vec<_> = (0..20_000)
        .map(|number| set(number, if number % 50 == 0 { 1 << 40 } else { 60 }))
        .collect();
    pending.into_iter().for_each(|pending| pending.wait().unwrap());
    let full = len(&path);
    clock.advance(std::time::Duration::from_secs(60));
    // No one sweeps, checkpoints or compacts but the room.
    let mut looks = 0;
    while len(&path) > full / 4 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        looks += 1;
        assert!(looks < 200_000, "{} of {full} bytes are still there", len(&path));
    }
    check(&room, 20_000, 50);
    room.close().unwrap();
    check(&open(&path), 20_000, 50);
}

/// Compacts, writes and checkpoints when the first lines of an export come.
struct Meddling<'a> {
    room: &'a Cloakroom,
    lines: usize,
    done: bool,
}

impl std::io::Write for Meddling<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count();
        if !self.done {
            self.done = true;
            self.room.compact().unwrap();
            self.room.handoff().set("later", &state(1), 1 << 40).wait().unwrap();
            self.room.checkpoint().unwrap();
            self.room.compact().unwrap();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_durable_snapshot_stays_readable_through_compactions_of_a_small_room() {
    let dir = tempfile::tempdir().unwrap();
    let room = Cloakroom::builder()
        .log_capacity(8 << 20)
        // So small that every read goes to the file.
        .cache_size(4096)
        .clock(Arc::new(ManualClock::new(1_000)))
        .open(dir.path().join("room.cloak"))
        .unwrap();
    churn(&room, 20_000, 20);
    let mut export = Meddling { room: &room, lines: 0, done: false };
    room.export(&mut export).unwrap();
    assert!(export.done);
    // The entries, the first line and the last.
    assert_eq!(export.lines, 20_000 / 20 + 2);
    // With no one reading the same room gives back all of it.
    let before = room.engine_stats().unwrap().btree_bytes;
    room.compact().unwrap();
    let after = room.engine_stats().unwrap();
    assert!(
        after.btree_bytes <= before && after.btree_bytes < (4 << 20),
        "{} of {before}",
        after.btree_bytes
    );
    check(&room, 20_000, 20);
}
