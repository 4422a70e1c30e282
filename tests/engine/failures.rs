//! What a room does when its disk fails, on the simulated disk.

use crate::rooms::{block_on, consume, insert, small, state, state_of, until};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::testing::{CallKind, Fault, SimStorage, Storage};
use cloakroom::{Builder, Cloakroom, Durability, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

fn open(builder: Builder, sim: &SimStorage) -> Cloakroom {
    builder.open_on(Arc::new(sim.clone())).unwrap()
}

/// A room without threads of its own, on a disk whose every failure is chosen.
fn simulated() -> (Cloakroom, SimStorage) {
    let sim = SimStorage::new(5);
    (open(small().without_threads(), &sim), sim)
}

/// The room that a crash now leaves.
fn after_crash(sim: &SimStorage, seed: u64) -> Cloakroom {
    open(small().without_threads(), &SimStorage::from_image(sim.crash_image(seed), seed))
}

fn unknown<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(Error::OutcomeUnknown { .. })), "{answer:?}");
}

fn poisoned<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
}

fn set(room: &Cloakroom, id: &str, number: u64) -> cloakroom::Pending<()> {
    room.handoff().set(id, &state(number), 600)
}

fn get(room: &Cloakroom, id: &str) -> Result<Option<JsonObject>> {
    room.handoff().get(id).wait()
}

/// Fails the flush of whatever is in flight, by either way in which a group is flushed.
fn fail_the_next_flush(sim: &SimStorage, fault: Fault) {
    sim.fail_call(CallKind::DurableWrite, 0, fault);
    sim.fail_call(CallKind::Sync, 0, fault);
}

#[test]
fn everybody_in_flight_learns_that_the_outcome_is_unknown() {
    for fault in [Fault::Eio, Fault::ShortWrite] {
        let (room, sim) = simulated();
        set(&room, "durable", 1).wait().unwrap();
        fail_the_next_flush(&sim, fault);
        let mut pending: Vec<_> =
            (0..9).map(|number| set(&room, &format!("s{number}"), number)).collect();
        let reader = room.handoff().get("s0");
        let start = Barrier::new(6);
        thread::scope(|scope| {
            for worker in 0..6 {
                let (pending, start) = (pending.pop().unwrap(), &start);
                scope.spawn(move || {
                    start.wait();
                    unknown(if worker % 2 == 0 { pending.wait() } else { block_on(pending) });
                });
            }
        });
        // Those who come to wait only now, too; and a read that was called in time depends on the
        // same.
        pending.into_iter().for_each(|pending| unknown(pending.wait()));
        unknown(reader.wait());
        assert!(room.engine_stats().unwrap().poisoned);
        for seed in 0..6 {
            let room = after_crash(&sim, seed);
            assert_eq!(get(&room, "durable").unwrap(), Some(state(1)), "{fault:?}, seed {seed}");
            set(&room, "next", 2).wait().unwrap();
        }
    }
}

#[test]
fn the_failure_reaches_callers_behind_the_background_threads() {
    let sim = SimStorage::new(5);
    let room = open(small(), &sim);
    set(&room, "durable", 1).wait().unwrap();
    fail_the_next_flush(&sim, Fault::Eio);
    thread::scope(|scope| {
        for worker in 0..8 {
            let room = &room;
            scope.spawn(move || {
                // A caller in flight does not know; one that came later was not applied. No one is
                // told anything else.
                loop {
                    let pending = set(room, &format!("s{worker}"), worker);
                    match if worker % 2 == 0 { pending.wait() } else { block_on(pending) } {
                        Err(Error::OutcomeUnknown { .. }) => {}
                        Err(Error::Poisoned { .. }) => return,
                        answer => panic!("{answer:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(get(&room, "durable").unwrap(), Some(state(1)));
    unknown(room.close());
}

#[test]
fn a_dropped_write_that_fails_in_the_background_poisons_too() {
    let sim = SimStorage::new(5);
    let room = open(small(), &sim);
    fail_the_next_flush(&sim, Fault::Eio);
    drop(set(&room, "s", 1));
    until("the room is poisoned", || room.engine_stats().unwrap().poisoned);
    poisoned(set(&room, "s", 2).wait());
}

#[test]
fn after_a_failure_writes_are_refused_and_durable_rows_can_be_read() {
    let (room, sim) = simulated();
    set(&room, "in the tree", 1).wait().unwrap();
    insert(&room.form_tokens(), "t").wait().unwrap();
    room.checkpoint().unwrap();
    set(&room, "in the log", 2).wait().unwrap();
    fail_the_next_flush(&sim, Fault::Eio);
    unknown(set(&room, "lost", 3).wait());

    poisoned(set(&room, "later", 4).wait());
    poisoned(room.handoff().delete("in the log").wait());
    poisoned(room.handoff().get_and_delete("in the log").wait());
    poisoned(consume(&room.form_tokens(), "t").wait());
    poisoned(room.atomically(|_| Ok(())).wait());
    poisoned(room.checkpoint());

    assert_eq!(get(&room, "in the tree").unwrap(), Some(state(1)));
    assert_eq!(get(&room, "in the log").unwrap(), Some(state(2)));
    assert_eq!(get(&room, "absent").unwrap(), None);
    assert_eq!(get(&room, "later").unwrap(), None);
    assert_eq!(room.form_tokens().list(None, 10).wait().unwrap().items.len(), 1);
}

#[test]
fn after_a_failure_no_call_answers_from_rows_that_are_not_durable() {
    let (room, sim) = simulated();
    set(&room, "deleted", 1).wait().unwrap();
    let (set, delete) = (set(&room, "lost", 2), room.handoff().delete("deleted"));
    fail_the_next_flush(&sim, Fault::Eio);
    unknown(set.wait());
    unknown(delete.wait());
    // A row and the absence of one are both something that a crash may take back.
    poisoned(get(&room, "lost"));
    poisoned(get(&room, "deleted"));
    poisoned(room.handoff().list(None, 10).wait());
    // Who does not ask for certainty gets what is there.
    let relaxed = room.handoff().with_durability(Durability::Os);
    assert_eq!(relaxed.get("lost").wait().unwrap(), Some(state(2)));
}

#[test]
fn a_failed_flush_is_not_retried_and_nothing_is_written_after_it() {
    for relaxed in [false, true] {
        let (room, sim) = simulated();
        set(&room, "durable", 1).wait().unwrap();
        if relaxed {
            // From now on groups are written first and then flushed.
            room.handoff()
                .with_durability(Durability::Os)
                .set("relaxed", &state(1), 600)
                .wait()
                .unwrap();
        }
        let pending = [set(&room, "a", 1), set(&room, "b", 2)];
        fail_the_next_flush(&sim, Fault::Eio);
        pending.into_iter().for_each(|pending| unknown(pending.wait()));
        sim.clear_faults();

        let events = sim.events();
        poisoned(set(&room, "c", 3).wait());
        poisoned(room.handoff().with_durability(Durability::Os).set("d", &state(4), 600).wait());
        poisoned(room.checkpoint());
        assert_eq!(get(&room, "durable").unwrap(), Some(state(1)));
        unknown(room.close());
        drop(room);
        assert_eq!(sim.events(), events, "relaxed: {relaxed}");
    }
}

#[test]
fn a_failed_write_of_a_relaxed_store_poisons_too() {
    let (room, sim) = simulated();
    let relaxed = room.handoff().with_durability(Durability::Os);
    relaxed.set("written", &state(1), 600).wait().unwrap();
    sim.fail_call(CallKind::Write, 0, Fault::ShortWrite);
    unknown(relaxed.set("lost", &state(2), 600).wait());
    poisoned(relaxed.set("later", &state(3), 600).wait());
    // What the system had taken before is there after a crash of the process.
    let killed = SimStorage::from_image(sim.process_crash_image(), 1);
    let room = open(small().without_threads(), &killed);
    assert_eq!(get(&room, "written").unwrap(), Some(state(1)));
}

#[test]
fn closing_a_poisoned_room_says_so_once_and_closes_it() {
    let (room, sim) = simulated();
    let pending = set(&room, "s", 1);
    fail_the_next_flush(&sim, Fault::Eio);
    unknown(room.close());
    unknown(pending.wait());
    room.close().unwrap();
    assert!(matches!(get(&room, "s"), Err(Error::Closed)));
}

#[test]
fn reopening_after_a_failure_finds_everything_acknowledged() {
    for seed in 0..12 {
        let (room, sim) = simulated();
        for number in 0..20 {
            set(&room, &format!("{number:02}"), number).wait().unwrap();
            if number == 10 {
                room.checkpoint().unwrap();
            }
        }
        fail_the_next_flush(&sim, Fault::ShortWrite);
        unknown(set(&room, "20", 20).wait());
        drop(room);
        let room = after_crash(&sim, seed);
        for number in 0..20 {
            assert_eq!(
                get(&room, &format!("{number:02}")).unwrap(),
                Some(state(number)),
                "seed {seed}"
            );
        }
        // The one that no one knew about is there whole or not at all.
        let last = get(&room, "20").unwrap();
        assert!(last.is_none() || last == Some(state(20)));
    }
}

/// Sets states until the log has no room for more, and answers how many were acknowledged and why
/// no more were. What waits for the checkpoint when it fails is told so when it has waited long
/// enough, and is there.
fn fill(room: &Cloakroom, from: u64) -> (u64, Error) {
    for number in from..from + 10_000 {
        match room.handoff().set(&format!("fill{number}"), &state_of(60_000), 600).wait() {
            Ok(()) | Err(Error::LogFull { is_applied: true, .. }) => {}
            Err(error) => return (number, error),
        }
    }
    panic!("the log never filled up");
}

#[test]
fn a_full_disk_refuses_writes_only_when_the_log_is_full_and_heals_without_reopening() {
    for background in [false, true] {
        let sim = SimStorage::new(5);
        let builder = small().log_stall(Duration::from_millis(20));
        let room = open(if background { builder } else { builder.without_threads() }, &sim);
        set(&room, "first", 1).wait().unwrap();
        sim.set_capacity(Some(sim.len().unwrap()));

        let (acknowledged, error) = fill(&room, 0);
        assert!(matches!(error, Error::DiskFull { .. }), "background: {background}: {error}");
        assert!(acknowledged > 10, "{acknowledged}");
        let stats = room.engine_stats().unwrap();
        assert!(stats.checkpoint_failures > 0 && stats.stalls > 0 && !stats.poisoned, "{stats:?}");
        // A write that was refused was not applied; what was acknowledged can be read.
        assert_eq!(get(&room, &format!("fill{acknowledged}")).unwrap(), None);
        let check = |room: &Cloakroom, until: u64| {
            assert_eq!(get(room, "first").unwrap(), Some(state(1)));
            // What waits for space is not durable yet.
            let relaxed = room.handoff().with_durability(Durability::Os);
            for number in 0..until {
                let found = relaxed.get(&format!("fill{number}")).wait().unwrap();
                assert!(found == Some(state_of(60_000)), "background: {background}: fill{number}");
            }
        };
        check(&room, acknowledged);
        // It stays refused, and stays readable, for as long as the disk is full.
        assert!(matches!(fill(&room, acknowledged), (_, Error::DiskFull { .. })));
        check(&room, acknowledged);

        sim.set_capacity(None);
        let set = |number| room.handoff().set(&format!("fill{number}"), &state_of(60_000), 600);
        // A call does not wait for the checkpoint that it asks for.
        until("it heals", || match set(acknowledged).wait() {
            Ok(()) => true,
            Err(error) => {
                assert!(background && matches!(error, Error::DiskFull { .. }), "{error}");
                false
            }
        });
        for number in acknowledged + 1..acknowledged + 100 {
            let answer = set(number).wait();
            answer.unwrap_or_else(|error| panic!("background: {background}: {error}"));
        }
        check(&room, acknowledged + 100);
        for seed in 0..3 {
            let image = SimStorage::from_image(sim.crash_image(seed), seed);
            check(&open(small().without_threads(), &image), acknowledged + 100);
        }
    }
}

#[test]
fn a_room_whose_disk_is_full_closes_and_opens_again() {
    let sim = SimStorage::new(5);
    let room = open(small().without_threads(), &sim);
    sim.set_capacity(Some(sim.len().unwrap()));
    let (acknowledged, _) = fill(&room, 0);
    room.close().unwrap();
    // The log of the reopened room is as full as it was.
    let room = open(small().without_threads(), &sim);
    assert!(matches!(fill(&room, acknowledged), (_, Error::DiskFull { .. })));
    sim.set_capacity(None);
    set(&room, "healed", 1).wait().unwrap();
    for number in 0..acknowledged {
        assert!(get(&room, &format!("fill{number}")).unwrap().is_some(), "fill{number}");
    }
}

#[test]
fn a_failed_checkpoint_keeps_answering_and_the_next_one_succeeds() {
    for (kind, fault) in [
        (CallKind::SetLen, Fault::Enospc),
        (CallKind::Write, Fault::Eio),
        (CallKind::Write, Fault::ShortWrite),
        (CallKind::Write, Fault::Enospc),
    ] {
        for nth in 0..4 {
            let (room, sim) = simulated();
            set(&room, "in the tree", 1).wait().unwrap();
            room.checkpoint().unwrap();
            for number in 0..300 {
                drop(room.handoff().set(&format!("{number:03}"), &state_of(2_000), 600));
            }
            set(&room, "last", 2).wait().unwrap();
            sim.fail_call(kind, nth, fault);
            let failed = room.checkpoint();
            if failed.is_ok() {
                // There were fewer such calls than that.
                assert!(kind == CallKind::SetLen, "{kind:?} {nth}");
                continue;
            }
            let stats = room.engine_stats().unwrap();
            assert_eq!(stats.checkpoint_failures, 1, "{kind:?} {nth}");
            assert!(!stats.poisoned, "{kind:?} {fault:?} {nth}: {failed:?}");
            let holds = |room: &Cloakroom| {
                assert_eq!(get(room, "in the tree").unwrap(), Some(state(1)));
                assert_eq!(get(room, "last").unwrap(), Some(state(2)));
                assert_eq!(room.handoff().list(None, 1_000).wait().unwrap().items.len(), 302);
            };
            holds(&room);
            set(&room, "while it fails", 3).wait().unwrap();
            room.handoff().delete("while it fails").wait().unwrap();
            room.checkpoint().unwrap();
            holds(&room);
            let stats = room.engine_stats().unwrap();
            assert_eq!((stats.checkpoint_lsn, stats.memory_rows), (stats.newest_lsn, 0));
            holds(&after_crash(&sim, 0));
        }
    }
}

#[test]
fn a_checkpoint_that_failed_in_the_background_is_tried_again_when_the_log_needs_it() {
    let sim = SimStorage::new(5);
    let room = open(small(), &sim);
    // The file is to grow by what is needed soon, and when that fails by what is needed now.
    sim.fail_call(CallKind::SetLen, 0, Fault::Enospc);
    sim.fail_call(CallKind::SetLen, 1, Fault::Enospc);
    for number in 0..400 {
        // A writer that finds the log full may be told of the failure, and asks for another
        // checkpoint.
        until("it heals", || {
            match room.handoff().set(&format!("{number}"), &state_of(60_000), 600).wait() {
                Ok(()) => true,
                Err(error) => {
                    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
                    false
                }
            }
        });
    }
    assert_eq!(room.engine_stats().unwrap().checkpoint_failures, 1);
    assert_eq!(room.handoff().list(None, 1_000).wait().unwrap().items.len(), 400);
}

#[test]
fn a_flush_that_fails_in_a_checkpoint_poisons_the_room() {
    let (room, sim) = simulated();
    set(&room, "s", 1).wait().unwrap();
    sim.fail_call(CallKind::Sync, 0, Fault::Eio);
    assert!(room.checkpoint().is_err());
    poisoned(set(&room, "later", 2).wait());
    assert!(room.engine_stats().unwrap().poisoned);
    assert_eq!(get(&room, "s").unwrap(), Some(state(1)));
    let events = sim.events();
    poisoned(room.checkpoint());
    drop(room);
    assert_eq!(sim.events(), events);
    for seed in 0..6 {
        assert_eq!(get(&after_crash(&sim, seed), "s").unwrap(), Some(state(1)), "seed {seed}");
    }
}

/// A room without a cache whose states, of which every ninetieth is looked up, are in a tree with
/// leaves of its own below the root, on a disk that fails so many reads in a row. Answers how many
/// look-ups failed.
fn look_ups_that_fail(failing_reads: u64) -> usize {
    let (room, sim) = simulated();
    let fill = room.atomically(|tx| {
        (0..2_000)
            .try_for_each(|number| tx.handoff().set(&format!("{number:04}"), &state(number), 600))
    });
    fill.wait().unwrap();
    room.checkpoint().unwrap();
    drop(room);
    let room = open(small().cache_size(0).without_threads(), &sim);
    (0..failing_reads).for_each(|nth| sim.fail_call(CallKind::Read, nth, Fault::Eio));
    let mut failed = 0;
    for number in (0..2_000).step_by(90) {
        match get(&room, &format!("{number:04}")) {
            Ok(found) => assert_eq!(found, Some(state(number))),
            Err(Error::Io { .. }) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    set(&room, "new", 1).wait().unwrap();
    room.checkpoint().unwrap();
    assert!(!room.engine_stats().unwrap().poisoned);
    failed
}

#[test]
fn a_failed_read_is_an_error_for_its_caller_alone() {
    // What fails once is read again, by redb.
    assert_eq!(look_ups_that_fail(1), 0);
    assert_eq!(look_ups_that_fail(2), 1);
}

#[test]
fn an_opening_that_fails_can_be_tried_again() {
    let (room, sim) = simulated();
    set(&room, "in the tree", 1).wait().unwrap();
    room.checkpoint().unwrap();
    set(&room, "in the log", 2).wait().unwrap();
    let image = sim.crash_image(0);
    let kinds =
        [CallKind::Read, CallKind::Write, CallKind::DurableWrite, CallKind::Sync, CallKind::SetLen];
    for kind in kinds {
        let mut nth = 0;
        loop {
            let sim = SimStorage::from_image(image.clone(), nth);
            sim.fail_call(kind, nth, Fault::Eio);
            let opened = small().without_threads().open_on(Arc::new(sim.clone()));
            let failed = opened.is_err();
            drop(opened);
            sim.clear_faults();
            let room = open(
                small().without_threads(),
                &SimStorage::from_image(sim.crash_image(nth + 2), nth),
            );
            assert_eq!(get(&room, "in the tree").unwrap(), Some(state(1)), "{kind:?} {nth}");
            assert_eq!(get(&room, "in the log").unwrap(), Some(state(2)), "{kind:?} {nth}");
            if !failed {
                break;
            }
            nth += 1;
            assert!(nth < 200);
        }
    }
}

#[test]
fn a_panic_in_a_closure_on_the_disk_leaves_no_frame() {
    let (room, sim) = simulated();
    let events = sim.events();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        room.atomically(|tx| -> Result<()> {
            tx.handoff().set("half", &state(1), 600)?;
            panic!("in the middle")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((sim.events(), room.engine_stats().unwrap().newest_lsn), (events, 0));
    set(&room, "whole", 2).wait().unwrap();
    let room = after_crash(&sim, 0);
    assert_eq!(get(&room, "half").unwrap(), None);
    assert_eq!(get(&room, "whole").unwrap(), Some(state(2)));
}
