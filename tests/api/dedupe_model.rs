//! Random calls, moves of the clock and reopenings, compared with a model of jobs that is plain
//! maps.

use crate::rooms::{NOW_MS, small};
use crate::scale::scaled;
use cloakroom::dedupe::{Dedupe, DedupeStore, JobId, JobState};
use cloakroom::{Cloakroom, Error, ManualClock, Pending};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "a\0", ""];
const HASHES: [&str; 6] = ["", "x", "x\0", "x%", "xy", "z"];
const SCOPES: [Option<&str>; 5] = [None, Some(""), Some("x"), Some("x%"), Some("x\0")];

#[derive(Debug, Clone)]
enum Op {
    Call(Call),
    /// Calls in one transaction, kept or given up.
    Together(Vec<Call>, bool),
    WaitFor {
        name: usize,
        hash: usize,
    },
    DropWaiter(usize),
    Advance(u64),
    Sweep,
    Compare,
    Reopen,
}

#[derive(Debug, Clone)]
enum Call {
    Register { name: usize, hash: usize },
    Complete { name: usize, hash: usize, value: u64 },
    Fail { name: usize, hash: usize },
    CompleteOwned { name: usize, hash: usize, job: usize, value: u64 },
    FailOwned { name: usize, hash: usize, job: usize },
    IsInProgress { name: usize, hash: usize },
    Clear { name: usize, scope: usize },
}

/// What a call answers; a job by its number in the order of registration.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Nothing,
    Registered { job: usize, is_owner: bool },
    Bool(bool),
}

#[derive(Debug, Clone)]
struct Job {
    number: usize,
    opening: u64,
    ends_at_ms: Option<u64>,
    state: State,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Pending,
    Completed(u64),
    Failed,
}

type Key = (usize, &'static str);

#[derive(Debug, Clone)]
struct Waiter {
    key: Key,
    number: usize,
    answer: Option<Option<u64>>,
}

/// Jobs as they should be.
#[derive(Debug, Clone)]
struct Model {
    now_ms: u64,
    opening: u64,
    timeout_ms: Option<u64>,
    registered: usize,
    jobs: BTreeMap<Key, Job>,
    waiters: Vec<Waiter>,
}

impl Model {
    fn ends_at_ms(&self) -> Option<u64> {
        self.timeout_ms.map(|timeout_ms| self.now_ms + timeout_ms)
    }

    fn live(&self, key: Key) -> Option<&Job> {
        self.jobs
            .get(&key)
            .filter(|job| job.ends_at_ms.is_none_or(|ends_at_ms| self.now_ms < ends_at_ms))
    }

    fn pending(&self, key: Key) -> Option<&Job> {
        self.live(key).filter(|job| job.state == State::Pending && job.opening == self.opening)
    }

    /// Answers who waits for the job under `key`.
    fn answer(&mut self, key: Key, answer: Option<u64>) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.key == key) {
            waiter.answer.get_or_insert(answer);
        }
    }

    /// Answers every waiter whose job is no longer pending.
    fn settle(&mut self) {
        for index in 0..self.waiters.len() {
            let Waiter { key, number, .. } = self.waiters[index];
            if self.pending(key).is_none_or(|job| job.number != number) {
                self.waiters[index].answer.get_or_insert(None);
            }
        }
    }

    fn end(&mut self, key: Key, job: Option<usize>, state: State) -> bool {
        if self.pending(key).is_none_or(|pending| job.is_some_and(|job| job != pending.number)) {
            return false;
        }
        let ends_at_ms = self.ends_at_ms();
        let value = if let State::Completed(value) = state { Some(value) } else { None };
        let job = self.jobs.get_mut(&key).unwrap();
        (job.state, job.ends_at_ms) = (state, ends_at_ms);
        self.answer(key, value);
        true
    }

    fn call(&mut self, call: &Call) -> Answer {
        match *call {
            Call::Register { name, hash } => {
                let key = (name, HASHES[hash]);
                if let Some(job) = self.pending(key) {
                    return Answer::Registered { job: job.number, is_owner: false };
                }
                let number = self.registered;
                self.registered += 1;
                let (opening, ends_at_ms) = (self.opening, self.ends_at_ms());
                self.jobs.insert(key, Job { number, opening, ends_at_ms, state: State::Pending });
                Answer::Registered { job: number, is_owner: true }
            }
            Call::Complete { name, hash, value } => {
                self.end((name, HASHES[hash]), None, State::Completed(value));
                Answer::Nothing
            }
            Call::Fail { name, hash } => {
                self.end((name, HASHES[hash]), None, State::Failed);
                Answer::Nothing
            }
            Call::CompleteOwned { name, hash, job, value } => {
                Answer::Bool(self.end((name, HASHES[hash]), Some(job), State::Completed(value)))
            }
            Call::FailOwned { name, hash, job } => {
                Answer::Bool(self.end((name, HASHES[hash]), Some(job), State::Failed))
            }
            Call::IsInProgress { name, hash } => {
                Answer::Bool(self.pending((name, HASHES[hash])).is_some())
            }
            Call::Clear { name, scope } => {
                let scope = SCOPES[scope].unwrap_or_default();
                self.jobs.retain(|key, _| key.0 != name || !key.1.starts_with(scope));
                self.settle();
                Answer::Nothing
            }
        }
    }
}

struct Run {
    path: Option<PathBuf>,
    clock: Arc<ManualClock>,
    room: Cloakroom,
    timeout: Duration,
    model: Model,
    jobs: Vec<JobId>,
    /// Beside the model's waiters.
    waiting: Vec<Pending<Option<u64>>>,
}

impl Run {
    fn new(path: Option<PathBuf>, timeout: Duration) -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let room = open(path.as_ref(), &clock);
        let timeout_ms = (!timeout.is_zero()).then_some(timeout.as_millis() as u64);
        let model = Model {
            now_ms: NOW_MS,
            opening: 0,
            timeout_ms,
            registered: 0,
            jobs: BTreeMap::new(),
            waiters: Vec::new(),
        };
        Self { path, clock, room, timeout, model, jobs: Vec::new(), waiting: Vec::new() }
    }

    fn store(&self, name: usize) -> Dedupe<u64> {
        self.room.dedupe(NAMES[name]).with_job_timeout(self.timeout)
    }

    /// The id of a job, of one that never was for a number that was not given yet.
    fn job(&self, number: usize) -> JobId {
        self.jobs.get(number).copied().unwrap_or(JobId::new(number as u128))
    }

    /// The number of a job id that a call answered.
    fn number(jobs: &mut Vec<JobId>, id: JobId) -> usize {
        jobs.iter().position(|job| *job == id).unwrap_or_else(|| {
            jobs.push(id);
            jobs.len() - 1
        })
    }

    fn call(&mut self, call: &Call) -> Answer {
        match *call {
            Call::Register { name, hash } => {
                let got = self.store(name).register_or_join(HASHES[hash]).wait().unwrap();
                let job = Self::number(&mut self.jobs, got.job_id);
                Answer::Registered { job, is_owner: got.is_owner }
            }
            Call::Complete { name, hash, value } => {
                self.store(name).complete(HASHES[hash], &value).wait().unwrap();
                Answer::Nothing
            }
            Call::Fail { name, hash } => {
                self.store(name).fail(HASHES[hash], "no").wait().unwrap();
                Answer::Nothing
            }
            Call::CompleteOwned { name, hash, job, value } => {
                let job = self.job(job);
                Answer::Bool(
                    self.store(name).complete_owned(HASHES[hash], &job, &value).wait().unwrap(),
                )
            }
            Call::FailOwned { name, hash, job } => {
                let job = self.job(job);
                Answer::Bool(self.store(name).fail_owned(HASHES[hash], &job, "no").wait().unwrap())
            }
            Call::IsInProgress { name, hash } => {
                Answer::Bool(self.store(name).is_in_progress(HASHES[hash]).wait().unwrap())
            }
            Call::Clear { name, scope } => {
                self.store(name).clear(SCOPES[scope]).wait().unwrap();
                Answer::Nothing
            }
        }
    }

    /// The same calls in one transaction.
    fn together(&mut self, calls: &[Call], keep: bool) -> Vec<Answer> {
        let (mut jobs, timeout) = (self.jobs.clone(), self.timeout);
        let mut answers = Vec::new();
        let done = self.room.atomically(|tx| {
            for call in calls {
                let known = |number: usize, jobs: &[JobId]| {
                    jobs.get(number).copied().unwrap_or(JobId::new(number as u128))
                };
                let (Call::Register { name, .. }
                | Call::Complete { name, .. }
                | Call::Fail { name, .. }
                | Call::CompleteOwned { name, .. }
                | Call::FailOwned { name, .. }
                | Call::IsInProgress { name, .. }
                | Call::Clear { name, .. }) = *call;
                let mut store = tx.dedupe::<u64>(NAMES[name]).with_job_timeout(timeout);
                answers.push(match *call {
                    Call::Register { hash, .. } => {
                        let got = store.register_or_join(HASHES[hash])?;
                        let job = Self::number(&mut jobs, got.job_id);
                        Answer::Registered { job, is_owner: got.is_owner }
                    }
                    Call::Complete { hash, value, .. } => {
                        store.complete(HASHES[hash], &value)?;
                        Answer::Nothing
                    }
                    Call::Fail { hash, .. } => {
                        store.fail(HASHES[hash], "no")?;
                        Answer::Nothing
                    }
                    Call::CompleteOwned { hash, job, value, .. } => Answer::Bool(
                        store.complete_owned(HASHES[hash], &known(job, &jobs), &value)?,
                    ),
                    Call::FailOwned { hash, job, .. } => {
                        Answer::Bool(store.fail_owned(HASHES[hash], &known(job, &jobs), "no")?)
                    }
                    Call::IsInProgress { hash, .. } => {
                        Answer::Bool(store.is_in_progress(HASHES[hash])?)
                    }
                    Call::Clear { scope, .. } => {
                        store.clear(SCOPES[scope])?;
                        Answer::Nothing
                    }
                });
            }
            if keep { Ok(()) } else { Err(Error::AlreadyExists) }
        });
        assert_eq!(done.wait().is_ok(), keep);
        if keep {
            self.jobs = jobs;
        }
        answers
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Call(call) => {
                let got = self.call(call);
                assert_eq!(got, self.model.call(call), "{call:?}");
            }
            Op::Together(calls, keep) => {
                let before = self.model.clone();
                let expected: Vec<_> = calls.iter().map(|call| self.model.call(call)).collect();
                assert_eq!(self.together(calls, *keep), expected);
                if !keep {
                    self.model = before;
                }
            }
            &Op::WaitFor { name, hash } => {
                let key = (name, HASHES[hash]);
                let pending = self.store(name).wait_for(key.1);
                if let Some(job) = self.model.pending(key) {
                    let number = job.number;
                    self.model.waiters.push(Waiter { key, number, answer: None });
                    self.waiting.push(pending);
                } else {
                    let expected = match self.model.live(key).map(|job| &job.state) {
                        Some(State::Completed(value)) => Some(*value),
                        _ => None,
                    };
                    assert_eq!(pending.wait().unwrap(), expected);
                }
            }
            Op::DropWaiter(nth) if !self.waiting.is_empty() => {
                let nth = nth % self.waiting.len();
                self.model.waiters.swap_remove(nth);
                drop(self.waiting.swap_remove(nth));
            }
            Op::DropWaiter(_) => (),
            Op::Advance(ms) => {
                self.clock.advance(Duration::from_millis(*ms));
                self.model.now_ms += ms;
            }
            Op::Sweep => drop(self.room.sweep().unwrap()),
            Op::Compare => self.compare(),
            Op::Reopen => {
                let Some(path) = self.path.clone() else { return };
                self.room.close().unwrap();
                self.room = open(Some(&path), &self.clock);
                self.model.opening += 1;
            }
        }
        self.model.settle();
        for index in (0..self.waiting.len()).rev() {
            match self.model.waiters[index].answer {
                Some(expected) => {
                    let waiter = self.model.waiters.remove(index);
                    assert_eq!(self.waiting.remove(index).wait().unwrap(), expected, "{waiter:?}");
                }
                None => assert!(!self.waiting[index].is_ready(), "{:?}", self.model.waiters[index]),
            }
        }
    }

    fn compare(&self) {
        for name in 0..NAMES.len() {
            let expected: Vec<_> = HASHES
                .iter()
                .filter_map(|hash| {
                    let job = self.model.live((name, hash))?;
                    let state = match &job.state {
                        State::Pending if job.opening == self.model.opening => "pending".to_owned(),
                        State::Pending | State::Failed => "failed".to_owned(),
                        State::Completed(value) => format!("{} bytes", value.to_string().len()),
                    };
                    Some(((*hash).to_owned(), job.number, state, job.ends_at_ms))
                })
                .collect();
            let mut got = Vec::new();
            let mut cursor = None;
            loop {
                let page = self.store(name).list(cursor.as_ref(), 2).wait().unwrap();
                got.extend(page.items.into_iter().map(|entry| {
                    let number = self.jobs.iter().position(|job| *job == entry.job_id).unwrap();
                    let state = match entry.state {
                        JobState::Pending => "pending".to_owned(),
                        JobState::Completed { bytes } => format!("{bytes} bytes"),
                        _ => "failed".to_owned(),
                    };
                    (entry.hash, number, state, entry.ends_at_ms)
                }));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(got, expected);
            let stats = self.store(name).stats().wait().unwrap();
            let waiters = self.model.waiters.iter().filter(|waiter| waiter.key.0 == name).count();
            assert_eq!(stats.waiters, waiters as u64);
            assert_eq!(stats.pending + stats.completed + stats.failed, expected.len() as u64);
        }
    }
}

fn open(path: Option<&PathBuf>, clock: &Arc<ManualClock>) -> Cloakroom {
    let builder = small().clock(clock.clone());
    match path {
        Some(path) => builder.open(path).unwrap(),
        None => builder.without_threads().open_in_memory().unwrap(),
    }
}

fn call() -> impl Strategy<Value = Call> {
    let at = || (prop_oneof![6 => Just(0), 1 => 1..NAMES.len()], 0..HASHES.len());
    prop_oneof![
        6 => at().prop_map(|(name, hash)| Call::Register { name, hash }),
        3 => (at(), any::<u64>()).prop_map(|((name, hash), value)| Call::Complete { name, hash, value }),
        2 => at().prop_map(|(name, hash)| Call::Fail { name, hash }),
        3 => (at(), 0..12usize, any::<u64>())
            .prop_map(|((name, hash), job, value)| Call::CompleteOwned { name, hash, job, value }),
        2 => (at(), 0..12usize).prop_map(|((name, hash), job)| Call::FailOwned { name, hash, job }),
        2 => at().prop_map(|(name, hash)| Call::IsInProgress { name, hash }),
        1 => (at(), 0..SCOPES.len()).prop_map(|((name, _), scope)| Call::Clear { name, scope }),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        20 => call().prop_map(Op::Call),
        3 => (prop::collection::vec(call(), 0..5), any::<bool>()).prop_map(|(calls, keep)| Op::Together(calls, keep)),
        8 => (prop_oneof![6 => Just(0), 1 => 1..NAMES.len()], 0..HASHES.len())
            .prop_map(|(name, hash)| Op::WaitFor { name, hash }),
        1 => any::<usize>().prop_map(Op::DropWaiter),
        4 => prop_oneof![0..40u64, Just(100), Just(50)].prop_map(Op::Advance),
        2 => Just(Op::Sweep),
        2 => Just(Op::Compare),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..100)
}

fn timeout() -> impl Strategy<Value = Duration> {
    prop_oneof![5 => Just(Duration::from_millis(100)), 1 => Just(Duration::ZERO)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(64, 200), max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs_without_threads_are_as_in_the_model(ops in ops(), timeout in timeout()) {
        let mut run = Run::new(None, timeout);
        ops.iter().for_each(|op| run.step(op));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(20, 40), max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs_in_a_file_are_as_in_the_model(ops in ops(), timeout in timeout()) {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new(Some(dir.path().join("jobs.cloak")), timeout);
        ops.iter().for_each(|op| run.step(op));
    }
}
