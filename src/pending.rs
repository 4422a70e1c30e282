//! The answer of a call: applied already, waiting for the disk, or for something that is still to
//! happen.

mod event;

pub(crate) use event::{Event, EventOutcome};

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::tables::Value;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The answer of a store's method.
///
/// The change has been applied, in order, when the call returns: every later call sees it. What is
/// left is to wait until the answer may be relied on, which in a [`Durability::Sync`] store means
/// until everything the call wrote *or saw* is on the disk.
///
/// - [`wait`](Pending::wait) blocks until then.
/// - It is a [`Future`] that any executor can run.
/// - Dropping it neither undoes the change nor delays it: the change becomes durable by itself
///   shortly after.
///
/// An answer that another call has still to make, such as that of
/// [`DedupeStore::wait_for`](crate::dedupe::DedupeStore::wait_for), is waited for in the same way;
/// nothing polls meanwhile, and dropping it leaves nothing behind.
///
/// So one thread can issue a thousand calls and then wait for all of them; they share one flush of
/// the disk.
///
/// # What may block
/// A call that returns a `Pending` does not wait for its flush. It may read pages of the file, and
/// it waits for the calls before it to be applied. A write waits while both segments of the log are
/// full, at most [`MAX_LOG_STALL`](crate::limits::MAX_LOG_STALL). Polling never blocks;
/// [`wait`](Pending::wait) does.
///
/// # Errors
/// [`Error::OutcomeUnknown`] when the log failed while this waited (the change may or may not
/// survive); otherwise the error of the call itself, which says what it left behind.
///
/// # Panics
/// Polling it again after it has answered panics, as with other futures.
#[must_use = "the change is applied but may not be durable yet: `.wait()` or `.await` the answer"]
pub struct Pending<T, E = Error> {
    state: PendingState<T, E>,
}

enum PendingState<T, E> {
    Ready(Result<T, E>),
    Waiting(Waiting<T, E>),
    Expecting(Expecting<T, E>),
    Taken,
}

/// The wait for an event, before the wait for the log.
struct Expecting<T, E> {
    event: Arc<Event>,
    /// Takes the event off the lists that it stands on when it is dropped.
    _listed: Box<dyn Send + Sync>,
    finish: fn(Option<Value>) -> Result<T, E>,
    log: Arc<Log>,
    durability: Durability,
    from_error: fn(Error) -> E,
}

impl<T, E> Expecting<T, E> {
    /// The wait for the log that is left when the event is over.
    fn over(self, outcome: EventOutcome) -> Waiting<T, E> {
        let answer = (self.finish)(outcome.row);
        let (log, durability, from_error) = (self.log, self.durability, self.from_error);
        Waiting { answer, log, lsn: outcome.lsn, durability, ticket: None, from_error }
    }
}

struct Waiting<T, E> {
    answer: Result<T, E>,
    log: Arc<Log>,
    lsn: u64,
    durability: Durability,
    ticket: Option<u64>,
    from_error: fn(Error) -> E,
}

// An answer is never pinned, so moving it is always fine.
impl<T, E> Unpin for Pending<T, E> {}

impl<T, E> Pending<T, E> {
    /// An answer that depends on nothing that could still be lost.
    pub fn ready(answer: Result<T, E>) -> Self {
        Self { state: PendingState::Ready(answer) }
    }

    /// An answer that depends on the frame at `lsn`.
    pub(crate) fn on_log(
        answer: Result<T, E>,
        log: &Arc<Log>,
        lsn: u64,
        durability: Durability,
    ) -> Self
    where
        E: From<Error>,
    {
        let (log, from_error) = (Arc::clone(log), E::from);
        Self {
            state: PendingState::Waiting(Waiting {
                answer,
                log,
                lsn,
                durability,
                ticket: None,
                from_error,
            }),
        }
    }

    /// An answer that `finish` makes of what `event` leaves. `listed` is kept until then, and takes
    /// the event off the lists of those who may end it when it is dropped.
    pub(crate) fn on_event(
        event: Arc<Event>,
        listed: Box<dyn Send + Sync>,
        finish: fn(Option<Value>) -> Result<T, E>,
        log: &Arc<Log>,
        durability: Durability,
    ) -> Self
    where
        E: From<Error>,
    {
        let (log, from_error) = (Arc::clone(log), E::from);
        let expecting = Expecting { event, _listed: listed, finish, log, durability, from_error };
        Self { state: PendingState::Expecting(expecting) }
    }

    /// Blocks until the answer may be relied on.
    ///
    /// # Errors
    /// See [`Pending`].
    pub fn wait(mut self) -> Result<T, E> {
        match std::mem::replace(&mut self.state, PendingState::Taken) {
            PendingState::Ready(answer) => answer,
            PendingState::Waiting(waiting) => {
                if let Some(ticket) = waiting.ticket {
                    // A task that polled this handed it to a thread that blocks.
                    waiting.log.forget(ticket);
                }
                waiting.wait()
            }
            PendingState::Expecting(expecting) => {
                let outcome = expecting.event.wait();
                expecting.over(outcome).wait()
            }
            PendingState::Taken => panic!("a `Pending` answers once"),
        }
    }

    /// Whether the call itself has failed, so that there is nothing to wait for.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(&self.state, PendingState::Ready(Err(_)))
    }

    /// Whether [`wait`](Pending::wait) would answer at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            PendingState::Ready(_) | PendingState::Taken => true,
            PendingState::Waiting(waiting) => waiting.log.reached(waiting.lsn, waiting.durability),
            PendingState::Expecting(expecting) => {
                let reached = |outcome: EventOutcome| {
                    expecting.log.reached(outcome.lsn, expecting.durability)
                };
                expecting.event.outcome().is_some_and(reached)
            }
        }
    }
}

impl<T, E> Waiting<T, E> {
    /// Blocks until the log has what the answer depends on.
    fn wait(self) -> Result<T, E> {
        match self.log.wait(self.lsn, self.durability) {
            Ok(()) => self.answer,
            Err(error) => Err((self.from_error)(error)),
        }
    }
}

impl<T, E> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let PendingState::Expecting(expecting) = &self.state {
            let Some(outcome) = expecting.event.poll(context.waker()) else { return Poll::Pending };
            if let PendingState::Expecting(expecting) =
                std::mem::replace(&mut self.state, PendingState::Taken)
            {
                self.state = PendingState::Waiting(expecting.over(outcome));
            }
        }
        let reached = match &mut self.state {
            PendingState::Waiting(waiting) => {
                let Waiting { log, lsn, durability, ticket, .. } = waiting;
                match log.poll(*lsn, *durability, ticket, context.waker()) {
                    Some(reached) => reached,
                    None => return Poll::Pending,
                }
            }
            PendingState::Ready(_) | PendingState::Expecting(_) | PendingState::Taken => Ok(()),
        };
        match std::mem::replace(&mut self.state, PendingState::Taken) {
            PendingState::Ready(answer) => Poll::Ready(answer),
            PendingState::Waiting(waiting) => Poll::Ready(match reached {
                Ok(()) => waiting.answer,
                Err(error) => Err((waiting.from_error)(error)),
            }),
            PendingState::Expecting(_) | PendingState::Taken => {
                panic!("a `Pending` was polled after it had answered")
            }
        }
    }
}

impl<T, E> Drop for Pending<T, E> {
    fn drop(&mut self) {
        if let PendingState::Waiting(Waiting { log, ticket: Some(ticket), .. }) = &self.state {
            log.forget(*ticket);
        }
    }
}

impl<T, E> fmt::Debug for Pending<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            PendingState::Ready(_) => "ready",
            PendingState::Waiting(_) => "waiting for the log",
            PendingState::Expecting(_) => "waiting for an event",
            PendingState::Taken => "answered",
        };
        f.debug_struct("Pending").field("state", &state).finish_non_exhaustive()
    }
}
