//! Crashes, faults and decay, simulated: histories of random operations run against a pure model, the power fails
//! at every event of them, and what is left must be one state that the model was in, with everything that was
//! acknowledged.
//!
//! Everything follows from a seed. `CLOAKROOM_SIM_SEEDS=<n>` runs that many seeds instead of the few of an ordinary
//! test run; a failure prints the seed, event and image that replay it.

#![cfg(feature = "testing")]

mod simulation;

use cloakroom::testing::{CallKind, Fault, SimStorage, Storage};
use cloakroom::{
    Cloakroom, Durability, Error, FormTokenRecord, FormTokenStore, HandoffStateStore, JsonObject, LookupKey,
    TokenConsumeOutcome, TokenSubject,
};
use simulation::model::{Blob, Model, Op, View};
use simulation::reading::{Unread, read};
use simulation::world::{Check, Shape, Violation, World, new_clock, open, violation};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Steps of one history.
const STEPS: usize = 70;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// The seeds to run: `usual` many from zero on, or what the environment says.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    match env("CLOAKROOM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env("CLOAKROOM_SIM_SEEDS").unwrap_or(usual),
    }
}

/// Whether this event is to be tried: all of them, or the one that the environment names.
fn wanted(event: u64) -> bool {
    env("CLOAKROOM_SIM_EVENT").is_none_or(|only| only == event)
}

/// Fails the test with all that is needed to see the failure again.
#[track_caller]
fn report(test: &str, seed: u64, event: u64, image: &str, trail: &[String], violation: &Violation) -> ! {
    let tail = trail.iter().rev().take(25).rev().cloned().collect::<Vec<_>>().join("\n  ");
    panic!(
        "seed {seed}, event {event}, image {image}: {}\nthe last steps:\n  {tail}\nreplay with:\n  \
         CLOAKROOM_SIM_SEED={seed} CLOAKROOM_SIM_EVENT={event} cargo test --features testing \
         --test crash_simulation {test} -- --nocapture",
        violation.0
    );
}

/// The bytes of a new room.
fn formatted(seed: u64) -> Vec<u8> {
    let storage = SimStorage::new(seed);
    open(&storage, Shape::of(seed), &new_clock()).unwrap().close().unwrap();
    storage.process_crash_image()
}

fn start(seed: u64, room: &[u8]) -> World {
    let storage = SimStorage::from_image(room.to_vec(), seed);
    World::new(storage, Shape::of(seed), new_clock(), seed, Model::default()).unwrap()
}

/// A number that depends on all of these and looks like chance.
fn mix(seed: u64, event: u64, salt: u64) -> u64 {
    fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9) ^ event.wrapping_mul(0x85EB_CA6B) ^ salt << 40)
        .u64(2..)
}

/// Every legal state of the disk after this crash recovers to a state that the model was in.
fn check_crash(
    world: &World,
    seed: u64,
    event: u64,
    again: bool,
) -> Result<(), (String, Violation, Vec<String>)> {
    let failed = |image: String| move |violation| (image, violation, world.trail.clone());
    for (nth, image_seed) in [0, 1, mix(seed, event, 1), mix(seed, event, 2)].into_iter().enumerate() {
        let image = world.storage.crash_image(image_seed);
        let mut next = world.survive(image, world.power, seed).map_err(failed(image_seed.to_string()))?;
        if again && nth as u64 == event % 4 {
            next.rng = fastrand::Rng::with_seed(mix(seed, event, 3));
            let stop_at = next.storage.events() + next.rng.u64(0..60);
            next.storage.stop_after(stop_at);
            let ran = next.run(25);
            let image = format!("{image_seed}, and on from it to event {stop_at}");
            ran.map_err(|violation| (image.clone(), violation, next.trail.clone()))?;
            next.storage.power_off();
            check_crash(&next, seed, stop_at, false).map_err(|(inner, violation, trail)| {
                (format!("{image}, and of that {inner}"), violation, trail)
            })?;
        }
    }
    let image = world.storage.process_crash_image();
    world.survive(image, world.process, seed).map_err(failed("of the killed process".into()))?;
    Ok(())
}

fn crash_at_every_event(seed: u64, lying: bool) -> Result<(), (u64, String, Violation, Vec<String>)> {
    let room = formatted(seed);
    let run = |stop: Option<u64>| {
        let mut world = start(seed, &room);
        world.lying = lying;
        if lying {
            world.room.acknowledge_before_flush();
        }
        if let Some(event) = stop {
            world.storage.stop_after(event);
        }
        let ran = world.run(STEPS);
        (world, ran)
    };
    let (whole, ran) = run(None);
    let events = whole.storage.events();
    ran.map_err(|violation| (events, "none".into(), violation, whole.trail.clone()))?;
    for event in (0..=events).filter(|event| wanted(*event)) {
        let (world, ran) = run(Some(event));
        ran.map_err(|violation| (event, "none".into(), violation, world.trail.clone()))?;
        if !world.storage.is_crashed() {
            world.storage.power_off();
        }
        check_crash(&world, seed, event, true)
            .map_err(|(image, violation, trail)| (event, image, violation, trail))?;
    }
    Ok(())
}

#[test]
fn a_power_failure_at_any_event_leaves_all_that_was_acknowledged_and_a_prefix_of_the_rest() {
    for seed in seeds(8) {
        if let Err((event, image, violation, trail)) = crash_at_every_event(seed, false) {
            report("a_power_failure_at_any_event", seed, event, &image, &trail, &violation);
        }
    }
}

/// A checker that never fails proves nothing: acknowledging before the flush must be noticed.
#[test]
fn a_room_that_acknowledges_before_it_flushes_is_caught() {
    let caught = (0..5).find_map(|seed| crash_at_every_event(seed, true).err());
    let (_, _, violation, _) = caught.expect("the fault went unnoticed");
    assert!(violation.0.contains("was acknowledged"), "caught for another reason: {}", violation.0);
}

#[test]
fn a_power_failure_while_recovering_changes_nothing_about_what_is_recovered() {
    for seed in seeds(4) {
        let room = formatted(seed);
        let mut whole = start(seed, &room);
        whole.run(STEPS).unwrap();
        let events = whole.storage.events();
        let mut interrupted = 0;
        for event in (0..24).map(|nth| mix(seed, nth, 4) % events).filter(|event| wanted(*event)) {
            let mut world = start(seed, &room);
            world.storage.stop_after(event);
            world.run(STEPS).unwrap();
            if let Err(violation) = crash_while_recovering(&world, seed, event, &mut interrupted) {
                report(
                    "a_power_failure_while_recovering",
                    seed,
                    event,
                    "see above",
                    &world.trail,
                    &violation,
                );
            }
        }
        assert!(env("CLOAKROOM_SIM_EVENT").is_some() || interrupted > 20, "recovery was hardly ever cut off");
    }
}

/// Cuts the power at every event of a recovery, and recovers from what that leaves.
fn crash_while_recovering(world: &World, seed: u64, event: u64, interrupted: &mut u32) -> Check {
    for image_seed in [0, 1, mix(seed, event, 5)] {
        let image = world.storage.crash_image(image_seed);
        let survived = world.survive(image.clone(), world.power, seed)?.models.remove(0).view(world.now_ms());
        for stop_at in 0.. {
            let storage = SimStorage::from_image(image.clone(), mix(seed, event, stop_at));
            storage.stop_after(stop_at);
            let opened = open(&storage, world.shape, &world.clock);
            if !storage.is_crashed() {
                if let Err(error) = opened {
                    violation!("what the crash left does not open: {error}");
                }
                // Closing would go on writing.
                storage.power_off();
                break;
            }
            *interrupted += 1;
            let process = storage.process_crash_image();
            let torn = [0, 1, mix(seed, event, 100 + stop_at)].map(|again| storage.crash_image(again));
            for image in torn.into_iter().chain([process]) {
                let again = world.survive(image, world.power, seed)?;
                if again.models[0].view(world.now_ms()) != survived {
                    violation!(
                        "cut off at event {stop_at}, a recovery of image {image_seed} found another state"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_power_failure_while_creating_leaves_an_empty_room_or_none() {
    let (shape, clock) = (Shape::of(0), new_clock());
    for event in (0..).filter(|event| wanted(*event)) {
        let storage = SimStorage::new(event);
        storage.stop_after(event);
        let created = open(&storage, shape, &clock);
        if !storage.is_crashed() {
            assert!(event > 10, "a room takes more than {event} calls to create");
            assert_eq!(read(&created.unwrap()).unwrap(), View::default());
            break;
        }
        assert!(created.is_err());
        let images = [0, 1, 2, 3, 4].map(|seed| storage.crash_image(seed));
        for image in images.into_iter().chain([storage.process_crash_image()]) {
            match open(&SimStorage::from_image(image, 7), shape, &clock) {
                Ok(room) => {
                    assert_eq!(read(&room).unwrap(), View::default(), "event {event}");
                    room.handoff().set("first", &JsonObject::new(), 9).wait().unwrap();
                }
                Err(Error::NotCloakroom { .. }) => {}
                // Its last write was torn. A file gets its name only when it is whole, so nobody meets this one.
                Err(Error::Corrupted { location, .. }) if location.contains("superblock") => {}
                Err(error) => panic!("event {event}: {error}"),
            }
        }
    }
}

#[test]
fn a_failing_disk_loses_nothing_acknowledged_and_is_never_asked_to_flush_again() {
    let kinds = [CallKind::Write, CallKind::DurableWrite, CallKind::Sync, CallKind::SetLen, CallKind::Read];
    let (mut poisoned, mut healed) = (0, 0);
    for seed in seeds(12) {
        let room = formatted(seed);
        for nth in (0..20).filter(|nth| wanted(*nth)) {
            let mut world = start(seed, &room);
            let result = fail_somewhere(&mut world, kinds[(nth % 5) as usize], seed, nth);
            match result {
                Ok(true) => poisoned += 1,
                Ok(false) => healed += 1,
                Err(violation) => report("a_failing_disk", seed, nth, "any", &world.trail, &violation),
            }
        }
    }
    assert!(
        env("CLOAKROOM_SIM_EVENT").is_some() || (poisoned > 20 && healed > 20),
        "{poisoned} histories ended poisoned, {healed} did not"
    );
}

/// Runs a history in which a call fails, and looks at what is left. Answers whether the room was poisoned.
fn fail_somewhere(world: &mut World, kind: CallKind, seed: u64, nth: u64) -> Check<bool> {
    world.run((mix(seed, nth, 6) % 30) as usize)?;
    world.disturbed = true;
    let fault = [Fault::Eio, Fault::ShortWrite, Fault::Enospc][(mix(seed, nth, 7) % 3) as usize];
    let calls = mix(seed, nth, 8) % if kind == CallKind::SetLen { 2 } else { 12 };
    world.trail.push(format!("the {calls}th {kind:?} from now fails: {fault:?}"));
    world.storage.fail_call(kind, calls, fault);
    world.run(STEPS)?;
    world.settle()?;
    let (power, process) = (world.power, world.process);
    let image_seeds = [0, 1, mix(seed, nth, 9)];
    let images = image_seeds.map(|image| world.storage.crash_image(image));
    let killed = world.storage.process_crash_image();
    let poisoned = world.is_poisoned();
    if world.storage.is_crashed() {
        // The failure met the room while it was closed or opened, and what is left of it is only in the images.
        world.check_nothing_was_retried()?;
    } else if poisoned {
        world.call(Op::Set { id: 0, value: Blob { number: 1, len: 9 }, ttl_seconds: 77 }, Durability::Sync)?;
        let refused = world.room.handoff().set("x", &JsonObject::new(), 9).wait();
        if !matches!(refused, Err(Error::Poisoned { .. })) {
            violation!("a poisoned room answered {refused:?}");
        }
        let _ = (world.room.checkpoint(), world.room.close());
        world.check_nothing_was_retried()?;
    } else {
        // Whatever failed was no flush: all goes on as if nothing had been.
        world.storage.clear_faults();
        world.disturbed = false;
        world.look()?;
        if let Err(error) = world.room.checkpoint() {
            violation!("a disk that is well again does not take a checkpoint: {error}");
        }
        world.run(20)?;
        world.reopen()?;
    }
    for (image, image_seed) in images.into_iter().zip(image_seeds) {
        world.survive(image, power, image_seed)?.run(10)?;
    }
    world.survive(killed, process, seed)?.run(10)?;
    Ok(poisoned)
}
