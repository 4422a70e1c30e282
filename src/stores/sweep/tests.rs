//! Sweeps of whole rooms.

use super::progress::SweepCounts;
use super::sweeper::SLICE_ROWS;
use super::{Budget, backlog, sweep_job};
use crate::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use crate::cache::CacheStore;
use crate::dedupe::DedupeStore;
use crate::durability::Durability;
use crate::engine::Tick;
use crate::engine::access::Writer;
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::Deadline;
use crate::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use crate::handoff::{HandoffStateStore, JsonObject};
use crate::limits::MIN_LOG_CAPACITY;
use crate::rate_limit::{RateLimitConfig, RateLimitStore};
use crate::stores::{StoreKind, expiry};
use crate::tables::Table;
use crate::{Builder, Cloakroom, Clock, Error, ManualClock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const NOW_MS: u64 = 1_000_000;
const TTL: u64 = 100;

fn options(clock: &Arc<ManualClock>) -> Builder {
    Cloakroom::builder().clock(clock.clone()).sweep_interval(None)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW_MS))
}

fn at(at_ms: u64) -> Deadline {
    Deadline { epoch: 0, at_ms }
}

fn room() -> (Cloakroom, Arc<ManualClock>) {
    let clock = clock();
    (options(&clock).without_threads().open_in_memory().unwrap(), clock)
}

fn token(key: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(key),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: 0,
        expires_at: NOW_MS / 1_000 + TTL,
    }
}

fn consume(room: &Cloakroom, key: &str) -> TokenConsumeOutcome {
    let tokens = room.form_tokens();
    let consumed = tokens.consume_form_token(
        &LookupKey::new(key),
        &TokenSubject::Anonymous,
        "pay",
        None,
        1_000,
    );
    consumed.wait().unwrap().0
}

/// The tables that are not empty.
fn left(room: &Cloakroom) -> BTreeMap<&'static str, usize> {
    room.row_counts().unwrap().into_iter().filter(|(_, rows)| *rows > 0).collect()
}

fn counts(room: &Cloakroom) -> SweepCounts {
    room.states().sweeper.counts()
}

fn rate() -> RateLimitConfig {
    RateLimitConfig { limit: 1_000_000, window: Duration::from_secs(TTL) }
}

/// Leaves something in every store.
fn fill(room: &Cloakroom, names: std::ops::Range<u32>) {
    let os = Durability::Os;
    let (tokens, handoff) =
        (room.form_tokens().with_durability(os), room.handoff().with_durability(os));
    let (cache, jobs) = (room.cache::<u32>("c").with_durability(os), room.dedupe::<u32>("d"));
    let rates = room.rate_limit("r", rate()).unwrap().with_durability(os);
    let adaptive = room.adaptive_rate_limit("a", rate(), AdaptiveConfig::default()).unwrap();
    for number in names {
        let name = format!("{number:08x}");
        drop(tokens.insert_form_token(token(&name)));
        drop(handoff.set(&name, &JsonObject::new(), TTL));
        drop(cache.set_with_tags(&name, &number, TTL as i64, &["tag", &name]));
        drop(jobs.register(&name));
        drop(rates.record(&name));
        drop(rates.set_cooldown(&name, NOW_MS + 10));
        drop(adaptive.record(&name, Priority::User));
        if number % 2 == 0 {
            consume(room, &name);
            drop(handoff.claim(&name, Duration::from_secs(9_999)));
            drop(jobs.complete(&name, &number));
            drop(adaptive.acquire(&name, Priority::Background));
        }
    }
}

#[test]
fn nothing_is_left_of_what_has_ended_but_what_must_stay() {
    let (room, clock) = room();
    fill(&room, 0..40);
    room.cache::<u32>("c").set_with_tags("never", &1, 0, &["tag"]).wait().unwrap();
    room.rate_limit("r", rate()).unwrap().set_resource_config("configured", rate()).wait().unwrap();
    room.checkpoint().unwrap();
    fill(&room, 40..80);
    clock.advance(Duration::from_secs(TTL));
    let report = room.sweep().unwrap();
    assert_eq!(
        (
            report.removed(StoreKind::FORM_TOKENS),
            report.removed(StoreKind::HANDOFF),
            report.removed(StoreKind::CACHE)
        ),
        (40, 80, 80),
        "{report:?}"
    );
    // Windows and cooldowns.
    let limits = report.removed(StoreKind::RATE_LIMIT);
    assert_eq!((report.removed(StoreKind::DEDUPE), limits), (0, 160), "{report:?}");
    assert_eq!(report.rescheduled, 40);
    clock.advance(Duration::from_secs(24 * 3_600));
    let report = room.sweep().unwrap();
    assert_eq!(
        (
            report.removed(StoreKind::FORM_TOKENS),
            report.removed(StoreKind::DEDUPE),
            report.removed(StoreKind::ADAPTIVE_RATE_LIMIT)
        ),
        (40, 80, 80),
        "{report:?}"
    );
    assert_eq!((report.rescheduled, report.stepped_over), (0, 0));
    let stays = [
        ("adaptive_rate_limit", 80),
        ("cache", 1),
        ("cache_by_tag", 1),
        ("cache_tags", 1),
        ("rate_limit_config", 1),
        ("rate_limit_store", 1),
    ];
    assert_eq!(left(&room), BTreeMap::from(stays));
    assert_eq!(room.sweep().unwrap(), super::SweepReport::default());
    room.adaptive_rate_limit("a", rate(), AdaptiveConfig::default())
        .unwrap()
        .clear()
        .wait()
        .unwrap();
    assert_eq!(room.sweep().unwrap().removed(StoreKind::ADAPTIVE_RATE_LIMIT), 80);
    assert_eq!(left(&room).get("adaptive_rate_limit"), None);
    room.checkpoint().unwrap();
    assert_eq!(left(&room).get("expiry"), None);
}

#[test]
fn many_rows_due_at_once_are_removed_in_small_slices_that_stall_no_writer() {
    const NAMES: u32 = 15_000;
    let clock = clock();
    // More than 100,000 entries, and a log that holds a fraction of what their removal writes.
    let room = options(&clock).log_capacity(1 << 20).open_in_memory().unwrap();
    fill(&room, 0..NAMES);
    room.checkpoint().unwrap();
    let before = room.engine_stats().unwrap();
    clock.advance(Duration::from_secs(48 * 3_600));
    let swept = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !swept.load(Ordering::Acquire) {
                room.handoff()
                    .set(&format!("new {}", written % 100), &JsonObject::new(), TTL)
                    .wait()
                    .unwrap();
                written += 1;
                // A writer that outpaces the sweeper makes it take more at a time.
                let slices = counts(&room).slices;
                while counts(&room).slices == slices && !swept.load(Ordering::Acquire) {
                    thread::yield_now();
                }
            }
            written
        });
        let report = room.sweep().unwrap();
        swept.store(true, Ordering::Release);
        assert_eq!(report.total(), 7 * u64::from(NAMES));
        writer.join().unwrap()
    });
    assert!(written > 0);
    let counts = counts(&room);
    assert!(counts.most_rows <= SLICE_ROWS as u64, "{counts:?}");
    assert!(counts.most_changes <= Budget::SLICE.changes as u64, "{counts:?}");
    assert!(counts.slices >= 7 * u64::from(NAMES) / SLICE_ROWS as u64, "{counts:?}");
    assert!(
        room.engine_stats().unwrap().checkpoints > before.checkpoints,
        "the sweep was to fill the log"
    );
}

#[test]
fn a_sweep_alone_never_finds_the_log_full() {
    let clock = clock();
    let room = options(&clock).log_capacity(MIN_LOG_CAPACITY).open_in_memory().unwrap();
    fill(&room, 0..300);
    room.checkpoint().unwrap();
    let before = room.engine_stats().unwrap();
    clock.advance(Duration::from_secs(48 * 3_600));
    assert_eq!(room.sweep().unwrap().total(), 7 * 300);
    let after = room.engine_stats().unwrap();
    assert_eq!(after.stalls, before.stalls);
    assert!(after.checkpoints > before.checkpoints + 1);
}

#[test]
fn long_keys_are_swept_through_a_small_log() {
    let clock = clock();
    let room =
        options(&clock).without_threads().log_capacity(MIN_LOG_CAPACITY).open_in_memory().unwrap();
    let key = |number: u32| format!("{number} {}", "x".repeat(4_000));
    for number in 0..40 {
        room.form_tokens().insert_form_token(token(&key(number))).wait().unwrap();
        assert_eq!(consume(&room, &key(number)), TokenConsumeOutcome::Proceed);
    }
    clock.advance(Duration::from_secs(48 * 3_600));
    assert_eq!(room.sweep().unwrap().removed(StoreKind::FORM_TOKENS), 40);
    assert_eq!(left(&room), BTreeMap::new());
    assert!(counts(&room).slices >= 40 / 2);
}

#[test]
fn a_window_with_a_great_many_requests_goes_in_slices() {
    let (room, clock) = room();
    let rates = room.rate_limit("r", rate()).unwrap().with_durability(Durability::Os);
    for _ in 0..5_000 {
        clock.advance(Duration::from_millis(1));
        drop(rates.record("busy"));
    }
    clock.advance(Duration::from_secs(TTL));
    assert_eq!(room.sweep().unwrap().removed(StoreKind::RATE_LIMIT), 1);
    assert_eq!(left(&room), BTreeMap::from([("rate_limit_store", 1)]));
    let counts = counts(&room);
    assert!(counts.slices >= 5_000 / Budget::SLICE.changes as u64);
    assert!(counts.most_changes <= Budget::SLICE.changes as u64 + 3, "{counts:?}");
}

#[test]
fn what_is_refreshed_while_it_is_swept_survives() {
    let clock = clock();
    let room = options(&clock).log_capacity(1 << 20).open_in_memory().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..3 {
            let (room, clock, done) = (&room, &clock, &done);
            scope.spawn(move || {
                let handoff = room.handoff().with_durability(Durability::Os);
                let cache = room.cache::<u32>("c").with_durability(Durability::Os);
                let mut looked = 0;
                while !done.load(Ordering::Acquire) || looked < 50 {
                    let key = format!("{thread} {}", looked % 5);
                    let before_ms = clock.now_ms();
                    drop(handoff.set(&key, &JsonObject::new(), 10));
                    drop(cache.set_with_tags(&key, &looked, 10, &["tag"]));
                    let state = handoff.get(&key).wait().unwrap();
                    let value = cache.get(&key).wait().unwrap();
                    if clock.now_ms() < before_ms + 10_000 {
                        assert!(state.is_some() && value == Some(looked), "{key} was swept");
                    }
                    looked += 1;
                }
            });
        }
        for _ in 0..300 {
            clock.advance(Duration::from_secs(4));
            room.sweep().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    clock.advance(Duration::from_secs(10));
    room.sweep().unwrap();
    assert_eq!(left(&room), BTreeMap::new());
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if done() {
            return;
        }
        thread::park_timeout(Duration::from_micros(50));
    }
    panic!("it never happened: {what}");
}

#[test]
fn the_background_sweeps_when_the_clock_is_moved_and_is_idle_otherwise() {
    let clock = clock();
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    until("the first look", || counts(&room).rounds > 0);
    fill(&room, 0..50);
    for _ in 0..2 {
        clock.advance(Duration::from_secs(TTL));
    }
    until("they are swept", || !left(&room).contains_key("handoff"));
    clock.advance(Duration::from_secs(24 * 3_600));
    until("the tokens are swept", || !left(&room).contains_key("expiry"));
    assert_eq!(left(&room), BTreeMap::from([("adaptive_rate_limit", 50), ("rate_limit_store", 1)]));
    // A last look may be under way.
    let rounds = counts(&room).rounds;
    clock.advance(Duration::from_millis(1));
    until("it has looked", || counts(&room).rounds > rounds);
    let settled = counts(&room);
    fill(&room, 100..200);
    room.checkpoint().unwrap();
    // The look at the moved clock may come after the calls, and find what they left that has
    // ended.
    let (rounds, slices) = (counts(&room).rounds, counts(&room).slices);
    assert!(rounds <= settled.rounds + 1);
    assert!(slices - settled.slices <= rounds - settled.rounds);
    room.close().unwrap();
}

#[test]
fn a_room_whose_last_handle_is_dropped_closes_at_once_although_it_sweeps() {
    let (storage, clock) = (crate::storage::sim::SimStorage::new(1), clock());
    for round in 0..20 {
        let builder = Cloakroom::builder().clock(clock.clone()).log_capacity(1 << 20);
        let room = builder.open_on(Arc::new(storage.clone())).unwrap();
        fill(&room, round * 20..round * 20 + 20);
        clock.advance(Duration::from_secs(48 * 3_600));
        let weak = Arc::downgrade(room.states());
        drop(room);
        assert_eq!(weak.strong_count(), 0, "the thread still holds the engine");
    }
}

#[test]
fn damaged_rows_and_unknown_tables_are_stepped_over() {
    let (room, clock) = room();
    let put = |count: u32| {
        let written: Result<(), Error> = room
            .engine()
            .transact(Durability::Sync, &[], |tx| {
                for number in 0..count {
                    let key = number.to_be_bytes();
                    tx.put(Table::CODLET_FAILURES, &key, b"damaged".to_vec());
                    expiry::put(tx, at(NOW_MS), Table::CODLET_FAILURES, &key);
                    tx.put(
                        Table::EXPIRY,
                        &[&expiry::first_key(at(NOW_MS))[..], &[250], &key].concat(),
                        Vec::new(),
                    );
                }
                Ok(())
            })
            .wait();
        written.unwrap();
    };
    put(300);
    room.form_tokens().insert_form_token(token("behind")).wait().unwrap();
    clock.advance(Duration::from_secs(TTL));
    let maintenance = room.engine().maintenance().unwrap();
    let sweeper = &room.states().sweeper;
    for removed in [1, 0] {
        let report = sweeper.sweep(&maintenance).unwrap();
        assert_eq!(
            (report.removed(StoreKind::FORM_TOKENS), report.total(), report.stepped_over),
            (removed, removed, 600)
        );
    }
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(1));
    let ticks = (0..100)
        .map(|_| (job.step)(&maintenance).unwrap())
        .take_while(|tick| *tick == Tick::Again)
        .count();
    assert!((4..=5).contains(&ticks), "{ticks}");
    assert_eq!(left(&room), BTreeMap::from([("codlet_failures", 300), ("expiry", 600)]));
}

#[test]
fn an_index_row_of_what_never_ends_is_stepped_over() {
    let (room, clock) = room();
    room.rate_limit("r", rate()).unwrap().set_resource_config("kept", rate()).wait().unwrap();
    let written: Result<(), Error> = room
        .engine()
        .transact(Durability::Sync, &[], |tx| {
            let row = RowCursor::all(Table::RATE_LIMIT_CONFIG).up_to(1).next(tx)?;
            expiry::put(tx, at(NOW_MS), Table::RATE_LIMIT_CONFIG, &row.unwrap().0);
            Ok(())
        })
        .wait();
    written.unwrap();
    clock.advance(Duration::from_secs(TTL));
    let report = room.sweep().unwrap();
    assert_eq!((report.total(), report.stepped_over), (0, 1));
    assert_eq!(left(&room), BTreeMap::from([("rate_limit_config", 1), ("expiry", 1)]));
}

#[test]
fn damage_does_not_keep_the_rows_behind_it_from_being_removed() {
    let (room, clock) = room();
    fill(&room, 0..10);
    let damaged =
        [Table::FORM_TOKEN, Table::HANDOFF, Table::CACHE, Table::DEDUPE_JOB, Table::RATE_LIMIT];
    let written: Result<(), Error> = room
        .engine()
        .transact(Durability::Sync, &[], |tx| {
            for table in
                damaged.into_iter().chain([Table::RATE_LIMIT_COOLDOWN, Table::ADAPTIVE_RATE_LIMIT])
            {
                let row = RowCursor::all(table).up_to(1).next(tx)?;
                tx.put(table, &row.unwrap().0, vec![255; 3]);
            }
            Ok(())
        })
        .wait();
    written.unwrap();
    clock.advance(Duration::from_secs(48 * 3_600));
    let report = room.sweep().unwrap();
    assert_eq!((report.total(), report.stepped_over), (7 * 9, 7));
    assert_eq!(room.sweep().unwrap().stepped_over, 7);
}

#[test]
fn the_backlog_is_counted_up_to_a_limit() {
    let (room, clock) = room();
    for number in 0..2_000 {
        drop(room.handoff().with_durability(Durability::Os).set(
            &number.to_string(),
            &JsonObject::new(),
            TTL,
        ));
    }
    let maintenance = room.engine().maintenance().unwrap();
    assert_eq!(backlog(&maintenance, 10_000).unwrap(), 0);
    clock.advance(Duration::from_secs(TTL));
    assert_eq!(backlog(&maintenance, 10_000).unwrap(), 2_000);
    assert_eq!(backlog(&maintenance, 700).unwrap(), 700);
    room.sweep().unwrap();
    assert_eq!((backlog(&maintenance, 10_000).unwrap(), counts(&room).swept), (0, 2_000));
}

#[test]
fn the_thread_is_told_when_to_look_again() {
    let (room, clock) = room();
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(30));
    let maintenance = room.engine().maintenance().unwrap();
    assert_eq!((job.step)(&maintenance).unwrap(), Tick::IdleFor(None));
    room.handoff().set("a", &JsonObject::new(), TTL).wait().unwrap();
    room.handoff().set("b", &JsonObject::new(), 2 * TTL).wait().unwrap();
    assert_eq!((job.step)(&maintenance).unwrap(), Tick::IdleFor(Some(TTL * 1_000)));
    clock.advance(Duration::from_secs(TTL));
    assert_eq!((job.step)(&maintenance).unwrap(), Tick::IdleFor(Some(TTL * 1_000)));
    assert_eq!(counts(&room).swept, 1);
}

#[test]
fn the_thread_is_told_of_what_becomes_due_during_a_round() {
    let (room, clock) = room();
    let job = sweep_job(Arc::clone(room.states()), Duration::from_secs(30));
    let maintenance = room.engine().maintenance().unwrap();
    for number in 0..2 * SLICE_ROWS {
        room.handoff().set(&number.to_string(), &JsonObject::new(), TTL).wait().unwrap();
    }
    room.handoff().set("later", &JsonObject::new(), 2 * TTL).wait().unwrap();
    clock.advance(Duration::from_secs(TTL));
    assert_ne!((job.step)(&maintenance).unwrap(), Tick::IdleFor(Some(TTL * 1_000)));
    clock.advance(Duration::from_secs(TTL));
    let last = loop {
        match (job.step)(&maintenance).unwrap() {
            Tick::IdleFor(left_ms) => break left_ms,
            Tick::Again | Tick::Behind => {}
        }
    };
    assert_eq!((last, counts(&room).swept), (Some(0), 2 * SLICE_ROWS as u64));
    assert_eq!((job.step)(&maintenance).unwrap(), Tick::IdleFor(None));
    assert_eq!(counts(&room).swept, 2 * SLICE_ROWS as u64 + 1);
}

#[test]
fn a_sweep_is_refused_where_it_would_wait_for_itself_or_find_nothing_open() {
    let (room, _) = room();
    let nested = room.atomically(|_| Ok::<_, Error>(room.sweep().err())).wait().unwrap();
    assert!(matches!(nested, Some(Error::NestedTransaction)));
    room.close().unwrap();
    assert!(matches!(room.sweep(), Err(Error::Closed)));
    let zero = Cloakroom::builder().sweep_interval(Duration::ZERO).open_in_memory();
    assert!(matches!(zero, Err(Error::InvalidConfig(_))));
}

#[test]
fn a_run_of_tombstones_hides_what_it_is_over_and_nothing_else() {
    let (room, _) = room();
    let engine = room.engine();
    let key = |number: u64| expiry::encode_key(at(number), Table::HANDOFF, b"k");
    let change = |numbers: &[u64], is_there: bool| {
        let written: Result<(), Error> = engine
            .transact(Durability::Sync, &[], |tx| {
                for number in numbers {
                    match is_there {
                        true => tx.put(Table::EXPIRY, &key(*number), Vec::new()),
                        false => tx.delete(Table::EXPIRY, &key(*number)),
                    }
                }
                Ok(())
            })
            .wait();
        written.unwrap();
    };
    let all: Vec<u64> = (0..3_000).collect();
    change(&all, true);
    room.checkpoint().unwrap();
    let stays = |number: &u64| [0, 1_500, 1_501, 2_999].contains(number);
    change(&all.iter().copied().filter(|number| !stays(number)).collect::<Vec<_>>(), false);
    change(&[3_000], true);
    let expected: Vec<_> = [0, 1_500, 1_501, 2_999, 3_000].into_iter().map(key).collect();
    for limit in [1, 2, 3, 4, 5, 6, 700, 5_000] {
        let maintenance = engine.maintenance().unwrap();
        let index = RowCursor::all(Table::EXPIRY).up_to(limit);
        let found = maintenance.read(|rows| index.collect(rows)).unwrap();
        let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, expected[..limit.min(5)], "{limit}");
    }
}

/// A clock that does not say when it moves.
#[derive(Debug, Default)]
struct SilentClock(std::sync::atomic::AtomicU64);

impl Clock for SilentClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_wait_for_a_job_that_is_swept_answers_nothing_as_at_its_timeout() {
    let clock = Arc::new(SilentClock::default());
    let room =
        Cloakroom::builder().clock(clock.clone()).without_threads().open_in_memory().unwrap();
    let jobs = room.dedupe::<u32>("d");
    jobs.register("timed out").wait().unwrap();
    jobs.register("done").wait().unwrap();
    let (timed_out, done) = (jobs.wait_for("timed out"), jobs.wait_for("done"));
    jobs.complete("done", &7).wait().unwrap();
    clock.0.store(1_000_000, Ordering::SeqCst);
    assert_eq!(room.sweep().unwrap().removed(StoreKind::DEDUPE), 2);
    assert_eq!((timed_out.wait().unwrap(), done.wait().unwrap()), (None, Some(7)));
    assert_eq!(left(&room), BTreeMap::new());
}

#[test]
fn a_full_disk_stops_a_sweep_and_the_next_one_goes_on() {
    let (storage, clock) = (crate::storage::sim::SimStorage::new(1), clock());
    let builder = options(&clock).without_threads().log_capacity(MIN_LOG_CAPACITY);
    let room = builder.open_on(Arc::new(storage.clone())).unwrap();
    fill(&room, 0..300);
    room.checkpoint().unwrap();
    clock.advance(Duration::from_secs(48 * 3_600));
    storage.set_capacity(Some(crate::storage::Storage::len(&storage).unwrap()));
    // What never ends takes the room that is left, in the B-tree and then in the log.
    let filler = JsonObject::from_iter([("x".to_owned(), "x".repeat(2_000).into())]);
    let kept = (0_u32..100_000)
        .find(|number| {
            room.handoff().set(&format!("kept {number}"), &filler, u64::MAX).wait().is_err()
        })
        .expect("the disk never became full");
    for _ in 0..3 {
        let swept = room.sweep();
        assert!(matches!(swept, Err(Error::DiskFull { .. })), "{swept:?}");
    }
    storage.set_capacity(None);
    assert_eq!(room.sweep().unwrap().total(), 7 * 300);
    let stays = [
        ("adaptive_rate_limit", 300),
        ("expiry", kept as usize),
        ("handoff", kept as usize),
        ("rate_limit_store", 1),
    ];
    assert_eq!(left(&room), BTreeMap::from(stays));
}

#[test]
fn a_poisoned_room_does_not_sweep_and_closes_all_the_same() {
    use crate::storage::sim::{CallKind, Fault};
    for threads in [false, true] {
        let (storage, clock) = (crate::storage::sim::SimStorage::new(1), clock());
        let builder = Cloakroom::builder().clock(clock.clone()).log_capacity(1 << 20);
        let builder = if threads { builder } else { builder.without_threads() };
        let room = builder.open_on(Arc::new(storage.clone())).unwrap();
        fill(&room, 0..10);
        storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        storage.fail_call(CallKind::Sync, 0, Fault::Eio);
        let failed = room.form_tokens().insert_form_token(token("lost")).wait();
        assert!(matches!(failed, Err(Error::OutcomeUnknown { .. })), "{failed:?}");
        clock.advance(Duration::from_secs(48 * 3_600));
        assert!(matches!(room.sweep(), Err(Error::Poisoned { .. })));
        assert!(room.close().is_err());
    }
}

#[test]
fn a_sweep_removes_what_is_due_also_where_the_last_entries_are_each_a_slice_of_their_own() {
    let (room, clock) = room();
    let cache = room.cache::<String>("large");
    for key in ["a", "b", "c"] {
        cache.set(key, &"1".repeat(700 << 10), TTL.try_into().unwrap()).wait().unwrap();
    }
    room.checkpoint().unwrap();
    clock.advance(Duration::from_secs(TTL));
    assert_eq!(room.sweep().unwrap().total(), 3);
    assert_eq!(room.sweep().unwrap().total(), 0);
}
