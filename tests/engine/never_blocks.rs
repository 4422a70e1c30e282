//! No call and no poll waits for the disk: a flush or a checkpoint is held, and a thread that runs
//! tasks goes on.

use crate::all_stores::ops::{
    self, Failure, Kept, Op, Task, identity, issue_task, kind, lookup_key, name, rate,
};
use crate::rooms::{NOW_MS, Wakes, block_on, state, state_of, until};
use cloakroom::adaptive_rate_limit::{AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::{DedupeStore, JobId};
use cloakroom::form_token::{FormTokenStore, TokenSubject};
use cloakroom::handoff::{ClaimId, HandoffStateStore};
use cloakroom::limits::MAX_QUEUED_LOG_BYTES;
use cloakroom::rate_limit::RateLimitStore;
use cloakroom::state::{EventId, ListScope, SlotExpectation, StateError, StateRecord, StateStore};
use cloakroom::testing::{CallKind, Fault, SimStorage, Storage, StorageView};
use cloakroom::watch::Filter;
use cloakroom::{Builder, Cloakroom, Durability, Error, ManualClock, Pending};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

/// Long after every call that does not block has returned.
const FOR_EVER: Duration = Duration::from_secs(100);

/// The log of these rooms, in bytes: four states of [`BIG`] bytes fit a segment.
const LOG: u64 = 512 << 10;
const BIG: usize = 60_000;
const IN_A_SEGMENT: u64 = 4;

/// Which flushes do not return.
#[derive(Debug, Default)]
struct Held {
    log: bool,
    btree: bool,
    /// No one let them go on for so long that a call must have waited for one.
    given_up: bool,
}

/// A disk whose flushes are held, those of the log and those of the B-tree each for themselves.
#[derive(Debug, Clone)]
struct HeldDisk {
    sim: SimStorage,
    held: Arc<(Mutex<Held>, Condvar)>,
    is_btree: bool,
}

impl HeldDisk {
    fn new() -> Self {
        Self { sim: SimStorage::new(3), held: Arc::default(), is_btree: false }
    }

    fn set(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.0.lock().unwrap());
        self.held.1.notify_all();
    }

    fn hold_log(&self) {
        self.set(|held| held.log = true);
    }

    fn hold_btree(&self) {
        self.set(|held| held.btree = true);
    }

    fn let_go(&self) {
        self.set(|held| (held.log, held.btree) = (false, false));
    }

    fn pass(&self) {
        let mut held = self.held.0.lock().unwrap();
        while if self.is_btree { held.btree } else { held.log } {
            held = self.held.1.wait(held).unwrap();
        }
    }

    /// Lets everything go on after a long time, so that a call that waits ends and the test fails.
    fn watch(&self) -> HeldWatch {
        let (stop, stopped) = channel::<()>();
        let disk = self.clone();
        thread::spawn(move || {
            if stopped
                .recv_timeout(FOR_EVER)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                disk.set(|held| *held = Held { given_up: true, ..Held::default() });
            }
        });
        HeldWatch { disk: self.clone(), _stop: stop }
    }
}

/// Declared behind the room, which is closed when the test fails.
struct HeldWatch {
    disk: HeldDisk,
    _stop: Sender<()>,
}

impl HeldWatch {
    /// Nothing has waited for what was held, and it goes on now.
    fn end(self) {
        assert!(!self.disk.held.0.lock().unwrap().given_up, "a call or a poll waited for the disk");
    }
}

impl Drop for HeldWatch {
    fn drop(&mut self) {
        self.disk.let_go();
    }
}

impl Storage for HeldDisk {
    fn len(&self) -> io::Result<u64> {
        self.sim.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.sim.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass();
        self.sim.write_at(offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass();
        self.sim.write_at_durable(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass();
        self.sim.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass();
        self.sim.set_len(len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        self.sim.view(offset, len)
    }

    fn separate(&self) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(Some(Arc::new(Self { is_btree: true, ..self.clone() })))
    }
}

fn builder() -> Builder {
    Cloakroom::builder().log_capacity(LOG).clock(Arc::new(ManualClock::new(NOW_MS)))
}

fn open(disk: &HeldDisk, builder: Builder) -> Cloakroom {
    builder.open_on(Arc::new(disk.clone())).unwrap()
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn record(user: u8, id: &str) -> StateRecord {
    StateRecord {
        id: EventId::from(id),
        identity: identity(user, "run"),
        kind: kind(0),
        version: 1,
        bytes: b"bytes".to_vec(),
        updated_at: None,
    }
}

/// Each operation that writes, and each that reads and may write.
fn operations() -> Vec<Op> {
    const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let (value, json) = ("v".to_owned(), r#"{"a":1}"#.to_owned());
    let claim: ClaimId = format!("{ULID}.none").parse().unwrap();
    let job: JobId = ULID.parse().unwrap();
    let absent =
        |user| SlotExpectation { identity: identity(user, "run"), kind: kind(0), expected: None };
    vec![
        Op::Insert { key: 1, serial: 1, expires_at: 1_000_000 },
        Op::Consume { key: 1, now: 1_000 },
        Op::SetResult { key: 1, serial: 1 },
        Op::Set { id: 1, value: state(1), ttl_seconds: 600 },
        Op::Claim { id: 1, lease_ms: 1_000 },
        Op::Ack(claim.clone()),
        Op::Release(claim.clone()),
        Op::Extend { claim, lease_ms: 1_000 },
        Op::SetRaw { id: 2, json, ttl_ms: 600_000 },
        Op::Take { id: 2 },
        Op::Delete { id: 1 },
        Op::CacheSet { cache: 0, hash: 1, value: value.clone(), ttl_seconds: 60 },
        Op::CacheSet { cache: 1, hash: 1, value: value.clone(), ttl_seconds: 60 },
        Op::CacheTagged { cache: 0, hash: 2, value: value.clone(), ttl_seconds: 0, tags: vec![1] },
        Op::CacheGet { cache: 0, hash: 2 },
        Op::CacheDelete { cache: 0, hash: 1 },
        Op::Invalidate { cache: 0, tags: vec![1] },
        Op::CacheClear { cache: 0, scope: None },
        Op::Register { job: 1 },
        Op::CompleteOwned { job: 1, id: job, value: value.clone() },
        Op::Complete { job: 1, value },
        Op::Register { job: 2 },
        Op::Fail { job: 2, serial: 1 },
        Op::ClearJobs { scope: None },
        Op::Acquire { resource: 1 },
        Op::Record { resource: 1 },
        Op::Configure { resource: 1, config: rate() },
        Op::Reset { resource: 1 },
        Op::Cooldown { origin: 1, until: 2 * NOW_MS },
        Op::ClearCooldown { origin: 1 },
        Op::ClearRates,
        Op::AdaptiveAcquire { resource: 1, priority: Priority::User },
        Op::AdaptiveRecord { resource: 1, priority: Priority::Background },
        Op::AdaptiveStatus { resource: 1 },
        Op::AdaptiveConfigure { resource: 1, config: rate() },
        Op::AdaptiveCooldown { origin: 1, until: 2 * NOW_MS },
        Op::AdaptiveReset { resource: 1 },
        Op::Save(record(1, "first")),
        Op::SaveIf(absent(2), record(2, "second")),
        Op::DeleteIf(SlotExpectation { expected: Some(EventId::from("first")), ..absent(1) }),
        Op::DeleteState { identity: identity(2, "run"), kind: kind(0) },
        Op::DeleteScope { user: 1 },
    ]
}

/// Each operation that only reads, as a task.
fn reads(room: &Cloakroom, durability: Durability) -> Vec<Task> {
    fn task<T: 'static, E: Into<Failure> + 'static>(pending: Pending<T, E>) -> Task {
        Box::pin(async { pending.await.map(|_| Kept::Nothing).map_err(Into::into) })
    }
    let tokens = room.form_tokens().with_durability(durability);
    let handoff = room.handoff().with_durability(durability);
    let cache = ops::caches(room, 0, durability);
    let jobs = ops::jobs(room, durability);
    let (rates, adaptive) = (ops::rates(room, durability), ops::adaptive(room, durability));
    let states = room.state().with_durability(durability);
    let (key, anyone) = (lookup_key(1), TokenSubject::Anonymous);
    let (user, job) = (identity(1, "run"), name(9));
    vec![
        task(tokens.peek_form_token(&key, &anyone, "pay", None, 1_000)),
        task(tokens.list(None, 10)),
        task(tokens.stats()),
        task(handoff.get(&name(1))),
        task(handoff.list(None, 10)),
        task(handoff.stats()),
        task(cache.get(&name(1))),
        task(cache.list(None, 10)),
        task(cache.stats()),
        task(jobs.wait_for(&job)),
        task(jobs.is_in_progress(&job)),
        task(jobs.list(None, 10)),
        task(jobs.stats()),
        task(rates.can_proceed(&job)),
        task(rates.status(&job)),
        task(rates.wait_time(&job)),
        task(rates.resource_config(&job)),
        task(rates.cooldown(&job)),
        task(adaptive.can_proceed(&job, Priority::User)),
        task(adaptive.wait_time(&job, Priority::User)),
        task(adaptive.cooldown(&job)),
        task(states.load(&user, &kind(0))),
        task(states.load_by_event_id(&EventId::from("first"))),
        task(states.list_kind(ListScope::maintenance(), "k")),
        task(states.list_kind_for_identity(&user, "k", None)),
        task(states.scan_kind_for_tenant(ListScope::maintenance(), "tenant", "k", 10, None)),
    ]
}

/// The smallest executor of several tasks: polls those that are left, in turn.
#[derive(Default)]
struct Tasks {
    running: Vec<Task>,
    answers: Vec<Result<Kept, Failure>>,
}

impl Tasks {
    fn poll_all(&mut self) {
        let answers = &mut self.answers;
        self.running.retain_mut(|task| match poll(task) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
    }

    /// Runs them to the end.
    fn finish(mut self) -> Vec<Result<Kept, Failure>> {
        until("every task is answered", || {
            self.poll_all();
            self.running.is_empty()
        });
        self.answers
    }
}

/// Makes every call of every store, and after each polls all that is not answered, beside a task
/// that ticks. Everything runs on this thread, so that it stands still as long as anything blocks.
fn make_every_call(room: &Cloakroom, durability: Durability) -> Tasks {
    let (mut tasks, mut ticks, mut polls) = (Tasks::default(), 0, 0);
    let mut ticker = poll_fn(|_| {
        ticks += 1;
        Poll::<()>::Pending
    });
    let mut turn = |tasks: &mut Tasks| {
        polls += 1;
        let _ = poll(&mut ticker);
        tasks.poll_all();
    };
    for op in operations() {
        tasks.running.push(issue_task(room, &op, durability));
        turn(&mut tasks);
    }
    for read in reads(room, durability) {
        tasks.running.push(read);
        turn(&mut tasks);
    }
    let in_one = room.atomically(|tx| tx.handoff().set("together", &state(1), 600));
    tasks
        .running
        .push(Box::pin(async { in_one.await.map(|()| Kept::Nothing).map_err(Into::into) }));
    turn(&mut tasks);
    assert_eq!(ticks, polls);
    tasks
}

const LEVELS: [Durability; 3] =
    [Durability::Sync, Durability::Interval(Duration::from_millis(1)), Durability::Os];

fn other(answer: Result<Kept, Failure>) -> Option<Error> {
    match answer {
        Ok(_) | Err(Failure::Refused) => None,
        Err(Failure::RolledBack) => panic!("nothing is rolled back here"),
        Err(Failure::Other(error)) => Some(error),
    }
}

#[test]
fn no_call_and_no_poll_waits_for_a_flush() {
    for durability in LEVELS {
        let disk = HeldDisk::new();
        let room = open(&disk, builder());
        room.handoff().set("before", &state(0), 600).wait().unwrap();
        let watch = disk.watch();
        disk.hold_log();
        let tasks = make_every_call(&room, durability);
        assert!(!tasks.running.is_empty(), "{durability:?}: something waits for the log");
        watch.end();
        let failed: Vec<_> = tasks.finish().into_iter().filter_map(other).collect();
        assert!(failed.is_empty(), "{durability:?}: {failed:?}");
    }
}

#[test]
fn no_call_and_no_poll_waits_for_a_leader_that_flushes() {
    let disk = HeldDisk::new();
    let room = open(&disk, builder());
    room.handoff().set("before", &state(0), 600).wait().unwrap();
    let watch = disk.watch();
    disk.hold_log();
    thread::scope(|scope| {
        for number in 0..3 {
            let handoff = room.handoff();
            scope.spawn(move || {
                handoff.set(&format!("blocking {number}"), &state(number), 600).wait().unwrap();
            });
        }
        until("they are applied", || room.engine_stats().unwrap().newest_lsn >= 4);
        let tasks: Vec<_> =
            LEVELS.map(|durability| make_every_call(&room, durability)).into_iter().collect();
        watch.end();
        for tasks in tasks {
            assert_eq!(tasks.finish().into_iter().filter_map(other).count(), 0);
        }
    });
}

/// Sets so many big states, none of whose answers is waited for.
fn set_big(room: &Cloakroom, from: u64, count: u64) -> Vec<Pending<()>> {
    let set = |number| room.handoff().set(&format!("big {number}"), &state_of(BIG), 600);
    (from..from + count).map(set).collect()
}

/// A room in which both segments are full, because the checkpoint of the first is held, and one
/// change is queued.
fn full(disk: &HeldDisk, builder: Builder) -> (Cloakroom, Vec<Pending<()>>, HeldWatch) {
    let room = open(disk, builder);
    let watch = disk.watch();
    disk.hold_btree();
    let mut pending = set_big(&room, 0, 2 * IN_A_SEGMENT);
    pending.drain(..).for_each(|pending| pending.wait().unwrap());
    let mut queued = set_big(&room, 2 * IN_A_SEGMENT, 1);
    assert!(poll(&mut queued[0]).is_pending());
    (room, queued, watch)
}

#[test]
fn no_call_and_no_poll_waits_for_a_checkpoint_when_the_log_is_full() {
    for durability in LEVELS {
        let disk = HeldDisk::new();
        let (room, queued, watch) = full(&disk, builder());
        let tasks = make_every_call(&room, durability);
        assert!(!tasks.running.is_empty(), "{durability:?}: what is queued is not answered");
        watch.end();
        let failed: Vec<_> = tasks.finish().into_iter().filter_map(other).collect();
        assert!(failed.is_empty(), "{durability:?}: {failed:?}");
        queued.into_iter().for_each(|pending| pending.wait().unwrap());
    }
}

#[test]
fn a_change_that_finds_the_log_and_the_queue_full_is_refused_at_once() {
    for durability in LEVELS {
        let disk = HeldDisk::new();
        let (room, mut queued, watch) = full(&disk, builder());
        let most = MAX_QUEUED_LOG_BYTES / BIG as u64 - 1;
        queued.extend(set_big(&room, 2 * IN_A_SEGMENT + 1, most - 1));
        let refused = loop {
            let mut set = set_big(&room, 10_000, 1).remove(0);
            match poll(&mut set) {
                Poll::Pending => queued.push(set),
                Poll::Ready(answer) => break answer.unwrap_err(),
            }
        };
        let Error::LogFull { waited, retry_after, is_applied: false, .. } = &refused else {
            panic!("{refused}");
        };
        assert!(waited.is_zero() && !retry_after.is_zero(), "{refused}");
        // Smaller ones take what is left.
        let fill = |bytes| room.handoff().set("fill", &state_of(bytes), 600);
        for bytes in [4_000, 400, 40, 10] {
            while !fill(bytes).is_ready() {}
        }
        let mut tasks = make_every_call(&room, durability);
        watch.end();
        tasks.poll_all();
        for error in tasks.finish().into_iter().filter_map(other) {
            assert!(matches!(error, Error::LogFull { is_applied: false, .. }), "{error}");
        }
        queued.into_iter().for_each(|pending| pending.wait().unwrap());
        set_big(&room, 10_001, 1).remove(0).wait().unwrap();
    }
}

#[test]
fn what_is_queued_is_visible_at_once_and_answered_when_it_is_durable() {
    let disk = HeldDisk::new();
    let (room, mut queued, watch) = full(&disk, builder());
    queued.push(room.handoff().set("small", &state(7), 600));
    let relaxed = room.handoff().with_durability(Durability::Os);
    assert_eq!(relaxed.get("small").wait().unwrap(), Some(state(7)));
    assert_eq!(relaxed.list(None, 100).wait().unwrap().items.len(), 10);
    let mut read = room.handoff().get("small");
    assert!(poll(&mut read).is_pending() && queued.iter_mut().all(|set| poll(set).is_pending()));
    // A crash takes away what no one was told of, and nothing else.
    for seed in 0..4 {
        let after = builder().without_threads();
        let room =
            after.open_on(Arc::new(SimStorage::from_image(disk.sim.crash_image(seed), seed)));
        let items = room.unwrap().handoff().list(None, 100).wait().unwrap().items;
        assert_eq!(items.len(), 8, "seed {seed}");
    }
    watch.end();
    assert_eq!(block_on(read).unwrap(), Some(state(7)));
    queued.into_iter().for_each(|set| block_on(set).unwrap());
    for seed in 0..4 {
        let after = builder().without_threads();
        let room =
            after.open_on(Arc::new(SimStorage::from_image(disk.sim.crash_image(seed), seed)));
        let items = room.unwrap().handoff().list(None, 100).wait().unwrap().items;
        assert_eq!(items.len(), 10, "seed {seed}");
    }
}

#[test]
fn a_watcher_of_what_is_queued_waits_without_blocking_and_is_told_when_it_is_durable() {
    let disk = HeldDisk::new();
    let room = open(&disk, builder());
    let mut changes = room.watch(Filter::handoff().prefix("small")).unwrap();
    let held = disk.watch();
    disk.hold_btree();
    set_big(&room, 0, 2 * IN_A_SEGMENT).into_iter().for_each(|set| set.wait().unwrap());
    let mut queued = set_big(&room, 2 * IN_A_SEGMENT, 1);
    queued.push(room.handoff().set("small", &state(7), 600));
    assert!(poll(&mut queued[1]).is_pending());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(changes.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    let before = wakes.count();
    held.end();
    queued.into_iter().for_each(|set| set.wait().unwrap());
    until("the watcher is woken", || wakes.count() > before);
    assert_eq!(block_on(changes.recv_async()).unwrap().key, "small");
}

#[test]
fn an_answer_waits_for_space_as_long_as_the_builder_says_and_the_change_stays() {
    let disk = HeldDisk::new();
    let (room, mut queued, watch) = full(&disk, builder().log_stall(Duration::from_millis(1)));
    queued.push(room.handoff().set("small", &state(7), 600));
    let by_task = block_on(queued.pop().unwrap()).unwrap_err();
    let by_thread = queued.pop().unwrap().wait().unwrap_err();
    for error in [by_task, by_thread] {
        assert!(matches!(error, Error::LogFull { is_applied: true, .. }), "{error}");
    }
    watch.end();
    until("it is durable", || {
        let stats = room.engine_stats().unwrap();
        stats.durable_lsn == stats.newest_lsn
    });
    assert_eq!(room.handoff().get("small").wait().unwrap(), Some(state(7)));
}

#[test]
fn closing_makes_durable_what_is_queued() {
    let disk = HeldDisk::new();
    let (room, mut queued, watch) = full(&disk, builder());
    queued.push(room.handoff().set("small", &state(7), 600));
    let closing = thread::spawn({
        let room = room.clone();
        move || room.close().unwrap()
    });
    watch.end();
    closing.join().unwrap();
    queued.into_iter().for_each(|pending| pending.wait().unwrap());
    drop(room);
    let room = open(&disk, builder());
    assert_eq!(room.handoff().list(None, 100).wait().unwrap().items.len(), 10);
}

#[test]
fn a_change_in_many_steps_goes_on_by_itself_when_the_log_is_full() {
    let disk = HeldDisk::new();
    let room = open(&disk, builder());
    let cache = room.cache::<String>("pages");
    let jobs = room.dedupe::<String>("jobs");
    let states = room.state();
    for number in 0..2_000 {
        cache.set_with_tags(&format!("{number:04}"), &"page".into(), 0, &["tag"]).wait().unwrap();
        jobs.register(&format!("{number:04}")).wait().unwrap();
        let record = record(1, &format!("{number:04}"));
        states.save(StateRecord { kind: format!("{number:04}"), ..record }).wait().unwrap();
    }
    room.checkpoint().unwrap();
    let watch = disk.watch();
    disk.hold_btree();
    // Half of the queue is left to others.
    let half = MAX_QUEUED_LOG_BYTES / 2 / BIG as u64;
    let mut pending = set_big(&room, 0, 2 * IN_A_SEGMENT + half);
    let removed = cache.invalidate_by_tag("tag");
    let (cleared, ended) = (cache.clear(None), jobs.clear(None));
    let deleted = states.delete_scope("tenant", &name(1), "session");
    // One that no one waits for is done all the same.
    drop(cleared);
    assert!(!removed.is_ready() && !ended.is_ready() && !deleted.is_ready());
    watch.end();
    assert_eq!(removed.wait().unwrap(), 2_000);
    ended.wait().unwrap();
    assert_eq!(block_on(deleted).unwrap(), 2_000);
    pending.drain(..).for_each(|pending| pending.wait().unwrap());
    assert_eq!(cache.stats().wait().unwrap().live, 0);
    assert_eq!(jobs.list(None, 10).wait().unwrap().items.len(), 0);
    let left = states.list_kind(ListScope::maintenance(), "0").wait().unwrap();
    assert!(left.is_empty(), "{}", left.len());
}

#[test]
fn a_failed_log_answers_what_is_queued() {
    let disk = HeldDisk::new();
    let (room, mut queued, watch) = full(&disk, builder());
    queued.push(room.handoff().set("small", &state(7), 600));
    // That of the header of the segment that they are queued for.
    disk.sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    watch.end();
    for pending in queued {
        let error = pending.wait().unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    }
    let later: Result<(), StateError> = room.state().save(record(1, "later")).wait();
    assert!(matches!(later, Err(StateError::Store(Error::Poisoned { .. }))), "{later:?}");
}
