//! Calls of a deduplicating store, and what the checks expect of them.

use crate::stores::dedupe::{DedupeStore, JobId, Registration};
use serde_json::Value;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub(super) type DedupeDriver = dyn DedupeStore<Value>;

pub(super) fn join(store: &DedupeDriver, hash: &str) -> Registration {
    store.register_or_join(hash).wait().unwrap()
}

/// Registers `hash`, which has no pending job.
pub(super) fn own(store: &DedupeDriver, hash: &str) -> JobId {
    let registration = join(store, hash);
    assert!(registration.is_owner, "{hash:.9?} has an owner already");
    registration.job_id
}

pub(super) fn complete(store: &DedupeDriver, hash: &str, value: impl Into<Value>) {
    store.complete(hash, &value.into()).wait().unwrap();
}

pub(super) fn value(store: &DedupeDriver, hash: &str) -> Option<Value> {
    store.wait_for(hash).wait().unwrap()
}

pub(super) fn in_flight(store: &DedupeDriver, hash: &str) -> bool {
    store.is_in_progress(hash).wait().unwrap()
}

pub(super) fn some(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

pub(super) fn absent(store: &DedupeDriver, hash: &str) {
    assert!(!in_flight(store, hash));
    assert_eq!(value(store, hash), None);
}

pub(super) struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparker(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
