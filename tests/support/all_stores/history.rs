//! A random history over one room, every step of which follows from the seed alone.

use super::dump::{Dump, event_id};
use super::ops::{
    CACHES, Failure, HASHES, JOBS, KINDS, Kept, Op, RESOURCES, STATES, TAGS, TOKENS, USERS, Wait,
    identity, issue, issue_batch, kind,
};
use cloakroom::adaptive_rate_limit::Priority;
use cloakroom::dedupe::JobId;
use cloakroom::handoff::ClaimId;
use cloakroom::rate_limit::RateLimitConfig;
use cloakroom::state::{EventId, SlotExpectation, StateRecord};
use cloakroom::testing::SimStorage;
use cloakroom::{Builder, Cloakroom, Durability, ManualClock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// When every history begins, in milliseconds since the Unix epoch.
const BEGINNING_MS: u64 = 1_700_000_000_000;
/// The smallest log there may be, so that checkpoints come often.
const LOG_CAPACITY: u64 = 64 << 10;
/// How many answers may be outstanding before some are waited for.
const MAX_WAITING: usize = 4;

pub fn open(storage: &SimStorage, clock: &Arc<ManualClock>) -> cloakroom::Result<Cloakroom> {
    builder(clock).open_on(Arc::new(storage.clone()))
}

pub fn builder(clock: &Arc<ManualClock>) -> Builder {
    Cloakroom::builder()
        .without_threads()
        .log_capacity(LOG_CAPACITY)
        .cache_size(1 << 20)
        .clock(clock.clone())
}

pub fn new_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(BEGINNING_MS))
}

pub struct History {
    pub storage: SimStorage,
    pub clock: Arc<ManualClock>,
    pub room: Cloakroom,
    /// When each step was made, the state before the first included.
    pub times_ms: Vec<u64>,
    /// The newest step that was acknowledged.
    pub acknowledged: usize,
    /// How many events were saved.
    pub events: u64,
    pub trail: Vec<String>,
    rng: fastrand::Rng,
    waiting: VecDeque<(usize, Wait)>,
    claims: Vec<ClaimId>,
    jobs: BTreeMap<u8, JobId>,
    saved: BTreeMap<(u8, u8), EventId>,
    lying: bool,
}

impl History {
    /// The history of `seed` on the room whose bytes are `room`. A lying room acknowledges before
    /// it flushes.
    pub fn new(seed: u64, room: &[u8], lying: bool) -> Self {
        let (storage, clock) = (SimStorage::from_image(room.to_vec(), seed), new_clock());
        let room = open(&storage, &clock).unwrap();
        let history = Self {
            storage,
            clock,
            room,
            times_ms: vec![BEGINNING_MS],
            acknowledged: 0,
            events: 0,
            trail: vec![],
            rng: fastrand::Rng::with_seed(seed),
            waiting: VecDeque::new(),
            claims: vec![],
            jobs: BTreeMap::new(),
            saved: BTreeMap::new(),
            lying,
        };
        history.lie();
        history
    }

    fn lie(&self) {
        if self.lying {
            self.room.acknowledge_before_flush();
        }
    }

    /// The newest step.
    pub fn issued(&self) -> usize {
        self.times_ms.len() - 1
    }

    /// Makes so many steps, or less when the power fails.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.storage.is_crashed() {
                break;
            }
            self.step();
        }
    }

    /// Makes so many steps, and answers what the room held before the first and after each.
    pub fn run_and_look(&mut self, steps: usize) -> Vec<Dump> {
        let mut dumps = vec![Dump::of(&self.room).unwrap()];
        for _ in 0..steps {
            self.step();
            dumps.push(Dump::of(&self.room).unwrap());
        }
        dumps
    }

    pub fn step(&mut self) {
        // Time goes on a little with every step, so that no two jobs are registered at the same
        // time.
        let pause_ms = if self.rng.u32(0..12) == 0 { self.rng.u64(1..20_000) } else { 1 };
        self.clock.advance(Duration::from_millis(pause_ms));
        self.times_ms.push(self.now_ms());
        match self.rng.u32(0..100) {
            0..2 => {
                self.say("checkpoint");
                if self.room.checkpoint().is_ok() {
                    self.acknowledged = self.issued();
                }
            }
            2..4 => self.reopen(),
            4..9 => {
                self.say("sweep");
                let swept = self.room.sweep();
                assert!(swept.is_ok() || self.storage.is_crashed(), "{swept:?}");
            }
            9..28 => {
                let ops: Vec<_> = (0..self.rng.usize(2..6)).map(|_| self.any_op()).collect();
                let fails = self.rng.u32(0..6) == 0;
                self.say(format!("fails: {fails}, {ops:?}"));
                self.call(false, |room| issue_batch(room, &ops, fails), Durability::Sync);
            }
            _ => {
                let op = self.any_op();
                let durability =
                    if self.rng.u32(0..4) == 0 { Durability::Os } else { Durability::Sync };
                self.say(format!("{durability:?} {op:?}"));
                // What the next steps ask with is known only when it is answered.
                let at_once = matches!(op, Op::Claim { .. } | Op::Register { .. });
                let kept = self.call(at_once, |room| issue(room, &op, durability), durability);
                match (op, kept) {
                    (_, Some(Kept::Claim(Some(claim)))) => self.claims.push(claim.id),
                    (Op::Register { job }, Some(Kept::Job(id))) => drop(self.jobs.insert(job, id)),
                    _ => {}
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        cloakroom::Clock::now_ms(self.clock.as_ref())
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        let step = self.issued();
        self.trail.push(format!("[{step}] {what}"));
    }

    /// The newest position of the log, if the room still tells.
    fn newest(&self) -> Option<u64> {
        self.room.engine_stats().ok().map(|stats| stats.newest_lsn)
    }

    /// Makes a call, and waits for it now, later or never.
    fn call(
        &mut self,
        at_once: bool,
        issue: impl FnOnce(&Cloakroom) -> Wait,
        durability: Durability,
    ) -> Option<Kept> {
        let before = self.newest();
        let wait = issue(&self.room);
        // An answer of what wrote nothing depends on what it saw, which may be old.
        let acknowledges = durability == Durability::Sync && self.newest() != before;
        let step = if acknowledges { self.issued() } else { 0 };
        match self.rng.u32(0..10) {
            _ if at_once => return self.resolve(step, wait),
            0..4 => drop(self.resolve(step, wait)),
            4..9 => self.waiting.push_back((step, wait)),
            // Dropped: the change stays.
            _ => {}
        }
        while self.waiting.len() > MAX_WAITING {
            let next = self.rng.usize(0..self.waiting.len());
            let (step, wait) = self.waiting.remove(next).unwrap();
            self.resolve(step, wait);
        }
        None
    }

    fn resolve(&mut self, step: usize, wait: Wait) -> Option<Kept> {
        match wait() {
            Ok(kept) => {
                self.acknowledged = self.acknowledged.max(step);
                Some(kept)
            }
            Err(Failure::Refused | Failure::RolledBack) => None,
            Err(Failure::Other(_)) if self.storage.is_crashed() => None,
            Err(Failure::Other(error)) => {
                panic!("without a cause: {error}\n{}", self.trail.join("\n"))
            }
        }
    }

    fn reopen(&mut self) {
        self.say("close, open");
        if self.room.close().is_err() {
            assert!(self.storage.is_crashed(), "closing failed without a cause");
            return;
        }
        self.acknowledged = self.issued();
        while let Some((step, wait)) = self.waiting.pop_front() {
            self.resolve(step, wait);
        }
        match open(&self.storage, &self.clock) {
            Ok(room) => self.room = room,
            Err(error) => {
                assert!(self.storage.is_crashed(), "what was closed does not open: {error}")
            }
        }
        self.lie();
    }

    /// A value of a length that no other step's has, so that a listing tells them apart.
    fn value(&mut self) -> String {
        let long = if self.rng.u32(0..8) == 0 { 2_000 } else { 0 };
        format!("value {}", "x".repeat(self.issued() * 5 + self.rng.usize(0..5) + long))
    }

    fn config(&mut self) -> RateLimitConfig {
        RateLimitConfig {
            limit: self.rng.u64(0..8),
            window: Duration::from_secs(self.rng.u64(5..60)),
        }
    }

    fn tags(&mut self) -> Vec<u8> {
        (0..self.rng.usize(0..4)).map(|_| self.rng.u8(0..TAGS)).collect()
    }

    fn scope(&mut self, names: u8) -> Option<u8> {
        (self.rng.u32(0..3) > 0).then(|| self.rng.u8(0..names))
    }

    fn any_op(&mut self) -> Op {
        let serial = self.issued() as u64;
        let now_ms = self.now_ms();
        match self.rng.u32(0..14) {
            0..2 => self.token_op(serial, now_ms / 1_000),
            2..4 => self.handoff_op(),
            4..7 => self.cache_op(),
            7..9 => self.job_op(serial),
            9..10 => self.rate_op(now_ms),
            10..11 => self.adaptive_op(now_ms),
            _ => self.state_op(),
        }
    }

    fn token_op(&mut self, serial: u64, now: u64) -> Op {
        let key = self.rng.u8(0..TOKENS);
        match self.rng.u32(0..4) {
            0..2 => Op::Insert { key, serial, expires_at: now + self.rng.u64(0..60) },
            2 => Op::Consume { key, now },
            _ => Op::SetResult { key, serial },
        }
    }

    fn handoff_op(&mut self) -> Op {
        let id = self.rng.u8(0..STATES);
        let claim = (!self.claims.is_empty()).then(|| self.rng.usize(0..self.claims.len()));
        match (self.rng.u32(0..12), claim.map(|claim| self.claims[claim].clone())) {
            (10, Some(claim)) => Op::Extend { claim, lease_ms: self.rng.u64(1..20_000) },
            (11, _) => {
                let json = format!("{{ \"raw\": {} }}", serde_json::json!(self.value()));
                Op::SetRaw { id, json, ttl_ms: self.rng.u64(0..60_000) }
            }
            (0..2, Some(claim)) => Op::Ack(claim),
            (2, Some(claim)) => Op::Release(claim),
            (0..5, _) => {
                let value = serde_json::json!({ "value": self.value() });
                let serde_json::Value::Object(value) = value else {
                    unreachable!("it is an object")
                };
                Op::Set { id, value, ttl_seconds: self.rng.u64(0..60) }
            }
            (5, _) => Op::Take { id },
            (6, _) => Op::Delete { id },
            _ => Op::Claim { id, lease_ms: self.rng.u64(1..20_000) },
        }
    }

    fn cache_op(&mut self) -> Op {
        let (cache, hash) = (self.rng.usize(0..CACHES.len()), self.rng.u8(0..HASHES));
        let ttl_seconds = self.rng.choice([0, 0, 5, 30, -1]).unwrap_or(0);
        match self.rng.u32(0..20) {
            0..4 => Op::CacheSet { cache, hash, value: self.value(), ttl_seconds },
            4..12 => {
                Op::CacheTagged { cache, hash, value: self.value(), ttl_seconds, tags: self.tags() }
            }
            12..15 => Op::CacheGet { cache, hash },
            15..17 => Op::CacheDelete { cache, hash },
            17 => Op::CacheClear { cache, scope: self.scope(HASHES) },
            _ => Op::Invalidate { cache, tags: self.tags() },
        }
    }

    fn job_op(&mut self, serial: u64) -> Op {
        let job = self.rng.u8(0..JOBS);
        match (self.rng.u32(0..10), self.jobs.get(&job).copied()) {
            (0..3, Some(id)) => Op::CompleteOwned { job, id, value: self.value() },
            (3..4, _) => Op::Complete { job, value: self.value() },
            (4..6, _) => Op::Fail { job, serial },
            (6, _) => Op::ClearJobs { scope: self.scope(JOBS) },
            _ => Op::Register { job },
        }
    }

    fn rate_op(&mut self, now_ms: u64) -> Op {
        let (resource, origin) = (self.rng.u8(0..RESOURCES), self.rng.u8(0..RESOURCES));
        match self.rng.u32(0..12) {
            0..5 => Op::Acquire { resource },
            5..7 => Op::Record { resource },
            7 => Op::Reset { resource },
            8 => Op::Configure { resource, config: self.config() },
            9 => Op::Cooldown { origin, until: now_ms + self.rng.u64(0..60_000) },
            10 => Op::ClearCooldown { origin },
            _ => Op::ClearRates,
        }
    }

    fn adaptive_op(&mut self, now_ms: u64) -> Op {
        let (resource, origin) = (self.rng.u8(0..RESOURCES), self.rng.u8(0..RESOURCES));
        let priority = if self.rng.bool() { Priority::User } else { Priority::Background };
        match self.rng.u32(0..10) {
            0..4 => Op::AdaptiveAcquire { resource, priority },
            4..6 => Op::AdaptiveRecord { resource, priority },
            6 => Op::AdaptiveStatus { resource },
            7 => Op::AdaptiveReset { resource },
            8 => Op::AdaptiveConfigure { resource, config: self.config() },
            _ => Op::AdaptiveCooldown { origin, until: now_ms + self.rng.u64(0..60_000) },
        }
    }

    fn state_op(&mut self) -> Op {
        let slot = (self.rng.u8(0..USERS), self.rng.u8(0..KINDS));
        let (identity, kind) = (identity(slot.0, ""), kind(slot.1));
        let roll = self.rng.u32(0..12);
        // Mostly what was saved last, which need not be there any more.
        let expected = self.saved.get(&slot).cloned().filter(|_| self.rng.u32(0..5) > 0);
        match (roll, expected.clone()) {
            (0, _) => Op::DeleteState { identity, kind },
            (1, Some(id)) => Op::DeleteIf(SlotExpectation::current(identity, kind, id)),
            (2, _) => Op::DeleteScope { user: slot.0 },
            _ => {
                let run = if self.rng.u32(0..4) == 0 { "run" } else { "" };
                let mut record =
                    StateRecord::new(super::ops::identity(slot.0, run), kind.clone(), self.value());
                self.events += 1;
                record.id = event_id(self.events);
                if roll < 7 && run.is_empty() {
                    self.saved.insert(slot, record.id.clone());
                    return Op::SaveIf(SlotExpectation { identity, kind, expected }, record);
                }
                if run.is_empty() {
                    self.saved.insert(slot, record.id.clone());
                }
                Op::Save(record)
            }
        }
    }
}
