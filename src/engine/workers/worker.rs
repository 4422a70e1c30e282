//! A thread that is there while it has work.
//!
//! # Why no call is lost
//! A thread ends in [`Worker::rest`] only: there it finds, under the lock of the state, that it was
//! not called, and in the same step says that it no longer runs. [`Worker::call`] notes the call
//! under the same lock. So either the call comes first, and the thread sees it instead of ending,
//! or the thread has said that it ended, and the call starts another one. A caller with
//! new work therefore makes it visible first and calls then, and a thread looks for work when it
//! starts and after each rest.

use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Instant, Mutex};
use std::io;
use std::time::Duration;

/// How long a thread without work waits for more before it ends, so that calls that follow each
/// other do not start one each.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Who does the background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Background threads, each while it has work.
    Background,
    /// No thread: callers flush for themselves, and the writer that needs a checkpoint runs it. For
    /// simulations, and for tools that only read.
    None,
    /// Background threads, of which none can be started.
    #[cfg(test)]
    Refused,
}

/// One kind of thread, of which at most one runs.
#[derive(Debug)]
pub(super) struct Worker {
    /// The name of the thread.
    name: &'static str,
    threads: Threads,
    state: Mutex<WorkerState>,
    called: Condvar,
    /// Whether the system starts no thread any more.
    #[cfg(test)]
    refused: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct WorkerState {
    is_running: bool,
    is_called: bool,
    is_stopped: bool,
    /// How many threads were started.
    started: u64,
    /// The thread that runs, and such as have said that they end.
    threads: Vec<JoinHandle<()>>,
}

/// How long a thread rests when it has no work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// For so long, unless it is called.
    For(Duration),
    /// Until it is called.
    UntilCalled,
    /// Until it is called, but it ends after [`IDLE_TIMEOUT`].
    IdleOnly,
}

/// How a rest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Rested {
    /// It was called.
    Called,
    /// The time is over.
    Elapsed,
    /// The thread must end now, and look for no more work.
    Ends,
}

impl Worker {
    pub(super) fn new(name: &'static str, threads: Threads) -> Self {
        Self {
            name,
            threads,
            state: Mutex::default(),
            called: Condvar::new(),
            #[cfg(test)]
            refused: (threads == Threads::Refused).into(),
        }
    }

    /// Whether threads do the work.
    pub(super) fn has_threads(&self) -> bool {
        self.threads != Threads::None
    }

    /// Has the thread look for work, starting it with `work` if it does not run. `work` is given
    /// what it must keep until it ends. Answers whether a thread will look: not after
    /// [`stop`](Self::stop), nor without threads.
    ///
    /// # Errors
    /// That of the system when it starts no thread. Nothing has changed then.
    pub(super) fn call<W>(&self, work: impl FnOnce(u64) -> W) -> io::Result<bool>
    where
        W: FnOnce() + Send + 'static,
    {
        if !self.has_threads() {
            return Ok(false);
        }
        let mut state = self.state.lock();
        if state.is_stopped {
            return Ok(false);
        }
        if !state.is_running {
            let thread = self.spawn(work(state.started + 1))?;
            state.started += 1;
            state.is_running = true;
            // It looks for work when it starts.
            state.is_called = false;
            state.threads.retain(|thread| !thread.is_finished());
            state.threads.push(thread);
            return Ok(true);
        }
        state.is_called = true;
        drop(state);
        self.called.notify_one();
        Ok(true)
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        #[cfg(test)]
        if self.refused.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("no thread in this test"));
        }
        thread::Builder::new().name(self.name.into()).spawn(work)
    }

    /// Has the system start no thread for this worker any more, or start them again.
    #[cfg(test)]
    pub(super) fn refuse(&self, refused: bool) {
        self.refused.store(refused, std::sync::atomic::Ordering::SeqCst);
    }

    /// Its name.
    #[cfg(test)]
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its thread runs. It may be about to end, unless it has work.
    pub(super) fn is_running(&self) -> bool {
        self.state.lock().is_running
    }

    /// Its name, if its thread runs.
    #[cfg(test)]
    pub(super) fn running_name(&self) -> Option<&'static str> {
        self.is_running().then_some(self.name)
    }

    /// Has the thread look for work if it runs.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        if state.is_running {
            state.is_called = true;
            drop(state);
            self.called.notify_one();
        }
    }

    /// For the thread that was started as the one of this number: says that it ends when the answer
    /// is dropped, unless it has said so already. After a panic, too, the next call starts another.
    pub(super) fn running(&self, number: u64) -> Running<'_> {
        Running { worker: self, number }
    }

    /// For the thread: rests.
    pub(super) fn rest(&self, rest: Rest) -> Rested {
        let until = match rest {
            Rest::For(time) => Instant::now().checked_add(time),
            Rest::IdleOnly => Instant::now().checked_add(IDLE_TIMEOUT),
            Rest::UntilCalled => None,
        };
        let mut state = self.state.lock();
        loop {
            if state.is_stopped {
                return Rested::Ends;
            }
            if std::mem::take(&mut state.is_called) {
                return Rested::Called;
            }
            let Some(until) = until else {
                self.called.wait(&mut state);
                continue;
            };
            if until > Instant::now() {
                self.called.wait_until(&mut state, until);
                continue;
            }
            if rest != Rest::IdleOnly {
                return Rested::Elapsed;
            }
            // See the module.
            state.is_running = false;
            return Rested::Ends;
        }
    }

    /// Ends the thread for ever, and waits for it unless it is the caller: it may be what drops the
    /// last handle of a room, and ends by itself.
    pub(super) fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            state.is_stopped = true;
            std::mem::take(&mut state.threads)
        };
        self.called.notify_all();
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// See [`Worker::running`].
pub(super) struct Running<'a> {
    worker: &'a Worker,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.worker.state.lock();
        // Another one may run by now.
        if state.started == self.number {
            state.is_running = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Work that is counted: what was asked for, and what was done.
    #[derive(Debug)]
    struct Counting {
        worker: Worker,
        asked: AtomicU64,
        done: AtomicU64,
        idle: Rest,
    }

    impl Counting {
        fn new(threads: Threads) -> Arc<Self> {
            let worker = Worker::new("cloakroom-test", threads);
            let (asked, done) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Self { worker, asked, done, idle: Rest::IdleOnly })
        }

        fn ask(self: &Arc<Self>) -> io::Result<bool> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.worker.call(|number| {
                let this = Arc::clone(self);
                move || {
                    let _running = this.worker.running(number);
                    loop {
                        this.done.store(this.asked.load(Ordering::SeqCst), Ordering::SeqCst);
                        if this.worker.rest(this.idle) == Rested::Ends {
                            break;
                        }
                    }
                }
            })
        }

        fn wait_until_done(&self) {
            let began = Instant::now();
            while self.done.load(Ordering::SeqCst) != self.asked.load(Ordering::SeqCst) {
                assert!(began.elapsed() < Duration::from_secs(20), "a call was lost");
                thread::yield_now();
            }
        }

        /// Whether its thread runs, and how many were started.
        fn threads(&self) -> (bool, u64) {
            let state = self.worker.state.lock();
            (state.is_running, state.started)
        }
    }

    /// Calls that come just when the thread is about to end: whichever comes first, each is served.
    #[test]
    fn a_call_at_the_moment_the_thread_ends_is_served() {
        let work = Counting::new(Threads::Background);
        for round in 0..12_u64 {
            work.ask().unwrap();
            work.wait_until_done();
            // Around the end of the idle time, from both sides.
            thread::sleep(
                IDLE_TIMEOUT - Duration::from_micros(600) + Duration::from_micros(100 * round),
            );
        }
        work.ask().unwrap();
        work.wait_until_done();
        work.worker.stop();
        assert!(!work.ask().unwrap(), "a stopped worker starts nothing");
    }

    #[test]
    fn bursts_share_a_thread_and_it_ends_after_them() {
        let work = Counting::new(Threads::Background);
        for _ in 0..2 {
            for _ in 0..1_000 {
                work.ask().unwrap();
            }
            work.wait_until_done();
            let began = Instant::now();
            while work.threads().0 {
                assert!(began.elapsed() < 20 * IDLE_TIMEOUT, "the thread stays without work");
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(work.threads(), (false, 2));
        work.worker.stop();
        assert_eq!(Arc::strong_count(&work), 1);
    }

    #[test]
    fn after_a_panic_the_next_call_starts_another_thread() {
        let work = Counting::new(Threads::Background);
        let panicking = Arc::clone(&work);
        let started = work.worker.call(|number| {
            move || {
                let _running = panicking.worker.running(number);
                panic!("as planned");
            }
        });
        assert!(started.unwrap());
        while work.threads().0 {
            thread::yield_now();
        }
        work.ask().unwrap();
        work.wait_until_done();
        work.worker.stop();
    }

    #[test]
    fn without_a_thread_the_caller_is_told() {
        assert!(!Counting::new(Threads::None).ask().unwrap());
        Counting::new(Threads::Refused).ask().unwrap_err();
    }
}
