//! Crashes, faults and decay, simulated: histories of random operations run against a pure model,
//! the power fails at every event of them, and what is left must be one state that the model was
//! in, with everything that was acknowledged.
//!
//! Everything follows from a seed. `CLOAKROOM_SIM_SEEDS=<n>` runs that many seeds instead of the
//! few of an ordinary test run (`CLOAKROOM_TESTS=long`: more); a failure prints the seed, event and
//! image that replay it.

use crate::scale::scaled;
use crate::simulation::model::{Blob, Model, Op, View};
use crate::simulation::reading::{Unread, read};
use crate::simulation::world::{Check, Shape, Violation, World, new_clock, open, violation};
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::testing::{CallKind, Fault, SimStorage, Storage};
use cloakroom::{Cloakroom, Durability, Error};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Steps of one history.
const STEPS: usize = 120;

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
fn report(
    test: &str,
    seed: u64,
    event: u64,
    image: &str,
    trail: &[String],
    violation: &Violation,
) -> ! {
    let tail = trail.iter().rev().take(25).rev().cloned().collect::<Vec<_>>().join("\n  ");
    panic!(
        "seed {seed}, event {event}, image {image}: {}\nthe last steps:\n  {tail}\nreplay with:\n  \
         CLOAKROOM_SIM_SEED={seed} CLOAKROOM_SIM_EVENT={event} cargo test --features testing \
         --test engine crash_simulation::{test} -- --nocapture",
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
    fastrand::Rng::with_seed(
        seed.wrapping_mul(0x9E37_79B9) ^ event.wrapping_mul(0x85EB_CA6B) ^ salt << 40,
    )
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
    for (nth, image_seed) in
        [0, 1, mix(seed, event, 1), mix(seed, event, 2)].into_iter().enumerate()
    {
        let image = world.storage.crash_image(image_seed);
        let mut next =
            world.survive(image, world.power, seed).map_err(failed(image_seed.to_string()))?;
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

/// Answers how many checkpoints the whole history ran.
fn crash_at_every_event(
    seed: u64,
    lying: bool,
) -> Result<u64, (u64, String, Violation, Vec<String>)> {
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
    Ok(whole.checkpoints)
}

#[test]
fn a_power_failure_at_any_event_leaves_all_that_was_acknowledged_and_a_prefix_of_the_rest() {
    let (mut checkpoints, mut histories) = (0, 0);
    for seed in seeds(scaled(3, 6)) {
        match crash_at_every_event(seed, false) {
            Ok(ran) => checkpoints += ran,
            Err((event, image, violation, trail)) => {
                report("a_power_failure_at_any_event", seed, event, &image, &trail, &violation);
            }
        }
        histories += 1;
    }
    assert!(
        histories < 5 || checkpoints > histories,
        "only {checkpoints} checkpoints in {histories} histories"
    );
}

/// A checker that never fails proves nothing: acknowledging before the flush must be noticed.
#[test]
fn a_room_that_acknowledges_before_it_flushes_is_caught() {
    let caught = (0..5).find_map(|seed| crash_at_every_event(seed, true).err());
    let (_, _, violation, _) = caught.expect("the fault went unnoticed");
    assert!(violation.0.contains("was acknowledged"), "caught for another reason: {}", violation.0);
}

#[test]
fn a_power_failure_while_recovering_does_not_change_the_recovered_state() {
    for seed in seeds(scaled(1, 4)) {
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
        assert!(
            env("CLOAKROOM_SIM_EVENT").is_some() || interrupted > 20,
            "recovery was hardly ever cut off"
        );
    }
}

/// Cuts the power at every event of a recovery, and recovers from what that leaves.
fn crash_while_recovering(world: &World, seed: u64, event: u64, interrupted: &mut u32) -> Check {
    for image_seed in [0, 1, mix(seed, event, 5)] {
        let image = world.storage.crash_image(image_seed);
        let survived =
            world.survive(image.clone(), world.power, seed)?.models.remove(0).view(world.now_ms());
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
            let torn =
                [0, 1, mix(seed, event, 100 + stop_at)].map(|again| storage.crash_image(again));
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
                // Its last write was torn. A file gets its name only when it is whole, so no one
                // meets this one.
                Err(Error::Corrupted { location, .. }) if location.contains("superblock") => {}
                Err(error) => panic!("event {event}: {error}"),
            }
        }
    }
}

#[test]
fn a_failing_disk_loses_nothing_acknowledged_and_is_never_asked_to_flush_again() {
    let kinds =
        [CallKind::Write, CallKind::DurableWrite, CallKind::Sync, CallKind::SetLen, CallKind::Read];
    let (mut poisoned, mut healed) = (0, 0);
    for seed in seeds(scaled(6, 8)) {
        let room = formatted(seed);
        for nth in (0..20).filter(|nth| wanted(*nth)) {
            let mut world = start(seed, &room);
            let result = fail_somewhere(&mut world, kinds[(nth % 5) as usize], seed, nth);
            match result {
                Ok(true) => poisoned += 1,
                Ok(false) => healed += 1,
                Err(violation) => {
                    report("a_failing_disk", seed, nth, "any", &world.trail, &violation)
                }
            }
        }
    }
    assert!(
        env("CLOAKROOM_SIM_EVENT").is_some() || (poisoned > 20 && healed > 20),
        "{poisoned} histories ended poisoned, {healed} did not"
    );
}

/// Runs a history in which a call fails, and looks at what is left. Answers whether the room was
/// poisoned.
fn fail_somewhere(world: &mut World, kind: CallKind, seed: u64, nth: u64) -> Check<bool> {
    world.run((mix(seed, nth, 6) % 30) as usize)?;
    world.disturbed = true;
    // A full disk heals, so most of them are others.
    let faults = [
        Fault::Eio,
        Fault::Eio,
        Fault::ShortWrite,
        Fault::ShortWrite,
        Fault::Enospc,
        Fault::EnospcDropped,
    ];
    let fault = faults[(mix(seed, nth, 7) % 6) as usize];
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
        // The failure met the room while it was closed or opened, and what is left of it is only in
        // the images.
        world.check_nothing_was_retried()?;
    } else if poisoned {
        world.call(
            Op::Set { id: 0, value: Blob { number: 1, len: 9 }, ttl_seconds: 77 },
            Durability::Sync,
        )?;
        let refused = world.room.handoff().set("x", &JsonObject::new(), 9).wait();
        if !matches!(refused, Err(Error::Poisoned { .. })) {
            violation!("a poisoned room answered {refused:?}");
        }
        let _ = (world.room.checkpoint(), world.room.close());
        world.check_nothing_was_retried()?;
        // The machine goes on, and the file is opened again: the system shows what it could not
        // flush as if it were on the disk. What is acknowledged from here on must not depend on it.
        world.storage.clear_faults();
        let mut next = world.survive_on(world.storage.clone(), power, seed)?;
        let ran = next.run(20);
        next.storage.power_off();
        let checked = ran.and_then(|()| {
            check_crash(&next, seed, nth, false).map_err(|(image, violation, _)| {
                Violation(format!("reopened, image {image}: {}", violation.0))
            })
        });
        world.trail = next.trail;
        checked?;
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

#[test]
fn a_full_disk_refuses_writes_when_the_log_is_full_and_heals_without_reopening() {
    for seed in seeds(3) {
        let (shape, clock) = (Shape::of(seed), new_clock());
        let storage = SimStorage::from_image(formatted(seed), seed);
        let room = open(&storage, shape, &clock).unwrap();
        storage.set_capacity(Some(storage.len().unwrap()));
        let set = |room: &Cloakroom, nth: u64| {
            let value = Blob { number: nth, len: shape.max_len };
            room.handoff().set(&format!("bulk {nth}"), &value.json(), 9_999).wait()
        };
        let check = |room: &Cloakroom, acknowledged: u64| {
            for nth in 0..acknowledged {
                let found = room.handoff().get(&format!("bulk {nth}")).wait().unwrap();
                assert_eq!(
                    found,
                    Some(Blob { number: nth, len: shape.max_len }.json()),
                    "state {nth}"
                );
            }
        };
        let mut acknowledged = 0;
        let refused = loop {
            match set(&room, acknowledged) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
        assert!(
            acknowledged * shape.max_len as u64 > shape.log_capacity / 2,
            "after only {acknowledged}"
        );
        let again = set(&room, acknowledged).unwrap_err();
        assert!(matches!(again, Error::DiskFull { .. }), "{again}");
        assert!(
            room.engine_stats().unwrap().checkpoint_failures > 0
                && !room.engine_stats().unwrap().poisoned
        );
        check(&room, acknowledged);
        for image in [storage.crash_image(0), storage.crash_image(2), storage.process_crash_image()]
        {
            check(&open(&SimStorage::from_image(image, 3), shape, &clock).unwrap(), acknowledged);
        }
        storage.set_capacity(None);
        for nth in acknowledged..acknowledged + 40 {
            set(&room, nth).unwrap();
        }
        check(&room, acknowledged + 40);
        let image = storage.crash_image(0);
        check(&open(&SimStorage::from_image(image, 3), shape, &clock).unwrap(), acknowledged + 40);
    }
}

#[test]
fn a_flipped_bit_is_reported_or_makes_no_difference() {
    let (mut told, mut harmless) = (0, 0);
    for seed in seeds(scaled(2, 4)) {
        for closed in [true, false] {
            let mut world = start(seed, &formatted(seed));
            world.run(STEPS).unwrap();
            world.settle().unwrap();
            if closed {
                world.reopen().unwrap();
                world.room.close().unwrap();
            } else {
                // The log must hold something, or the B-tree would be all there is.
                for number in 0..4 {
                    let op = Op::Set {
                        id: 1,
                        value: Blob { number, len: 700 },
                        ttl_seconds: 900 + number,
                    };
                    world.call(op, Durability::Sync).unwrap();
                    world.settle().unwrap();
                }
                world.storage.power_off();
            }
            let image = world.storage.crash_image(0);
            match flip_bits(&world, &image, seed, closed) {
                Ok((told_here, harmless_here)) => {
                    told += told_here;
                    harmless += harmless_here;
                }
                Err((at, violation)) => {
                    report("a_flipped_bit", seed, at, "as it is", &world.trail, &violation);
                }
            }
        }
    }
    assert!(
        env("CLOAKROOM_SIM_EVENT").is_some() || (told > 200 && harmless > 50),
        "{told} told, {harmless} not"
    );
}

/// Flips bits all over the file, most of them where something is written. Answers how many were
/// told and how many made no difference.
fn flip_bits(
    world: &World,
    image: &[u8],
    seed: u64,
    closed: bool,
) -> Result<(u64, u64), (u64, Violation)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let segment = world.shape.log_capacity / 2;
    let mut places: Vec<u64> =
        (0..2).flat_map(|copy| (0..100).step_by(7).map(move |at| copy * 4_096 + at)).collect();
    for header in [8_192, 12_288, 8_192 + segment, 12_288 + segment] {
        places.extend((header..header + 56).step_by(5));
    }
    let written: Vec<u64> =
        (0..image.len()).filter(|at| image[*at] != 0).map(|at| at as u64).collect();
    let btree = 8_192 + 2 * segment;
    let in_log: Vec<u64> =
        written.iter().copied().filter(|at| (8_192..btree).contains(at)).collect();
    for _ in 0..120 {
        places.extend(rng.choice(&in_log));
        places.extend(rng.choice(&written));
        places.push(rng.u64(0..image.len() as u64));
    }
    // The newest frames of a log that was not closed are not covered by a later durable LSN: no
    // later write says that they were durable, so damage there looks like a torn write. Only those
    // may be missing.
    let covered = world.durable_lsns.iter().rev().nth(1).copied().unwrap_or(0);
    let low = if closed {
        world.last()
    } else {
        world.lsns.iter().position(|lsn| *lsn >= covered).unwrap()
    };
    let (mut told, mut harmless) = (0, 0);
    for at in places.into_iter().filter(|at| wanted(*at)) {
        let storage = SimStorage::from_image(image.to_vec(), seed);
        storage.flip_bit(at, (mix(seed, at, 10) % 8) as u8);
        for round in 0..2 {
            let attempt = catch_unwind(AssertUnwindSafe(|| {
                let room = open(&storage, world.shape, &world.clock)?;
                let view = read(&room)?;
                // Closing moves everything into the B-tree; what it cannot move, it must not
                // destroy.
                let _ = room.close();
                Ok::<_, Unread>(view)
            }));
            match attempt {
                Ok(Ok(view)) => {
                    world.match_view(&view, low).map_err(|violation| {
                        (
                            at,
                            Violation(format!(
                                "byte {at}, closed {closed}, round {round}: {}",
                                violation.0
                            )),
                        )
                    })?;
                    harmless += u64::from(round == 0);
                }
                Ok(Err(Unread::Error(Error::Corrupted { .. }))) => {
                    told += 1;
                    break;
                }
                // A superblock is what says that the file is ours.
                Ok(Err(Unread::Error(
                    Error::NotCloakroom { .. } | Error::UnsupportedVersion { .. },
                ))) if at < 8_192 => {
                    told += 1;
                    break;
                }
                other => {
                    let said = match other {
                        Ok(other) => format!("{other:?}"),
                        Err(_) => "a panic".into(),
                    };
                    return Err((
                        at,
                        Violation(format!("byte {at}, closed {closed}, round {round}: {said}")),
                    ));
                }
            }
        }
    }
    Ok((told, harmless))
}

#[test]
fn threads_that_race_until_the_power_fails_lose_no_acknowledgement() {
    const THREADS: usize = 4;
    const ROUND: usize = 60;
    for seed in seeds(12) {
        let shape = Shape { log_capacity: 256 << 10, max_len: 0 };
        let storage = SimStorage::from_image(
            {
                let storage = SimStorage::new(seed);
                open(&storage, shape, &new_clock()).unwrap().close().unwrap();
                storage.process_crash_image()
            },
            seed,
        );
        let room = Cloakroom::builder().open_on(Arc::new(storage.clone())).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        storage.stop_after(storage.events() + rng.u64(20..400));
        let proceeds: Vec<AtomicUsize> = (0..100 * ROUND).map(|_| AtomicUsize::new(0)).collect();
        let acknowledged = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (room, storage, proceeds) = (room.clone(), &storage, &proceeds);
                    scope.spawn(move || race(&room, storage, proceeds, thread, seed))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(storage.is_crashed());
        let images = [0, 1, mix(seed, 0, 11)].map(|image| storage.crash_image(image));
        drop(room);
        for (image, low) in images.into_iter().zip([0, 1, 2]) {
            let room = open(&SimStorage::from_image(image, seed), shape, &new_clock()).unwrap();
            for acknowledgement in &acknowledged {
                let kept = match acknowledgement {
                    Acknowledged::Inserted(token) => {
                        consume(&room, *token).wait().unwrap() != TokenConsumeOutcome::Invalid
                    }
                    Acknowledged::Consumed(token) => {
                        consume(&room, *token).wait().unwrap() == TokenConsumeOutcome::Replay
                    }
                    Acknowledged::Taken(state) => {
                        room.handoff().get(&format!("{state}")).wait().unwrap().is_none()
                    }
                };
                assert!(
                    kept,
                    "seed {seed}, image {low}: {acknowledgement:?} was acknowledged and is lost"
                );
            }
        }
        let most = proceeds.iter().map(|proceeds| proceeds.load(Ordering::SeqCst)).max();
        assert!(most <= Some(1), "seed {seed}: a token was consumed {most:?} times");
        assert!(!acknowledged.is_empty(), "seed {seed}: nothing was done");
    }
}

#[derive(Debug)]
enum Acknowledged {
    Inserted(usize),
    Consumed(usize),
    Taken(usize),
}

fn token(number: usize) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(format!("{number:08x}")),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "race".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: 9_999_999_999,
    }
}

struct Consume(cloakroom::Pending<(TokenConsumeOutcome, Option<String>)>);

impl Consume {
    fn wait(self) -> cloakroom::Result<TokenConsumeOutcome> {
        self.0.wait().map(|(outcome, _)| outcome)
    }
}

fn consume(room: &Cloakroom, number: usize) -> Consume {
    let key = LookupKey::new(format!("{number:08x}"));
    Consume(room.form_tokens().consume_form_token(
        &key,
        &TokenSubject::Anonymous,
        "race",
        None,
        1_000,
    ))
}

/// All threads insert, consume and take the same tokens and states, each in its own order, until
/// the power fails.
fn race(
    room: &Cloakroom,
    storage: &SimStorage,
    proceeds: &[AtomicUsize],
    thread: usize,
    seed: u64,
) -> Vec<Acknowledged> {
    let mut rng = fastrand::Rng::with_seed(mix(seed, thread as u64, 12));
    let mut acknowledged = vec![];
    let mut waiting = vec![];
    for number in 0..proceeds.len() {
        if storage.is_crashed() {
            break;
        }
        if room.form_tokens().insert_form_token(token(number)).wait().is_ok() {
            acknowledged.push(Acknowledged::Inserted(number));
            let state = Blob { number: number as u64, len: 400 }.json();
            let _ = room.handoff().set(&number.to_string(), &state, 9_999_999).wait();
        }
        waiting.push((number, consume(room, number)));
        if rng.bool() {
            let taken = room.handoff().get_and_delete(&number.to_string());
            if let Ok(Some(_)) = taken.wait() {
                acknowledged.push(Acknowledged::Taken(number));
            }
        }
        if rng.u8(0..4) == 0 {
            for (number, pending) in waiting.drain(..) {
                match pending.wait() {
                    Ok(TokenConsumeOutcome::Proceed) => {
                        proceeds[number].fetch_add(1, Ordering::SeqCst);
                        acknowledged.push(Acknowledged::Consumed(number));
                    }
                    Ok(TokenConsumeOutcome::Replay) => {
                        acknowledged.push(Acknowledged::Consumed(number))
                    }
                    Ok(TokenConsumeOutcome::Invalid) | Err(_) => {}
                }
            }
        }
    }
    acknowledged
}
