//! Crashes, faults and decay, simulated: histories of random operations run against a pure model, the power fails
//! at every event of them, and what is left must be one state that the model was in, with everything that was
//! acknowledged.
//!
//! Everything follows from a seed. `CLOAKROOM_SIM_SEEDS=<n>` runs that many seeds instead of the few of an ordinary
//! test run; a failure prints the seed, event and image that replay it.

#![cfg(feature = "testing")]

mod simulation;

use cloakroom::testing::{CallKind, Fault, SimStorage};
use cloakroom::{Durability, Error, HandoffStateStore};
use simulation::model::{Blob, Model, Op, state_id};
use simulation::world::{Check, Shape, Unread, Violation, World, new_clock, open, read, violation};

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
    fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9) ^ event.wrapping_mul(0x85EB_CA6B) ^ salt << 40).u64(2..)
}

/// Every legal state of the disk after this crash recovers to a state that the model was in.
fn check_crash(world: &World, seed: u64, event: u64, again: bool) -> Result<(), (String, Violation, Vec<String>)> {
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
    for seed in seeds(3) {
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
