//! Group commit: many callers wait, one of them does the work for all.
//!
//! This module knows nothing of files. It elects a leader among the callers that wait, lets it run
//! a commit (given as a closure that says which positions it is taking along, and answers the
//! position reached), publishes that position and wakes exactly those who waited for it. Whoever
//! arrives meanwhile is the next group.
//!
//! # Two doors
//! Waking a thread costs more than everything else here, so a whole group is woken with one call of
//! the system. Its members sleep behind a *door*, a word that they wait on and that is changed to
//! open it. There are two: one for the group whose commit is under way, one for the group that
//! gathers. When a commit takes its group along, the doors change places; a caller that arrives
//! later is sent behind the one or the other by its position. The first behind a door sleeps apart,
//! because it is the one to be woken alone when its group is to be led.
//!
//! A caller that waits alone is its own leader: it does not pay for waking another thread. When a
//! leader is done and others wait for a later position, it hands the lead to the first of them
//! before it opens the door for the rest; when only tasks wait, which cannot block, it says so, and
//! a background thread leads.
//!
//! # Invariants
//! 1. At most one leader at a time; the lead is free only while nobody waits, or until the
//!    background thread that was called for takes it.
//! 2. `durable` never decreases, and is published before anybody is woken for it.
//! 3. Whoever sleeps behind the door of the group under way waits for a position that this commit
//!    takes along.
//! 4. Where threads sleep behind the gathering door while nobody leads, there is a first among them
//!    who is about to.
//! 5. After a failure nobody leads again: every waiter, present and future, gets the failure.

use super::company::Company;
use crate::observe;
use parking_lot::Mutex;
use std::cell::OnceCell;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::Instant;

/// The state of the first behind a door: still waiting, answered, or asked to lead.
const WAITING: u8 = 0;
const ANSWERED: u8 = 1;
const LEADING: u8 = 2;

/// A thread that sleeps apart. Each thread has one and uses it again for every wait.
#[derive(Debug)]
struct Parker {
    state: AtomicU8,
    thread: Thread,
}

impl Parker {
    /// This thread's own, set to wait.
    fn of_this_thread() -> Arc<Self> {
        thread_local! {
            static PARKER: OnceCell<Arc<Parker>> = const { OnceCell::new() };
        }
        PARKER.with(|cell| {
            let new =
                || Arc::new(Parker { state: AtomicU8::new(WAITING), thread: thread::current() });
            let parker = cell.get_or_init(new);
            parker.state.store(WAITING, Ordering::Relaxed);
            Arc::clone(parker)
        })
    }

    fn wake(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.thread.unpark();
    }

    fn park(&self) -> u8 {
        loop {
            match self.state.load(Ordering::Acquire) {
                WAITING => thread::park(),
                state => return state,
            }
        }
    }
}

/// A task that waits.
#[derive(Debug)]
struct Task {
    ticket: u64,
    waker: Waker,
}

/// Who sleeps behind a door.
#[derive(Debug, Default)]
struct Behind {
    first: Option<Arc<Parker>>,
    /// Threads that sleep on the door's word.
    sleepers: usize,
    tasks: Vec<Task>,
}

impl Behind {
    fn threads(&self) -> usize {
        self.sleepers + usize::from(self.first.is_some())
    }

    fn is_empty(&self) -> bool {
        self.threads() == 0 && self.tasks.is_empty()
    }
}

/// Which of the two doors.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Door {
    #[default]
    Left,
    Right,
}

impl Door {
    fn other(self) -> Self {
        match self {
            Door::Left => Door::Right,
            Door::Right => Door::Left,
        }
    }
}

/// One thing for each door.
#[derive(Debug, Default)]
struct PerDoor<T> {
    left: T,
    right: T,
}

impl<T> PerDoor<T> {
    fn at(&self, door: Door) -> &T {
        match door {
            Door::Left => &self.left,
            Door::Right => &self.right,
        }
    }

    fn at_mut(&mut self, door: Door) -> &mut T {
        match door {
            Door::Left => &mut self.left,
            Door::Right => &mut self.right,
        }
    }
}

#[derive(Debug, Default)]
struct GroupState {
    leading: bool,
    /// The door of the group that gathers; the other one is that of the group under way.
    gathering: Door,
    /// The last position that the commit under way takes along, while there is one.
    under_way: Option<u64>,
    behind: PerDoor<Behind>,
    next_ticket: u64,
}

impl GroupState {
    /// The door for whoever waits for `position`.
    fn door(&self, position: u64) -> Door {
        match self.under_way {
            Some(last) if position <= last => self.gathering.other(),
            _ => self.gathering,
        }
    }

    /// The commit of the leader takes along everything up to `last`, and with it all who gathered.
    fn depart(&mut self, last: u64) {
        if self.under_way.replace(last).is_none() {
            self.gathering = self.gathering.other();
        }
    }
}

/// How a thread is to wait.
enum Place {
    Lead,
    First(Arc<Parker>),
    Sleeper(Door, u32),
}

/// What a task's poll found.
#[derive(Debug)]
pub(crate) enum Polled {
    /// The position is reached, or never will be.
    Ready(Result<(), Arc<io::Error>>),
    /// The task is registered under this ticket. With `call_leader`, nobody leads: the background
    /// thread must.
    Registered { ticket: u64, call_leader: bool },
}

/// Elects leaders and wakes waiters. See the module.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    durable: AtomicU64,
    failure: OnceLock<Arc<io::Error>>,
    state: Mutex<GroupState>,
    /// What sleepers wait on. A word changes, under the lock of the state, when its door opens.
    words: PerDoor<AtomicU32>,
    company: Company,
}

/// A commit: told what to call with the last position it takes along, it answers the position
/// reached, which is that one or a later one.
pub(crate) trait Commit: Fn(&dyn Fn(u64)) -> io::Result<u64> {}

impl<F: Fn(&dyn Fn(u64)) -> io::Result<u64>> Commit for F {}

impl GroupCommit {
    /// Everything up to `durable` is durable already.
    pub(crate) fn new(durable: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            failure: OnceLock::new(),
            state: Mutex::default(),
            words: PerDoor::default(),
            company: Company::default(),
        }
    }

    /// The greatest position known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The failure that ended all commits, if there was one.
    pub(crate) fn failure(&self) -> Option<&Arc<io::Error>> {
        self.failure.get()
    }

    /// Whether somebody waits and nobody leads.
    pub(crate) fn needs_leader(&self) -> bool {
        let state = self.state.lock();
        !state.leading && !state.behind.at(state.gathering).is_empty()
    }

    /// What is known about `position` without waiting.
    fn answer(&self, position: u64) -> Option<Result<(), Arc<io::Error>>> {
        if self.durable() >= position {
            return Some(Ok(()));
        }
        self.failure().map(|failure| Err(Arc::clone(failure)))
    }

    /// Blocks until `position` is durable, leading a commit when nobody else does. The commit must
    /// take along everything that was appended before it began.
    pub(crate) fn wait(
        &self,
        position: u64,
        commit: impl Commit,
        call_leader: impl Fn(),
    ) -> Result<(), Arc<io::Error>> {
        loop {
            if let Some(answer) = self.answer(position) {
                return answer;
            }
            let place = {
                let mut state = self.state.lock();
                if let Some(answer) = self.answer(position) {
                    return answer;
                }
                self.place(&mut state, position)
            };
            match place {
                Place::Lead => self.lead(&commit, &call_leader),
                Place::First(parker) => {
                    if parker.park() == LEADING {
                        self.lead(&commit, &call_leader);
                    }
                }
                Place::Sleeper(door, shut) => {
                    let word = self.words.at(door);
                    while word.load(Ordering::Acquire) == shut {
                        atomic_wait::wait(word, shut);
                    }
                }
            }
        }
    }

    fn place(&self, state: &mut GroupState, position: u64) -> Place {
        if !state.leading {
            state.leading = true;
            return Place::Lead;
        }
        let door = state.door(position);
        if door == state.gathering {
            self.company.gathered.fetch_add(1, Ordering::Relaxed);
        }
        let behind = state.behind.at_mut(door);
        if behind.first.is_none() {
            let parker = Parker::of_this_thread();
            behind.first = Some(Arc::clone(&parker));
            return Place::First(parker);
        }
        behind.sleepers += 1;
        Place::Sleeper(door, self.words.at(door).load(Ordering::Acquire))
    }

    /// Registers a task that waits for `position`; `ticket` is what the same wait was given before.
    pub(crate) fn poll(&self, position: u64, ticket: Option<u64>, waker: &Waker) -> Polled {
        if let Some(answer) = self.answer(position) {
            return Polled::Ready(answer);
        }
        let mut state = self.state.lock();
        if let Some(answer) = self.answer(position) {
            return Polled::Ready(answer);
        }
        let call_leader = !state.leading;
        let GroupState { behind, .. } = &mut *state;
        let mut tasks = behind.left.tasks.iter_mut().chain(&mut behind.right.tasks);
        if let Some(task) = tasks.find(|task| Some(task.ticket) == ticket) {
            task.waker.clone_from(waker);
            return Polled::Registered { ticket: task.ticket, call_leader };
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let door = state.door(position);
        state.behind.at_mut(door).tasks.push(Task { ticket, waker: waker.clone() });
        Polled::Registered { ticket, call_leader }
    }

    /// Forgets a task that was registered and will not be polled again.
    pub(crate) fn forget(&self, ticket: u64) {
        let mut state = self.state.lock();
        let GroupState { behind, .. } = &mut *state;
        for behind in [&mut behind.left, &mut behind.right] {
            behind.tasks.retain(|task| task.ticket != ticket);
        }
    }

    /// Leads one commit unless somebody leads already: the background thread's turn.
    pub(crate) fn drive(&self, commit: impl Commit, call_leader: impl Fn()) {
        if self.failure().is_some() || std::mem::replace(&mut self.state.lock().leading, true) {
            return;
        }
        self.lead(&commit, &call_leader);
    }

    /// Publishes a position that was reached, before the commit that reached it ends.
    pub(crate) fn publish(&self, position: u64) {
        self.durable.fetch_max(position, Ordering::AcqRel);
    }

    /// Ends all commits: every waiter gets `failure`.
    pub(crate) fn fail(&self, failure: io::Error) {
        let failure = Arc::new(failure);
        if self.failure.set(Arc::clone(&failure)).is_ok() {
            observe::poisoned(&failure);
        }
        let opened = {
            let mut state = self.state.lock();
            [Door::Left, Door::Right].map(|door| self.open(&mut state, door))
        };
        for opened in opened {
            opened.wake(self);
        }
    }

    fn lead(&self, commit: &impl Commit, call_leader: &impl Fn()) {
        // A commit that panics must not leave the others asleep for ever.
        let turn = Turn(self);
        self.company.linger();
        let started = Instant::now();
        let outcome = commit(&|last| {
            let mut state = self.state.lock();
            state.depart(last);
            self.company.gathered.store(0, Ordering::Relaxed);
        });
        self.company.committed(started.elapsed());
        match outcome {
            Ok(position) => self.publish(position),
            Err(error) => self.fail(error),
        }
        std::mem::forget(turn);
        self.hand_over(call_leader);
    }

    /// Passes the lead on when others wait for more, then wakes whoever has an answer.
    fn hand_over(&self, call_leader: &impl Fn()) {
        let (done, also_done, next, tasks_wait) = {
            let mut state = self.state.lock();
            let taken_along = state.under_way.take();
            let (gathering, under_way) = (state.gathering, state.gathering.other());
            let callers =
                state.behind.at(gathering).threads() + state.behind.at(under_way).threads() + 1;
            self.company.callers.store(callers, Ordering::Relaxed);
            let done = self.open(&mut state, under_way);
            // A commit that took nobody along has an answer for all of them, or none at all.
            let all_done = self.failure().is_some() || taken_along.is_none();
            let also_done = all_done.then(|| self.open(&mut state, gathering));
            let gathered = state.behind.at_mut(gathering);
            let next = gathered.first.take();
            if next.is_some() {
                self.company.gathered.fetch_sub(1, Ordering::Relaxed);
            }
            let tasks_wait = next.is_none() && !gathered.tasks.is_empty();
            state.leading = next.is_some();
            (done, also_done, next, tasks_wait)
        };
        if let Some(next) = next {
            next.wake(LEADING);
        }
        if tasks_wait {
            call_leader();
        }
        done.wake(self);
        if let Some(also_done) = also_done {
            also_done.wake(self);
        }
    }

    /// Opens a door; the lock of the state is held, so that nobody goes to sleep behind it at the
    /// same time.
    fn open(&self, state: &mut GroupState, door: Door) -> Opened {
        let behind = std::mem::take(state.behind.at_mut(door));
        if door == state.gathering {
            self.company.gathered.store(0, Ordering::Relaxed);
        }
        self.words.at(door).fetch_add(1, Ordering::Release);
        Opened { door, behind }
    }
}

/// A door that was opened, and who is still asleep behind it.
#[must_use]
struct Opened {
    door: Door,
    behind: Behind,
}

impl Opened {
    fn wake(self, group: &GroupCommit) {
        if self.behind.sleepers > 0 {
            atomic_wait::wake_all(group.words.at(self.door));
        }
        if let Some(first) = self.behind.first {
            first.wake(ANSWERED);
        }
        for task in self.behind.tasks {
            task.waker.wake();
        }
    }
}

/// The lead, given back with a failure when the commit panics.
struct Turn<'a>(&'a GroupCommit);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fail(io::Error::other("the committer panicked"));
        let mut state = self.0.state.lock();
        state.leading = false;
        state.under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    fn waiting(group: &GroupCommit) -> usize {
        let state = group.state.lock();
        [&state.behind.left, &state.behind.right]
            .iter()
            .map(|behind| behind.threads() + behind.tasks.len())
            .sum()
    }

    /// A log without a disk: positions are handed out, a commit reaches all of them.
    #[derive(Default)]
    struct Counter {
        appended: AtomicU64,
        commits: AtomicUsize,
    }

    impl Counter {
        fn append(&self) -> u64 {
            self.appended.fetch_add(1, Ordering::SeqCst) + 1
        }

        fn commit(&self, taking: &dyn Fn(u64)) -> io::Result<u64> {
            self.commits.fetch_add(1, Ordering::SeqCst);
            let reached = self.appended.load(Ordering::SeqCst);
            taking(reached);
            thread::yield_now();
            Ok(reached)
        }
    }

    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_lone_caller_commits_once_for_itself() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let position = log.append();
        group
            .wait(
                position,
                |taking: &dyn Fn(u64)| log.commit(taking),
                || panic!("nobody else waits"),
            )
            .unwrap();
        group
            .wait(
                position,
                |taking: &dyn Fn(u64)| log.commit(taking),
                || panic!("nobody else waits"),
            )
            .unwrap();
        assert_eq!(log.commits.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn every_caller_is_answered_only_when_its_position_is_durable() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let position = log.append();
                        group
                            .wait(position, |taking: &dyn Fn(u64)| log.commit(taking), || ())
                            .unwrap();
                        assert!(group.durable() >= position);
                    }
                });
            }
        });
        assert_eq!(group.durable(), 8_000);
        assert_eq!(waiting(&group), 0);
        assert!(log.commits.load(Ordering::SeqCst) <= 8_000);
    }

    #[test]
    fn a_failure_reaches_all_who_wait_and_all_who_come_later() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let failures = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let position = log.append();
                    let commit = |_: &dyn Fn(u64)| Err(io::Error::other("the disk is gone"));
                    let error = group.wait(position, commit, || ()).unwrap_err();
                    assert_eq!(error.to_string(), "the disk is gone");
                    failures.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(failures.load(Ordering::SeqCst), 8);
        assert!(
            group.wait(99, |_: &dyn Fn(u64)| panic!("no commit after a failure"), || ()).is_err()
        );
        assert!(
            group.wait(0, |_: &dyn Fn(u64)| panic!("no commit after a failure"), || ()).is_ok()
        );
    }

    #[test]
    fn a_task_is_woken_once_and_a_forgotten_one_never() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let (kept, dropped) = (
            Arc::new(CountingWaker(AtomicUsize::new(0))),
            Arc::new(CountingWaker(AtomicUsize::new(0))),
        );
        let position = log.append();
        let Polled::Registered { ticket, call_leader: true } =
            group.poll(position, None, &Waker::from(Arc::clone(&kept)))
        else {
            panic!("nothing is durable yet");
        };
        // Polled again with the same ticket it stays one registration.
        group.poll(position, Some(ticket), &Waker::from(Arc::clone(&kept)));
        let Polled::Registered { ticket, .. } =
            group.poll(position, None, &Waker::from(Arc::clone(&dropped)))
        else {
            panic!("nothing is durable yet");
        };
        group.forget(ticket);
        assert_eq!(waiting(&group), 1);
        group.drive(|taking: &dyn Fn(u64)| log.commit(taking), || ());
        assert_eq!(kept.0.load(Ordering::SeqCst), 1);
        assert_eq!(dropped.0.load(Ordering::SeqCst), 0);
        assert!(matches!(group.poll(position, None, Waker::noop()), Polled::Ready(Ok(()))));
    }

    #[test]
    fn a_leader_calls_for_help_when_only_tasks_wait_for_more() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let first = log.append();
        let called = AtomicUsize::new(0);
        let commit = |taking: &dyn Fn(u64)| {
            // A task arrives while the flush is under way.
            let reached = log.commit(taking);
            group.poll(log.append(), None, Waker::noop());
            reached
        };
        group
            .wait(first, commit, || {
                called.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        group.drive(|taking: &dyn Fn(u64)| log.commit(taking), || ());
        assert_eq!((group.durable(), waiting(&group)), (2, 0));
    }

    #[test]
    fn a_commit_that_panics_fails_the_others_instead_of_leaving_them_asleep() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let position = log.append();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = group.wait(position, |_: &dyn Fn(u64)| panic!("a bug"), || ());
        }));
        assert!(panicked.is_err());
        assert!(group.wait(position, |_: &dyn Fn(u64)| panic!("no second commit"), || ()).is_err());
    }
}
