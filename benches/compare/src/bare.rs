//! The bare shared-flush loop: the limit of any store whose callers wait for the disk. There is no
//! store at all, only a buffer, one flush at a time, and callers that wait for the flush that
//! covers their record.

use crate::contest::{Contender, Session};
use crate::disk::{self, Flush};
use crate::engines::Batch;
use crate::tokens::Tokens;
use crate::work::{Op, Request, State as TokenState, Work};
use anyhow::{Result, ensure};
use rustix::thread::futex::{self, Flags, Timespec};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of one record: about what a log needs for a consume.
const RECORD: usize = 128;
/// What a record says, in its fifth byte.
const INSERTED: u8 = 1;
const CONSUMED: u8 = 2;

/// How a record gets to the disk and its caller back to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A committer thread of its own, `fdatasync`, and everybody woken by one condition variable:
    /// what one writes first.
    Condvar,
    /// The callers flush for each other, with `RWF_DSYNC`. Each group sleeps on a word of its own
    /// and is woken by one call of the system, after the next leader.
    Futex,
    /// The same, and a leader waits a moment for the callers that were woken just before it: until
    /// all of them are back, or for a quarter of a flush.
    FutexDelaying,
}

struct State {
    /// Records that no one has begun to write.
    buffer: Vec<u8>,
    /// The group that `buffer` is, counted from 1.
    open_group: u32,
    leading: bool,
    /// Where `buffer` begins in the file.
    offset: u64,
    recycled: Vec<u8>,
    /// The records of the group written last.
    last_group: usize,
    /// How many records the leader waits for.
    awaited: usize,
    closing: bool,
}

struct Loop {
    file: File,
    wake: Wake,
    flush: Flush,
    delay: Duration,
    state: Mutex<State>,
    /// The newest group on the disk.
    durable: AtomicU32,
    /// What the members of a group sleep on: two words, for the group in flight and the one that
    /// gathers.
    doors: [AtomicU32; 2],
    /// What the first of a group sleeps on until it may lead: the number of the group that is led.
    lead: AtomicU32,
    /// What a delaying leader sleeps on.
    gathered: AtomicU32,
    flush_ns: AtomicU64,
    /// A failure ends the run, so every caller may see it, whatever its group.
    failed: AtomicBool,
    work: Condvar,
    done: Condvar,
}

fn records_per_token(work: Work) -> usize {
    match work {
        Work::Consume => 1,
        Work::Lifecycle => 2,
    }
}

/// The bare loop as a contender.
pub struct Bare {
    shared: Arc<Loop>,
    committer: Option<JoinHandle<()>>,
    tokens: Arc<Tokens>,
    depth: usize,
}

impl Bare {
    /// `depth` is how many records each thread has in flight.
    pub fn create(
        dir: &Path,
        tokens: &Arc<Tokens>,
        wake: Wake,
        delay: Duration,
        depth: usize,
    ) -> Result<Self> {
        let records = tokens.len() * records_per_token(tokens.work());
        let file = disk::prewritten(&dir.join("bare"), (records * RECORD) as u64)?;
        let flush = if wake == Wake::Condvar { Flush::Fdatasync } else { Flush::Dsync };
        let state = State {
            buffer: Vec::new(),
            open_group: 1,
            leading: false,
            offset: 0,
            recycled: Vec::new(),
            last_group: 0,
            awaited: usize::MAX,
            closing: false,
        };
        let shared = Arc::new(Loop {
            file,
            wake,
            flush,
            delay,
            state: Mutex::new(state),
            durable: AtomicU32::new(0),
            doors: [AtomicU32::new(0), AtomicU32::new(0)],
            lead: AtomicU32::new(0),
            gathered: AtomicU32::new(0),
            flush_ns: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let committer = (wake == Wake::Condvar).then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run_committer())
        });
        Ok(Self { shared, committer, tokens: Arc::clone(tokens), depth })
    }
}

impl Contender for Bare {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Caller { shared: &self.shared, depth: self.depth, in_flight: VecDeque::new() }))
    }

    /// A log of records has nothing to remove.
    fn cleaner(&self) -> Result<Option<Box<dyn Batch>>> {
        Ok(None)
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<TokenState>> {
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        if let Some(committer) = self.committer.take() {
            ensure!(committer.join().is_ok(), "the committer panicked");
        }
        let mut states = vec![self.tokens.untouched(); self.tokens.len()];
        let mut record = [0; RECORD];
        for number in 0..self.tokens.len() * records_per_token(self.tokens.work()) {
            self.shared.file.read_exact_at(&mut record, (number * RECORD) as u64)?;
            let token = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
            match record[4] {
                INSERTED => states[token as usize] = TokenState::Fresh,
                CONSUMED => states[token as usize] = TokenState::Consumed,
                _ => {}
            }
        }
        Ok(states)
    }
}

struct Caller<'a> {
    shared: &'a Loop,
    depth: usize,
    in_flight: VecDeque<(Request, Ticket)>,
}

#[derive(Clone, Copy)]
struct Ticket {
    group: u32,
    /// Whether this caller is the first of its group, and so leads it.
    first: bool,
}

impl Session for Caller<'_> {
    fn submit(&mut self, request: Request, done: &mut Vec<Request>) -> Result<()> {
        let ticket = self.shared.append(request);
        if self.depth == 1 {
            self.shared.wait(ticket)?;
            done.push(request);
            return Ok(());
        }
        self.in_flight.push_back((request, ticket));
        if self.in_flight.len() < self.depth { Ok(()) } else { self.oldest(done) }
    }

    fn drain(&mut self, done: &mut Vec<Request>) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.oldest(done)?;
        }
        Ok(())
    }
}

impl Caller<'_> {
    fn oldest(&mut self, done: &mut Vec<Request>) -> Result<()> {
        if let Some((request, ticket)) = self.in_flight.pop_front() {
            self.shared.wait(ticket)?;
            done.push(request);
        }
        Ok(())
    }
}

impl Loop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, request: Request) -> Ticket {
        let mut record = [0x5A; RECORD];
        record[..4].copy_from_slice(&request.token.to_le_bytes());
        record[4] = if request.op == Op::Consume { CONSUMED } else { INSERTED };
        let mut state = self.lock();
        let first = state.buffer.is_empty();
        state.buffer.extend_from_slice(&record);
        let group = state.open_group;
        let complete = state.buffer.len() / RECORD >= state.awaited;
        if complete {
            state.awaited = usize::MAX;
        }
        drop(state);
        if complete {
            self.gathered.fetch_add(1, Ordering::Release);
            let _ = futex::wake(&self.gathered, Flags::PRIVATE, 1);
        }
        if first && self.wake == Wake::Condvar {
            self.work.notify_one();
        }
        Ticket { group, first }
    }

    fn is_durable(&self, group: u32) -> bool {
        self.durable.load(Ordering::Acquire) >= group
    }

    fn wait(&self, Ticket { group, first }: Ticket) -> Result<()> {
        if self.is_durable(group) {
            return Ok(());
        }
        if self.wake == Wake::Condvar {
            let mut state = self.lock();
            while !self.is_durable(group) {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        } else if first {
            let handed_over = self.wait_for_lead(group);
            self.commit(group, handed_over)?;
        } else {
            let door = &self.doors[group as usize % 2];
            loop {
                let seen = door.load(Ordering::Acquire);
                if self.is_durable(group) {
                    break;
                }
                let _ = futex::wait(door, Flags::PRIVATE, seen, None);
            }
        }
        ensure!(!self.failed.load(Ordering::Relaxed), "the flush failed");
        Ok(())
    }

    /// Answers whether the lead came from the leader of the group before, whose callers are being
    /// woken.
    fn wait_for_lead(&self, group: u32) -> bool {
        {
            let mut state = self.lock();
            if !state.leading {
                state.leading = true;
                return false;
            }
        }
        loop {
            let led = self.lead.load(Ordering::Acquire);
            if led == group {
                return true;
            }
            let _ = futex::wait(&self.lead, Flags::PRIVATE, led, None);
        }
    }

    /// Writes and flushes `group`, which this caller leads, and wakes the next leader and then
    /// everybody in it.
    fn commit(&self, group: u32, handed_over: bool) -> Result<()> {
        if self.wake == Wake::FutexDelaying {
            self.wait_for_more(handed_over);
        }
        let (buffer, offset) = {
            let mut state = self.lock();
            state.awaited = usize::MAX;
            state.open_group += 1;
            let recycled = std::mem::take(&mut state.recycled);
            let buffer = std::mem::replace(&mut state.buffer, recycled);
            let offset = state.offset;
            state.offset += buffer.len() as u64;
            state.last_group = buffer.len() / RECORD;
            (buffer, offset)
        };
        let started = Instant::now();
        let written = disk::write_durable(&self.file, offset, &buffer, self.flush, self.delay);
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.flush_ns.store(took, Ordering::Relaxed);
        if written.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.durable.store(group, Ordering::Release);
        let next = {
            let mut state = self.lock();
            state.recycled = buffer;
            state.recycled.clear();
            state.leading = !state.buffer.is_empty();
            state.leading
        };
        if next {
            self.lead.store(group + 1, Ordering::Release);
            let _ = futex::wake(&self.lead, Flags::PRIVATE, u32::MAX >> 1);
        }
        let door = &self.doors[group as usize % 2];
        door.fetch_add(1, Ordering::Release);
        let _ = futex::wake(door, Flags::PRIVATE, u32::MAX >> 1);
        Ok(written?)
    }

    /// Waits until the callers of the last group are back, for a quarter of a flush at most; never
    /// when alone.
    fn wait_for_more(&self, handed_over: bool) {
        let seen = {
            let mut state = self.lock();
            let here = state.buffer.len() / RECORD;
            // A caller that gathered during a flush was not in it; one that leads unasked may have
            // been.
            let all = if handed_over { here + state.last_group } else { state.last_group };
            if here >= all {
                return;
            }
            state.awaited = all;
            self.gathered.load(Ordering::Acquire)
        };
        let at_most = Duration::from_nanos(self.flush_ns.load(Ordering::Relaxed) / 4);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let _ = futex::wait(&self.gathered, Flags::PRIVATE, seen, Some(&timeout));
    }

    fn run_committer(&self) {
        let mut state = self.lock();
        loop {
            while state.buffer.is_empty() {
                if state.closing {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let recycled = std::mem::take(&mut state.recycled);
            let mut buffer = std::mem::replace(&mut state.buffer, recycled);
            let (group, offset) = (state.open_group, state.offset);
            state.open_group += 1;
            state.offset += buffer.len() as u64;
            drop(state);
            let written = disk::write_durable(&self.file, offset, &buffer, self.flush, self.delay);
            buffer.clear();
            state = self.lock();
            state.recycled = buffer;
            self.failed.fetch_or(written.is_err(), Ordering::Relaxed);
            self.durable.store(group, Ordering::Release);
            self.done.notify_all();
        }
    }
}
