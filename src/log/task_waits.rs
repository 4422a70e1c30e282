//! Tasks that wait for something else than a flush: until a frame is in the file, or may be written
//! to it. Tasks must not write themselves, because a write may wait for the disk.

use super::wait_slot::WaitingTasks;
use crate::sync::Mutex;
use std::task::Waker;

/// The registration of a task that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitTicket {
    /// For a flush.
    Flush(u64),
    /// For something else.
    Other(u64),
}

/// See the module. It does not know what they wait for: they are woken together, and look again.
#[derive(Debug, Default)]
pub(super) struct TaskWaits {
    state: Mutex<ListedTasks>,
}

#[derive(Debug, Default)]
struct ListedTasks {
    tasks: WaitingTasks,
    next_ticket: u64,
}

impl TaskWaits {
    /// Lists a task, unless there is nothing to wait for any more: `is_over` is asked under the
    /// lock, and who makes it so calls [`wake_all`](Self::wake_all) after that. `ticket` is that of
    /// an earlier registration of the same wait.
    pub(super) fn register(
        &self,
        is_over: impl Fn() -> bool,
        ticket: Option<u64>,
        waker: &Waker,
    ) -> Option<u64> {
        let mut state = self.state.lock();
        if is_over() {
            return None;
        }
        if let Some(listed) = ticket.and_then(|ticket| state.tasks.get_mut(&ticket)) {
            listed.clone_from(waker);
            return ticket;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.tasks.insert(ticket, waker.clone());
        Some(ticket)
    }

    /// Removes the registration of a task that will not be polled again.
    pub(super) fn forget(&self, ticket: u64) {
        let forgotten = self.state.lock().tasks.remove(&ticket);
        // Dropping a waker may run code of others.
        drop(forgotten);
    }

    /// Whether any task waits.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().tasks.is_empty()
    }

    /// Takes all of them off the list, and wakes them. The caller holds no lock that a waker could
    /// want.
    pub(super) fn wake_all(&self) {
        let tasks = std::mem::take(&mut self.state.lock().tasks);
        tasks.into_values().for_each(Waker::wake);
    }
}
