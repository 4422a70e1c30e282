//! Threads that are there while they have work.

use super::access::Writer;
use super::cursor::RowCursor;
use super::{CommitHook, Engine, EngineOptions, Found, MaintenanceJob, Threads, Tick};
use crate::clock::{ManualClock, SystemClock};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::MIN_LOG_CAPACITY;
use crate::pending::Pending;
use crate::storage::sim::SimStorage;
use crate::storage::{MemoryStorage, Storage};
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// By when everything here has happened.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(threads: Threads) -> EngineOptions {
    EngineOptions {
        tables: catalogue(),
        log_capacity: MIN_LOG_CAPACITY,
        cache_size: 1 << 20,
        clock: Arc::new(SystemClock::new()),
        leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
        newest_epoch: |_| Ok(None),
        threads,
        maintenance: None,
        read_only: false,
        log_stall: crate::limits::DEFAULT_LOG_STALL,
        migrations: &[],
        hook: CommitHook::default(),
    }
}

fn engine(threads: Threads) -> Engine {
    Engine::create_on(Arc::new(MemoryStorage::new()), options(threads)).unwrap()
}

fn maintenance() -> MaintenanceJob {
    MaintenanceJob { every: PATIENCE, step: Arc::new(|_| Ok(Tick::IdleFor(None))) }
}

fn put(engine: &Engine, durability: Durability, key: u32, value: usize) -> Pending<()> {
    engine.transact(durability, &[], |tx| {
        tx.put(Table::CACHE, &key.to_be_bytes(), vec![1; value]);
        Ok(())
    })
}

fn running(engine: &Engine) -> Vec<&'static str> {
    engine.wiring.workers.running()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited for ever: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn until_idle(engine: &Engine) {
    until("the threads end", || running(engine).is_empty());
}

struct Bell(mpsc::Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Waits as a task does: no thread blocks in the engine.
fn wait_as_task<T>(pending: Pending<T>) -> Result<T> {
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Bell(sender)));
    let mut pending = pin!(pending);
    loop {
        match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => woken.recv_timeout(PATIENCE).unwrap(),
        }
    }
}

/// Waits for a row that never changes, with a deadline so many milliseconds from now.
fn wait_for_deadline(engine: &Engine, in_ms: u64) -> Pending<bool> {
    let at = engine.kernel().moment().deadline_in(in_ms);
    engine.await_row(
        Durability::Os,
        Table::DEDUPE_JOB,
        b"job",
        move |_| Ok::<_, Error>(Found::Later(Arc::new(|_| None), Some(at))),
        |row| Ok(row.is_none()),
    )
}

#[test]
fn an_idle_room_has_the_maintenance_thread_alone_and_none_without_maintenance() {
    let idle = engine(Threads::Background);
    assert_eq!(running(&idle), [""; 0]);
    let with_maintenance =
        EngineOptions { maintenance: Some(maintenance()), ..options(Threads::Background) };
    let engine = Engine::create_on(Arc::new(MemoryStorage::new()), with_maintenance).unwrap();
    assert_eq!(running(&engine), ["cloakroom-maintenance"]);
    put(&engine, Durability::Sync, 1, 1).wait().unwrap();
    assert_eq!(running(&engine), ["cloakroom-commit", "cloakroom-maintenance"]);
    until("the committer ends", || running(&engine) == ["cloakroom-maintenance"]);
    engine.close().unwrap();
    assert_eq!(running(&engine), [""; 0]);
}

#[test]
fn what_no_caller_waits_for_is_done_after_the_threads_have_ended() {
    let engine = engine(Threads::Background);
    for round in 0..2 {
        until_idle(&engine);
        drop(put(&engine, Durability::Os, round, 1));
        let log = engine.kernel().log();
        until("it is written", || log.written() == log.appended());

        until_idle(&engine);
        drop(put(&engine, Durability::Interval(Duration::from_millis(20)), round, 1));
        until("it is flushed", || log.durable() == log.appended());
        // Longer than an idle thread stays: a flush that is due later is work.
        drop(put(&engine, Durability::Interval(Duration::from_millis(1_500)), round, 1));
        until("it is flushed", || log.durable() == log.appended());

        until_idle(&engine);
        wait_as_task(put(&engine, Durability::Sync, round, 1)).unwrap();

        until_idle(&engine);
        assert!(wait_as_task(wait_for_deadline(&engine, 1_300)).unwrap());

        until_idle(&engine);
        let checkpoints = engine.stats().unwrap().checkpoints;
        let half = usize::try_from(MIN_LOG_CAPACITY / 4).unwrap();
        (0..3).for_each(|key| drop(put(&engine, Durability::Os, key, half)));
        until("the full segment is moved", || engine.stats().unwrap().checkpoints > checkpoints);
    }
    engine.close().unwrap();
}

/// Calls that come just when the threads are about to end.
#[test]
fn nothing_is_lost_at_the_moment_when_threads_end() {
    let engine = engine(Threads::Background);
    let log = engine.kernel().log();
    for round in 0..16_u64 {
        let key = u32::try_from(round).unwrap();
        drop(put(&engine, Durability::Os, key, 1));
        until("it is written", || log.written() == log.appended());
        assert!(wait_as_task(wait_for_deadline(&engine, 2)).unwrap());
        wait_as_task(put(&engine, Durability::Sync, key, 1)).unwrap();
        // The idle time of the committer begins a tick or two later.
        thread::sleep(Duration::from_millis(997 + round));
    }
    engine.close().unwrap();
    assert_eq!(running(&engine), [""; 0]);
}

/// The thread sleeps for an hour, or until the clock is moved, when the last wait is dropped.
#[test]
fn the_timer_ends_when_the_last_wait_is_dropped() {
    let manual =
        EngineOptions { clock: Arc::new(ManualClock::new(1_000)), ..options(Threads::Background) };
    let manual = Engine::create_on(Arc::new(MemoryStorage::new()), manual).unwrap();
    for engine in [engine(Threads::Background), manual] {
        let waits = [3_600_000, 7_200_000].map(|in_ms| wait_for_deadline(&engine, in_ms));
        assert_eq!(running(&engine), ["cloakroom-timer"]);
        drop(waits);
        until_idle(&engine);
    }
}

#[test]
fn the_last_handle_joins_the_threads() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let engine = Engine::create_on(Arc::clone(&storage), options(Threads::Background)).unwrap();
    drop(put(&engine, Durability::Os, 1, 1));
    let waiting = wait_for_deadline(&engine, 3_600_000);
    assert_eq!(running(&engine), ["cloakroom-commit", "cloakroom-timer"]);
    let kernel = Arc::downgrade(engine.kernel());
    drop(engine);
    assert_eq!(kernel.strong_count(), 0, "a thread still holds the kernel");
    assert!(waiting.wait().unwrap());
}

#[test]
fn where_no_thread_can_be_started_the_callers_do_the_work() {
    let engine = engine(Threads::Refused);
    let log = engine.kernel().log();
    drop(put(&engine, Durability::Os, 1, 1));
    assert_eq!((log.written(), log.durable()), (1, 0), "the caller writes");
    drop(put(&engine, Durability::Interval(PATIENCE), 1, 1));
    assert_eq!(log.durable(), 2, "the caller flushes");
    drop(put(&engine, Durability::Sync, 1, 1));
    assert_eq!(log.durable(), 3);
    wait_as_task(put(&engine, Durability::Sync, 1, 1)).unwrap();
    let half = usize::try_from(MIN_LOG_CAPACITY / 4).unwrap();
    for key in 0..20 {
        put(&engine, Durability::Os, key, half).wait().unwrap();
    }
    assert!(engine.stats().unwrap().checkpoints >= 8, "the callers move full segments");
    // No thread would notice that a deadline has passed.
    assert!(matches!(wait_for_deadline(&engine, 1).wait(), Err(Error::Io { .. })));
    assert_eq!(engine.waiters(Table::DEDUPE_JOB, b"", None), 0);
    engine.close().unwrap();
}

/// Everything that threads do, done with the threads that can be started. What was written is
/// there afterwards.
fn work(engine: &Engine, has_timer: bool) {
    let log = engine.kernel().log();
    drop(put(engine, Durability::Os, 1, 1));
    until("it is written", || log.written() == log.appended());
    // A caller that does the work does all of it, so this may be durable before its interval.
    drop(put(engine, Durability::Interval(Duration::from_millis(20)), 2, 1));
    until("it is flushed", || log.durable() == log.appended());
    drop(put(engine, Durability::Sync, 3, 1));
    until("it is flushed", || log.durable() == log.appended());
    wait_as_task(put(engine, Durability::Sync, 4, 1)).unwrap();
    let (before, half) =
        (engine.stats().unwrap().checkpoints, usize::try_from(MIN_LOG_CAPACITY / 4).unwrap());
    for key in 5..15 {
        put(engine, Durability::Os, key, half).wait().unwrap();
    }
    until("full segments are moved", || engine.stats().unwrap().checkpoints >= before + 4);
    let waited = wait_for_deadline(engine, 1).wait();
    match has_timer {
        true => assert!(waited.unwrap()),
        // No thread would notice that the deadline has passed.
        false => assert!(matches!(waited, Err(Error::Io { .. })), "{waited:?}"),
    }
    assert_eq!(engine.waiters(Table::DEDUPE_JOB, b"", None), 0);
}

fn keys(engine: &Engine) -> usize {
    engine
        .read(Durability::Os, |rows| RowCursor::all(Table::CACHE).collect(rows))
        .wait()
        .unwrap()
        .len()
}

/// Each kind of thread alone, and then all of them, after they had run.
#[test]
fn where_a_thread_cannot_be_started_any_more_nothing_is_lost_and_no_one_waits_for_ever() {
    let all =
        ["cloakroom-commit", "cloakroom-checkpoint", "cloakroom-timer", "cloakroom-maintenance"];
    for refused in [&all[..1], &all[1..2], &all[2..3], &all[..]] {
        let has_timer = !refused.contains(&"cloakroom-timer");
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let engine = Engine::create_on(Arc::clone(&storage), options(Threads::Background)).unwrap();
        work(&engine, true);
        until_idle(&engine);
        engine.wiring.workers.refuse(refused);
        work(&engine, has_timer);
        let running = running(&engine);
        assert!(running.iter().all(|name| !refused.contains(name)), "{running:?}");
        engine.wiring.workers.refuse(&[]);
        work(&engine, true);
        engine.wiring.workers.refuse(&all);
        drop(put(&engine, Durability::Os, 99, 1));
        engine.close().unwrap();
        drop(engine);
        let path = std::path::Path::new("(again)");
        let engine = Engine::open_on(storage, path, options(Threads::Background)).unwrap();
        assert_eq!(keys(&engine), 15);
    }
}

#[test]
fn a_segment_that_an_opening_recovered_is_moved_by_a_caller_where_no_thread_can_be_started() {
    let storage = SimStorage::new(1);
    let engine = Engine::create_on(Arc::new(storage.clone()), options(Threads::None)).unwrap();
    let mut rows = 0;
    while engine.kernel().log().spare_is_free() {
        put(&engine, Durability::Sync, rows, 500).wait().unwrap();
        rows += 1;
    }
    let killed = SimStorage::from_image(storage.process_crash_image(), 1);
    let path = std::path::Path::new("(killed)");
    let engine = Engine::open_on(Arc::new(killed), path, options(Threads::Refused)).unwrap();
    assert!(!engine.kernel().log().spare_is_free());
    drop(put(&engine, Durability::Os, rows, 1));
    assert!(engine.kernel().log().spare_is_free(), "the first caller moves it");
    assert_eq!(keys(&engine), usize::try_from(rows + 1).unwrap());
    engine.close().unwrap();
}

#[test]
fn an_opening_that_can_start_no_thread_gives_up_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let refused = EngineOptions { maintenance: Some(maintenance()), ..options(Threads::Refused) };
    for _ in 0..2 {
        let outcome = Engine::open_file(&path, refused.clone());
        let Err(Error::Io { context, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(context.contains("maintenance thread"), "{context}");
    }
    let engine = Engine::open_file(&path, options(Threads::Background)).unwrap();
    put(&engine, Durability::Sync, 1, 1).wait().unwrap();
    engine.close().unwrap();
}
