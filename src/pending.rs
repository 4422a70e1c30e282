//! The answer of a call: applied already, waiting for the disk.

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::Log;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The answer of a store's method.
///
/// The change has been applied, in order, when the call returns: every later call sees it. What is left is to wait
/// until the answer may be relied on, which in a [`Durability::Sync`] store means until everything the call wrote
/// *or saw* is on the disk.
///
/// - [`wait`](Pending::wait) blocks until then.
/// - It is a [`Future`] that any executor can run.
/// - Dropping it neither undoes the change nor delays it: the change becomes durable by itself shortly after.
///
/// So one thread can issue a thousand calls and then wait for all of them; they share one flush of the disk.
///
/// # Errors
/// [`Error::OutcomeUnknown`] when the log failed while this waited (the change may or may not survive); otherwise
/// the error of the call itself, which says what it left behind.
///
/// # Panics
/// Polling it again after it has answered panics, as with other futures.
#[must_use = "the change is applied but may not be durable yet: `.wait()` or `.await` the answer"]
pub struct Pending<T, E = Error> {
    state: State<T, E>,
}

enum State<T, E> {
    Ready(Result<T, E>),
    Waiting(Waiting<T, E>),
    Taken,
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
    /// An answer that rests on nothing that could still be lost.
    pub fn ready(answer: Result<T, E>) -> Self {
        Self { state: State::Ready(answer) }
    }

    /// An answer that rests on the frame at `lsn`.
    pub(crate) fn on_log(answer: Result<T, E>, log: &Arc<Log>, lsn: u64, durability: Durability) -> Self
    where
        E: From<Error>,
    {
        let (log, from_error) = (Arc::clone(log), E::from);
        Self { state: State::Waiting(Waiting { answer, log, lsn, durability, ticket: None, from_error }) }
    }

    /// Blocks until the answer may be relied on.
    ///
    /// # Errors
    /// See [`Pending`].
    pub fn wait(mut self) -> Result<T, E> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(answer) => answer,
            State::Waiting(waiting) => waiting
                .log
                .wait(waiting.lsn, waiting.durability)
                .map_or_else(|error| Err((waiting.from_error)(error)), |()| waiting.answer),
            State::Taken => panic!("a `Pending` answers once"),
        }
    }

    /// Whether [`wait`](Pending::wait) would answer at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Ready(_) | State::Taken => true,
            State::Waiting(waiting) => waiting.log.reached(waiting.lsn, waiting.durability),
        }
    }
}

impl<T, E> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reached = match &mut self.state {
            State::Waiting(waiting) => {
                let Waiting { log, lsn, durability, ticket, .. } = waiting;
                match log.poll(*lsn, *durability, ticket, context.waker()) {
                    Some(reached) => reached,
                    None => return Poll::Pending,
                }
            }
            State::Ready(_) | State::Taken => Ok(()),
        };
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(answer) => Poll::Ready(answer),
            State::Waiting(waiting) => Poll::Ready(match reached {
                Ok(()) => waiting.answer,
                Err(error) => Err((waiting.from_error)(error)),
            }),
            State::Taken => panic!("a `Pending` was polled after it had answered"),
        }
    }
}

impl<T, E> Drop for Pending<T, E> {
    fn drop(&mut self) {
        if let State::Waiting(Waiting { log, ticket: Some(ticket), .. }) = &self.state {
            log.forget(*ticket);
        }
    }
}

impl<T, E> fmt::Debug for Pending<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready(_) => "ready",
            State::Waiting(_) => "waiting for the log",
            State::Taken => "answered",
        };
        f.debug_struct("Pending").field("state", &state).finish_non_exhaustive()
    }
}
