//! A room in a forked child: every call says so, nothing hangs, and the parent's room is whole.

use crate::forked::{How, alone, fork, in_a_child};
use crate::rooms::{block_on, insert, names, small, state, token, until};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::FormTokenStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{EventId, Identity, StateError, StateRecord, StateStore};
use cloakroom::watch::{Filter, WatchError};
use cloakroom::{Cloakroom, Durability, Error, Pending};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn forked<T>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::Forked)), "{:?}", answer.err());
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    (dir, path)
}

fn record(number: u64) -> StateRecord {
    StateRecord::new(Identity::new("t", "u", "s", "r"), format!("kind-{number}"), *b"bytes")
}

/// Whether this process has the file open.
fn has_open(path: &Path) -> bool {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let mut targets = links.flatten().filter_map(|link| fs::read_link(link.path()).ok());
    targets.any(|target| target == path)
}

/// Calls everything that a room offers.
fn every_call_is_refused(room: &Cloakroom, dir: &Path) {
    let tokens = room.form_tokens();
    forked(insert(&tokens, "child").wait());
    forked(crate::rooms::consume(&tokens, "t").wait());
    forked(block_on(tokens.insert_form_token(token("child"))));
    forked(room.handoff().set("child", &state(1), 600).wait());
    forked(room.handoff().get("kept").wait());
    forked(room.handoff().with_durability(Durability::Os).set("child", &state(1), 600).wait());
    let cache = room.cache::<u64>("child's").with_max_entries(3);
    forked(cache.set("a", &1, 0).wait());
    forked(cache.get("a").wait());
    forked(cache.stats().wait());
    forked(room.cache::<u64>("shared").get("a").wait());
    let jobs = room.dedupe::<u64>("jobs");
    forked(jobs.register("a").wait());
    forked(jobs.wait_for("a").wait());
    forked(jobs.complete("a", &1).wait());
    let limiter = room.rate_limit("api", RateLimitConfig::default()).unwrap();
    forked(limiter.acquire("a").wait());
    forked(limiter.can_proceed("a").wait());
    let states = room.state();
    for answer in
        [states.save(record(1)).wait(), states.load(&record(1).identity, "k").wait().map(drop)]
    {
        assert!(matches!(&answer, Err(StateError::Store(Error::Forked))), "{answer:?}");
    }
    forked(room.atomically(|tx| tx.handoff().get("kept")).wait());
    forked(room.checkpoint());
    forked(room.compact());
    forked(room.sweep());
    forked(room.stats());
    forked(room.engine_stats());
    forked(room.verify());
    forked(room.backup(dir.join("child.cloak")));
    forked(room.export(&mut Vec::new()));
    forked(room.watch(Filter::all()).map(drop));
    forked(room.close());
    forked(room.close());
    assert!(!dir.join("child.cloak").exists());
}

/// Threads that use the room all the time, so that some of its locks are held at any moment.
struct Busy {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Busy {
    fn start(room: &Cloakroom) -> Self {
        Self::start_as(room, "busy")
    }

    fn start_as(room: &Cloakroom, as_whom: &str) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4_u64).map(|thread| {
            let (room, stop, written) = (room.clone(), Arc::clone(&stop), Arc::clone(&written));
            let as_whom = as_whom.to_owned();
            std::thread::spawn(move || {
                let cache = room.cache::<u64>("shared").with_max_entries(50);
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let name = format!("{as_whom}-{thread}-{number}");
                    insert(&room.form_tokens(), &name).wait().unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                    cache.set(&name, &number, 0).wait().unwrap();
                    cache.get(&name).wait().unwrap();
                    drop(room.cache::<u64>(&name));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, written, threads }
    }

    /// How many tokens they were told are durable.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.written.load(Ordering::Relaxed)
    }
}

fn tokens(room: &Cloakroom) -> u64 {
    room.form_tokens().stats().wait().unwrap().live
}

#[test]
fn a_child_is_told_by_every_call_and_the_parent_goes_on() {
    if !alone("fork::a_child_is_told_by_every_call_and_the_parent_goes_on") {
        return;
    }
    for how in [How::Fork, How::RawClone] {
        let (dir, path) = place();
        let room = small().open(&path).unwrap();
        room.handoff().set("kept", &state(7), 600).wait().unwrap();
        fork(how, || {
            every_call_is_refused(&room, dir.path());
            assert!(!has_open(&path), "the parent's file stays open in the child");
            // A child of the child is as little the parent.
            in_a_child(|| every_call_is_refused(&room, dir.path()));
        })
        .ends_well();
        assert!(has_open(&path));
        assert!(matches!(small().open(&path), Err(Error::Locked { .. })), "the lock is gone");
        assert_eq!(room.handoff().get("kept").wait().unwrap(), Some(state(7)));
        room.handoff().set("later", &state(8), 600).wait().unwrap();
        assert!(room.verify().unwrap().is_ok());
        room.close().unwrap();
        let room = small().open(&path).unwrap();
        assert_eq!(room.handoff().get("later").wait().unwrap(), Some(state(8)));
        assert_eq!(names(dir.path()), ["edge.cloak"]);
    }
}

#[test]
fn a_room_in_memory_is_refused_too() {
    if !alone("fork::a_room_in_memory_is_refused_too") {
        return;
    }
    let (dir, _) = place();
    let room = small().open_in_memory().unwrap();
    room.handoff().set("kept", &state(7), 600).wait().unwrap();
    let busy = Busy::start(&room);
    for _ in 0..20 {
        in_a_child(|| every_call_is_refused(&room, dir.path()));
    }
    let written = busy.end();
    assert_eq!(tokens(&room), written);
}

#[test]
fn children_of_a_busy_parent_neither_hang_nor_harm_it() {
    if !alone("fork::children_of_a_busy_parent_neither_hang_nor_harm_it") {
        return;
    }
    let (dir, path) = place();
    let room = small().open(&path).unwrap();
    let busy = Busy::start(&room);
    let watched = room.watch(Filter::all()).unwrap();
    for round in 0..100 {
        let pending = insert(&room.form_tokens(), &format!("round-{round}"));
        match round % 3 {
            0 => in_a_child(|| every_call_is_refused(&room, dir.path())),
            // It only drops what it has.
            1 => in_a_child(|| drop((pending, room.clone(), room.cache::<u64>("shared")))),
            _ => in_a_child(|| {
                forked(pending.wait());
                drop(room.form_tokens());
                drop(room.state());
            }),
        }
        assert!(matches!(small().open(&path), Err(Error::Locked { .. })), "the lock is gone");
    }
    drop(watched);
    let written = busy.end();
    assert!(written > 0);
    assert!(room.verify().unwrap().is_ok());
    room.close().unwrap();
    let room = small().open(&path).unwrap();
    assert!(room.verify().unwrap().is_ok());
    assert_eq!(tokens(&room), written + 100);
}

/// The child takes the last handles, as a program does that moves its room into the closure.
#[test]
fn a_child_that_only_drops_the_room_leaves_the_lock_and_the_threads_alone() {
    if !alone("fork::a_child_that_only_drops_the_room_leaves_the_lock_and_the_threads_alone") {
        return;
    }
    let (_dir, path) = place();
    let room = small().open(&path).unwrap();
    // Its threads run.
    insert(&room.form_tokens(), "t").wait().unwrap();
    drop(room.handoff().with_durability(Durability::Os).set("os", &state(1), 600));
    // SAFETY: the copy is dropped in the child alone, where it is the only one.
    let copy = unsafe { std::ptr::read(&raw const room) };
    let copy = std::mem::ManuallyDrop::new(copy);
    in_a_child(|| {
        drop(std::mem::ManuallyDrop::into_inner(copy));
        assert!(!has_open(&path));
    });
    assert!(matches!(small().open(&path), Err(Error::Locked { .. })), "the lock is gone");
    insert(&room.form_tokens(), "u").wait().unwrap();
    room.close().unwrap();
    assert_eq!(tokens(&small().open(&path).unwrap()), 2);
}

fn is_forked<T>(pending: Pending<T>, by_polling: bool) {
    assert!(pending.is_ready());
    forked(if by_polling { block_on(pending) } else { pending.wait() });
}

#[test]
fn answers_and_watches_from_before_the_fork_end_in_the_child() {
    if !alone("fork::answers_and_watches_from_before_the_fork_end_in_the_child") {
        return;
    }
    let (_dir, path) = place();
    let room = small().open(&path).unwrap();
    let jobs = room.dedupe::<u64>("jobs").with_job_timeout(Duration::from_secs(100));
    jobs.register("a").wait().unwrap();
    let mut watch = room.watch(Filter::all()).unwrap();
    for by_polling in [false, true] {
        let (durable, row) =
            (insert(&room.form_tokens(), &format!("{by_polling}")), jobs.wait_for("a"));
        let (dropped, dropped_row) = (insert(&room.form_tokens(), "x"), jobs.wait_for("a"));
        let (durable, row) = (std::cell::Cell::new(Some(durable)), std::cell::Cell::new(Some(row)));
        in_a_child(|| {
            is_forked(durable.take().unwrap(), by_polling);
            is_forked(row.take().unwrap(), by_polling);
            drop((dropped, dropped_row));
            for _ in 0..2 {
                assert!(matches!(watch.try_recv(), Err(WatchError::Forked)));
                assert!(matches!(watch.recv(), Err(WatchError::Forked)));
                let soon = watch.recv_timeout(Duration::from_millis(1));
                assert!(matches!(soon, Err(WatchError::Forked)));
                assert!(matches!(block_on(watch.recv_async()), Err(WatchError::Forked)));
            }
        });
        // The parent's answers come.
        durable.take().unwrap().wait().unwrap();
        let waiting = std::thread::spawn({
            let row = row.take().unwrap();
            move || row.wait()
        });
        jobs.complete("a", &7).wait().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), Some(7));
        jobs.register("a").wait().unwrap();
    }
    assert!(watch.recv().is_ok());
}

#[test]
fn a_child_opens_the_room_when_the_parent_has_closed_it() {
    if !alone("fork::a_child_opens_the_room_when_the_parent_has_closed_it") {
        return;
    }
    let (_dir, path) = place();
    for round in 0..20 {
        let room = small().open(&path).unwrap();
        insert(&room.form_tokens(), &format!("parent-{round}")).wait().unwrap();
        let child = fork(How::Fork, || {
            let mut opened = None;
            until("the parent closes the room", || match small().open(&path) {
                Ok(room) => opened.replace(room).is_none(),
                Err(Error::Locked { .. }) => false,
                Err(error) => panic!("{error}"),
            });
            let own = opened.unwrap();
            insert(&own.form_tokens(), &format!("child-{round}")).wait().unwrap();
            let busy = Busy::start_as(&own, &format!("child-{round}"));
            until("they write", || busy.written.load(Ordering::Relaxed) > 50);
            busy.end();
            own.checkpoint().unwrap();
            assert!(own.verify().unwrap().is_ok());
            // The parent's is still the parent's.
            forked(room.stats());
            own.close().unwrap();
        });
        std::thread::sleep(Duration::from_millis(5));
        room.close().unwrap();
        child.ends_well();
        let room = small().open(&path).unwrap();
        let name = format!("child-{round}");
        assert!(matches!(insert(&room.form_tokens(), &name).wait(), Err(Error::AlreadyExists)));
    }
}

#[test]
fn a_fork_inside_a_transaction_commits_in_the_parent_alone() {
    if !alone("fork::a_fork_inside_a_transaction_commits_in_the_parent_alone") {
        return;
    }
    let (_dir, path) = place();
    let room = small().open(&path).unwrap();
    let busy = Busy::start(&room);
    let is_child = AtomicBool::new(false);
    for round in 0..20 {
        let name = format!("round-{round}");
        let mut child = 0;
        let answer = room.atomically(|tx| {
            tx.handoff().set(&name, &state(round), 600)?;
            // SAFETY: as for every fork here.
            child = unsafe { libc::fork() };
            is_child.store(child == 0, Ordering::Relaxed);
            Ok::<_, Error>(())
        });
        let answer = answer.wait();
        if is_child.load(Ordering::Relaxed) {
            let refused = matches!(answer, Err(Error::Forked));
            // SAFETY: the child ends here and now.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        answer.unwrap();
        let mut status = 0;
        // SAFETY: the status lives across the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "round {round}");
        assert_eq!(room.handoff().get(&name).wait().unwrap(), Some(state(round)));
    }
    busy.end();
    assert!(room.verify().unwrap().is_ok());
}

#[test]
fn a_fork_during_a_backup_leaves_it_to_the_parent() {
    if !alone("fork::a_fork_during_a_backup_leaves_it_to_the_parent") {
        return;
    }
    let (dir, path) = place();
    let (room, copy) = (small().open(&path).unwrap(), dir.path().join("copy.cloak"));
    insert(&room.form_tokens(), "t").wait().unwrap();
    let mut child = -1;
    let report = room.backup_with_progress(&copy, &mut |_, _| {
        if child < 0 {
            // SAFETY: as for every fork here.
            child = unsafe { libc::fork() };
        }
    });
    if child == 0 {
        // SAFETY: the child ends here and now.
        unsafe { libc::_exit(i32::from(!matches!(report, Err(Error::Forked)))) };
    }
    report.unwrap();
    let mut status = 0;
    // SAFETY: the status lives across the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(names(dir.path()), ["copy.cloak", "edge.cloak"]);
    assert_eq!(tokens(&small().open(&copy).unwrap()), 1);
}

#[test]
fn parent_and_child_mint_different_ids() {
    if !alone("fork::parent_and_child_mint_different_ids") {
        return;
    }
    let (dir, _) = place();
    let made = |name: &str| {
        let room = small().open(dir.path().join(name)).unwrap();
        let jobs = room.dedupe::<u64>("jobs");
        let claimed = (0..20).map(|number| {
            room.handoff().set("s", &state(number), 600).wait().unwrap();
            let claim = room.handoff().claim("s", Duration::from_secs(9)).wait().unwrap().unwrap();
            format!("{}", claim.id)
        });
        let mut ids: Vec<String> = claimed.collect();
        ids.extend(
            (0..20).map(|job: u32| jobs.register(&job.to_string()).wait().unwrap().to_string()),
        );
        ids.extend((0..200).map(|_| EventId::new().as_str().to_owned()));
        ids
    };
    let _ = made("before.cloak");
    in_a_child(|| fs::write(dir.path().join("ids"), made("child.cloak").join("\n")).unwrap());
    let parents = made("parent.cloak");
    let childs = fs::read_to_string(dir.path().join("ids")).unwrap();
    // Within one millisecond ids of one process differ in their last letters only.
    let random = |id: &str| id[10..22].to_owned();
    let of_child: std::collections::HashSet<_> = childs.lines().map(random).collect();
    let shared = parents.iter().filter(|id| of_child.contains(&random(id))).count();
    assert_eq!(shared, 0, "of {} ids", parents.len());
}
