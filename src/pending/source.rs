//! An answer that something else than the log or an event gives.

use crate::error::Result;
use std::task::Context;

/// What gives the answer of a [`Pending`](super::Pending).
pub(super) trait AnswerSource<T, E>: Send {
    /// The answer, once; or else `None`, and the task of `context` is woken when there is one.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Result<T, E>>;

    /// Blocks until there is an answer.
    fn wait(self: Box<Self>) -> Result<T, E>;

    /// Whether [`wait`](Self::wait) would answer at once.
    fn is_ready(&self) -> bool;
}
