//! What a room does when its log, which is preallocated, finds the disk full all the same: on
//! filesystems that write every block to a new place, and on thin volumes.

use crate::rooms::{block_on, small, state, state_of, until};
use crate::scale::scaled;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::limits::DEFAULT_LOG_STALL;
use cloakroom::testing::{CallKind, Fault, SimStorage};
use cloakroom::watch::Filter;
use cloakroom::{Builder, Cloakroom, Durability, Error, Pending, Result};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Both ways in which a disk may be full: nothing of a call is done, or a part, and the system
/// forgets what it could not flush.
const FULL: [Fault; 2] = [Fault::Enospc, Fault::EnospcDropped];

/// Every call by which the log reaches the disk.
const LOG_CALLS: [CallKind; 3] = [CallKind::Write, CallKind::DurableWrite, CallKind::Sync];

fn open(builder: Builder, sim: &SimStorage) -> Cloakroom {
    builder.open_on(Arc::new(sim.clone())).unwrap()
}

fn simulated(background: bool) -> (Cloakroom, SimStorage) {
    waiting(background, DEFAULT_LOG_STALL)
}

/// A room whose callers wait for the disk for so long.
fn waiting(background: bool, log_stall: Duration) -> (Cloakroom, SimStorage) {
    let sim = SimStorage::new(5);
    let builder = if background { small() } else { small().without_threads() };
    (open(builder.log_stall(log_stall), &sim), sim)
}

fn after_crash(sim: &SimStorage, seed: u64) -> Cloakroom {
    open(small().without_threads(), &SimStorage::from_image(sim.crash_image(seed), seed))
}

/// The next `times` calls of each of these kinds find the disk full.
fn fill_up(sim: &SimStorage, kinds: &[CallKind], times: u64, fault: Fault) {
    for &kind in kinds {
        (0..times).for_each(|nth| sim.fail_call(kind, nth, fault));
    }
}

fn set(room: &Cloakroom, id: &str, number: u64) -> Pending<()> {
    room.handoff().set(id, &state(number), 600)
}

fn set_relaxed(room: &Cloakroom, id: &str, number: u64) -> Pending<()> {
    room.handoff().with_durability(Durability::Os).set(id, &state(number), 600)
}

fn get(room: &Cloakroom, id: &str) -> Result<Option<JsonObject>> {
    room.handoff().get(id).wait()
}

/// Whether the answer is that the outcome is unknown because the disk is full.
fn unknown<T: std::fmt::Debug>(answer: Result<T>) {
    match answer {
        Err(Error::OutcomeUnknown { source }) if source.kind() == io::ErrorKind::StorageFull => {}
        answer => panic!("{answer:?}"),
    }
}

fn disk_full<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(Error::DiskFull { .. })), "{answer:?}");
}

#[test]
fn a_log_that_finds_the_disk_full_three_times_heals_and_keeps_what_it_promises() {
    for (background, relaxed) in [(false, false), (false, true), (true, false), (true, true)] {
        for fault in FULL {
            for kind in LOG_CALLS {
                let (room, sim) = simulated(background);
                set(&room, "before", 1).wait().unwrap();
                if relaxed {
                    // From now on groups are written first and then flushed.
                    set_relaxed(&room, "relaxed", 2).wait().unwrap();
                }
                fill_up(&sim, &[kind], 3, fault);
                let pending: Vec<_> =
                    (0..9).map(|number| set(&room, &format!("s{number}"), number)).collect();
                let reader = room.handoff().get("s0");
                thread::scope(|scope| {
                    for (index, pending) in pending.into_iter().enumerate() {
                        scope.spawn(move || {
                            let answer =
                                if index % 2 == 0 { pending.wait() } else { block_on(pending) };
                            answer.unwrap();
                        });
                    }
                });
                assert_eq!(reader.wait().unwrap(), Some(state(0)));
                set(&room, "after", 3).wait().unwrap();
                let stats = room.engine_stats().unwrap();
                let context = format!("{background} {relaxed} {fault:?} {kind:?}");
                assert!(!stats.poisoned && !stats.disk_full, "{context}");
                let met = if relaxed {
                    kind != CallKind::DurableWrite
                } else {
                    kind == CallKind::DurableWrite
                };
                assert!(!met || stats.disk_full_stalls > 0, "{context}");
                for seed in 0..4 {
                    let left = after_crash(&sim, seed);
                    for number in 0..9 {
                        let found = get(&left, &format!("s{number}")).unwrap();
                        assert_eq!(found, Some(state(number)), "{context}, seed {seed}");
                    }
                    assert_eq!(get(&left, "before").unwrap(), Some(state(1)), "{context}");
                    assert_eq!(get(&left, "after").unwrap(), Some(state(3)), "{context}");
                }
            }
        }
    }
}

/// Runs a history over a disk that is full now and then, until the power fails during the event
/// `stop`, and answers what was acknowledged. `None` when the history ended before.
fn interrupted(fault: Fault, stop: u64) -> (SimStorage, Vec<(String, u64)>, bool) {
    let (room, sim) = simulated(false);
    sim.stop_after(sim.events() + stop);
    let mut acknowledged = Vec::new();
    for number in 0..40 {
        match number % 8 {
            1 => fill_up(&sim, &[CallKind::DurableWrite], 2, fault),
            3 => fill_up(&sim, &[CallKind::Write], 2, fault),
            5 => fill_up(&sim, &[CallKind::Sync], 2, fault),
            _ => {}
        }
        let id = format!("{number}");
        let relaxed =
            (number > 12 && number % 3 == 0).then(|| set_relaxed(&room, "relaxed", number));
        if set(&room, &id, number).wait().is_ok() {
            acknowledged.push((id, number));
        }
        drop(relaxed);
        if number == 20 {
            sim.clear_faults();
            let _ = room.checkpoint();
        }
    }
    let crashed = sim.is_crashed();
    sim.power_off();
    (sim, acknowledged, crashed)
}

#[test]
fn a_crash_at_any_point_of_a_full_disk_loses_nothing_acknowledged() {
    for fault in FULL {
        let mut stop = 0;
        loop {
            let (sim, acknowledged, crashed) = interrupted(fault, stop);
            for seed in 0..5 {
                let room = after_crash(&sim, seed);
                for (id, number) in &acknowledged {
                    let found = get(&room, id).unwrap();
                    assert_eq!(found, Some(state(*number)), "{fault:?}, event {stop}, seed {seed}");
                }
                set(&room, "next", 1).wait().unwrap();
            }
            if !crashed {
                assert_eq!(acknowledged.len(), 40);
                break;
            }
            stop += 1;
        }
        assert!(stop > 60, "{stop}");
    }
}

#[test]
fn while_the_disk_stays_full_writes_are_refused_and_those_who_waited_are_told_in_the_end() {
    for background in [false, true] {
        for relaxed in [false, true] {
            let (room, sim) = waiting(background, Duration::from_millis(60));
            set(&room, "durable", 1).wait().unwrap();
            if relaxed {
                set_relaxed(&room, "relaxed", 2).wait().unwrap();
            }
            fill_up(&sim, &LOG_CALLS, 3_000, Fault::EnospcDropped);
            let (first, task) = (set(&room, "first", 1), set(&room, "second", 2));
            let began = Instant::now();
            unknown(first.wait());
            assert!(began.elapsed() >= Duration::from_millis(60));
            unknown(block_on(task));
            let stats = room.engine_stats().unwrap();
            assert!(stats.disk_full && stats.disk_full_stalls == 1 && !stats.poisoned);

            // A new write is not applied, and what is durable can be read.
            for _ in 0..3 {
                disk_full(set(&room, "refused", 3).wait());
                disk_full(set_relaxed(&room, "refused", 3).wait());
            }
            disk_full(room.atomically(|tx| tx.handoff().set("refused", &state(4), 600)).wait());
            assert_eq!(get(&room, "refused").unwrap(), None);
            assert_eq!(get(&room, "durable").unwrap(), Some(state(1)));
            // A read of what may still be lost answers nothing that it would have to take back.
            disk_full(get(&room, "first"));

            sim.clear_faults();
            until("the log has space", || set(&room, "healed", 5).wait().is_ok());
            assert!(!room.engine_stats().unwrap().disk_full);
            for seed in 0..3 {
                let room = after_crash(&sim, seed);
                for (id, number) in [("durable", 1), ("first", 1), ("second", 2), ("healed", 5)] {
                    assert_eq!(get(&room, id).unwrap(), Some(state(number)), "{id}");
                }
                assert_eq!(get(&room, "refused").unwrap(), None);
            }
        }
    }
}

#[test]
fn a_caller_that_may_not_wait_is_told_of_a_full_disk_after_one_attempt() {
    for fault in FULL {
        let (room, sim) = waiting(false, Duration::ZERO);
        set(&room, "durable", 1).wait().unwrap();
        fill_up(&sim, &LOG_CALLS, 3_000, fault);
        let (first, second, events) =
            (set(&room, "first", 1), set(&room, "second", 2), sim.events());
        unknown(first.wait());
        assert!(sim.events() <= events + 1, "{} attempts", sim.events() - events);
        unknown(second.wait());
        disk_full(set(&room, "refused", 3).wait());
        sim.clear_faults();
        until("the log has space", || set(&room, "healed", 5).wait().is_ok());
        let left = after_crash(&sim, 0);
        for (id, number) in [("durable", 1), ("first", 1), ("second", 2), ("healed", 5)] {
            assert_eq!(get(&left, id).unwrap(), Some(state(number)), "{id}");
        }
        assert_eq!(get(&left, "refused").unwrap(), None);
    }
}

#[test]
fn a_caller_that_may_wait_for_ever_waits_until_the_disk_has_space() {
    for background in [false, true] {
        let (room, sim) = waiting(background, Duration::MAX);
        set(&room, "durable", 1).wait().unwrap();
        fill_up(&sim, &LOG_CALLS, 3_000, Fault::EnospcDropped);
        let (thread_waits, task_waits) = (set(&room, "first", 1), set(&room, "second", 2));
        let events = sim.events();
        thread::scope(|scope| {
            let waits = scope.spawn(|| thread_waits.wait());
            until("it was tried again and again", || sim.events() > events + 5);
            assert!(!waits.is_finished(), "it did not wait");
            sim.clear_faults();
            waits.join().unwrap().unwrap();
        });
        block_on(task_waits).unwrap();
        assert_eq!(get(&after_crash(&sim, 0), "second").unwrap(), Some(state(2)));
    }
}

#[test]
fn a_full_disk_heals_by_itself_where_there_is_a_thread() {
    let (room, sim) = simulated(true);
    set(&room, "durable", 1).wait().unwrap();
    fill_up(&sim, &LOG_CALLS, 40, Fault::Enospc);
    drop(set(&room, "dropped", 2));
    drop(set_relaxed(&room, "relaxed", 3));
    until("the disk was full, and is not any more", || {
        thread::sleep(Duration::from_millis(1));
        let stats = room.engine_stats().unwrap();
        stats.disk_full_stalls > 0 && !stats.disk_full && stats.durable_lsn == stats.newest_lsn
    });
    assert_eq!(get(&after_crash(&sim, 0), "dropped").unwrap(), Some(state(2)));
}

#[test]
fn closing_on_a_full_disk_says_so_and_loses_nothing_acknowledged() {
    for background in [false, true] {
        for fault in FULL {
            let (room, sim) = waiting(background, Duration::from_millis(30));
            set(&room, "durable", 1).wait().unwrap();
            set_relaxed(&room, "relaxed", 2).wait().unwrap();
            fill_up(&sim, &LOG_CALLS, 3_000, fault);
            let pending = set(&room, "pending", 3);
            disk_full(room.close());
            unknown(pending.wait());
            let events = sim.events();
            room.close().unwrap();
            assert!(matches!(get(&room, "durable"), Err(Error::Closed)));
            drop(room);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(sim.events(), events, "the file was given up, and is written to");
            sim.clear_faults();
            for seed in 0..4 {
                let room = after_crash(&sim, seed);
                assert_eq!(get(&room, "durable").unwrap(), Some(state(1)));
                let found = get(&room, "pending").unwrap();
                assert!(found.is_none() || found == Some(state(3)));
            }
        }
    }
}

#[test]
fn a_watcher_waits_for_space_however_long_that_takes() {
    let (room, sim) = waiting(true, Duration::from_millis(20));
    let mut watch = room.watch(Filter::all()).unwrap();
    fill_up(&sim, &LOG_CALLS, 3_000, Fault::Enospc);
    let pending = set(&room, "s", 1);
    thread::scope(|scope| {
        let watcher = scope.spawn(move || watch.recv().unwrap().key);
        unknown(pending.wait());
        thread::sleep(Duration::from_millis(60));
        assert!(!watcher.is_finished(), "it was shown what is not durable, or was ended");
        sim.clear_faults();
        assert_eq!(watcher.join().unwrap(), "s");
    });
}

#[test]
fn a_header_of_a_segment_and_a_mark_that_find_the_disk_full_are_written_later() {
    for fault in FULL {
        // Of a checkpoint only the header of the segment is a durable write.
        let (room, sim) = simulated(false);
        set(&room, "s", 1).wait().unwrap();
        fill_up(&sim, &[CallKind::DurableWrite], 1, fault);
        disk_full(room.checkpoint());
        set(&room, "t", 2).wait().unwrap();
        assert!(!room.engine_stats().unwrap().poisoned);
        room.checkpoint().unwrap();
        for number in 0..100 {
            let large = room.handoff().set(&format!("l{number}"), &state_of(60_000), 600);
            large.wait().unwrap();
        }
        for seed in 0..3 {
            let room = after_crash(&sim, seed);
            assert_eq!(get(&room, "t").unwrap(), Some(state(2)));
            assert!(get(&room, "l99").unwrap().is_some());
        }

        let (room, sim) = simulated(true);
        set(&room, "s", 1).wait().unwrap();
        let events = sim.events();
        fill_up(&sim, &[CallKind::Write], 1, fault);
        set(&room, "t", 2).wait().unwrap();
        until("the mark was tried", || sim.events() > events + 1);
        set(&room, "u", 3).wait().unwrap();
        assert!(!room.engine_stats().unwrap().poisoned);
        assert_eq!(get(&after_crash(&sim, 0), "u").unwrap(), Some(state(3)));
    }
}

#[test]
fn an_opening_that_finds_the_disk_full_says_so_and_works_later() {
    let (room, sim) = simulated(false);
    set(&room, "s", 1).wait().unwrap();
    let image = sim.crash_image(0);
    drop(room);
    for fault in FULL {
        for kind in [CallKind::Write, CallKind::DurableWrite, CallKind::Sync, CallKind::SetLen] {
            for nth in 0..4 {
                let sim = SimStorage::from_image(image.clone(), nth);
                sim.fail_call(kind, nth, fault);
                match small().without_threads().open_on(Arc::new(sim.clone())) {
                    Ok(room) => assert_eq!(get(&room, "s").unwrap(), Some(state(1))),
                    Err(error) => disk_full::<()>(Err(error)),
                }
                sim.clear_faults();
                for seed in 0..3 {
                    assert_eq!(get(&after_crash(&sim, seed), "s").unwrap(), Some(state(1)));
                }
            }
        }
    }
}

/// Fills a room, has the `nth` call of a kind find the disk full in a checkpoint, and tries it
/// again, until the power fails during the event `stop` of that. Answers whether it did; `None`
/// when the checkpoint had no such call.
fn checkpoint_again(kind: CallKind, nth: u64, fault: Fault, stop: u64) -> Option<bool> {
    let sim = SimStorage::new(5);
    // A small one, because thousands of copies of it are made.
    let room = open(small().log_capacity(1 << 20).without_threads(), &sim);
    for number in 0..60 {
        drop(room.handoff().set(&format!("{number:02}"), &state_of(3_000), 600));
    }
    set(&room, "old", 1).wait().unwrap();
    room.checkpoint().unwrap();
    for number in (0..60).step_by(2) {
        drop(room.handoff().set(&format!("{number:02}"), &state_of(2_000 + number), 600));
    }
    set(&room, "new", 2).wait().unwrap();
    sim.fail_call(kind, nth, fault);
    let failed = room.checkpoint();
    assert!(!room.engine_stats().unwrap().poisoned, "{kind:?} {nth} {fault:?}: {failed:?}");
    if failed.is_ok() {
        return None;
    }
    disk_full(failed);
    sim.clear_faults();
    let holds = |room: &Cloakroom| {
        assert_eq!(get(room, "old").unwrap(), Some(state(1)));
        assert_eq!(get(room, "new").unwrap(), Some(state(2)));
        for number in 0..60 {
            let bytes = if number % 2 == 0 { 2_000 + number } else { 3_000 };
            let found = get(room, &format!("{number:02}")).unwrap();
            assert!(found == Some(state_of(bytes)), "{number}");
        }
    };
    holds(&room);
    // Other rows than the first attempt had, so that other pages are written.
    drop(room.handoff().set("large", &state_of(50_000), 600));
    set(&room, "later", 3).wait().unwrap();
    sim.stop_after(sim.events() + stop);
    let checkpointed = room.checkpoint();
    let crashed = sim.is_crashed();
    assert!(crashed || checkpointed.is_ok(), "{kind:?} {nth} {fault:?}: {checkpointed:?}");
    sim.power_off();
    for seed in 0..5 {
        let room = after_crash(&sim, seed);
        holds(&room);
        assert_eq!(get(&room, "later").unwrap(), Some(state(3)));
        let report = room.verify().unwrap();
        assert!(report.is_ok(), "{kind:?} {nth} {fault:?} {stop} {seed}: {report}");
    }
    Some(crashed)
}

#[test]
fn a_checkpoint_that_finds_the_disk_full_heals_and_survives_a_crash_of_the_next_one() {
    let mut failed = 0;
    for fault in [Fault::Enospc, Fault::EnospcDropped] {
        for kind in [CallKind::Sync, CallKind::Write] {
            for nth in (0..20).step_by(2) {
                let mut stop = 0;
                while let Some(crashed) = checkpoint_again(kind, nth, fault, stop) {
                    failed += 1;
                    if !crashed {
                        break;
                    }
                    stop += scaled(3, 2);
                }
            }
        }
    }
    assert!(failed > 50, "{failed}");
}
