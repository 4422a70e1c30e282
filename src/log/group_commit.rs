//! Group commit: many callers wait, and one of them commits for all.
//!
//! This module knows nothing of files. It elects a leader among the waiting callers, lets it run a
//! commit (a closure that reports the last position it covers, and returns the position reached),
//! publishes that position and wakes exactly the callers that waited for it. Callers that arrive
//! during a commit form the next group.
//!
//! # Two wait slots
//! Waking a thread costs more than everything else here, so one system call wakes a whole group.
//! Its members sleep in a [wait slot](super::wait_slot). There are two slots: one for the epoch
//! whose commit is running, one for the next epoch, which is gathering. When a commit has fixed
//! what it covers, the gathering epoch becomes the running one, and the slots swap roles. A caller
//! that arrives later gets the slot of the epoch that covers its position. The first thread in a
//! slot parks on its own, because it is the one to be woken alone to lead its epoch.
//!
//! A caller that waits alone is its own leader: it does not pay for waking another thread. When a
//! leader is done and others wait for a later position, it hands the lead to the first of them
//! before it wakes the rest. When only tasks wait for a later position, which cannot block, it
//! calls the background thread to lead.
//!
//! # Invariants
//! 1. There is at most one leader. There is none only while no caller waits, or until the
//!    background thread that was called takes the lead.
//! 2. `durable` never decreases, and is published before any caller is woken for it.
//! 3. Every thread in the slot of the running epoch waits for a position that its commit covers.
//! 4. If threads sleep in the slot of the gathering epoch while there is no leader, the first
//!    thread of that slot has been woken to lead.
//! 5. After a failure there is no leader again: every present and future caller gets the failure.
//! 6. A commit that is given up answers those who wait for what it did not reach, and ends nothing:
//!    a later commit may reach it.

use super::commit_delay::CommitDelay;
use super::task_waits::TaskWaits;
use super::wait_slot::{LEADING, Parker, PerSlot, WaitSlot, Waiters};
use crate::observe;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Instant, Mutex, WaitWord};
use std::io;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

#[derive(Debug, Default)]
struct GroupState {
    /// Whether there is a leader.
    leading: bool,
    /// The slot of the gathering epoch. The other slot is that of the running epoch.
    gathering: WaitSlot,
    /// The last position that the running commit covers, while there is one.
    running: Option<u64>,
    waiters: PerSlot<Waiters>,
    next_ticket: u64,
}

impl GroupState {
    /// The slot for a caller that waits for `position`.
    fn slot(&self, position: u64) -> WaitSlot {
        match self.running {
            Some(last) if position <= last => self.gathering.other(),
            _ => self.gathering,
        }
    }

    /// The leader's commit covers everything up to `last`, and so everyone in the gathering epoch,
    /// which becomes the running one.
    fn start_epoch(&mut self, last: u64) {
        if self.running.replace(last).is_none() {
            self.gathering = self.gathering.other();
        }
    }
}

/// How a thread waits.
enum WaitRole {
    /// It leads a commit.
    Lead,
    /// It is the first in its slot, and parks.
    First(Arc<Parker>),
    /// It sleeps in the slot until the word has another value than this.
    Sleep(WaitSlot, u32),
}

/// What the poll of a task found.
#[derive(Debug)]
pub(crate) enum GroupPoll {
    /// The position is reached, or never will be.
    Ready(Result<(), Arc<io::Error>>),
    /// The task is registered under this ticket. With `call_leader` there is no leader: the caller
    /// must call the background thread.
    Registered { ticket: u64, call_leader: bool },
}

/// Elects leaders and wakes waiting callers. See the module.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    durable: AtomicU64,
    failure: OnceLock<Arc<io::Error>>,
    /// Waits for positions up to this one were given up, unless they are durable by now.
    given_up_to: AtomicU64,
    given_up_for: Mutex<Option<Arc<io::Error>>>,
    state: Mutex<GroupState>,
    /// What sleeping threads wait on. A slot's word changes, under the lock of the state, when the
    /// slot is emptied.
    words: PerSlot<WaitWord>,
    delay: CommitDelay,
    /// Tasks that wait for something else, and are told of a failure all the same.
    pub(super) others: TaskWaits,
}

/// A commit. It calls its argument with the last position that it covers, and returns the position
/// reached, which is that one or a later one.
pub(crate) trait Commit: Fn(&dyn Fn(u64)) -> io::Result<u64> {}

impl<F: Fn(&dyn Fn(u64)) -> io::Result<u64>> Commit for F {}

impl GroupCommit {
    /// A group commit for which everything up to `durable` is durable already.
    pub(crate) fn new(durable: u64) -> Self {
        Self {
            durable: AtomicU64::new(durable),
            failure: OnceLock::new(),
            given_up_to: AtomicU64::new(0),
            given_up_for: Mutex::new(None),
            state: Mutex::default(),
            words: PerSlot::default(),
            delay: CommitDelay::default(),
            others: TaskWaits::default(),
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

    /// Whether a caller waits and there is no leader.
    pub(crate) fn needs_leader(&self) -> bool {
        let state = self.state.lock();
        !state.leading && !state.waiters.at(state.gathering).is_empty()
    }

    /// What is known about `position` without waiting.
    fn answer(&self, position: u64) -> Option<Result<(), Arc<io::Error>>> {
        if self.durable() >= position {
            return Some(Ok(()));
        }
        self.failure().cloned().or_else(|| self.given_up(position)).map(Err)
    }

    /// Why the wait for `position` was given up, if it was and the position is not durable.
    pub(crate) fn given_up(&self, position: u64) -> Option<Arc<io::Error>> {
        if position > self.given_up_to.load(Ordering::Acquire) || position <= self.durable() {
            return None;
        }
        self.given_up_for.lock().clone()
    }

    /// Answers everyone who waits for a position up to `position` with this error. Called by a
    /// commit that did not reach it.
    pub(crate) fn give_up(&self, position: u64, error: Arc<io::Error>) {
        *self.given_up_for.lock() = Some(error);
        self.given_up_to.fetch_max(position, Ordering::AcqRel);
    }

    /// Blocks until `position` is durable, and leads a commit when there is no other leader. The
    /// commit must cover everything that was appended before it began.
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
            let role = {
                let mut state = self.state.lock();
                if let Some(answer) = self.answer(position) {
                    return answer;
                }
                self.assign_role(&mut state, position)
            };
            match role {
                WaitRole::Lead => self.lead(&commit, &call_leader),
                WaitRole::First(parker) => {
                    if parker.park() == LEADING {
                        self.lead(&commit, &call_leader);
                    }
                }
                WaitRole::Sleep(slot, before) => self.words.at(slot).sleep_while(before),
            }
        }
    }

    fn assign_role(&self, state: &mut GroupState, position: u64) -> WaitRole {
        if !state.leading {
            state.leading = true;
            return WaitRole::Lead;
        }
        let slot = state.slot(position);
        if slot == state.gathering {
            self.delay.gathered.fetch_add(1, Ordering::Relaxed);
        }
        let waiters = state.waiters.at_mut(slot);
        if waiters.first.is_none() {
            let parker = Parker::of_this_thread();
            waiters.first = Some(Arc::clone(&parker));
            return WaitRole::First(parker);
        }
        waiters.sleepers += 1;
        WaitRole::Sleep(slot, self.words.at(slot).value())
    }

    /// Registers a task that waits for `position`. `ticket` is that of an earlier registration of
    /// the same wait.
    pub(crate) fn poll(&self, position: u64, ticket: Option<u64>, waker: &Waker) -> GroupPoll {
        self.poll_for(|| self.answer(position), position, ticket, waker)
    }

    /// As [`poll`](Self::poll), for a task that no commit that was given up answers.
    pub(crate) fn poll_patiently(
        &self,
        position: u64,
        ticket: Option<u64>,
        waker: &Waker,
    ) -> GroupPoll {
        let answer = || {
            if self.durable() >= position {
                return Some(Ok(()));
            }
            self.failure().cloned().map(Err)
        };
        self.poll_for(answer, position, ticket, waker)
    }

    fn poll_for(
        &self,
        answer: impl Fn() -> Option<Result<(), Arc<io::Error>>>,
        position: u64,
        ticket: Option<u64>,
        waker: &Waker,
    ) -> GroupPoll {
        if let Some(answer) = answer() {
            return GroupPoll::Ready(answer);
        }
        let mut state = self.state.lock();
        if let Some(answer) = answer() {
            return GroupPoll::Ready(answer);
        }
        let call_leader = !state.leading;
        let (a, b) = state.waiters.both_mut();
        if let Some(ticket) = ticket
            && let Some(listed) = a.tasks.get_mut(&ticket).or_else(|| b.tasks.get_mut(&ticket))
        {
            listed.clone_from(waker);
            return GroupPoll::Registered { ticket, call_leader };
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let slot = state.slot(position);
        state.waiters.at_mut(slot).tasks.insert(ticket, waker.clone());
        GroupPoll::Registered { ticket, call_leader }
    }

    /// Removes the registration of a task that will not be polled again.
    pub(crate) fn forget(&self, ticket: u64) {
        let mut state = self.state.lock();
        let (a, b) = state.waiters.both_mut();
        let forgotten = a.tasks.remove(&ticket).or_else(|| b.tasks.remove(&ticket));
        drop(state);
        // Dropping a waker may run code of others.
        drop(forgotten);
    }

    /// Leads one commit unless there is a leader already. For the background thread.
    pub(crate) fn drive(&self, commit: impl Commit, call_leader: impl Fn()) {
        if self.failure().is_some() || std::mem::replace(&mut self.state.lock().leading, true) {
            return;
        }
        self.lead(&commit, &call_leader);
    }

    /// Publishes a position that a commit has reached before it ends.
    pub(crate) fn publish(&self, position: u64) {
        self.durable.fetch_max(position, Ordering::AcqRel);
    }

    /// Ends all commits: every caller gets `failure`.
    pub(crate) fn fail(&self, failure: io::Error) {
        let failure = Arc::new(failure);
        if self.failure.set(Arc::clone(&failure)).is_ok() {
            observe::poisoned(&failure);
        }
        let emptied = {
            let mut state = self.state.lock();
            WaitSlot::BOTH.map(|slot| (slot, self.empty(&mut state, slot)))
        };
        for (slot, waiters) in emptied {
            waiters.wake(self.words.at(slot));
        }
        self.others.wake_all();
    }

    fn lead(&self, commit: &impl Commit, call_leader: &impl Fn()) {
        // A commit that panics must not leave the others asleep for ever.
        let guard = LeadGuard(self);
        self.delay.wait();
        let started = Instant::now();
        let outcome = commit(&|last| {
            let mut state = self.state.lock();
            state.start_epoch(last);
            self.delay.gathered.store(0, Ordering::Relaxed);
        });
        self.delay.committed(started.elapsed());
        match outcome {
            Ok(position) => self.publish(position),
            Err(error) => self.fail(error),
        }
        std::mem::forget(guard);
        self.hand_over(call_leader);
    }

    /// Hands the lead over when others wait for a later position, then wakes every caller whose
    /// answer is known.
    fn hand_over(&self, call_leader: &impl Fn()) {
        let (done_slot, done, also_done, next, tasks_wait) = {
            let mut state = self.state.lock();
            let covered = state.running.take();
            let (gathering, running) = (state.gathering, state.gathering.other());
            let callers =
                state.waiters.at(gathering).threads() + state.waiters.at(running).threads() + 1;
            self.delay.callers.store(callers, Ordering::Relaxed);
            let done = self.empty(&mut state, running);
            // A commit that started no epoch has an answer for every caller, or for none.
            let all_done = self.failure().is_some() || covered.is_none();
            let also_done = all_done.then(|| self.empty(&mut state, gathering));
            let gathered = state.waiters.at_mut(gathering);
            let next = gathered.first.take();
            if next.is_some() {
                self.delay.gathered.fetch_sub(1, Ordering::Relaxed);
            }
            let tasks_wait = next.is_none() && !gathered.tasks.is_empty();
            state.leading = next.is_some();
            (running, done, also_done, next, tasks_wait)
        };
        if let Some(next) = next {
            next.wake(LEADING);
        }
        if tasks_wait {
            call_leader();
        }
        done.wake(self.words.at(done_slot));
        if let Some(also_done) = also_done {
            also_done.wake(self.words.at(done_slot.other()));
        }
    }

    /// Takes everyone out of a slot, and changes its word, so that its threads do not sleep again.
    /// The caller holds the lock of the state, so that no thread enters the slot at the same time,
    /// and wakes them.
    fn empty(&self, state: &mut GroupState, slot: WaitSlot) -> Waiters {
        let waiters = std::mem::take(state.waiters.at_mut(slot));
        if slot == state.gathering {
            self.delay.gathered.store(0, Ordering::Relaxed);
        }
        self.words.at(slot).change();
        waiters
    }
}

/// The lead. Given up with a failure when the commit panics.
struct LeadGuard<'a>(&'a GroupCommit);

impl Drop for LeadGuard<'_> {
    fn drop(&mut self) {
        self.0.fail(io::Error::other("the thread that led a group commit panicked"));
        let mut state = self.0.state.lock();
        state.leading = false;
        state.running = None;
    }
}

#[cfg(test)]
#[cfg(cloakroom_model = "loom")]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread;

    fn waiting(group: &GroupCommit) -> usize {
        let state = group.state.lock();
        WaitSlot::BOTH
            .map(|slot| state.waiters.at(slot))
            .iter()
            .map(|waiters| waiters.threads() + waiters.tasks.len())
            .sum()
    }

    /// A log without a disk: it hands out positions, and a commit reaches all of them.
    #[derive(Default)]
    struct CountingLog {
        appended: AtomicU64,
        commits: AtomicUsize,
    }

    impl CountingLog {
        fn append(&self) -> u64 {
            self.appended.fetch_add(1, Ordering::SeqCst) + 1
        }

        fn commit(&self, covers: &dyn Fn(u64)) -> io::Result<u64> {
            self.commits.fetch_add(1, Ordering::SeqCst);
            let reached = self.appended.load(Ordering::SeqCst);
            covers(reached);
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
    fn a_caller_that_waits_alone_commits_once_for_itself() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        let position = log.append();
        group
            .wait(
                position,
                |covers: &dyn Fn(u64)| log.commit(covers),
                || panic!("no other caller waits"),
            )
            .unwrap();
        group
            .wait(
                position,
                |covers: &dyn Fn(u64)| log.commit(covers),
                || panic!("no other caller waits"),
            )
            .unwrap();
        assert_eq!(log.commits.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn every_caller_is_answered_only_when_its_position_is_durable() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let position = log.append();
                        group
                            .wait(position, |covers: &dyn Fn(u64)| log.commit(covers), || ())
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
    fn a_failure_reaches_every_waiting_and_every_later_caller() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
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
    fn a_registered_task_is_woken_once_and_a_forgotten_one_never() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        let (kept, dropped) = (
            Arc::new(CountingWaker(AtomicUsize::new(0))),
            Arc::new(CountingWaker(AtomicUsize::new(0))),
        );
        let position = log.append();
        let GroupPoll::Registered { ticket, call_leader: true } =
            group.poll(position, None, &Waker::from(Arc::clone(&kept)))
        else {
            panic!("nothing is durable yet");
        };
        // A poll with the same ticket keeps the one registration.
        group.poll(position, Some(ticket), &Waker::from(Arc::clone(&kept)));
        let GroupPoll::Registered { ticket, .. } =
            group.poll(position, None, &Waker::from(Arc::clone(&dropped)))
        else {
            panic!("nothing is durable yet");
        };
        group.forget(ticket);
        assert_eq!(waiting(&group), 1);
        group.drive(|covers: &dyn Fn(u64)| log.commit(covers), || ());
        assert_eq!(kept.0.load(Ordering::SeqCst), 1);
        assert_eq!(dropped.0.load(Ordering::SeqCst), 0);
        assert!(matches!(group.poll(position, None, Waker::noop()), GroupPoll::Ready(Ok(()))));
    }

    #[test]
    fn a_leader_calls_the_background_thread_when_only_tasks_wait_for_a_later_position() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        let first = log.append();
        let called = AtomicUsize::new(0);
        let commit = |covers: &dyn Fn(u64)| {
            // A task arrives during the flush.
            let reached = log.commit(covers);
            group.poll(log.append(), None, Waker::noop());
            reached
        };
        group
            .wait(first, commit, || {
                called.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        group.drive(|covers: &dyn Fn(u64)| log.commit(covers), || ());
        assert_eq!((group.durable(), waiting(&group)), (2, 0));
    }

    #[test]
    fn the_next_leader_expects_as_many_callers_as_took_part_or_gathered() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        let (first, second, expected) = (log.append(), log.append(), AtomicUsize::new(0));
        let until = |callers| {
            while waiting(&group) < callers {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let (group, log, expected) = (&group, &log, &expected);
            let commit = |covers: &dyn Fn(u64)| {
                // One more caller comes before the group has its end, and one after it.
                scope.spawn(move || {
                    group.wait(second, |covers: &dyn Fn(u64)| log.commit(covers), || ()).unwrap();
                });
                until(1);
                let reached = log.commit(covers);
                let later = log.append();
                scope.spawn(move || {
                    let commit = |covers: &dyn Fn(u64)| {
                        expected
                            .store(group.delay.callers.load(Ordering::SeqCst), Ordering::SeqCst);
                        log.commit(covers)
                    };
                    group.wait(later, commit, || ()).unwrap();
                });
                until(2);
                reached
            };
            group.wait(first, commit, || ()).unwrap();
        });
        assert_eq!(expected.load(Ordering::SeqCst), 3, "the leader and both others");
    }

    #[test]
    fn a_commit_that_panics_fails_the_other_callers_instead_of_leaving_them_asleep() {
        let (group, log) = (GroupCommit::new(0), CountingLog::default());
        let position = log.append();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = group.wait(position, |_: &dyn Fn(u64)| panic!("a bug"), || ());
        }));
        assert!(panicked.is_err());
        assert!(group.wait(position, |_: &dyn Fn(u64)| panic!("no second commit"), || ()).is_err());
    }
}
