//! The answer of a call: applied already, waiting for the disk, or for something that is still to
//! happen.

mod channel;
mod event;
mod source;

pub use channel::Answer;
pub(crate) use event::{Event, EventOutcome};
use source::AnswerSource;

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::{Log, WaitTicket};
use crate::sync::plain::Mutex;
use crate::tables::Value;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
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
/// A call that returns a `Pending` waits for no flush, checkpoint or space in the log. It may read
/// pages of the file, and it waits for the calls before it to be applied. Polling never blocks;
/// [`wait`](Pending::wait) does. Where the log is full the change is kept in memory, and its answer
/// waits, at most as long as [`Builder::log_stall`](crate::Builder::log_stall) says; when too much
/// waits already, the call is refused.
///
/// # Errors [`Error::LogFull`], which says whether the change was applied.
/// [`Error::OutcomeUnknown`] when the log failed while this waited (the change may or may not
/// survive), or the disk stayed too full for the log for as long as
/// [`Builder::log_stall`](crate::Builder::log_stall) says (it is visible, and becomes durable when
/// there is space); otherwise the error of the call itself, which says what it left behind.
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
    /// Only the owner looks into it; the lock is what makes it `Sync`.
    Elsewhere(Mutex<Box<dyn AnswerSource<T, E>>>),
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
    ticket: Option<WaitTicket>,
    from_error: fn(Error) -> E,
}

// An answer is never pinned, so moving it is always fine.
impl<T, E> Unpin for Pending<T, E> {}

// The change was applied before, and nothing of it is in here.
impl<T: UnwindSafe, E> UnwindSafe for Pending<T, E> {}
impl<T: RefUnwindSafe, E> RefUnwindSafe for Pending<T, E> {}

impl<T, E> Pending<T, E> {
    /// An answer that depends on nothing that could still be lost.
    pub fn ready(answer: Result<T, E>) -> Self {
        Self { state: PendingState::Ready(answer) }
    }

    /// An answer that is still to be given, and what gives it: how a driver that is written outside
    /// this crate answers later, from any thread.
    ///
    /// When the [`Answer`] is dropped without having answered, because its thread panicked or its
    /// task was cancelled, the `Pending` answers [`Error::Unanswered`].
    ///
    /// ```
    /// use cloakroom::{Error, Pending};
    ///
    /// let (answer, pending) = Pending::<u32>::channel();
    /// let driver = std::thread::spawn(move || answer.send(Ok(7)));
    /// assert_eq!(pending.wait()?, 7);
    /// driver.join().unwrap();
    ///
    /// let (answer, pending) = Pending::<u32>::channel();
    /// drop(answer);
    /// assert!(matches!(pending.wait(), Err(Error::Unanswered)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn channel() -> (Answer<T, E>, Self)
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, source) = channel::new();
        (answer, Self::from_source(source))
    }

    /// The same wait, whose answer `finish` makes of this one. It is called once, when the answer
    /// is taken, or at once when there is nothing to wait for. When the `Pending` is dropped it is
    /// not called.
    ///
    /// ```
    /// use cloakroom::{Error, Pending};
    /// let number = Pending::<u32>::ready(Ok(7));
    /// let text = number.then(|number| Ok::<_, Error>(number?.to_string()));
    /// assert_eq!(text.wait()?, "7");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn then<R, F>(
        mut self,
        finish: impl FnOnce(Result<T, E>) -> Result<R, F> + Send + 'static,
    ) -> Pending<R, F>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        if let PendingState::Ready(_) = &self.state
            && let PendingState::Ready(answer) =
                std::mem::replace(&mut self.state, PendingState::Taken)
        {
            return Pending::ready(finish(answer));
        }
        Pending::from_source(Then { before: self, finish: Some(finish) })
    }

    /// The same wait, whose value `change` makes of this one. See [`then`](Self::then).
    pub fn map<R>(self, change: impl FnOnce(T) -> R + Send + 'static) -> Pending<R, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.then(|answer| answer.map(change))
    }

    /// The wait that `begin` begins, when it is first waited for or polled.
    pub(crate) fn deferred(begin: impl FnOnce() -> Self + Send + 'static) -> Self
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        Self::from_source(Deferred::Later(Some(begin)))
    }

    fn from_source(source: impl AnswerSource<T, E> + 'static) -> Self {
        Self { state: PendingState::Elsewhere(Mutex::new(Box::new(source))) }
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
                if expecting.log.has_forked() {
                    return Err((expecting.from_error)(Error::Forked));
                }
                let outcome = expecting.event.wait();
                expecting.over(outcome).wait()
            }
            PendingState::Elsewhere(source) => source.into_inner().wait(),
            PendingState::Taken => panic!("a `Pending` answers once"),
        }
    }

    /// Whether the call itself has failed, so that there is nothing to wait for.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// The error of the call itself, if it has failed.
    pub(crate) fn failure(&self) -> Option<&E> {
        match &self.state {
            PendingState::Ready(Err(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether [`wait`](Pending::wait) would answer at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            PendingState::Ready(_) | PendingState::Taken => true,
            PendingState::Waiting(waiting) => waiting.log.reached(waiting.lsn, waiting.durability),
            PendingState::Expecting(expecting) => {
                if expecting.log.has_forked() {
                    return true;
                }
                let reached = |outcome: EventOutcome| {
                    expecting.log.reached(outcome.lsn, expecting.durability)
                };
                expecting.event.outcome().is_some_and(reached)
            }
            PendingState::Elsewhere(source) => source.lock().is_ready(),
        }
    }
}

/// A wait that begins when it is first looked at.
enum Deferred<T, E, Begin> {
    /// `None` while it begins.
    Later(Option<Begin>),
    Begun(Pending<T, E>),
}

impl<T, E, Begin> AnswerSource<T, E> for Deferred<T, E, Begin>
where
    T: Send,
    E: Send,
    Begin: FnOnce() -> Pending<T, E> + Send,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Result<T, E>> {
        if let Self::Later(begin) = self {
            let begin = begin.take()?;
            *self = Self::Begun(begin());
        }
        let Self::Begun(pending) = self else { return None };
        match Pin::new(pending).poll(context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    fn wait(self: Box<Self>) -> Result<T, E> {
        match *self {
            Self::Later(Some(begin)) => begin().wait(),
            Self::Later(None) => panic!("a `Pending` answers once"),
            Self::Begun(pending) => pending.wait(),
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self, Self::Begun(pending) if pending.is_ready())
    }
}

/// The answer of another `Pending`, changed.
struct Then<T, E, Finish> {
    before: Pending<T, E>,
    /// `None` when the answer was taken.
    finish: Option<Finish>,
}

impl<T, E, R, F, Finish> AnswerSource<R, F> for Then<T, E, Finish>
where
    T: Send,
    E: Send,
    Finish: FnOnce(Result<T, E>) -> Result<R, F> + Send,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Result<R, F>> {
        let Poll::Ready(answer) = Pin::new(&mut self.before).poll(context) else { return None };
        self.finish.take().map(|finish| finish(answer))
    }

    fn wait(self: Box<Self>) -> Result<R, F> {
        let Some(finish) = self.finish else { panic!("a `Pending` answers once") };
        finish(self.before.wait())
    }

    fn is_ready(&self) -> bool {
        self.before.is_ready()
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
            if expecting.log.has_forked() {
                let forked = (expecting.from_error)(Error::Forked);
                self.state = PendingState::Taken;
                return Poll::Ready(Err(forked));
            }
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
            PendingState::Elsewhere(source) => {
                let Some(answer) = source.get_mut().poll(context) else { return Poll::Pending };
                self.state = PendingState::Taken;
                return Poll::Ready(answer);
            }
            PendingState::Ready(_) | PendingState::Expecting(_) | PendingState::Taken => Ok(()),
        };
        match std::mem::replace(&mut self.state, PendingState::Taken) {
            PendingState::Ready(answer) => Poll::Ready(answer),
            PendingState::Waiting(waiting) => Poll::Ready(match reached {
                Ok(()) => waiting.answer,
                Err(error) => Err((waiting.from_error)(error)),
            }),
            PendingState::Expecting(_) | PendingState::Elsewhere(_) | PendingState::Taken => {
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
            PendingState::Elsewhere(_) => "waiting for a driver",
            PendingState::Taken => "answered",
        };
        f.debug_struct("Pending").field("state", &state).finish_non_exhaustive()
    }
}
