//! One cell of the table: threads that work for a while, the rest after it, and the check of what
//! is left behind.

use crate::cost::{Cost, Meter, Reading};
use crate::disk;
use crate::engines::Batch;
use crate::tokens::{Tokens, now};
use crate::work::{Op, Request, State, Work};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A contender with its tokens loaded, ready to be measured.
pub trait Contender: Sync {
    /// What one thread works through. Called in that thread.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// What removes the tokens whose life is over; `None` when the contender does so by itself, or
    /// keeps none.
    fn cleaner(&self) -> Result<Option<Box<dyn Batch>>>;

    /// The number of the process that works for this one, if there is one.
    fn server(&self) -> Option<u32> {
        None
    }

    /// Closes the contender, opens what it left on the disk, and answers what is there of each
    /// token.
    fn finish(self: Box<Self>) -> Result<Vec<State>>;
}

/// One thread's way to a contender.
pub trait Session {
    /// Does what is asked and adds to `done` what is durably done by now: this request, or an
    /// earlier one when several are in flight. A refusal is an error, because every token is given
    /// out once.
    fn submit(&mut self, request: Request, done: &mut Vec<Request>) -> Result<()>;

    /// Waits for what is in flight.
    fn drain(&mut self, _done: &mut Vec<Request>) -> Result<()> {
        Ok(())
    }
}

/// How a cell goes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub threads: usize,
    /// How long the threads work at most.
    pub span: Duration,
    /// How long the contender rests after it.
    pub settle: Duration,
}

/// What one cell found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    pub ops_per_second: f64,
    /// Operations in the time of one raw flush, as measured just before and after: what to compare
    /// on a disk whose speed drifts.
    pub ops_per_raw_flush: f64,
    /// Until the last answer.
    pub cost: Cost,
    /// Until the end of the rest, if there was one.
    pub settled: Option<Cost>,
}

/// What the threads of a cell share.
struct Cell<'a> {
    contender: &'a dyn Contender,
    tokens: &'a Tokens,
    /// How many tokens were given out.
    next: AtomicUsize,
    stop: AtomicBool,
    /// Threads that still work.
    running: AtomicUsize,
    ready: Barrier,
    /// The cleaner is to stop.
    over: AtomicBool,
}

/// What the threads of a cell found.
struct Outcome {
    /// The tokens whose last operation is done.
    done: Vec<u32>,
    elapsed: Duration,
    readings: [Reading; 2],
    settled: Option<Reading>,
}

/// Works with the threads of `plan` until its span is over or there are no tokens left, then checks
/// that exactly what was acknowledged is there.
pub fn run(
    contender: Box<dyn Contender>,
    tokens: &Tokens,
    plan: Plan,
    dir: &Path,
) -> Result<Measured> {
    let cell = Cell {
        contender: contender.as_ref(),
        tokens,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        running: AtomicUsize::new(plan.threads),
        ready: Barrier::new(plan.threads + 1),
        over: AtomicBool::new(false),
    };
    let meter = Meter::new(dir, contender.server());
    let Outcome { done, elapsed, readings: [before, after], settled } =
        cell.run(plan, &meter, dir)?;
    let closed_at = now();
    let found = contender.finish()?;
    check(&done, &found, tokens, closed_at)?;
    let ops = u32::try_from(done.len())?;
    Ok(Measured {
        ops_per_second: f64::from(ops) / elapsed.as_secs_f64(),
        ops_per_raw_flush: 0.0,
        cost: after.since(before, ops),
        settled: settled.map(|settled| settled.since(before, ops)),
    })
}

/// Fails unless the contender has of every token what it acknowledged.
fn check(done: &[u32], found: &[State], tokens: &Tokens, closed_at: u64) -> Result<()> {
    ensure!(!done.is_empty(), "nothing was done");
    ensure!(found.len() == tokens.len(), "the check saw {} tokens", found.len());
    let mut told = vec![tokens.untouched(); tokens.len()];
    for &token in done {
        let before = std::mem::replace(&mut told[token as usize], State::Consumed);
        ensure!(before != State::Consumed, "token {token} was consumed twice");
    }
    let is_wrong = |&(token, (told, found)): &(u32, (&State, &State))| {
        told != found && !(*found == State::Absent && tokens.is_over(token, closed_at))
    };
    let wrong = (0..).zip(told.iter().zip(found)).filter(is_wrong).count();
    ensure!(wrong == 0, "{wrong} tokens are not on the disk as they were acknowledged");
    Ok(())
}

impl Cell<'_> {
    fn run(&self, plan: Plan, meter: &Meter, dir: &Path) -> Result<Outcome> {
        let ends = self.tokens.work() == Work::Lifecycle;
        let cleaner = if ends { self.contender.cleaner()? } else { None };
        std::thread::scope(|scope| {
            let mut workers = Vec::with_capacity(plan.threads);
            for _ in 0..plan.threads {
                let worker =
                    std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, || {
                        let result = self.work();
                        self.running.fetch_sub(1, Ordering::Release);
                        result
                    });
                workers.push(worker.context("starting a thread")?);
            }
            let cleaner = cleaner.map(|batch| scope.spawn(|| self.clean(batch)));
            let before = meter.read();
            self.ready.wait();
            let started = Instant::now();
            while started.elapsed() < plan.span && self.running.load(Ordering::Acquire) > 0 {
                let left = plan.span.saturating_sub(started.elapsed());
                std::thread::sleep(left.min(Duration::from_millis(10)));
            }
            self.stop.store(true, Ordering::Relaxed);
            let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            let after = meter.read();
            let settled = self.rest(plan.settle, meter, dir);
            self.over.store(true, Ordering::Relaxed);
            if let Some(cleaner) = cleaner {
                let Ok(result) = cleaner.join() else { bail!("the cleaner panicked") };
                result.context("removing what is over")?;
            }
            let (mut done, mut elapsed) = (Vec::new(), Duration::ZERO);
            for result in results {
                let Ok(result) = result else { bail!("a worker panicked") };
                let (tokens, ended) = result?;
                // A cell lasts until its last answer, no matter who got it.
                elapsed = elapsed.max(ended.duration_since(started));
                done.extend(tokens);
            }
            Ok(Outcome { done, elapsed, readings: [before, after], settled: settled? })
        })
    }

    /// The work of one thread: the tokens it brought to their end, and when it had the last answer.
    fn work(&self) -> Result<(Vec<u32>, Instant)> {
        let session = self.contender.session();
        // Whatever happens, the others must not wait at the barrier for ever.
        self.ready.wait();
        let mut session = session?;
        let (mut done, mut steps, mut ended) =
            (Vec::new(), VecDeque::new(), Vec::with_capacity(1 << 10));
        loop {
            match steps.pop_front().or_else(|| self.begin()) {
                Some(request) => session.submit(request, &mut done)?,
                None => {
                    session.drain(&mut done)?;
                    if done.is_empty() {
                        return Ok((ended, Instant::now()));
                    }
                }
            }
            for request in done.drain(..) {
                match request.next() {
                    Some(next) => steps.push_back(next),
                    None => ended.push(request.token),
                }
            }
        }
    }

    /// The first operation on the next token, unless it is time to stop.
    fn begin(&self) -> Option<Request> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let token = self.tokens.in_turn(self.next.fetch_add(1, Ordering::Relaxed))?;
        Some(Request::first(self.tokens.work(), self.tokens, token))
    }

    /// Removes tokens soon after their life is over, as a job beside an application would. It is
    /// told which they are and so needs neither an index nor a scan.
    fn clean(&self, mut batch: Box<dyn Batch>) -> Result<()> {
        const AT_ONCE: usize = 1_000;
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            let now = now();
            let over = (turn..).map_while(|turn| self.tokens.in_turn(turn));
            let over = over.take(AT_ONCE).take_while(|&token| self.tokens.is_over(token, now));
            let requests: Vec<_> = over.map(|token| Request { op: Op::Remove, token }).collect();
            turn += requests.len();
            if requests.is_empty() {
                std::thread::sleep(Duration::from_millis(100));
            } else {
                batch.run(&requests)?;
            }
        }
        Ok(())
    }

    /// Leaves the contender alone, so that the work it put off is counted as well.
    fn rest(&self, settle: Duration, meter: &Meter, dir: &Path) -> Result<Option<Reading>> {
        if settle.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(settle);
        // What it wrote and did not flush goes to the device as well.
        disk::settle(dir)?;
        Ok(Some(meter.read()))
    }
}
