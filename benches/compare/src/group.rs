//! The group commit that a user writes by hand in front of a store that has none: one thread takes
//! whatever was asked for meanwhile and runs it as one durable transaction.

use crate::contest::{Contender, Session};
use crate::engines::{self, Batch, Store};
use crate::work::{Request, State};
use anyhow::{Context, Result, bail, ensure};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const REFUSED: u8 = 2;

/// Where a caller finds the answers to its requests in flight, and sleeps for the oldest.
struct Inbox {
    slots: Box<[AtomicU8]>,
    thread: Thread,
}

/// A request in the queue, and the slot of its answer.
struct Queued {
    request: Request,
    inbox: Arc<Inbox>,
    slot: usize,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Queued>,
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
    depth: usize,
}

impl<S: Store> Grouped<S> {
    /// `depth` is how many requests each caller has in flight.
    pub fn new(store: S, depth: usize) -> Result<Self> {
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
        Ok(Self { store, shared, committer, depth })
    }
}

fn run(shared: &Shared, mut batch: Box<dyn Batch>) -> Result<()> {
    let (mut queued, mut requests) = (Vec::new(), Vec::new());
    loop {
        {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.requests.is_empty() {
                if queue.closing {
                    return Ok(());
                }
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut queued, &mut queue.requests);
        }
        requests.clear();
        requests.extend(queued.iter().map(|queued: &Queued| queued.request));
        let outcome = batch.run(&requests);
        answer(&mut queued, outcome.as_deref().unwrap_or_default());
        outcome?;
    }
}

/// Enters the answers, then wakes each caller once for a run of requests of its own.
fn answer(queued: &mut Vec<Queued>, answers: &[bool]) {
    for (index, Queued { inbox, slot, .. }) in queued.iter().enumerate() {
        let granted = answers.get(index).copied().unwrap_or(false);
        inbox.slots[*slot].store(if granted { GRANTED } else { REFUSED }, Ordering::Release);
    }
    for run in queued.chunk_by(|one, next| Arc::ptr_eq(&one.inbox, &next.inbox)) {
        run[0].inbox.thread.unpark();
    }
    queued.clear();
}

/// Answers those who wait, and lets no one wait again.
fn fail(shared: &Shared) {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.failed = true;
    answer(&mut queue.requests, &[]);
}

impl<S: Store> Contender for Grouped<S> {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let slots = std::iter::repeat_with(AtomicU8::default).take(self.depth).collect();
        let inbox = Arc::new(Inbox { slots, thread: std::thread::current() });
        Ok(Box::new(Caller { shared: &self.shared, inbox, next: 0, in_flight: VecDeque::new() }))
    }

    fn cleaner(&self) -> Result<Option<Box<dyn Batch>>> {
        engines::cleaner(&self.store)
    }

    fn server(&self) -> Option<u32> {
        self.store.server()
    }

    fn finish(self: Box<Self>) -> Result<Vec<State>> {
        let Self { store, shared, committer, .. } = *self;
        shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        shared.work.notify_all();
        let Ok(result) = committer.join() else { bail!("the group-commit thread panicked") };
        result.context("the group-commit thread")?;
        store.finish()
    }
}

struct Caller<'a> {
    shared: &'a Shared,
    inbox: Arc<Inbox>,
    /// The slot of the next request; the slots are used in turn, as the answers are awaited.
    next: usize,
    in_flight: VecDeque<(Request, usize)>,
}

impl Caller<'_> {
    fn oldest(&mut self, done: &mut Vec<Request>) -> Result<()> {
        let Some((request, slot)) = self.in_flight.pop_front() else { return Ok(()) };
        let slot = &self.inbox.slots[slot];
        while slot.load(Ordering::Acquire) == WAITING {
            std::thread::park();
        }
        ensure!(slot.load(Ordering::Acquire) == GRANTED, "{request:?} was refused");
        done.push(request);
        Ok(())
    }
}

impl Session for Caller<'_> {
    fn submit(&mut self, request: Request, done: &mut Vec<Request>) -> Result<()> {
        let (inbox, slot) = (Arc::clone(&self.inbox), self.next);
        inbox.slots[slot].store(WAITING, Ordering::Relaxed);
        let first = {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(!queue.failed, "the group-commit thread failed");
            queue.requests.push(Queued { request, inbox, slot });
            queue.requests.len() == 1
        };
        if first {
            self.shared.work.notify_one();
        }
        self.in_flight.push_back((request, slot));
        self.next = (slot + 1) % self.inbox.slots.len();
        if self.in_flight.len() < self.inbox.slots.len() { Ok(()) } else { self.oldest(done) }
    }

    fn drain(&mut self, done: &mut Vec<Request>) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.oldest(done)?;
        }
        Ok(())
    }
}
