//! The two ends of an answer that a driver gives later.

use super::source::AnswerSource;
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Waker};

/// What gives the answer of a [`Pending`](super::Pending) later:
/// see [`Pending::channel`](super::Pending::channel).
///
/// Dropping it without an answer answers [`Error::Unanswered`], so that no caller waits for ever.
#[must_use = "dropping it answers `Error::Unanswered`"]
pub struct Answer<T, E = Error> {
    /// `None` when the answer was given.
    slot: Option<Arc<AnswerSlot<T, E>>>,
    unanswered: fn() -> E,
}

/// Where the answer lies until it is taken.
struct AnswerSlot<T, E> {
    content: Mutex<SlotContent<T, E>>,
    answered: Condvar,
}

struct SlotContent<T, E> {
    answer: Option<Result<T, E>>,
    waker: Option<Waker>,
    /// Whether the `Pending` is still there.
    is_wanted: bool,
}

/// The end that takes the answer.
pub(super) struct Asked<T, E>(Arc<AnswerSlot<T, E>>);

/// Both ends.
pub(super) fn new<T, E: From<Error>>() -> (Answer<T, E>, Asked<T, E>) {
    let content = SlotContent { answer: None, waker: None, is_wanted: true };
    let slot = Arc::new(AnswerSlot { content: Mutex::new(content), answered: Condvar::new() });
    let unanswered = || E::from(Error::Unanswered);
    (Answer { slot: Some(Arc::clone(&slot)), unanswered }, Asked(slot))
}

impl<T, E> Answer<T, E> {
    /// Gives the answer, and wakes the caller that waits for it, a thread or a task. When the
    /// `Pending` was dropped, the answer is dropped.
    pub fn send(mut self, answer: Result<T, E>) {
        if let Some(slot) = self.slot.take() {
            slot.give(answer);
        }
    }

    /// Whether the `Pending` is still there. Dropping it does not undo a change, so a driver goes
    /// on all the same with one that it has begun.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.content.lock().is_wanted)
    }
}

impl<T, E> Drop for Answer<T, E> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.give(Err((self.unanswered)()));
        }
    }
}

impl<T, E> AnswerSlot<T, E> {
    /// Wakes no one under the lock, and drops nothing there, because both may run anything.
    fn give(&self, answer: Result<T, E>) {
        let (waker, _unwanted) = {
            let mut content = self.content.lock();
            match content.is_wanted {
                true => {
                    content.answer = Some(answer);
                    (content.waker.take(), None)
                }
                false => (None, Some(answer)),
            }
        };
        self.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Send, E: Send> AnswerSource<T, E> for Asked<T, E> {
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Result<T, E>> {
        let mut content = self.0.content.lock();
        if let Some(answer) = content.answer.take() {
            return Some(answer);
        }
        let old = match &content.waker {
            Some(old) if old.will_wake(context.waker()) => None,
            _ => content.waker.replace(context.waker().clone()),
        };
        drop(content);
        // Dropping a waker may run code of others.
        drop(old);
        None
    }

    fn wait(self: Box<Self>) -> Result<T, E> {
        let mut content = self.0.content.lock();
        loop {
            if let Some(answer) = content.answer.take() {
                return answer;
            }
            self.0.answered.wait(&mut content);
        }
    }

    fn is_ready(&self) -> bool {
        self.0.content.lock().answer.is_some()
    }
}

impl<T, E> Drop for Asked<T, E> {
    fn drop(&mut self) {
        let _left = {
            let mut content = self.0.content.lock();
            content.is_wanted = false;
            (content.answer.take(), content.waker.take())
        };
    }
}

impl<T, E> fmt::Debug for Answer<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("is_wanted", &self.is_wanted()).finish_non_exhaustive()
    }
}
