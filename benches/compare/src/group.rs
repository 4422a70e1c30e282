//! The group commit that a user writes by hand in front of a store that has none: one thread takes
//! whatever was asked for meanwhile and runs it as one durable transaction.

use crate::contest::{Contender, Session};
use crate::engines::{Batch, Store};
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

const WAITING: u8 = 0;
const CONSUMED: u8 = 1;
const REFUSED: u8 = 2;

/// Where a caller sleeps, and its answer.
struct Slot {
    state: AtomicU8,
    thread: Thread,
}

#[derive(Default)]
struct Queue {
    requests: Vec<(u32, Arc<Slot>)>,
    closing: bool,
    failed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

/// A store behind a group-commit thread.
pub struct Grouped<S> {
    store: S,
    shared: Arc<Shared>,
    committer: JoinHandle<Result<()>>,
}

impl<S: Store> Grouped<S> {
    pub fn new(store: S) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let batch = store.batch()?;
        let committer = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let result = run(&shared, batch);
                if result.is_err() {
                    fail(&shared);
                }
                result
            })
        };
        Ok(Self { store, shared, committer })
    }
}

fn run(shared: &Shared, mut batch: Box<dyn Batch>) -> Result<()> {
    let (mut requests, mut tokens) = (Vec::new(), Vec::new());
    loop {
        {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.requests.is_empty() {
                if queue.closing {
                    return Ok(());
                }
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut requests, &mut queue.requests);
        }
        tokens.clear();
        tokens.extend(requests.iter().map(|(token, _)| *token));
        let outcome = batch.consume(&tokens);
        let answers = outcome.as_deref().unwrap_or_default();
        for (index, (_, slot)) in requests.drain(..).enumerate() {
            let consumed = answers.get(index).copied().unwrap_or(false);
            slot.state.store(if consumed { CONSUMED } else { REFUSED }, Ordering::Release);
            slot.thread.unpark();
        }
        outcome?;
    }
}

/// Answers the waiters, and lets no one wait again.
fn fail(shared: &Shared) {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.failed = true;
    for (_, slot) in queue.requests.drain(..) {
        slot.state.store(REFUSED, Ordering::Release);
        slot.thread.unpark();
    }
}

impl<S: Store> Contender for Grouped<S> {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let slot = Slot { state: AtomicU8::new(WAITING), thread: std::thread::current() };
        Ok(Box::new(Caller { shared: &self.shared, slot: Arc::new(slot) }))
    }

    fn finish(self: Box<Self>) -> Result<Vec<bool>> {
        let Self { store, shared, committer } = *self;
        shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        shared.work.notify_all();
        let Ok(result) = committer.join() else { bail!("the group-commit thread panicked") };
        result.context("the group-commit thread")?;
        store.finish()
    }
}

struct Caller<'a> {
    shared: &'a Shared,
    slot: Arc<Slot>,
}

impl Session for Caller<'_> {
    fn consume(&mut self, token: u32, done: &mut Vec<u32>) -> Result<()> {
        self.slot.state.store(WAITING, Ordering::Relaxed);
        let first = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(!queue.failed, "the group-commit thread failed");
            queue.requests.push((token, Arc::clone(&self.slot)));
            queue.requests.len() == 1
        };
        if first {
            self.shared.work.notify_one();
        }
        while self.slot.state.load(Ordering::Acquire) == WAITING {
            std::thread::park();
        }
        ensure!(self.slot.state.load(Ordering::Acquire) == CONSUMED, "token {token} was refused");
        done.push(token);
        Ok(())
    }
}
