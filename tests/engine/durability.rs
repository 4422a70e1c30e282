//! How much each caller waits for, on the simulated disk, where every flush is counted.

use crate::rooms::{block_on, consume, insert, small, state, until};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenStore, LookupKey, TokenConsumeOutcome};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateStore};
use cloakroom::testing::{CallKind, Fault, SimStorage};
use cloakroom::{Cloakroom, Durability, Error};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn simulated(durability: Durability) -> (Cloakroom, SimStorage) {
    let sim = SimStorage::new(5);
    let builder = small().without_threads().durability(durability);
    (builder.open_on(Arc::new(sim.clone())).unwrap(), sim)
}

fn flushes(sim: &SimStorage) -> u64 {
    sim.syncs() + sim.durable_writes()
}

/// The room that a power failure now leaves in the worst case, and the one that a killed process
/// leaves.
fn after(sim: &SimStorage) -> [Cloakroom; 2] {
    [sim.crash_image(0), sim.process_crash_image()].map(|image| {
        small().without_threads().open_on(Arc::new(SimStorage::from_image(image, 9))).unwrap()
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_sync_write_is_flushed_before_it_is_answered() {
    let (room, sim) = simulated(Durability::Sync);
    let before = flushes(&sim);
    let pending = room.handoff().set("s", &state(1), 600);
    assert!(!pending.is_ready());
    assert_eq!(flushes(&sim), before);
    pending.wait().unwrap();
    assert_eq!(flushes(&sim), before + 1);
    for room in after(&sim) {
        assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(1)));
    }
}

#[test]
fn a_lone_caller_has_one_durable_write_again_when_relaxed_callers_are_gone() {
    let (room, sim) = simulated(Durability::Sync);
    let two_steps = |number: u32| {
        let before = (sim.durable_writes(), sim.syncs());
        room.handoff().set(&number.to_string(), &state(1), 600).wait().unwrap();
        assert_eq!(flushes(&sim), before.0 + before.1 + 1);
        sim.syncs() > before.1
    };
    assert!(!two_steps(0));
    let relaxed = room.handoff().with_durability(Durability::Os);
    for round in 1..=2 {
        relaxed.set("relaxed", &state(1), 600).wait().unwrap();
        let groups: Vec<_> = (0..100).map(|number| two_steps(1_000 * round + number)).collect();
        let first = groups.iter().position(|two_steps| !two_steps);
        assert!(first.is_some_and(|first| first > 1), "{groups:?}");
        assert!(groups.iter().skip(first.unwrap()).all(|two_steps| !two_steps), "{groups:?}");
    }
    // What the sweeper writes has no caller that waits for it.
    room.sweep().unwrap();
    two_steps(4_000);
    assert!(!two_steps(4_001));
}

#[test]
fn relaxed_writes_are_answered_without_a_flush_and_survive_a_killed_process() {
    for durability in [Durability::Os, Durability::Interval(HOUR)] {
        let (room, sim) = simulated(durability);
        let before = flushes(&sim);
        room.handoff().set("s", &state(1), 600).wait().unwrap();
        block_on(insert(&room.form_tokens(), "t")).unwrap();
        assert_eq!(
            consume(&room.form_tokens(), "t").wait().unwrap().0,
            TokenConsumeOutcome::Proceed
        );
        assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(1)));
        room.atomically(|tx| tx.handoff().set("u", &state(2), 600)).wait().unwrap();
        assert_eq!(flushes(&sim), before, "{durability:?}");
        assert!(room.engine_stats().unwrap().durable_lsn < room.engine_stats().unwrap().newest_lsn);

        let [lost, kept] = after(&sim);
        assert_eq!(lost.handoff().get("s").wait().unwrap(), None);
        assert_eq!(kept.handoff().get("s").wait().unwrap(), Some(state(1)));
        assert_eq!(kept.handoff().get("u").wait().unwrap(), Some(state(2)));
        assert_eq!(kept.form_tokens().stats().wait().unwrap().consumed, 1);

        // Closing makes them durable.
        room.close().unwrap();
        assert!(flushes(&sim) > before);
        let [lost, _] = after(&sim);
        assert_eq!(lost.handoff().get("u").wait().unwrap(), Some(state(2)));
    }
}

#[test]
fn each_handle_has_its_own_durability() {
    let (room, sim) = simulated(Durability::Os);
    let strict = room.handoff().with_durability(Durability::Sync);
    let before = flushes(&sim);
    room.handoff().set("relaxed", &state(1), 600).wait().unwrap();
    insert(&room.form_tokens(), "relaxed").wait().unwrap();
    assert_eq!(flushes(&sim), before);
    strict.set("strict", &state(2), 600).wait().unwrap();
    assert!(flushes(&sim) > before);
    let strict = room.form_tokens().with_durability(Durability::Sync);
    let before = flushes(&sim);
    insert(&strict, "strict").wait().unwrap();
    assert!(flushes(&sim) > before);

    let (room, sim) = simulated(Durability::Sync);
    let before = flushes(&sim);
    room.handoff().with_durability(Durability::Os).set("s", &state(1), 600).wait().unwrap();
    insert(&room.form_tokens().with_durability(Durability::Os), "t").wait().unwrap();
    assert_eq!(flushes(&sim), before);
}

#[test]
fn a_sync_flush_also_makes_earlier_relaxed_writes_durable() {
    let (room, sim) = simulated(Durability::Sync);
    room.handoff().with_durability(Durability::Os).set("relaxed", &state(1), 600).wait().unwrap();
    room.handoff().set("strict", &state(2), 600).wait().unwrap();
    let [power_failed, _] = after(&sim);
    assert_eq!(power_failed.handoff().get("relaxed").wait().unwrap(), Some(state(1)));
    assert_eq!(power_failed.handoff().get("strict").wait().unwrap(), Some(state(2)));
}

#[test]
fn a_sync_read_waits_until_the_rows_it_saw_are_durable_and_a_relaxed_one_does_not() {
    let (room, sim) = simulated(Durability::Sync);
    let relaxed = room.handoff().with_durability(Durability::Os);
    relaxed.set("s", &state(1), 600).wait().unwrap();
    let before = flushes(&sim);
    assert_eq!(relaxed.get("s").wait().unwrap(), Some(state(1)));
    assert_eq!(relaxed.list(None, 10).wait().unwrap().items.len(), 1);
    // A row that is not there depends on nothing that could be lost.
    assert_eq!(room.handoff().get("absent").wait().unwrap(), None);
    assert_eq!(flushes(&sim), before);

    let pending = room.handoff().get("s");
    assert!(!pending.is_ready());
    assert_eq!(pending.wait().unwrap(), Some(state(1)));
    assert!(flushes(&sim) > before);
    let [power_failed, _] = after(&sim);
    assert_eq!(power_failed.handoff().get("s").wait().unwrap(), Some(state(1)));

    // Now it depends on the disk, and no one flushes for it.
    let before = flushes(&sim);
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(1)));
    assert_eq!(flushes(&sim), before);
}

#[test]
fn a_sync_read_of_an_absence_that_is_not_durable_waits_for_it() {
    let (room, sim) = simulated(Durability::Sync);
    room.handoff().set("s", &state(1), 600).wait().unwrap();
    room.handoff().with_durability(Durability::Os).delete("s").wait().unwrap();
    let pending = room.handoff().get("s");
    assert!(!pending.is_ready());
    sim.fail_call(CallKind::Sync, 0, Fault::Eio);
    // "It is gone" would be wrong after a crash now.
    assert!(matches!(pending.wait(), Err(Error::OutcomeUnknown { .. })));
}

#[test]
fn sync_writers_that_change_nothing_wait_until_the_rows_they_saw_are_durable() {
    let (room, sim) = simulated(Durability::Sync);
    let relaxed = room.form_tokens().with_durability(Durability::Os);
    insert(&relaxed, "t").wait().unwrap();
    consume(&relaxed, "t").wait().unwrap();
    let before = flushes(&sim);
    let replay = consume(&room.form_tokens(), "t");
    assert!(!replay.is_ready());
    assert_eq!(block_on(replay).unwrap().0, TokenConsumeOutcome::Replay);
    assert_eq!(flushes(&sim), before + 1);
}

#[test]
fn an_interval_write_is_durable_by_itself_after_its_interval() {
    let dir = tempfile::tempdir().unwrap();
    let room = small()
        .durability(Durability::Interval(Duration::from_millis(20)))
        .open(dir.path().join("edge.cloak"))
        .unwrap();
    for round in 0..3 {
        let called = Instant::now();
        room.handoff().set("s", &state(round), 600).wait().unwrap();
        let newest = room.engine_stats().unwrap().newest_lsn;
        until("the interval is over", || room.engine_stats().unwrap().durable_lsn >= newest);
        // Far less than the next larger interval that anybody would choose, on the slowest machine.
        assert!(called.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_long_interval_is_not_flushed_at_once_and_the_shorter_of_two_counts() {
    let dir = tempfile::tempdir().unwrap();
    let room =
        small().durability(Durability::Interval(HOUR)).open(dir.path().join("edge.cloak")).unwrap();
    for number in 0..200 {
        room.handoff().set("s", &state(number), 600).wait().unwrap();
    }
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.durable_lsn, stats.flushes), (0, 0));
    let brisk = room.handoff().with_durability(Durability::Interval(Duration::from_millis(1)));
    brisk.set("s", &state(200), 600).wait().unwrap();
    room.handoff().set("s", &state(201), 600).wait().unwrap();
    until("the shorter interval is over", || room.engine_stats().unwrap().durable_lsn >= 201);
}

#[test]
fn the_longest_interval_is_like_none_at_all() {
    let (room, sim) = simulated(Durability::Interval(Duration::MAX));
    let before = flushes(&sim);
    room.handoff().set("s", &state(1), 600).wait().unwrap();
    room.handoff().set("s", &state(2), 600).wait().unwrap();
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state(2)));
    assert_eq!(flushes(&sim), before);
}

#[test]
fn relaxed_writes_reach_the_system_by_themselves() {
    let sim = SimStorage::new(5);
    let room = small().durability(Durability::Os).open_on(Arc::new(sim.clone())).unwrap();
    drop(room.handoff().set("s", &state(1), 600));
    until("the write reaches the system", || {
        let image = SimStorage::from_image(sim.process_crash_image(), 1);
        let killed = small().without_threads().open_on(Arc::new(image)).unwrap();
        killed.handoff().get("s").wait().unwrap().is_some()
    });
    assert_eq!(room.engine_stats().unwrap().flushes, 0);
}

#[test]
fn an_interval_of_zero_is_invalid() {
    let zero = || small().durability(Durability::Interval(Duration::ZERO));
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(zero().open_in_memory(), Err(Error::InvalidConfig(_))));
    assert!(matches!(zero().open(dir.path().join("edge.cloak")), Err(Error::InvalidConfig(_))));
    assert!(crate::rooms::names(dir.path()).is_empty());
    let shortest = small().durability(Durability::Interval(Duration::from_nanos(1)));
    shortest.open_in_memory().unwrap().handoff().set("s", &state(1), 600).wait().unwrap();
}

#[test]
fn a_handle_with_an_interval_of_zero_is_refused_by_every_call_of_every_store() {
    let room = small().open_in_memory().unwrap();
    let zero = Durability::Interval(Duration::ZERO);
    let refused = |answer: Result<(), Error>| {
        assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
    };
    let states = room.handoff().with_durability(zero);
    refused(states.set("s", &state(1), 600).wait());
    refused(states.get("s").wait().map(drop));
    refused(states.stats().wait().map(drop));
    refused(room.atomically(|tx| states.within(tx).delete("s")).wait());
    refused(room.cache::<u8>("c").with_durability(zero).get("h").wait().map(drop));
    refused(room.cache::<u8>("c").with_durability(zero).clear(None).wait());
    let jobs = room.dedupe::<u8>("d").with_durability(zero);
    refused(jobs.register("h").wait().map(drop));
    refused(jobs.wait_for("h").wait().map(drop));
    refused(jobs.own_or_join("h").wait().map(drop));
    let limiter = room.rate_limit("r", RateLimitConfig::default()).unwrap().with_durability(zero);
    refused(limiter.acquire("r").wait().map(drop));
    let key = LookupKey::new("00");
    refused(room.form_tokens().with_durability(zero).set_token_result(&key, "r").wait());
    let agent = room.state().with_durability(zero);
    let identity = Identity::new("t", "u", "s", "");
    refused(agent.delete(&identity, "k").wait().map_err(Error::from));
    // An option that is refused stays so: the handle that was asked for cannot be.
    refused(states.with_durability(Durability::Sync).delete("s").wait());
    let shortest = Durability::Interval(Duration::from_nanos(1));
    room.handoff().with_durability(shortest).delete("s").wait().unwrap();
}
