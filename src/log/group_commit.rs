//! Group commit: many callers wait, one of them does the work for all.
//!
//! This module knows nothing of files. It elects a leader among the callers that wait, lets it run a commit (given
//! as a closure that answers the position reached), publishes that position and wakes exactly those who waited for
//! it. Whoever arrives meanwhile is the next group.
//!
//! A caller that waits alone is its own leader: it does not pay for waking another thread. When a leader is done
//! and others wait for a later position, it hands the lead to one of them before it wakes the rest; when only
//! tasks wait, which cannot block, it says so, and a background thread leads.
//!
//! # Invariants
//! 1. At most one leader at a time; the lead is free only while nobody waits, or until the background thread that
//!    was called for takes it.
//! 2. `durable` never decreases, and is published before anybody is woken for it.
//! 3. After a failure nobody leads again: every waiter, present and future, gets the failure.

use parking_lot::Mutex;
use std::cell::OnceCell;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self, Thread};

/// The state of a blocked thread: still waiting, answered, or asked to lead.
const WAITING: u8 = 0;
const ANSWERED: u8 = 1;
const LEADING: u8 = 2;

/// One blocked thread. Each thread has one and uses it again for every wait.
#[derive(Debug)]
struct Parker {
    state: AtomicU8,
    thread: Thread,
}

impl Parker {
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

thread_local! {
    static PARKER: OnceCell<Arc<Parker>> = const { OnceCell::new() };
}

fn parker() -> Arc<Parker> {
    PARKER.with(|cell| {
        let parker = cell
            .get_or_init(|| Arc::new(Parker { state: AtomicU8::new(WAITING), thread: thread::current() }));
        parker.state.store(WAITING, Ordering::Relaxed);
        Arc::clone(parker)
    })
}

#[derive(Debug)]
enum Sleeper {
    Thread(Arc<Parker>),
    Task { ticket: u64, waker: Waker },
}

#[derive(Debug)]
struct Waiter {
    position: u64,
    sleeper: Sleeper,
}

#[derive(Debug, Default)]
struct State {
    leading: bool,
    waiters: Vec<Waiter>,
    next_ticket: u64,
}

/// What a task's poll found.
#[derive(Debug)]
pub(crate) enum Polled {
    /// The position is reached, or never will be.
    Ready(Result<(), Arc<io::Error>>),
    /// The task is registered under this ticket. With `call_leader`, nobody leads: the background thread must.
    Registered { ticket: u64, call_leader: bool },
}

/// Elects leaders and wakes waiters. See the module.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    durable: AtomicU64,
    failure: OnceLock<Arc<io::Error>>,
    state: Mutex<State>,
}

impl GroupCommit {
    /// Everything up to `durable` is durable already.
    pub(crate) fn new(durable: u64) -> Self {
        Self { durable: AtomicU64::new(durable), failure: OnceLock::new(), state: Mutex::default() }
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
        !state.leading && !state.waiters.is_empty()
    }

    /// How many wait now.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// What is known about `position` without waiting.
    fn answer(&self, position: u64) -> Option<Result<(), Arc<io::Error>>> {
        if self.durable() >= position {
            return Some(Ok(()));
        }
        self.failure().map(|failure| Err(Arc::clone(failure)))
    }

    /// Blocks until `position` is durable, leading a commit when nobody else does. The commit must reach at least
    /// everything that was appended before it began; it answers the position reached.
    pub(crate) fn wait(
        &self,
        position: u64,
        commit: impl Fn() -> io::Result<u64>,
        call_leader: impl Fn(),
    ) -> Result<(), Arc<io::Error>> {
        loop {
            if let Some(answer) = self.answer(position) {
                return answer;
            }
            let parker = {
                let mut state = self.state.lock();
                if let Some(answer) = self.answer(position) {
                    return answer;
                }
                if state.leading {
                    let parker = parker();
                    state.waiters.push(Waiter { position, sleeper: Sleeper::Thread(Arc::clone(&parker)) });
                    Some(parker)
                } else {
                    state.leading = true;
                    None
                }
            };
            if parker.is_none_or(|parker| parker.park() == LEADING) {
                self.lead(&commit, &call_leader);
            }
        }
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
        if let Some(known) = ticket {
            for waiter in &mut state.waiters {
                if let Sleeper::Task { ticket, waker: registered } = &mut waiter.sleeper
                    && *ticket == known
                {
                    registered.clone_from(waker);
                    return Polled::Registered { ticket: known, call_leader };
                }
            }
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let sleeper = Sleeper::Task { ticket, waker: waker.clone() };
        state.waiters.push(Waiter { position, sleeper });
        Polled::Registered { ticket, call_leader }
    }

    /// Forgets a task that was registered and will not be polled again.
    pub(crate) fn forget(&self, ticket: u64) {
        self.state.lock().waiters.retain(
            |waiter| !matches!(waiter.sleeper, Sleeper::Task { ticket: known, .. } if known == ticket),
        );
    }

    /// Leads one commit unless somebody leads already: the background thread's turn.
    pub(crate) fn drive(&self, commit: impl Fn() -> io::Result<u64>, call_leader: impl Fn()) {
        if self.failure().is_some() || std::mem::replace(&mut self.state.lock().leading, true) {
            return;
        }
        self.lead(&commit, &call_leader);
    }

    /// Publishes a position that was reached outside a commit.
    pub(crate) fn publish(&self, position: u64) {
        self.durable.fetch_max(position, Ordering::AcqRel);
    }

    /// Ends all commits: every waiter gets `failure`.
    pub(crate) fn fail(&self, failure: io::Error) {
        let _ = self.failure.set(Arc::new(failure));
        let waiters = std::mem::take(&mut self.state.lock().waiters);
        wake(waiters);
    }

    fn lead(&self, commit: &impl Fn() -> io::Result<u64>, call_leader: &impl Fn()) {
        // A commit that panics must not leave the others asleep for ever.
        let turn = Turn(self);
        match commit() {
            Ok(position) => self.publish(position),
            Err(error) => self.fail(error),
        }
        std::mem::forget(turn);
        self.hand_over(call_leader);
    }

    /// Wakes whoever has an answer, and passes the lead on when others wait for more.
    fn hand_over(&self, call_leader: &impl Fn()) {
        let (answered, next, tasks_wait) = {
            let mut state = self.state.lock();
            let durable = self.durable();
            let failed = self.failure().is_some();
            let (answered, mut left): (Vec<_>, Vec<_>) = std::mem::take(&mut state.waiters)
                .into_iter()
                .partition(|waiter| failed || waiter.position <= durable);
            let next = left
                .iter()
                .position(|waiter| matches!(waiter.sleeper, Sleeper::Thread(_)))
                .map(|index| left.swap_remove(index));
            state.leading = next.is_some();
            let tasks_wait = next.is_none() && !left.is_empty();
            state.waiters = left;
            (answered, next, tasks_wait)
        };
        if let Some(Waiter { sleeper: Sleeper::Thread(parker), .. }) = next {
            parker.wake(LEADING);
        }
        if tasks_wait {
            call_leader();
        }
        wake(answered);
    }
}

fn wake(waiters: Vec<Waiter>) {
    for waiter in waiters {
        match waiter.sleeper {
            Sleeper::Thread(parker) => parker.wake(ANSWERED),
            Sleeper::Task { waker, .. } => waker.wake(),
        }
    }
}

/// The lead, given back with a failure when the commit panics.
struct Turn<'a>(&'a GroupCommit);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fail(io::Error::other("the committer panicked"));
        self.0.state.lock().leading = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

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

        fn commit(&self) -> io::Result<u64> {
            self.commits.fetch_add(1, Ordering::SeqCst);
            let reached = self.appended.load(Ordering::SeqCst);
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
        group.wait(position, || log.commit(), || panic!("nobody else waits")).unwrap();
        group.wait(position, || log.commit(), || panic!("nobody else waits")).unwrap();
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
                        group.wait(position, || log.commit(), || ()).unwrap();
                        assert!(group.durable() >= position);
                    }
                });
            }
        });
        assert_eq!(group.durable(), 8_000);
        assert_eq!(group.waiting(), 0);
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
                    let commit = || Err(io::Error::other("the disk is gone"));
                    let error = group.wait(position, commit, || ()).unwrap_err();
                    assert_eq!(error.to_string(), "the disk is gone");
                    failures.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(failures.load(Ordering::SeqCst), 8);
        assert!(group.wait(99, || panic!("no commit after a failure"), || ()).is_err());
        assert!(group.wait(0, || panic!("no commit after a failure"), || ()).is_ok());
    }

    #[test]
    fn a_task_is_woken_once_and_a_forgotten_one_never() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let (kept, dropped) =
            (Arc::new(CountingWaker(AtomicUsize::new(0))), Arc::new(CountingWaker(AtomicUsize::new(0))));
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
        assert_eq!(group.waiting(), 1);
        group.drive(|| log.commit(), || ());
        assert_eq!(kept.0.load(Ordering::SeqCst), 1);
        assert_eq!(dropped.0.load(Ordering::SeqCst), 0);
        assert!(matches!(group.poll(position, None, Waker::noop()), Polled::Ready(Ok(()))));
    }

    #[test]
    fn a_leader_calls_for_help_when_only_tasks_wait_for_more() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let first = log.append();
        let called = AtomicUsize::new(0);
        let commit = || {
            // A task arrives while the flush is under way.
            let reached = log.commit();
            group.poll(log.append(), None, Waker::noop());
            reached
        };
        group.wait(first, commit, || drop(called.fetch_add(1, Ordering::SeqCst))).unwrap();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        group.drive(|| log.commit(), || ());
        assert_eq!((group.durable(), group.waiting()), (2, 0));
    }

    #[test]
    fn a_commit_that_panics_fails_the_others_instead_of_leaving_them_asleep() {
        let (group, log) = (GroupCommit::new(0), Counter::default());
        let position = log.append();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = group.wait(position, || panic!("a bug"), || ());
        }));
        assert!(panicked.is_err());
        assert!(group.wait(position, || panic!("no second commit"), || ()).is_err());
    }
}
