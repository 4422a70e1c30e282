//! Every interleaving of a few callers of a group commit.

use super::*;
use crate::sync::explore::{block_on, every_interleaving};
use crate::sync::thread;
use std::sync::atomic::AtomicU64 as Plain;

/// A log of which only the positions matter.
struct ModelLog {
    group: GroupCommit,
    appended: Mutex<u64>,
    /// What the disk has. Not part of the protocol, so reading it is no step of the model.
    flushed: Plain,
    fails: bool,
}

impl ModelLog {
    fn new(fails: bool) -> Arc<Self> {
        let (group, appended) = (GroupCommit::new(0), Mutex::new(0));
        Arc::new(Self { group, appended, flushed: Plain::new(0), fails })
    }

    fn append(&self) -> u64 {
        let mut appended = self.appended.lock();
        *appended += 1;
        *appended
    }

    fn commit(&self, covers: &dyn Fn(u64)) -> io::Result<u64> {
        // Under the lock of those who append, as the log does it.
        let reached = {
            let appended = self.appended.lock();
            covers(*appended);
            *appended
        };
        if self.fails {
            return Err(io::Error::other("the disk is gone"));
        }
        self.flushed.store(reached, Ordering::SeqCst);
        Ok(reached)
    }

    /// Where no background thread is, the caller leads.
    fn drive(&self) {
        self.group.drive(|covers: &dyn Fn(u64)| self.commit(covers), || self.drive());
    }

    fn wait(&self, position: u64) -> Result<(), Arc<io::Error>> {
        let commit = |covers: &dyn Fn(u64)| self.commit(covers);
        self.group.wait(position, commit, || self.drive())
    }

    fn poll(&self, position: u64, ticket: &mut Option<u64>, waker: &Waker) -> Option<bool> {
        match self.group.poll(position, *ticket, waker) {
            GroupPoll::Ready(answer) => Some(answer.is_ok()),
            GroupPoll::Registered { ticket: given, call_leader } => {
                *ticket = Some(given);
                if call_leader {
                    self.drive();
                }
                None
            }
        }
    }

    /// Appends, and waits as a thread does.
    fn write(&self) {
        let position = self.append();
        assert_eq!(self.wait(position).is_ok(), !self.fails);
        self.check_answered(position);
    }

    /// Appends, and waits as a task does.
    fn write_as_task(&self) {
        let (position, mut ticket) = (self.append(), None);
        let answer = block_on(|waker| self.poll(position, &mut ticket, waker));
        assert_eq!(answer, !self.fails);
        self.check_answered(position);
    }

    fn check_answered(&self, position: u64) {
        let flushed = self.flushed.load(Ordering::SeqCst);
        assert!(self.fails || flushed >= position, "{position} was answered at {flushed}");
    }

    fn check_idle(&self) {
        let state = self.group.state.lock();
        assert!(!state.leading && state.running.is_none());
        assert!(WaitSlot::BOTH.iter().all(|slot| state.waiters.at(*slot).is_empty()));
    }
}

fn explore(fails: bool, others: &'static [fn(&ModelLog)], main: fn(&ModelLog)) {
    every_interleaving(move || {
        let log = ModelLog::new(fails);
        let threads: Vec<_> = others
            .iter()
            .map(|work| {
                let log = Arc::clone(&log);
                thread::spawn(move || work(&log))
            })
            .collect();
        main(&log);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        log.check_idle();
    });
}

#[test]
fn two_threads_are_answered_when_their_frames_are_durable() {
    explore(false, &[ModelLog::write], ModelLog::write);
}

#[test]
fn three_threads_share_a_slot_and_all_of_them_are_woken() {
    explore(false, &[ModelLog::write, ModelLog::write], ModelLog::write);
}

#[test]
fn a_thread_and_a_task_are_answered_when_their_frames_are_durable() {
    explore(false, &[ModelLog::write_as_task], ModelLog::write);
}

#[test]
fn two_tasks_without_a_thread_lead_for_each_other() {
    explore(false, &[ModelLog::write_as_task], ModelLog::write_as_task);
}

#[test]
fn a_failure_reaches_a_thread_and_a_task() {
    explore(true, &[ModelLog::write_as_task], ModelLog::write);
}

#[test]
fn a_failure_reaches_two_threads() {
    explore(true, &[ModelLog::write], ModelLog::write);
}

#[test]
fn a_task_that_is_forgotten_keeps_no_one_waiting() {
    fn poll_once(log: &ModelLog) {
        let (position, mut ticket) = (log.append(), None);
        if log.poll(position, &mut ticket, Waker::noop()).is_none() {
            log.group.forget(ticket.unwrap());
        }
    }
    explore(false, &[poll_once], ModelLog::write);
}
