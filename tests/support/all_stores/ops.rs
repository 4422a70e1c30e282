//! Operations of every store, made through a handle or inside `atomically`.

use cloakroom::adaptive_rate_limit::{
    AdaptiveConfig, AdaptiveRateLimit, AdaptiveRateLimitStore, Priority,
};
use cloakroom::cache::{self, Cache, CacheStore};
use cloakroom::dedupe::{Dedupe, DedupeStore, JobId};
use cloakroom::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenSubject};
use cloakroom::handoff::{Claim, ClaimId, HandoffStateStore, JsonObject};
use cloakroom::rate_limit::{RateLimit, RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, SlotExpectation, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error, Pending, Transaction};
use std::pin::Pin;
use std::time::Duration;

pub const TOKENS: u8 = 5;
pub const STATES: u8 = 4;
pub const HASHES: u8 = 7;
pub const TAGS: u8 = 3;
pub const JOBS: u8 = 4;
pub const RESOURCES: u8 = 3;
pub const KINDS: u8 = 2;
pub const USERS: u8 = 2;

/// The most entries of the cache that has a limit.
const MAX_ENTRIES: u64 = 4;
pub const CACHES: [&str; 2] = ["free", "limited"];

/// One operation of one store. What is named by a number is named by [`name`].
#[derive(Debug, Clone)]
pub enum Op {
    Insert { key: u8, serial: u64, expires_at: u64 },
    Consume { key: u8, now: u64 },
    SetResult { key: u8, serial: u64 },
    Set { id: u8, value: JsonObject, ttl_seconds: u64 },
    Take { id: u8 },
    Delete { id: u8 },
    Claim { id: u8, lease_ms: u64 },
    Ack(ClaimId),
    Release(ClaimId),
    Extend { claim: ClaimId, lease_ms: u64 },
    SetRaw { id: u8, json: String, ttl_ms: u64 },
    CacheSet { cache: usize, hash: u8, value: String, ttl_seconds: i64 },
    CacheTagged { cache: usize, hash: u8, value: String, ttl_seconds: i64, tags: Vec<u8> },
    CacheGet { cache: usize, hash: u8 },
    CacheDelete { cache: usize, hash: u8 },
    CacheClear { cache: usize, scope: Option<u8> },
    Invalidate { cache: usize, tags: Vec<u8> },
    Register { job: u8 },
    Complete { job: u8, value: String },
    CompleteOwned { job: u8, id: JobId, value: String },
    Fail { job: u8, serial: u64 },
    ClearJobs { scope: Option<u8> },
    Acquire { resource: u8 },
    Record { resource: u8 },
    Reset { resource: u8 },
    Configure { resource: u8, config: RateLimitConfig },
    Cooldown { origin: u8, until: u64 },
    ClearCooldown { origin: u8 },
    ClearRates,
    AdaptiveAcquire { resource: u8, priority: Priority },
    AdaptiveRecord { resource: u8, priority: Priority },
    AdaptiveStatus { resource: u8 },
    AdaptiveReset { resource: u8 },
    AdaptiveConfigure { resource: u8, config: RateLimitConfig },
    AdaptiveCooldown { origin: u8, until: u64 },
    Save(StateRecord),
    SaveIf(SlotExpectation, StateRecord),
    DeleteState { identity: Identity, kind: String },
    DeleteIf(SlotExpectation),
    DeleteScope { user: u8 },
}

/// What later operations need to know of an answer.
#[derive(Debug)]
pub enum Kept {
    Nothing,
    Claim(Option<Claim>),
    Job(JobId),
}

/// Why an operation changed nothing, or may have.
#[derive(Debug)]
pub enum Failure {
    /// The store refused it, as it should.
    Refused,
    RolledBack,
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::AlreadyExists => Failure::Refused,
            error => Failure::Other(error),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Store(error) => Failure::Other(error),
            StateError::ConditionFailed
            | StateError::IdempotencyConflict
            | StateError::NotFound => Failure::Refused,
            error => panic!("{error}"),
        }
    }
}

pub type Wait = Box<dyn FnOnce() -> Result<Kept, Failure>>;

/// The name that goes with a number.
pub fn name(number: u8) -> String {
    format!("{} name", char::from(b'a' + number))
}

pub fn lookup_key(key: u8) -> LookupKey {
    LookupKey::new(format!("{key:064x}"))
}

pub fn identity(user: u8, run: &str) -> Identity {
    Identity::new("tenant", name(user), "session", run)
}

pub fn kind(kind: u8) -> String {
    format!("kind {kind}")
}

pub fn caches(room: &Cloakroom, cache: usize, durability: Durability) -> Cache<String> {
    let handle = room.cache(CACHES[cache]).with_durability(durability);
    if cache == 1 { handle.with_max_entries(MAX_ENTRIES) } else { handle }
}

pub fn jobs(room: &Cloakroom, durability: Durability) -> Dedupe<String> {
    room.dedupe("jobs").with_durability(durability).with_job_timeout(JOB_TIMEOUT)
}

pub fn rates(room: &Cloakroom, durability: Durability) -> RateLimit {
    room.rate_limit("rates", rate()).unwrap().with_durability(durability)
}

pub fn adaptive(room: &Cloakroom, durability: Durability) -> AdaptiveRateLimit {
    room.adaptive_rate_limit("adaptive", rate(), sharing()).unwrap().with_durability(durability)
}

const JOB_TIMEOUT: Duration = Duration::from_secs(50);

pub fn rate() -> RateLimitConfig {
    RateLimitConfig { limit: 5, window: Duration::from_secs(30) }
}

pub fn sharing() -> AdaptiveConfig {
    AdaptiveConfig { recalculation_interval: Duration::from_secs(5), ..AdaptiveConfig::default() }
}

fn named(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| name(*number)).collect()
}

/// The operation on the stores that are given, which have the same methods as handles and in a
/// transaction.
macro_rules! perform {
    ($op:expr, $done:path, $tokens:expr, $handoff:expr, $cache:path, $from:expr, $jobs:expr, $rates:expr, $adaptive:expr,
     $state:expr) => {{
        let nothing = |()| Kept::Nothing;
        match $op.clone() {
            Op::Insert { key, serial, expires_at } => {
                $done($tokens.insert_form_token(token(key, serial, expires_at)), nothing)
            }
            Op::Consume { key, now } => $done(
                $tokens.consume_form_token(
                    &lookup_key(key),
                    &TokenSubject::Anonymous,
                    "pay",
                    None,
                    now,
                ),
                |_| Kept::Nothing,
            ),
            Op::SetResult { key, serial } => $done(
                $tokens.set_token_result(&lookup_key(key), &format!("result {serial}")),
                nothing,
            ),
            Op::Set { id, value, ttl_seconds } => {
                $done($handoff.set(&name(id), &value, ttl_seconds), nothing)
            }
            Op::Take { id } => $done($handoff.get_and_delete(&name(id)), |_| Kept::Nothing),
            Op::Delete { id } => $done($handoff.delete(&name(id)), nothing),
            Op::Claim { id, lease_ms } => {
                $done($handoff.claim(&name(id), Duration::from_millis(lease_ms)), Kept::Claim)
            }
            Op::Ack(claim) => $done($handoff.ack(&claim), |_| Kept::Nothing),
            Op::Release(claim) => $done($handoff.release(&claim), |_| Kept::Nothing),
            Op::Extend { claim, lease_ms } => {
                let lease = Duration::from_millis(lease_ms);
                $done($handoff.extend(&claim, lease), |_| Kept::Nothing)
            }
            Op::SetRaw { id, json, ttl_ms } => {
                $done($handoff.set_raw(&name(id), &json, Duration::from_millis(ttl_ms)), nothing)
            }
            Op::CacheSet { cache, hash, value, ttl_seconds } => {
                $done($cache($from, cache).set(&name(hash), &value, ttl_seconds), nothing)
            }
            Op::CacheTagged { cache, hash, value, ttl_seconds, tags } => {
                let tags = named(&tags);
                let tags: Vec<_> = tags.iter().map(String::as_str).collect();
                $done(
                    $cache($from, cache).set_with_tags(&name(hash), &value, ttl_seconds, &tags),
                    nothing,
                )
            }
            Op::CacheGet { cache, hash } => {
                $done($cache($from, cache).get(&name(hash)), |_| Kept::Nothing)
            }
            Op::CacheDelete { cache, hash } => {
                $done($cache($from, cache).delete(&name(hash)), nothing)
            }
            Op::CacheClear { cache, scope } => {
                $done($cache($from, cache).clear(scope.map(name).as_deref()), nothing)
            }
            Op::Invalidate { cache, tags } => {
                let tags = named(&tags);
                let tags: Vec<_> = tags.iter().map(String::as_str).collect();
                $done($cache($from, cache).invalidate_by_tags(&tags), |_| Kept::Nothing)
            }
            Op::Register { job } => $done($jobs.register(&name(job)), Kept::Job),
            Op::Complete { job, value } => $done($jobs.complete(&name(job), &value), nothing),
            Op::CompleteOwned { job, id, value } => {
                $done($jobs.complete_owned(&name(job), &id, &value), |_| Kept::Nothing)
            }
            Op::Fail { job, serial } => {
                $done($jobs.fail(&name(job), &format!("error {serial}")), nothing)
            }
            Op::ClearJobs { scope } => $done($jobs.clear(scope.map(name).as_deref()), nothing),
            Op::Acquire { resource } => $done($rates.acquire(&name(resource)), |_| Kept::Nothing),
            Op::Record { resource } => $done($rates.record(&name(resource)), nothing),
            Op::Reset { resource } => $done($rates.reset(&name(resource)), nothing),
            Op::Configure { resource, config } => {
                $done($rates.set_resource_config(&name(resource), config), nothing)
            }
            Op::Cooldown { origin, until } => {
                $done($rates.set_cooldown(&name(origin), until), nothing)
            }
            Op::ClearCooldown { origin } => $done($rates.clear_cooldown(&name(origin)), nothing),
            Op::ClearRates => $done($rates.clear(), nothing),
            Op::AdaptiveAcquire { resource, priority } => {
                $done($adaptive.acquire(&name(resource), priority), |_| Kept::Nothing)
            }
            Op::AdaptiveRecord { resource, priority } => {
                $done($adaptive.record(&name(resource), priority), nothing)
            }
            Op::AdaptiveStatus { resource } => {
                $done($adaptive.status(&name(resource)), |_| Kept::Nothing)
            }
            Op::AdaptiveReset { resource } => $done($adaptive.reset(&name(resource)), nothing),
            Op::AdaptiveConfigure { resource, config } => {
                $done($adaptive.set_resource_config(&name(resource), config), nothing)
            }
            Op::AdaptiveCooldown { origin, until } => {
                $done($adaptive.set_cooldown(&name(origin), until), nothing)
            }
            Op::Save(record) => $done($state.save(record), nothing),
            Op::SaveIf(expectation, record) => {
                $done($state.save_if(&[expectation], record), nothing)
            }
            Op::DeleteState { identity, kind } => $done($state.delete(&identity, &kind), nothing),
            Op::DeleteIf(expectation) => $done($state.delete_if(&expectation), |_| Kept::Nothing),
            Op::DeleteScope { user } => {
                $done($state.delete_scope("tenant", &name(user), "session"), |_| Kept::Nothing)
            }
        }
    }};
}

fn token(key: u8, serial: u64, expires_at: u64) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: lookup_key(key),
        key_version: "1".into(),
        subject: TokenSubject::Anonymous,
        purpose: "pay".into(),
        bound_resource: None,
        issued_at: serial,
        expires_at,
    }
}

/// Makes a call through the handle of its store.
macro_rules! through_handles {
    ($room:ident, $op:ident, $durability:ident, $later:ident) => {
        perform!(
            $op,
            $later,
            $room.form_tokens().with_durability($durability),
            $room.handoff().with_durability($durability),
            handle_of,
            ($room, $durability),
            jobs($room, $durability),
            rates($room, $durability),
            adaptive($room, $durability),
            $room.state().with_durability($durability)
        )
    };
}

/// Makes a call through a handle.
pub fn issue(room: &Cloakroom, op: &Op, durability: Durability) -> Wait {
    fn later<T: 'static, E: Into<Failure> + 'static>(
        pending: Pending<T, E>,
        kept: impl FnOnce(T) -> Kept + 'static,
    ) -> Wait {
        Box::new(move || pending.wait().map(kept).map_err(Into::into))
    }
    through_handles!(room, op, durability, later)
}

/// An answer that a task waits for.
pub type Task = Pin<Box<dyn Future<Output = Result<Kept, Failure>>>>;

/// Makes a call through a handle, for a task.
pub fn issue_task(room: &Cloakroom, op: &Op, durability: Durability) -> Task {
    fn later<T: 'static, E: Into<Failure> + 'static>(
        pending: Pending<T, E>,
        kept: impl FnOnce(T) -> Kept + 'static,
    ) -> Task {
        Box::pin(async { pending.await.map(kept).map_err(Into::into) })
    }
    through_handles!(room, op, durability, later)
}

/// Makes several calls together, or none when one is refused.
pub fn issue_batch(room: &Cloakroom, ops: &[Op], fails: bool) -> Wait {
    let pending = room.atomically(|tx| {
        ops.iter().try_for_each(|op| in_transaction(room, tx, op).map(drop))?;
        if fails { Err(Failure::RolledBack) } else { Ok(()) }
    });
    Box::new(move || pending.wait().map(|()| Kept::Nothing))
}

fn handle_of((room, durability): (&Cloakroom, Durability), cache: usize) -> Cache<String> {
    caches(room, cache, durability)
}

fn view_of<'a>(
    (room, tx): (&Cloakroom, &'a mut Transaction<'_>),
    cache: usize,
) -> cache::Tx<'a, String> {
    caches(room, cache, Durability::Os).within(tx)
}

/// The handles' options follow into the transaction.
fn in_transaction(room: &Cloakroom, tx: &mut Transaction<'_>, op: &Op) -> Result<Kept, Failure> {
    fn now<T, E: Into<Failure>>(
        answer: Result<T, E>,
        kept: impl FnOnce(T) -> Kept,
    ) -> Result<Kept, Failure> {
        answer.map(kept).map_err(Into::into)
    }
    let os = Durability::Os;
    perform!(
        op,
        now,
        room.form_tokens().with_durability(os).within(tx),
        room.handoff().with_durability(os).within(tx),
        view_of,
        (room, &mut *tx),
        jobs(room, os).within(tx),
        rates(room, os).within(tx),
        adaptive(room, os).within(tx),
        room.state().with_durability(os).within(tx)
    )
}
