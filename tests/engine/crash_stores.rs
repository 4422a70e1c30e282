//! Power failures over every store at once: what is left of a random history is what the room held
//! after one of its steps, none of those acknowledged is missing, and every way to a row leads to
//! the same rows.
//!
//! Everything follows from a seed. `CLOAKROOM_SIM_SEEDS=<n>` runs that many seeds instead of the
//! few of an ordinary test run (`CLOAKROOM_TESTS=long`: more), all of them at every event; a
//! failure prints the seed and event that replay it.

use crate::all_stores::dump::{Dump, check_swept, go_on};
use crate::all_stores::history::{History, builder, new_clock, open};
use crate::scale::scaled;
use cloakroom::cache::CacheStore;
use cloakroom::handoff::{HandoffStateStore, JsonObject};
use cloakroom::rate_limit::RateLimitStore;
use cloakroom::testing::SimStorage;
use cloakroom::{Cloakroom, Durability, ManualClock};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Steps of one history.
const STEPS: usize = 100;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What is wrong, and after which event.
struct Violation {
    event: u64,
    what: String,
    trail: Vec<String>,
}

/// The bytes of a new room.
fn formatted(seed: u64) -> Vec<u8> {
    let storage = SimStorage::new(seed);
    open(&storage, &new_clock()).unwrap().close().unwrap();
    storage.process_crash_image()
}

/// Cuts the power at every `every`th event of a history.
fn crash(seed: u64, every: u64, lying: bool) -> Result<u64, Violation> {
    let room = formatted(seed);
    let mut whole = History::new(seed, &room, false);
    let dumps = whole.run_and_look(STEPS);
    // Looking may write what was still to be written, so the events are counted without.
    let mut plain = History::new(seed, &room, lying);
    plain.run(STEPS);
    assert_eq!(plain.times_ms, whole.times_ms, "a history does not follow from its seed");
    let only = env("CLOAKROOM_SIM_EVENT");
    let events = (seed % every..=plain.storage.events()).step_by(every as usize);
    let mut crashes = 0;
    for event in only.map_or_else(|| events.collect(), |event| vec![event]) {
        let mut history = History::new(seed, &room, lying);
        history.storage.stop_after(event);
        history.run(STEPS);
        if !history.storage.is_crashed() {
            history.storage.power_off();
        }
        let chance = fastrand::Rng::with_seed(seed << 32 ^ event).u64(2..);
        for image in [0, 1, chance] {
            let bytes = history.storage.crash_image(image);
            let swept = if image == chance { sweep(bytes.clone()) } else { Ok(()) };
            let survived = survive(&history, bytes, &dumps);
            swept.and(survived).map_err(|what| {
                let (what, trail) = (format!("image {image}: {what}"), history.trail.clone());
                Violation { event, what, trail }
            })?;
        }
        crashes += 1;
    }
    Ok(crashes)
}

/// When everything that is in `image` has ended, a sweep leaves no row without the one that it
/// belongs to.
fn sweep(image: Vec<u8>) -> Result<(), String> {
    let (storage, clock) = (SimStorage::from_image(image, 7), new_clock());
    let room = open(&storage, &clock).map_err(|error| format!("it does not open: {error}"))?;
    clock.advance(Duration::from_secs(10 * 24 * 3_600));
    check_swept(&room)
}

/// What `image` holds is what the history held after one step that may survive, and goes on from
/// there.
fn survive(history: &History, image: Vec<u8>, dumps: &[Dump]) -> Result<(), String> {
    let (low, high) = (history.acknowledged, history.issued());
    let Some((dump, Opened { storage, clock, room })) = find(history, &image, dumps, low..=high)?
    else {
        if let Some((dump, _)) = find(history, &image, dumps, 0..=low)? {
            let step = dumps.iter().position(|known| *known == dump).unwrap_or_default();
            return Err(format!("step {step} survived although step {low} was acknowledged"));
        }
        let opened = Opened::at(&image, history.times_ms[high])?;
        let dump = Dump::of(&opened.room).map_err(|error| error.to_string())?;
        let difference = dump.difference(&dumps[high]);
        return Err(format!(
            "it is none of the steps {low}..={high}; the last differs {difference}"
        ));
    };
    dump.check_ways(&room, history.events)?;
    read_only(image, &clock, &dump)?;
    go_on(&room)?;
    // What was done after the failure is there when the room is opened once more.
    let before = Dump::of(&room).map_err(|error| error.to_string())?;
    room.close().map_err(|error| error.to_string())?;
    let room =
        open(&storage, &clock).map_err(|error| format!("it does not open again: {error}"))?;
    let after = Dump::of(&room).map_err(|error| error.to_string())?;
    if after != before {
        return Err(format!("opened again it differs {}", after.difference(&before)));
    }
    Ok(())
}

/// A room that is opened for reading only holds the same, and leaves the image as the power failure
/// did.
fn read_only(image: Vec<u8>, clock: &Arc<ManualClock>, dump: &Dump) -> Result<(), String> {
    let storage = SimStorage::from_image(image, 7);
    let room = builder(clock).read_only(true).open_on(Arc::new(storage.clone()));
    let room = room.map_err(|error| format!("it does not open for reading: {error}"))?;
    let read =
        Dump::of(&room).map_err(|error| format!("it cannot be read without writing: {error}"))?;
    room.close().map_err(|error| error.to_string())?;
    if read != *dump {
        return Err(format!("opened for reading it differs {}", read.difference(dump)));
    }
    match storage.events() {
        0 => Ok(()),
        events => Err(format!("opened for reading it made {events} calls that write")),
    }
}

/// A room that was opened from an image.
struct Opened {
    storage: SimStorage,
    clock: Arc<ManualClock>,
    room: Cloakroom,
}

impl Opened {
    /// By a clock that shows this time.
    fn at(image: &[u8], now_ms: u64) -> Result<Self, String> {
        let storage = SimStorage::from_image(image.to_vec(), 7);
        let clock = Arc::new(ManualClock::new(now_ms));
        let room = open(&storage, &clock).map_err(|error| format!("it does not open: {error}"))?;
        Ok(Self { storage, clock, room })
    }
}

/// What the room in `image` holds, if that is what the history held after the first step of `steps`
/// that it can be. What has ended depends on the time, so the room is opened at each step's own.
fn find(
    history: &History,
    image: &[u8],
    dumps: &[Dump],
    steps: RangeInclusive<usize>,
) -> Result<Option<(Dump, Opened)>, String> {
    for step in steps {
        let opened = Opened::at(image, history.times_ms[step])?;
        let dump = Dump::of(&opened.room).map_err(|error| format!("it cannot be read: {error}"))?;
        if dump == dumps[step] {
            return Ok(Some((dump, opened)));
        }
    }
    Ok(None)
}

#[test]
fn a_history_fills_every_store_and_is_moved_out_of_the_log() {
    let (mut filled, mut checkpoints) = ([0; 9], 0);
    for seed in 0..8 {
        let mut history = History::new(seed, &formatted(seed), false);
        for dump in history.run_and_look(STEPS) {
            filled.iter_mut().zip(dump.filled()).for_each(|(sum, rows)| *sum += rows);
        }
        checkpoints += history.room.engine_stats().unwrap().checkpoints;
    }
    assert!(
        filled.iter().all(|sum| *sum > STEPS) && checkpoints > 0,
        "{filled:?}, {checkpoints} checkpoints"
    );
}

#[test]
fn a_power_failure_leaves_every_store_as_it_was_after_one_and_the_same_step() {
    let seeds = match env("CLOAKROOM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env("CLOAKROOM_SIM_SEEDS").unwrap_or(scaled(4, 8)),
    };
    let thorough = env("CLOAKROOM_SIM_SEEDS").is_some() || env("CLOAKROOM_SIM_SEED").is_some();
    let mut crashes = 0;
    for seed in seeds {
        let every = if thorough || seed < scaled(1, 4) { 1 } else { 5 };
        match crash(seed, every, false) {
            Ok(ran) => crashes += ran,
            Err(Violation { event, what, trail }) => {
                let tail =
                    trail.iter().rev().take(25).rev().cloned().collect::<Vec<_>>().join("\n  ");
                panic!(
                    "seed {seed}, event {event}, {what}\nthe last steps:\n  {tail}\nreplay with:\n  \
                     CLOAKROOM_SIM_SEED={seed} CLOAKROOM_SIM_EVENT={event} cargo test --features testing \
                     --test engine crash_stores -- --nocapture"
                );
            }
        }
    }
    assert!(
        env("CLOAKROOM_SIM_EVENT").is_some() || crashes > 50,
        "the power failed only {crashes} times"
    );
}

/// Entries with every kind of secondary row, all of which have ended when the clock is moved by a
/// day, and a log that they fill several times.
fn filled_with_what_ends(seed: u64) -> Vec<u8> {
    let storage = SimStorage::new(seed);
    let room = open(&storage, &new_clock()).unwrap();
    let os = Durability::Os;
    let cache = crate::all_stores::ops::caches(&room, 0, os);
    let rates = crate::all_stores::ops::rates(&room, os);
    for number in 0..150 {
        let name = format!("{number} {}", "x".repeat(100));
        room.handoff().set(&name, &JsonObject::new(), 60).wait().unwrap();
        room.handoff().claim(&name, Duration::from_secs(30)).wait().unwrap().unwrap();
        cache.set_with_tags(&name, &name, 60, &["one", &name]).wait().unwrap();
        rates.record(&name).wait().unwrap();
    }
    room.close().unwrap();
    storage.process_crash_image()
}

/// Every entry has all of its secondary rows, and none is without its entry.
fn check_whole(room: &Cloakroom) -> Result<(), String> {
    let rows: BTreeMap<_, _> =
        room.row_counts().map_err(|error| error.to_string())?.into_iter().collect();
    let whole = rows["handoff"] == rows["handoff_claim"]
        && rows["cache"] == rows["cache_tags"]
        && 2 * rows["cache"] == rows["cache_by_tag"]
        && rows["rate_limit"] == rows["rate_limit_request"]
        && rows["handoff"] + rows["cache"] + rows["rate_limit"] == rows["expiry"];
    if whole { Ok(()) } else { Err(format!("{rows:?}")) }
}

#[test]
fn a_power_failure_in_the_middle_of_a_sweep_leaves_every_entry_whole_or_gone() {
    let filled = filled_with_what_ends(1);
    let clock = new_clock();
    clock.advance(Duration::from_secs(24 * 3_600));
    let sweep = |stop_after: Option<u64>| {
        let storage = SimStorage::from_image(filled.clone(), 1);
        // What has ended while the room was closed is swept at once.
        let builder = builder(&clock).leap_hold(Duration::ZERO);
        let room = builder.open_on(Arc::new(storage.clone())).unwrap();
        if let Some(event) = stop_after {
            storage.stop_after(event);
        }
        let swept = room.sweep();
        let done = swept.is_ok() && room.checkpoint().is_ok();
        assert_eq!(done, stop_after.is_none() || !storage.is_crashed());
        storage
    };
    let (events, mut partly) = (sweep(None).events(), 0);
    assert!(events > 50, "{events}");
    let every = scaled(3, 1);
    for event in (0..events).step_by(every) {
        let storage = sweep(Some(event));
        if !storage.is_crashed() {
            storage.power_off();
        }
        for image in [0, 1, 2 + event] {
            let storage = SimStorage::from_image(storage.crash_image(image), 7);
            let builder = builder(&clock).leap_hold(Duration::ZERO);
            let room = builder.open_on(Arc::new(storage.clone())).unwrap();
            check_whole(&room)
                .unwrap_or_else(|what| panic!("event {event}, image {image}: {what}"));
            let swept = room.sweep().unwrap().total();
            partly += usize::from((1..450).contains(&swept));
            check_swept(&room)
                .unwrap_or_else(|what| panic!("event {event}, image {image}: {what}"));
        }
    }
    assert!(partly > 20 / every, "the power failed in the middle only {partly} times");
}

/// A checker that never fails proves nothing: acknowledging before the flush must be noticed.
#[test]
fn a_room_that_acknowledges_before_it_flushes_is_caught() {
    let caught = (0..4).find_map(|seed| crash(seed, 3, true).err());
    let violation = caught.expect("the fault went unnoticed");
    assert!(
        violation.what.contains("was acknowledged"),
        "caught for another reason: {}",
        violation.what
    );
}
