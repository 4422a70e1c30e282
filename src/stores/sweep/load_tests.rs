//! Sweeps in rooms whose log is full.

use super::pace::MOST_ROWS;
use super::sweep_job;
use crate::durability::Durability;
use crate::engine::{LogShare, MaintenanceHandle, Tick};
use crate::handoff::{HandoffStateStore, JsonObject};
use crate::limits::MIN_LOG_CAPACITY;
use crate::{Cloakroom, Error, ManualClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TTL: u64 = 2;

/// By when everything here has happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than may be due, and enough for the log to have grown to a segment that the rest of a test
/// does not fill.
const MANY: u64 = 5 * MOST_ROWS;

fn set(room: &Cloakroom, key: u64, ttl: u64) {
    let handoff = room.handoff().with_durability(Durability::Os);
    drop(handoff.set(&key.to_string(), &JsonObject::new(), ttl));
}

fn has_headroom(maintenance: &MaintenanceHandle<'_>) -> bool {
    let nothing = maintenance.dry_run(|_| Ok(())).unwrap().1;
    let turn = maintenance.take_turn().unwrap();
    maintenance.transact(turn, LogShare::Headroom, &nothing, |_| Ok(())).unwrap().is_some()
}

/// A room without threads, with so many entries or some more, whose log has no headroom.
fn full(log_capacity: u64, entries: u64) -> (Cloakroom, Arc<ManualClock>, u64) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let builder = Cloakroom::builder().clock(clock.clone()).log_capacity(log_capacity);
    let room = builder.without_threads().open_in_memory().unwrap();
    let mut number = 0;
    while number < entries || has_headroom(&room.engine().maintenance().unwrap()) {
        set(&room, number, TTL);
        number += 1;
    }
    clock.advance(Duration::from_secs(TTL));
    (room, clock, number)
}

/// Steps of the thread until it has nothing left to do.
fn sweep_by_steps(room: &Cloakroom) -> Vec<Tick> {
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(30));
    let maintenance = room.engine().maintenance().unwrap();
    let mut ticks = Vec::new();
    while !matches!(ticks.last(), Some(Tick::IdleFor(_))) {
        ticks.push((job.step)(&maintenance).unwrap());
    }
    ticks
}

#[test]
fn a_slice_does_not_wait_for_a_checkpoint_while_more_is_due_than_the_file_may_keep() {
    let (room, _clock, entries) = full(16 << 20, MANY);
    let checkpoints = room.engine_stats().unwrap().checkpoints;
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(30));
    let maintenance = room.engine().maintenance().unwrap();
    assert_eq!((job.step)(&maintenance).unwrap(), Tick::Behind);
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.swept, stats.checkpoints), (128, checkpoints));
    let ticks = sweep_by_steps(&room);
    assert_eq!(room.engine_stats().unwrap().swept, entries);
    // The last ones, of which there are few, leave callers their pauses again.
    let again = ticks.iter().filter(|tick| **tick == Tick::Again).count();
    assert!((32..=128).contains(&again), "{again} of {}", ticks.len());
    assert!(ticks.len() - again > 512, "{again} of {}", ticks.len());
}

#[test]
fn slices_become_larger_while_callers_write_more_than_is_swept() {
    let (room, clock, mut number) = full(16 << 20, MANY);
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(30));
    let maintenance = room.engine().maintenance().unwrap();
    let slice = |number: &mut u64, entries: u64| {
        let before = room.engine_stats().unwrap().swept;
        (job.step)(&maintenance).unwrap();
        (0..entries).for_each(|_| {
            *number += 1;
            set(&room, *number, TTL);
        });
        room.handoff().set("wait for the log", &JsonObject::new(), 999).wait().unwrap();
        clock.advance(Duration::from_millis(1));
        room.engine_stats().unwrap().swept - before
    };
    let sizes: Vec<_> = (0..100).map(|_| slice(&mut number, 500)).collect();
    assert_eq!((sizes.first(), sizes.last()), (Some(&128), Some(&1_024)), "{sizes:?}");
    // Small again as soon as callers write little, however much is due.
    let sizes: Vec<_> = (0..40).map(|_| slice(&mut number, 1)).collect();
    assert_eq!((sizes.first(), sizes.last()), (Some(&1_024), Some(&128)), "{sizes:?}");
}

#[test]
fn a_slice_with_little_to_do_waits_for_one_checkpoint() {
    let (room, _clock, entries) = full(MIN_LOG_CAPACITY, 1);
    let checkpoints = room.engine_stats().unwrap().checkpoints;
    sweep_by_steps(&room);
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.swept, stats.checkpoints), (entries, checkpoints + 1));
}

#[test]
fn a_sweep_waits_for_the_log_also_where_callers_are_refused_at_once() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let builder = Cloakroom::builder().clock(clock.clone()).log_capacity(1 << 20);
    let room = builder.log_stall(Duration::ZERO).sweep_interval(None).open_in_memory().unwrap();
    let mut entries = 0;
    while entries < MOST_ROWS {
        set(&room, entries, TTL);
        entries += 1;
        if entries % 1_000 == 0 {
            room.checkpoint().unwrap();
        }
    }
    let held = room.engine().hold_checkpoints();
    loop {
        let handoff = room.handoff().with_durability(Durability::Os);
        match handoff.set(&entries.to_string(), &JsonObject::new(), TTL).wait() {
            Ok(()) => entries += 1,
            Err(Error::LogFull { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    clock.advance(Duration::from_secs(TTL));
    let stalls = || room.engine_stats().unwrap().stalls;
    let before = stalls();
    thread::scope(|scope| {
        let sweep = scope.spawn(|| room.sweep().unwrap().total());
        let began = Instant::now();
        while stalls() == before {
            assert!(!sweep.is_finished() && began.elapsed() < PATIENCE, "it never came to wait");
            thread::yield_now();
        }
        drop(held);
        assert_eq!(sweep.join().unwrap(), entries);
    });
}

/// The writer never rests, and its log has room for a hundred entries. It waits for its answers, or
/// for none of them, so that it has as much queued as it may.
#[test]
fn the_background_sweeps_everything_beside_a_writer_that_keeps_the_log_full() {
    const ENTRIES: u64 = 2_000;
    for waits in [true, false] {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let builder = Cloakroom::builder().clock(clock.clone()).log_capacity(MIN_LOG_CAPACITY);
        let builder = builder.sweep_interval(Some(Duration::from_secs(3_600)));
        let room = builder.open_in_memory().unwrap();
        let handoff = room.handoff().with_durability(Durability::Os);
        (0..ENTRIES).for_each(|number| {
            handoff.set(&number.to_string(), &JsonObject::new(), TTL).wait().unwrap();
        });
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in (0..50).cycle() {
                    let key = (ENTRIES + number).to_string();
                    let set = handoff.set(&key, &JsonObject::new(), u64::MAX);
                    if waits {
                        set.wait().unwrap();
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            clock.advance(Duration::from_secs(TTL));
            let swept = || room.engine_stats().unwrap().swept;
            let began = Instant::now();
            while swept() < ENTRIES && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(swept(), ENTRIES, "waits: {waits}");
        });
        room.close().unwrap();
        assert!(matches!(room.sweep(), Err(Error::Closed)));
    }
}

#[test]
fn a_room_that_had_nothing_to_sweep_looks_again_when_something_was_written() {
    // Longer than anyone waits for this test.
    let hour = Some(Duration::from_secs(3_600));
    let room = Cloakroom::builder().sweep_interval(hour).open_in_memory().unwrap();
    let began = Instant::now();
    // The thread has looked, and found nothing.
    while room.engine_stats().unwrap().sweep_rounds == 0 {
        assert!(began.elapsed() < PATIENCE, "it never looked");
        thread::sleep(Duration::from_millis(1));
    }
    room.handoff().set("short", &JsonObject::new(), 1).wait().unwrap();
    while room.engine_stats().unwrap().swept == 0 {
        assert!(began.elapsed() < PATIENCE, "it was never swept");
        thread::sleep(Duration::from_millis(5));
    }
}
