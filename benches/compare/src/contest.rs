//! One cell of the table: threads that consume tokens for a while, and the check of what is left
//! behind.

use crate::disk::Device;
use crate::tokens::Tokens;
use anyhow::{Context, Result, bail, ensure};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A contender with its tokens loaded, ready to be measured.
pub trait Contender: Sync {
    /// What one thread consumes through. Called in that thread.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Closes the contender, opens what it left on the disk, and says of each token whether it is
    /// consumed there.
    fn finish(self: Box<Self>) -> Result<Vec<bool>>;
}

/// One thread's way to a contender.
pub trait Session {
    /// Consumes `token` and adds to `done` what is durably consumed by now: this token, or an
    /// earlier one when several are in flight. A refusal is an error, because every token is given
    /// out once.
    fn consume(&mut self, token: u32, done: &mut Vec<u32>) -> Result<()>;

    /// Waits for what is in flight.
    fn drain(&mut self, _done: &mut Vec<u32>) -> Result<()> {
        Ok(())
    }
}

/// What one cell found.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub ops_per_second: f64,
    /// Consumes in the time of one raw flush, as measured just before and after: what to compare on
    /// a disk whose speed drifts.
    pub ops_per_raw_flush: f64,
    /// Bytes the disk was given to write, per consume, where the system tells.
    pub bytes_per_op: Option<f64>,
}

/// Consumes tokens with `threads` threads for `span`, or until there are none left, then checks
/// that exactly the acknowledged tokens are consumed.
pub fn run(
    contender: Box<dyn Contender>,
    tokens: &Tokens,
    threads: usize,
    span: Duration,
    device: &Device,
) -> Result<Measured> {
    let (next, stop, running) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(threads));
    let ready = Barrier::new(threads + 1);
    let work = |contender: &dyn Contender| -> Result<(Vec<u32>, Instant)> {
        let session = contender.session();
        // Whatever happens, the others must not wait at the barrier for ever.
        ready.wait();
        let mut session = session?;
        let mut done = Vec::with_capacity(1 << 10);
        while !stop.load(Ordering::Relaxed) {
            let Some(token) = tokens.in_turn(next.fetch_add(1, Ordering::Relaxed)) else { break };
            session.consume(token, &mut done)?;
        }
        session.drain(&mut done)?;
        Ok((done, Instant::now()))
    };
    let mut acknowledged = vec![false; tokens.len()];
    let (mut ops, mut elapsed) = (0_u32, Duration::ZERO);
    let mut written = None;
    std::thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let worker = std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, || {
                let result = work(contender.as_ref());
                running.fetch_sub(1, Ordering::Release);
                result
            });
            workers.push(worker.context("starting a thread")?);
        }
        let written_before = device.bytes_written();
        ready.wait();
        let started = Instant::now();
        while started.elapsed() < span && running.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(10).min(span.saturating_sub(started.elapsed())));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let Ok(result) = worker.join() else { bail!("a worker panicked") };
            let (done, ended) = result?;
            // A cell lasts until its last answer, no matter who got it.
            elapsed = elapsed.max(ended.duration_since(started));
            for token in done {
                ensure!(
                    !std::mem::replace(&mut acknowledged[token as usize], true),
                    "a token was consumed twice"
                );
                ops += 1;
            }
        }
        written = device.bytes_written().zip(written_before).map(|(after, before)| after - before);
        Ok(())
    })?;
    let consumed = contender.finish()?;
    let wrong = acknowledged.iter().zip(&consumed).filter(|(told, found)| told != found).count();
    ensure!(consumed.len() == acknowledged.len(), "the check saw {} tokens", consumed.len());
    ensure!(wrong == 0, "{wrong} tokens are not on the disk as they were acknowledged");
    ensure!(ops > 0, "nothing was consumed");
    Ok(Measured {
        ops_per_second: f64::from(ops) / elapsed.as_secs_f64(),
        ops_per_raw_flush: f64::NAN,
        bytes_per_op: written.map(|bytes| bytes as f64 / f64::from(ops)),
    })
}
