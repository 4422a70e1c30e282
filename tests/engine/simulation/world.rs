//! One room on a simulated disk, and beside it every state that its model has been in.

use super::calls::{Issued, Outcome, issue};
use super::model::{Answer, Binding, Blob, Model, Op, View};
use super::reading::{Unread, read};
use cloakroom::handoff::{ClaimId, HandoffStateStore};
use cloakroom::testing::{SimStorage, with_least_log_space};
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub const TOKENS: u8 = 8;
pub const STATES: u8 = 5;
/// When every history begins, in milliseconds since the Unix epoch.
const BEGINNING_MS: u64 = 1_700_000_000_000;
/// How many answers may be outstanding before some are waited for.
const MAX_WAITING: usize = 6;

/// What the room did and must not do.
#[derive(Debug)]
pub struct Violation(pub String);

pub type Check<T = ()> = Result<T, Violation>;

macro_rules! violation {
    ($($arg:tt)*) => { return Err(Violation(format!($($arg)*))) };
}
pub(crate) use violation;

fn op_text(op: &Op) -> String {
    format!("{op:?}")
}

/// An answer that was not waited for yet.
struct Waiting {
    op: Op,
    wait: Box<dyn FnOnce() -> Outcome>,
    expected: Answer,
    durability: Durability,
    /// The first state that the answer may depend on.
    depends_on_lsn: usize,
    changed: bool,
    after: usize,
    /// Whether the change was made, so that only its durability is left to know.
    applied: bool,
}

/// How a room is opened.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub log_capacity: u64,
    /// The longest value, which must fit a segment with room to spare.
    pub max_len: usize,
}

impl Shape {
    pub fn of(seed: u64) -> Self {
        match seed % 3 {
            0 => Self { log_capacity: 64 << 10, max_len: 4_000 },
            1 => Self { log_capacity: 128 << 10, max_len: 11_000 },
            _ => Self { log_capacity: 256 << 10, max_len: 24_000 },
        }
    }
}

pub struct World {
    pub storage: SimStorage,
    pub shape: Shape,
    pub clock: Arc<ManualClock>,
    pub rng: fastrand::Rng,
    pub room: Cloakroom,
    /// Every state of the model, in order. What survives a crash is one of them.
    pub models: Vec<Model>,
    /// The newest position of the engine in each of them.
    pub lsns: Vec<u64>,
    /// The first state that may survive a power failure, and the first that may survive a kill.
    pub power: usize,
    pub process: usize,
    /// Whether calls may fail.
    pub disturbed: bool,
    /// Whether the simulation lies about flushes, see the canary.
    pub lying: bool,
    /// Every different position that was seen to be durable, newest last.
    pub durable_lsns: Vec<u64>,
    /// The most checkpoints that any room of this world has run.
    pub checkpoints: u64,
    /// How many flushes the disk had done when the room was first seen poisoned.
    poisoned_at: Option<u64>,
    touched: (BTreeMap<u8, usize>, BTreeMap<u8, usize>),
    waiting: VecDeque<Waiting>,
    claims: Vec<(u64, u8, ClaimId)>,
    next_number: u64,
    /// Every lease and expiry that was given, so that no two are alike.
    ends_ms: std::collections::BTreeSet<u64>,
    pub trail: Vec<String>,
}

pub fn open(
    storage: &SimStorage,
    shape: Shape,
    clock: &Arc<ManualClock>,
) -> cloakroom::Result<Cloakroom> {
    let builder = Cloakroom::builder()
        .without_threads()
        .log_capacity(shape.log_capacity)
        .cache_size(1 << 20)
        .clock(clock.clone());
    with_least_log_space(LEAST_SPACE, || builder.open_on(Arc::new(storage.clone())))
}

/// What a segment of the log begins with: the whole of the smallest, and a quarter of the largest.
const LEAST_SPACE: u64 = 32 << 10;

pub fn new_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(BEGINNING_MS))
}

impl World {
    /// A world around a room that holds what `model` holds.
    pub fn new(
        storage: SimStorage,
        shape: Shape,
        clock: Arc<ManualClock>,
        seed: u64,
        model: Model,
    ) -> cloakroom::Result<Self> {
        let room = open(&storage, shape, &clock)?;
        let stats = room.engine_stats()?;
        Ok(Self {
            storage,
            shape,
            clock,
            rng: fastrand::Rng::with_seed(seed),
            room,
            models: vec![model],
            lsns: vec![stats.newest_lsn],
            power: 0,
            process: 0,
            disturbed: false,
            lying: false,
            durable_lsns: vec![stats.durable_lsn],
            checkpoints: 0,
            poisoned_at: None,
            touched: Default::default(),
            waiting: VecDeque::new(),
            claims: vec![],
            next_number: 1,
            ends_ms: Default::default(),
            trail: vec![],
        })
    }

    pub fn now_ms(&self) -> u64 {
        cloakroom::Clock::now_ms(self.clock.as_ref())
    }

    pub fn newest(&self) -> &Model {
        self.models.last().unwrap()
    }

    pub fn last(&self) -> usize {
        self.models.len() - 1
    }

    /// Runs a history of so many steps, or until the power fails.
    pub fn run(&mut self, steps: usize) -> Check {
        for _ in 0..steps {
            if self.storage.is_crashed() {
                break;
            }
            self.step()?;
            self.observe();
        }
        Ok(())
    }

    /// Waits for everything that was not waited for.
    pub fn settle(&mut self) -> Check {
        while let Some(waiting) = self.waiting.pop_front() {
            self.resolve(waiting)?;
        }
        self.observe();
        Ok(())
    }

    /// Keeps the positions that were seen to be durable, and looks for a failure of the log.
    fn observe(&mut self) {
        let Ok(stats) = self.room.engine_stats() else { return };
        if self.durable_lsns.last() != Some(&stats.durable_lsn) {
            self.durable_lsns.push(stats.durable_lsn);
        }
        self.checkpoints = self.checkpoints.max(stats.checkpoints);
        if stats.poisoned && self.poisoned_at.is_none() {
            self.poisoned_at = Some(self.flushes());
        }
    }

    fn flushes(&self) -> u64 {
        self.storage.syncs() + self.storage.durable_writes()
    }

    /// Whether the log has failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned_at.is_some()
    }

    /// A room that was poisoned must not have flushed anything since.
    pub fn check_nothing_was_retried(&self) -> Check {
        match self.poisoned_at {
            Some(flushes) if flushes != self.flushes() => {
                violation!(
                    "a poisoned room went on flushing: {flushes} flushes, then {}",
                    self.flushes()
                )
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> Check {
        // Time goes on a little with every step, so that no two rows end at the same time.
        self.clock.advance(Duration::from_millis(1));
        match self.rng.u32(0..100) {
            0..3 => self.clock.advance(Duration::from_millis(self.rng.u64(1..40_000))),
            3..6 => self.checkpoint()?,
            6..8 => self.reopen()?,
            8..12 => self.look()?,
            12..20 => self.settle()?,
            _ => {
                let op = self.any_op(true);
                let durability = match self.rng.u32(0..10) {
                    // A batch takes the durability of the room.
                    _ if matches!(op, Op::Batch { .. }) => Durability::Sync,
                    0 => Durability::Os,
                    1 => Durability::Interval(Duration::from_secs(1)),
                    _ => Durability::Sync,
                };
                self.call(op, durability)?;
            }
        }
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A length: mostly short, some as long as they may be.
    fn blob(&mut self) -> Blob {
        let len = match self.rng.u32(0..10) {
            0..4 => self.rng.usize(0..100),
            4..8 => self.rng.usize(100..self.shape.max_len / 3),
            _ => self.rng.usize(self.shape.max_len / 2..self.shape.max_len),
        };
        Blob { number: self.number(), len }
    }

    fn binding(&mut self) -> Binding {
        Binding {
            subject: self.rng.u8(0..3),
            purpose: self.rng.u8(0..2),
            resource: self.rng.u8(0..3),
        }
    }

    fn token_keys(&mut self) -> Vec<u8> {
        let keys = if self.rng.u32(0..4) == 0 { self.rng.usize(0..4) } else { 1 };
        (0..keys).map(|_| self.rng.u8(0..TOKENS)).collect()
    }

    /// A span after which nothing else ends.
    fn span_ms(&mut self, unit_ms: u64, most: u64) -> u64 {
        loop {
            let span_ms = self.rng.u64(1..=most) * unit_ms;
            if self.ends_ms.insert(self.now_ms() + span_ms) {
                return span_ms;
            }
        }
    }

    fn any_op(&mut self, batches: bool) -> Op {
        let id = self.rng.u8(0..STATES);
        match self.rng.u32(0..if batches { 108 } else { 100 }) {
            0..14 => {
                let (serial, binding) = (self.number(), self.binding());
                let expires_at = self.now_ms() / 1_000 + self.rng.u64(0..60);
                Op::Insert { key: self.rng.u8(0..TOKENS), serial, binding, expires_at }
            }
            14..36 => {
                let keys = self.token_keys();
                let known = keys
                    .first()
                    .and_then(|key| self.newest().tokens.get(key))
                    .map(|token| token.binding);
                let binding = match known {
                    Some(binding) if self.rng.u32(0..5) > 0 => binding,
                    _ => self.binding(),
                };
                let later = if self.rng.u32(0..8) == 0 { self.rng.u64(0..30) } else { 0 };
                let grace_ms = self.rng.choice([0, 7_000, 86_400_000]).unwrap_or(0);
                Op::Consume { keys, binding, now: self.now_ms() / 1_000 + later, grace_ms }
            }
            36..46 => {
                let result = self.blob();
                Op::SetResult { keys: self.token_keys(), result }
            }
            46..62 => {
                let value = self.blob();
                let ttl_seconds = match self.rng.u32(0..12) {
                    0 => 0,
                    _ => self.span_ms(1_000, 90) / 1_000,
                };
                Op::Set { id, value, ttl_seconds }
            }
            62..68 => Op::Get { id },
            68..78 => Op::Take { id },
            78..82 => Op::Delete { id },
            82..90 => Op::Claim { id, number: self.number(), lease_ms: self.span_ms(1, 20_000) },
            roll @ 90..100 => {
                let newest = self.claims.iter().rev().take(4).collect::<Vec<_>>();
                match self.rng.choice(newest).cloned() {
                    None => Op::Get { id },
                    Some((number, id, _)) if roll < 95 => Op::Ack { id, number },
                    Some((number, id, _)) => Op::Release { id, number },
                }
            }
            _ => {
                let ops = (0..self.rng.usize(1..5)).map(|_| self.any_op(false)).collect();
                Op::Batch { ops, fails: self.rng.u32(0..6) == 0 }
            }
        }
    }

    /// Makes one call, compares what it answers, and waits for it or not.
    pub fn call(&mut self, op: Op, durability: Durability) -> Check {
        let now_ms = self.now_ms();
        if self.trail.len() > 400 {
            self.trail.drain(..200);
        }
        self.trail.push(format!("[{}] {durability:?} {}", self.models.len(), op_text(&op)));
        let mut after = self.newest().clone();
        let expected = after.apply(&op, now_ms);
        let changed = after.view(now_ms) != self.newest().view(now_ms);
        let depends_on_lsn = if changed {
            self.models.len()
        } else {
            // The first state from which on the answer has been the same ever since.
            let other = |model: &Model| model.clone().apply(&op, now_ms) != expected;
            self.models.iter().rposition(other).map_or(0, |index| index + 1)
        };
        let pending = self.issue(&op, durability);
        let waiting = Waiting {
            op,
            wait: pending.wait,
            expected,
            durability,
            depends_on_lsn,
            changed,
            after: self.models.len(),
            applied: !pending.is_ready,
        };
        let was_poisoned = self.is_poisoned();
        if pending.is_ready {
            // Nothing is left to wait for: it was refused, or depends on nothing that could be
            // lost.
            let outcome = (waiting.wait)();
            if was_poisoned && matches!(outcome, Err(Error::OutcomeUnknown { .. })) {
                violation!(
                    "{} came after the log had failed, and is not refused",
                    op_text(&waiting.op)
                );
            }
            let was_refused =
                outcome.as_ref().is_err_and(|error| !matches!(error, Error::OutcomeUnknown { .. }));
            if !was_refused {
                self.push(after, &waiting.op);
            }
            let known = Waiting { wait: Box::new(|| outcome), ..waiting };
            return self.resolve(known);
        }
        self.push(after, &waiting.op);
        match self.rng.u32(0..10) {
            0..4 => self.resolve(waiting)?,
            4..9 => self.waiting.push_back(waiting),
            // Dropped: the change stays.
            _ => {}
        }
        while self.waiting.len() > MAX_WAITING {
            let next = self.rng.usize(0..self.waiting.len());
            let waiting = self.waiting.remove(next).unwrap();
            self.resolve(waiting)?;
        }
        Ok(())
    }

    fn push(&mut self, after: Model, op: &Op) {
        self.models.push(after);
        let newest_lsn = self.room.engine_stats().map_or(u64::MAX, |stats| stats.newest_lsn);
        self.lsns.push(newest_lsn);
        if !matches!(op, Op::Get { .. }) {
            let (tokens, states) = op.names();
            let last = self.last();
            self.touched.0.extend(tokens.into_iter().map(|key| (key, last)));
            self.touched.1.extend(states.into_iter().map(|id| (id, last)));
        }
    }

    fn resolve(&mut self, waiting: Waiting) -> Check {
        let Waiting { op, wait, expected, durability, depends_on_lsn, changed, after, applied } =
            waiting;
        match wait() {
            Err(error) if applied && !matches!(error, Error::OutcomeUnknown { .. }) => {
                violation!("{} was applied, and then answered {error}", op_text(&op))
            }
            Ok(done) => {
                let answer = done.answer.unwrap_or(Answer::Unit);
                if answer != expected {
                    violation!("{} answered {answer:?} instead of {expected:?}", op_text(&op));
                }
                self.claims.extend(done.claims);
                if durability == Durability::Sync {
                    self.power = self.power.max(depends_on_lsn);
                    self.process = self.process.max(depends_on_lsn);
                } else if changed {
                    self.process = self.process.max(after);
                }
                Ok(())
            }
            Err(error) => self.check_error(&op, &error, changed),
        }
    }

    fn check_error(&self, op: &Op, error: &Error, changed: bool) -> Check {
        if !self.disturbed && !self.storage.is_crashed() {
            violation!("{} failed without a cause: {error}", op_text(op));
        }
        match (op, error) {
            (Op::Get { id }, Error::Poisoned { .. }) => {
                // Reads of what is durable go on.
                let touched = self.touched.1.get(id).copied().unwrap_or(0);
                if touched <= self.power {
                    violation!("a read of the durable state {id} answered {error}");
                }
                Ok(())
            }
            (_, Error::OutcomeUnknown { .. } | Error::Poisoned { .. } | Error::DiskFull { .. }) => {
                Ok(())
            }
            (_, Error::Io { .. } | Error::LogFull { .. }) => Ok(()),
            _ => violation!(
                "{} (change: {changed}) failed with an unexpected error: {error:?}",
                op_text(op)
            ),
        }
    }

    fn checkpoint(&mut self) -> Check {
        self.trail.push("checkpoint".into());
        match self.room.checkpoint() {
            Ok(()) => self.everything_is_safe(),
            Err(_) if self.disturbed || self.storage.is_crashed() => {}
            Err(error) => violation!("a checkpoint failed without a cause: {error}"),
        }
        Ok(())
    }

    fn everything_is_safe(&mut self) {
        self.power = self.last();
        self.process = self.last();
    }

    /// Closes the room and opens it again on the same storage.
    pub fn reopen(&mut self) -> Check {
        self.trail.push("close, open".into());
        match self.room.close() {
            Ok(()) => self.everything_is_safe(),
            // What was not acknowledged is unknown, and the history cannot go on from an unknown
            // state.
            Err(_) if self.storage.is_crashed() || self.disturbed => {
                self.storage.power_off();
                return Ok(());
            }
            Err(error) => violation!("closing failed without a cause: {error}"),
        }
        // A wait from before the close is answered after it.
        while let Some(waiting) = self.waiting.pop_front() {
            self.resolve(waiting)?;
        }
        if !matches!(self.room.handoff().get("x").wait(), Err(Error::Closed)) {
            violation!("a closed room answered");
        }
        // What poisoned it is over with the handle that met it.
        self.check_nothing_was_retried()?;
        self.poisoned_at = None;
        match open(&self.storage, self.shape, &self.clock) {
            Ok(room) => self.room = room,
            Err(_) if self.storage.is_crashed() || self.disturbed => {
                self.storage.power_off();
                return Ok(());
            }
            Err(error) => violation!("a room that was closed does not open: {error}"),
        }
        if self.lying {
            self.room.acknowledge_before_flush();
        }
        self.look()
    }

    /// Compares everything with the model.
    pub fn look(&mut self) -> Check {
        match read(&self.room) {
            Ok(view) => {
                let expected = self.newest().view(self.now_ms());
                if view != expected {
                    violation!("the room holds {view:?}\ninstead of {expected:?}");
                }
                self.power = self.power.max(self.unchanged_since());
                self.process = self.process.max(self.power);
                Ok(())
            }
            Err(Unread::Error(_)) if self.disturbed || self.storage.is_crashed() => Ok(()),
            Err(unread) => violation!("the room cannot be read: {unread}"),
        }
    }

    /// The first state from which on everything has looked as it does now.
    fn unchanged_since(&self) -> usize {
        let now_ms = self.now_ms();
        let view = self.newest().view(now_ms);
        self.models
            .iter()
            .rposition(|model| model.view(now_ms) != view)
            .map_or(0, |index| index + 1)
    }

    fn issue(&self, op: &Op, durability: Durability) -> Issued {
        let tokens = self.room.form_tokens().with_durability(durability);
        let states = self.room.handoff().with_durability(durability);
        issue(&self.room, tokens, states, op, &self.claims)
    }

    /// The state that survived in `image`, which is one of `low..`, and a world that goes on from
    /// it.
    pub fn survive(&self, image: Vec<u8>, low: usize, seed: u64) -> Check<World> {
        self.survive_on(SimStorage::from_image(image, seed), low, seed)
    }

    /// The same for a storage that goes on, with whatever it has not flushed.
    pub fn survive_on(&self, storage: SimStorage, low: usize, seed: u64) -> Check<World> {
        let mut world =
            match World::new(storage, self.shape, self.clock.clone(), seed, Model::default()) {
                Ok(world) => world,
                Err(error) => violation!("what the crash left does not open: {error}"),
            };
        let view = match read(&world.room) {
            Ok(view) => view,
            Err(unread) => violation!("what the crash left cannot be read: {unread}"),
        };
        let survived = self.match_view(&view, low)?;
        world.models = vec![self.models[survived].clone()];
        world.claims = self.claims.clone();
        world.next_number = self.next_number + 1_000;
        world.ends_ms = self.ends_ms.clone();
        world.trail = self.trail.clone();
        world.trail.push(format!("crash; state {survived} of {low}..={} survived", self.last()));
        Ok(world)
    }

    /// The newest state from `low` on that looks like this.
    pub fn match_view(&self, view: &View, low: usize) -> Check<usize> {
        let now_ms = self.now_ms();
        if let Some(found) =
            (low..self.models.len()).rev().find(|index| self.models[*index].view(now_ms) == *view)
        {
            return Ok(found);
        }
        let earlier = (0..low).rev().find(|index| self.models[*index].view(now_ms) == *view);
        match earlier {
            Some(index) => violation!(
                "state {index} survived although state {low} was acknowledged (the newest is {})",
                self.last()
            ),
            None => violation!(
                "what survived is none of the {} states:\n{view:?}\nthe acknowledged one is\n{:?}",
                self.models.len(),
                self.models[low].view(now_ms)
            ),
        }
    }
}
