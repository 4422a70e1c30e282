//! Jobs across openings, transactions and clocks; waiters that are woken exactly, and leave nothing
//! behind.

use crate::rooms::{NOW_MS, Wakes, block_on, small, until};
use cloakroom::dedupe::{Dedupe, DedupeStore, JobState};
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::page::Cursor;
use cloakroom::{Builder, Cloakroom, Clock, Durability, Error, ManualClock, Pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(300);
const THREADS: usize = 64;

fn with_clock() -> (Builder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    (small().clock(clock.clone()), clock)
}

fn room() -> (Cloakroom, Arc<ManualClock>) {
    let (builder, clock) = with_clock();
    (builder.open_in_memory().unwrap(), clock)
}

fn register(jobs: &Dedupe<u64>, hash: &str) -> bool {
    jobs.register_or_join(hash).wait().unwrap().is_owner
}

fn waiters(jobs: &Dedupe<u64>) -> u64 {
    jobs.stats().wait().unwrap().waiters
}

fn poll(pending: &mut Pending<Option<u64>>, wakes: &Arc<Wakes>) -> Poll<Option<u64>> {
    let waker = Waker::from(Arc::clone(wakes));
    Pin::new(pending).poll(&mut Context::from_waker(&waker)).map(Result::unwrap)
}

#[test]
fn a_dropped_or_answered_waiter_leaves_nothing_behind() {
    let (room, clock) = room();
    let (jobs, other) = (room.dedupe::<u64>("a"), room.dedupe::<u64>("b"));
    register(&jobs, "h");
    register(&other, "h");
    let mut waiting: Vec<_> = (0..100).map(|_| jobs.wait_for("h")).collect();
    let wakes = Arc::new(Wakes::default());
    waiting.iter_mut().for_each(|pending| assert!(poll(pending, &wakes).is_pending()));
    assert_eq!((waiters(&jobs), waiters(&other)), (100, 0));
    waiting.truncate(40);
    assert_eq!(waiters(&jobs), 40);
    drop(waiting);
    assert_eq!(waiters(&jobs), 0);
    let waiting = jobs.wait_for("h");
    jobs.complete("h", &1).wait().unwrap();
    assert_eq!(waiters(&jobs), 0);
    assert_eq!(waiting.wait().unwrap(), Some(1));
    let waiting = other.wait_for("h");
    clock.advance(TIMEOUT);
    assert_eq!(waiting.wait().unwrap(), None);
    assert_eq!((waiters(&other), wakes.count()), (0, 0));
}

#[test]
fn a_task_is_woken_once_by_the_end_of_its_own_job_only() {
    let (room, _) = room();
    let jobs = room.dedupe::<u64>("http");
    for hash in ["a", "b"] {
        register(&jobs, hash);
    }
    let (wakes, mut waiting) = (Arc::new(Wakes::default()), jobs.wait_for("a"));
    assert!(poll(&mut waiting, &wakes).is_pending());
    assert!(poll(&mut waiting, &wakes).is_pending());
    jobs.complete("b", &1).wait().unwrap();
    jobs.register("a").wait().unwrap();
    assert_eq!(wakes.count(), 0);
    jobs.complete("a", &2).wait().unwrap();
    jobs.complete("a", &3).wait().unwrap();
    jobs.clear(None).wait().unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll(&mut waiting, &wakes), Poll::Ready(Some(2)));
}

#[test]
fn a_durable_answer_waits_for_the_disk_after_the_end_of_the_job() {
    let (builder, _) = with_clock();
    let room = builder.without_threads().open_in_memory().unwrap();
    let relaxed = room.dedupe::<u64>("http");
    register(&relaxed, "h");
    let durable = relaxed.clone().with_durability(Durability::Sync);
    let (mut task, wakes) = (durable.wait_for("h"), Arc::new(Wakes::default()));
    let (waiting, at_once) = (durable.wait_for("h"), relaxed.wait_for("h"));
    assert!(poll(&mut task, &wakes).is_pending());
    relaxed.complete("h", &7).wait().unwrap();
    assert_eq!(wakes.count(), 1);
    assert!(at_once.is_ready() && !waiting.is_ready() && !task.is_ready());
    assert!(room.engine_stats().unwrap().durable_lsn < room.engine_stats().unwrap().newest_lsn);
    assert_eq!(waiting.wait().unwrap(), Some(7));
    assert_eq!(room.engine_stats().unwrap().durable_lsn, room.engine_stats().unwrap().newest_lsn);
    assert_eq!(poll(&mut task, &wakes), Poll::Ready(Some(7)));
    assert_eq!(at_once.wait().unwrap(), Some(7));
}

#[test]
fn closing_answers_every_waiter_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (builder, _) = with_clock();
    let room = builder.open(dir.path().join("edge.cloak")).unwrap();
    let jobs = room.dedupe::<u64>("http").with_durability(Durability::Sync);
    register(&jobs, "h");
    let (thread_waits, task_waits) = (jobs.wait_for("h"), jobs.wait_for("h"));
    let (mut polled, wakes) = (jobs.wait_for("h"), Arc::new(Wakes::default()));
    assert!(poll(&mut polled, &wakes).is_pending());
    let waiting = [
        thread::spawn(move || thread_waits.wait().unwrap()),
        thread::spawn(move || block_on(task_waits).unwrap()),
    ];
    room.close().unwrap();
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), None);
    }
    assert_eq!(wakes.count(), 1);
    assert_eq!(poll(&mut polled, &wakes), Poll::Ready(None));
    assert!(matches!(jobs.wait_for("h").wait(), Err(Error::Closed)));
    assert!(matches!(jobs.register("h").wait(), Err(Error::Closed)));
}

#[test]
fn the_last_handle_answers_who_still_waits() {
    let (room, _) = room();
    let jobs = room.dedupe::<u64>("http");
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    drop(room);
    assert!(!waiting.is_ready());
    drop(jobs);
    assert_eq!(waiting.wait().unwrap(), None);
}

#[test]
fn jobs_of_a_dead_process_have_failed_and_finished_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let (builder, clock) = with_clock();
    let room = builder.open(&path).unwrap();
    let jobs = room.dedupe::<u64>("http");
    let lost = jobs.register("lost").wait().unwrap();
    for hash in ["done", "failed"] {
        register(&jobs, hash);
    }
    jobs.complete("done", &7).wait().unwrap();
    jobs.fail("failed", "no luck").wait().unwrap();
    room.close().unwrap();
    drop((room, jobs));

    let room = small().clock(clock.clone()).sweep_interval(None).open(&path).unwrap();
    let jobs = room.dedupe::<u64>("http");
    let states: Vec<_> =
        jobs.list(None, 10).wait().unwrap().items.into_iter().map(|job| job.state).collect();
    let error = "left pending by an earlier opening of the file".to_owned();
    let failed = JobState::Failed { error: "no luck".into() };
    assert_eq!(states, [JobState::Completed { bytes: 1 }, failed, JobState::Failed { error }]);
    assert_eq!(jobs.wait_for("lost").wait().unwrap(), None);
    assert!(!jobs.is_in_progress("lost").wait().unwrap());
    assert!(!jobs.complete_owned("lost", &lost, &1).wait().unwrap());
    assert_eq!(jobs.wait_for("done").wait().unwrap(), Some(7));
    assert!(register(&jobs, "lost"));
    clock.advance(TIMEOUT);
    assert_eq!(jobs.wait_for("done").wait().unwrap(), None);
    let stats = jobs.stats().wait().unwrap();
    assert_eq!((stats.expired, stats.pending, stats.completed, stats.failed), (3, 0, 0, 0));
}

#[test]
fn a_timeout_of_zero_is_never() {
    let (room, clock) = room();
    let jobs = room.dedupe::<u64>("http").with_job_timeout(Duration::ZERO);
    register(&jobs, "pending");
    register(&jobs, "done");
    jobs.complete("done", &7).wait().unwrap();
    let waiting = jobs.wait_for("pending");
    clock.advance(Duration::MAX);
    assert_eq!(jobs.wait_for("done").wait().unwrap(), Some(7));
    assert!(!waiting.is_ready() && jobs.is_in_progress("pending").wait().unwrap());
    jobs.complete("pending", &8).wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), Some(8));
}

#[test]
fn the_greatest_timeout_does_not_overflow() {
    let (room, clock) = room();
    let jobs = room.dedupe::<u64>("http").with_job_timeout(Duration::MAX);
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    clock.advance(Duration::from_secs(u64::MAX / 4_000));
    assert!(!waiting.is_ready());
    jobs.complete("h", &8).wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), Some(8));
}

#[test]
fn the_system_clock_ends_a_job_in_time() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let jobs = room.dedupe::<u64>("http").with_job_timeout(Duration::from_millis(60));
    let started = Instant::now();
    register(&jobs, "h");
    assert_eq!(jobs.wait_for("h").wait().unwrap(), None);
    assert!(started.elapsed() >= Duration::from_millis(59));
    assert!(!jobs.is_in_progress("h").wait().unwrap());
}

/// A clock that tells no one when it moves.
#[derive(Debug, Default)]
struct Silent {
    now_ms: AtomicU64,
    asked: AtomicUsize,
}

impl Clock for Silent {
    fn now_ms(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.now_ms.load(Ordering::SeqCst)
    }
}

#[test]
fn a_clock_without_notifications_is_polled_only_while_a_caller_waits() {
    let clock = Arc::new(Silent::default());
    let room = small().clock(clock.clone()).open_in_memory().unwrap();
    let jobs = room.dedupe::<u64>("http");
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    clock.now_ms.store(300_000, Ordering::SeqCst);
    assert_eq!(waiting.wait().unwrap(), None);
    // The thread may be at its last look.
    thread::sleep(Duration::from_millis(120));
    let asked = clock.asked.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(clock.asked.load(Ordering::SeqCst), asked);
}

#[test]
fn without_threads_a_move_of_the_clock_ends_a_job_at_once() {
    let (builder, clock) = with_clock();
    let room = builder.without_threads().open_in_memory().unwrap();
    let jobs = room.dedupe::<u64>("http");
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    clock.advance(TIMEOUT - Duration::from_millis(1));
    assert!(!waiting.is_ready());
    clock.advance(Duration::from_millis(1));
    assert!(waiting.is_ready());
    assert_eq!(waiting.wait().unwrap(), None);

    // Inside a transaction the move waits for its end.
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    room.atomically(|tx| {
        clock.advance(TIMEOUT);
        tx.dedupe::<u64>("http").register("other").map(drop)
    })
    .wait()
    .unwrap();
    assert!(waiting.is_ready());
    assert_eq!(waiting.wait().unwrap(), None);
}

#[test]
fn a_transaction_ends_a_job_when_it_has_ended_well_and_not_before() {
    let (room, _) = room();
    let jobs = room.dedupe::<u64>("http");
    register(&jobs, "h");
    let waiting = jobs.wait_for("h");
    let failed = room.atomically(|tx| {
        tx.dedupe("http").complete("h", &1_u64)?;
        assert_eq!(tx.dedupe::<u64>("http").wait_for("h")?, Some(1));
        Err::<(), _>(Error::Encode("no".into()))
    });
    assert!(failed.wait().is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        room.atomically(|tx| -> Result<(), Error> {
            tx.dedupe::<u64>("http").clear(None)?;
            panic!("half way")
        })
    }));
    assert!(panicked.is_err());
    assert!(!waiting.is_ready() && jobs.is_in_progress("h").wait().unwrap());
    room.atomically(|tx| {
        let mut jobs = tx.dedupe::<u64>("http");
        assert!(jobs.is_in_progress("h")? && jobs.wait_for("h")?.is_none());
        let joined = jobs.register_or_join("h")?;
        assert!(!joined.is_owner && jobs.complete_owned("h", &joined.job_id, &2)?);
        assert!(!jobs.fail_owned("h", &joined.job_id, "late")?);
        // The next job is not the waiter's.
        assert!(jobs.register_or_join("h")?.is_owner);
        assert!(!waiting.is_ready());
        Ok::<_, Error>(())
    })
    .wait()
    .unwrap();
    assert!(waiting.is_ready());
    assert!(jobs.is_in_progress("h").wait().unwrap());
}

#[test]
fn names_tell_stores_apart_and_types_only_values() {
    let (room, _) = room();
    for name in ["", "a", "a\0", "a\0\0", "ab", "\0"] {
        let jobs = room.dedupe::<u64>(name);
        for hash in ["", "h", "\0h", "bh"] {
            assert!(register(&jobs, hash), "{name:?} {hash:?}");
        }
    }
    room.dedupe::<u64>("a").clear(None).wait().unwrap();
    let pending = |name| room.dedupe::<u64>(name).stats().wait().unwrap().pending;
    assert_eq!(["", "a", "a\0", "a\0\0", "ab", "\0"].map(pending), [4, 0, 4, 4, 4, 4]);
    room.dedupe::<String>("ab").complete("h", &"text".into()).wait().unwrap();
    assert_eq!(room.dedupe::<u64>("ab").wait_for("h").wait().unwrap(), None);
    assert_eq!(room.dedupe::<String>("ab").wait_for("h").wait().unwrap().as_deref(), Some("text"));
    let long = room.dedupe::<u64>(&"n".repeat((64 << 10) + 1));
    assert!(matches!(long.register("h").wait(), Err(Error::TooLarge { .. })));
    assert!(matches!(long.stats().wait(), Err(Error::TooLarge { .. })));
    let names = "\0".repeat(64 << 10);
    let longest = room.dedupe::<u64>(&names);
    assert!(register(&longest, &names));
    longest.complete(&names, &1).wait().unwrap();
    assert_eq!(longest.wait_for(&names).wait().unwrap(), Some(1));
    longest.clear(Some(&names)).wait().unwrap();
    assert_eq!(longest.stats().wait().unwrap().bytes, 0);
}

#[test]
fn a_result_that_cannot_be_encoded_leaves_the_job_pending() {
    let (room, _) = room();
    let jobs = room.dedupe::<std::collections::BTreeMap<Vec<u8>, u8>>("http");
    jobs.register("h").wait().unwrap();
    let waiting = jobs.wait_for("h");
    let value = [(vec![1], 1)].into();
    assert!(matches!(jobs.complete("h", &value).wait(), Err(Error::Encode(_))));
    let large = room.dedupe::<String>("http");
    assert!(matches!(
        large.complete("h", &"x".repeat(LONGEST_KEYS_LOG_CAPACITY as usize / 2)).wait(),
        Err(Error::TooLarge { .. })
    ));
    assert!(!waiting.is_ready());
    assert!(jobs.is_in_progress("h").wait().unwrap());
}

#[test]
fn more_jobs_than_a_frame_can_name_are_cleared() {
    let (room, _) = room();
    let jobs = room.dedupe::<u64>(&"n".repeat(20_000));
    let waiting = {
        for number in 0..200 {
            drop(jobs.register(&number.to_string()));
        }
        jobs.wait_for("199")
    };
    let cursor: Cursor =
        jobs.list(None, 50).wait().unwrap().next.unwrap().to_string().parse().unwrap();
    assert_eq!(jobs.list(Some(&cursor), 1_000).wait().unwrap().items.len(), 150);
    assert!(matches!(
        room.dedupe::<u64>("b").list(Some(&cursor), 1).wait(),
        Err(Error::InvalidConfig(_))
    ));
    jobs.clear(None).wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), None);
    assert_eq!(jobs.stats().wait().unwrap().bytes, 0);
}

#[test]
fn of_many_threads_one_owns_each_job_and_everybody_has_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let (builder, _) = with_clock();
    let room = builder.open(dir.path().join("edge.cloak")).unwrap();
    for durability in [Durability::Os, Durability::Sync] {
        let jobs = room.dedupe::<u64>("http").with_durability(durability);
        let (owners, start) = (AtomicU64::new(0), Barrier::new(THREADS));
        for round in 0..8_u64 {
            let hash = format!("{durability:?} {round}");
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (jobs, owners, start, hash) = (&jobs, &owners, &start, &hash);
                    scope.spawn(move || {
                        start.wait();
                        let mine = jobs.register_or_join(hash).wait().unwrap();
                        // Everybody has joined before the owner ends the job.
                        let waiting = jobs.wait_for(hash);
                        start.wait();
                        if mine.is_owner {
                            owners.fetch_add(1, Ordering::SeqCst);
                            assert!(
                                jobs.complete_owned(hash, &mine.job_id, &round).wait().unwrap()
                            );
                        }
                        let got = if thread % 2 == 0 { waiting.wait() } else { block_on(waiting) };
                        assert_eq!(got.unwrap(), Some(round));
                    });
                }
            });
            assert_eq!(owners.swap(0, Ordering::SeqCst), 1);
            assert_eq!(waiters(&jobs), 0);
        }
    }
}

#[test]
fn ends_timeouts_and_waiters_that_race_agree() {
    let (room, clock) = room();
    let jobs = room.dedupe::<u64>("http");
    for round in 0..60_u64 {
        let hash = round.to_string();
        let job = jobs.register(&hash).wait().unwrap();
        let start = Barrier::new(THREADS);
        let (ends, got): (Vec<_>, Vec<_>) = thread::scope(|scope| {
            let racers: Vec<_> = (0..THREADS)
                .map(|racer| {
                    let (jobs, clock, start, hash) = (&jobs, &clock, &start, &hash);
                    scope.spawn(move || {
                        let waiting = jobs.wait_for(hash);
                        start.wait();
                        let ended = match racer {
                            0 => jobs.complete_owned(hash, &job, &round).wait().unwrap(),
                            1 => {
                                clock.advance(TIMEOUT);
                                false
                            }
                            _ => false,
                        };
                        (ended, waiting.wait().unwrap())
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).unzip()
        });
        let expected = ends[0].then_some(round);
        assert!(got.iter().all(|got| *got == expected), "{expected:?}: {got:?}");
    }
    assert_eq!(waiters(&jobs), 0);
}

#[test]
fn waiters_that_come_and_go_while_jobs_end_miss_nothing() {
    let (room, _) = room();
    let jobs = room.dedupe::<u64>("http");
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let jobs = &jobs;
            scope.spawn(move || {
                for round in 0..60 {
                    let hash = (round % 3).to_string();
                    let mine = jobs.register_or_join(&hash).wait().unwrap();
                    if thread % 4 == 3 {
                        drop(jobs.wait_for(&hash));
                    }
                    if mine.is_owner {
                        // A clear of another owner may have come first, so either answer is right.
                        match (thread + round) % 3 {
                            0 => drop(jobs.complete_owned(&hash, &mine.job_id, &round)),
                            1 => drop(jobs.fail_owned(&hash, &mine.job_id, "no")),
                            _ => drop(jobs.clear(Some(&hash))),
                        }
                    } else {
                        let _ = jobs.wait_for(&hash).wait().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(waiters(&jobs), 0);
}

#[test]
fn a_waiter_may_call_the_room_when_it_is_woken() {
    struct Caller {
        jobs: Dedupe<u64>,
        called: AtomicUsize,
    }
    impl std::task::Wake for Caller {
        fn wake(self: Arc<Self>) {
            assert!(!register(&self.jobs, "busy"));
            self.called.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (room, clock) = room();
    let jobs = room.dedupe::<u64>("http");
    let never = room.dedupe::<u64>("http").with_job_timeout(Duration::ZERO);
    register(&never, "busy");
    let caller = Arc::new(Caller { jobs: jobs.clone(), called: AtomicUsize::new(0) });
    let mut waiting = Vec::new();
    for hash in ["done", "cleared", "late"] {
        register(&jobs, hash);
        let mut pending = jobs.wait_for(hash);
        let waker = Waker::from(Arc::clone(&caller));
        assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
        waiting.push(pending);
    }
    jobs.complete("done", &1).wait().unwrap();
    jobs.clear(Some("cleared")).wait().unwrap();
    assert_eq!(caller.called.load(Ordering::SeqCst), 2);
    clock.advance(TIMEOUT);
    until("the waiter of a late job is woken", || caller.called.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_job_completed_and_begun_anew_in_one_transaction_still_answers_who_waited() {
    let room = small().open_in_memory().unwrap();
    let jobs = room.dedupe::<String>("http");
    jobs.register("h").wait().unwrap();
    let waiting = jobs.wait_for("h");
    let next = room.atomically(|tx| {
        let mut jobs = tx.dedupe::<String>("http");
        jobs.complete("h", &"first".to_owned())?;
        jobs.register("h")
    });
    let next = next.wait().unwrap();
    assert_eq!(waiting.wait().unwrap().as_deref(), Some("first"));
    assert!(jobs.is_in_progress("h").wait().unwrap());
    assert!(jobs.complete_owned("h", &next, &"second".to_owned()).wait().unwrap());
}
