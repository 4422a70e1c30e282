//! The stores. Each method exists once and answers in one of three ways: with a promise, with the
//! value, or with the value within the transaction whose function runs now.

use crate::arguments::{durability, span, whole};
use crate::failure::Failure;
use crate::js::{Js, Settler};
use crate::out::{Out, claim_or_null, json_or_null, value_or_undefined};
use crate::registry::OpenRoom;
use crate::room::{NativeRoom, SYNC, WITHIN, ready};
use cloakroom::cache::{Bytes, Ttl};
use cloakroom::page::Cursor;
use cloakroom::prelude::*;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use serde_json::Value;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A store of a room that somebody opened.
struct Handle<S> {
    settler: Rc<Settler>,
    open: Arc<OpenRoom>,
    store: S,
}

impl<S> Handle<S> {
    /// Refuses a call on a room that was closed, and takes the time of the host.
    fn begin(&self) -> Result<(), Failure> {
        self.open.room()?;
        ready(&self.settler, &self.open);
        Ok(())
    }

    fn refuse(&self, mode: u32, failure: Failure) -> Js {
        match mode {
            SYNC | WITHIN => self.settler.answer(Err::<(), _>(failure)),
            _ => self.settler.promise(Pending::<(), _>::ready(Err(failure))),
        }
    }
}

/// Calls `$store.$method(..)`; `$convert` makes a value for JavaScript of the answer.
macro_rules! call {
    ($self:ident, $mode:ident, $method:ident($($argument:expr),*)) => {
        call!($self, $mode, $method($($argument),*), Out::from)
    };
    ($self:ident, $mode:ident, $method:ident($($argument:expr),*), $convert:expr) => {{
        let handle = &$self.0;
        if let Err(failure) = handle.begin() {
            return handle.refuse($mode, failure);
        }
        match $mode {
            WITHIN => {
                let answer = handle
                    .settler
                    .within(|tx| handle.store.within(tx).$method($($argument),*))
                    .and_then(|answer| answer.map_err(Failure::from));
                handle.settler.answer(answer.map($convert))
            }
            SYNC => {
                let answer = handle.store.$method($($argument),*).wait();
                handle.settler.answer(answer.map($convert))
            }
            _ => handle.settler.promise_with(handle.store.$method($($argument),*), $convert),
        }
    }};
}

/// The value, or the refusal of the call.
macro_rules! given {
    ($self:ident, $mode:expr, $value:expr) => {
        match $value {
            Ok(value) => value,
            Err(failure) => return $self.0.refuse($mode, Failure::from(failure)),
        }
    };
}

/// `list` and `stats`, which every store has.
macro_rules! common {
    ($type:ident) => {
        #[napi]
        impl $type {
            #[napi]
            pub fn list(&self, cursor: Option<String>, limit: u32) -> Js {
                let handle = &self.0;
                if let Err(failure) = handle.begin() {
                    return handle.refuse(0, failure);
                }
                let cursor = given!(self, 0, cursor.map(|text| text.parse::<Cursor>()).transpose());
                handle.settler.promise(handle.store.list(cursor.as_ref(), limit as usize))
            }

            #[napi]
            pub fn stats(&self) -> Js {
                let handle = &self.0;
                if let Err(failure) = handle.begin() {
                    return handle.refuse(0, failure);
                }
                handle.settler.promise(handle.store.stats())
            }
        }
    };
}

/// `0` is anonymous, `1` authenticated, `2` a flow.
fn subject(kind: u32, id: String) -> TokenSubject {
    match kind {
        1 => TokenSubject::Authenticated(id),
        2 => TokenSubject::Flow(id),
        _ => TokenSubject::Anonymous,
    }
}

fn lookup_keys(keys: Vec<String>) -> Vec<LookupKey> {
    keys.into_iter().map(LookupKey::from).collect()
}

/// One-time form tokens.
#[napi]
pub struct NativeFormTokens(Handle<FormTokens>);

common!(NativeFormTokens);

#[expect(
    clippy::too_many_arguments,
    reason = "reading the members of an object costs more than the call"
)]
#[napi]
impl NativeFormTokens {
    #[napi]
    pub fn insert(&self, mode: u32, record: TokenInput) -> Js {
        let record = given!(self, mode, record.record());
        call!(self, mode, insert_form_token(record))
    }

    #[napi]
    pub fn consume(
        &self,
        mode: u32,
        key: String,
        subject_kind: u32,
        subject_id: String,
        purpose: String,
        bound_resource: Option<String>,
        now: f64,
    ) -> Js {
        let key = LookupKey::from(key);
        let subject = subject(subject_kind, subject_id);
        let now = given!(self, mode, whole(now));
        call!(
            self,
            mode,
            consume_form_token(&key, &subject, &purpose, bound_resource.as_deref(), now)
        )
    }

    #[napi]
    pub fn consume_any(
        &self,
        mode: u32,
        keys: Vec<String>,
        subject_kind: u32,
        subject_id: String,
        purpose: String,
        bound_resource: Option<String>,
        now: f64,
    ) -> Js {
        let keys = lookup_keys(keys);
        let subject = subject(subject_kind, subject_id);
        let now = given!(self, mode, whole(now));
        call!(
            self,
            mode,
            consume_form_token_any(&keys, &subject, &purpose, bound_resource.as_deref(), now)
        )
    }

    #[napi]
    pub fn peek(
        &self,
        mode: u32,
        key: String,
        subject_kind: u32,
        subject_id: String,
        purpose: String,
        bound_resource: Option<String>,
        now: f64,
    ) -> Js {
        let key = LookupKey::from(key);
        let subject = subject(subject_kind, subject_id);
        let now = given!(self, mode, whole(now));
        call!(self, mode, peek_form_token(&key, &subject, &purpose, bound_resource.as_deref(), now))
    }

    #[napi]
    pub fn set_result(&self, mode: u32, key: String, result_ref: String) -> Js {
        let key = LookupKey::from(key);
        call!(self, mode, set_token_result(&key, &result_ref))
    }

    #[napi]
    pub fn set_result_any(&self, mode: u32, keys: Vec<String>, result_ref: String) -> Js {
        let keys = lookup_keys(keys);
        call!(self, mode, set_token_result_any(&keys, &result_ref))
    }
}

#[napi(object)]
pub struct TokenInput {
    pub lookup_key: String,
    pub key_version: String,
    pub subject_kind: u32,
    pub subject_id: String,
    pub purpose: String,
    pub bound_resource: Option<String>,
    pub issued_at: f64,
    pub expires_at: f64,
}

impl TokenInput {
    fn record(self) -> Result<FormTokenRecord, Failure> {
        Ok(FormTokenRecord {
            lookup_key: LookupKey::from(self.lookup_key),
            key_version: self.key_version,
            subject: subject(self.subject_kind, self.subject_id),
            purpose: self.purpose,
            bound_resource: self.bound_resource,
            issued_at: whole(self.issued_at)?,
            expires_at: whole(self.expires_at)?,
        })
    }
}

/// Claim-check states, as text in JSON.
#[napi]
pub struct NativeHandoff(Handle<Handoff>);

common!(NativeHandoff);

#[napi]
impl NativeHandoff {
    #[napi]
    pub fn set(&self, mode: u32, id: String, json: String, ttl: f64) -> Js {
        let ttl = given!(self, mode, span(ttl));
        call!(self, mode, set_raw(&id, &json, ttl))
    }

    #[napi]
    pub fn get(&self, mode: u32, id: String) -> Js {
        call!(self, mode, get_raw(&id), json_or_null)
    }

    #[napi]
    pub fn get_and_delete(&self, mode: u32, id: String) -> Js {
        call!(self, mode, get_and_delete_raw(&id), json_or_null)
    }

    #[napi]
    pub fn delete(&self, mode: u32, id: String) -> Js {
        call!(self, mode, delete(&id))
    }

    #[napi]
    pub fn claim(&self, mode: u32, id: String, lease: f64) -> Js {
        let lease = given!(self, mode, span(lease));
        call!(self, mode, claim_raw(&id, lease), claim_or_null)
    }

    #[napi]
    pub fn ack(&self, mode: u32, claim: String) -> Js {
        let claim = given!(self, mode, claim.parse::<ClaimId>());
        call!(self, mode, ack(&claim))
    }

    #[napi]
    pub fn release(&self, mode: u32, claim: String) -> Js {
        let claim = given!(self, mode, claim.parse::<ClaimId>());
        call!(self, mode, release(&claim))
    }

    #[napi]
    pub fn extend(&self, mode: u32, claim: String, lease: f64) -> Js {
        let claim = given!(self, mode, claim.parse::<ClaimId>());
        let lease = given!(self, mode, span(lease));
        call!(self, mode, extend(&claim, lease))
    }
}

/// A time to live in milliseconds; one that is absent never ends.
fn ttl(ms: Option<f64>) -> Result<Ttl, Failure> {
    Ok(match ms {
        None => Ttl::Never,
        Some(ms) => Ttl::For(span(ms)?),
    })
}

fn parsed(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::new("ENCODE", error.to_string()))
}

/// What caches of any kind of value have.
macro_rules! cache {
    ($type:ident) => {
        #[napi]
        impl $type {
            #[napi]
            pub fn get(&self, mode: u32, hash: String) -> Js {
                call!(self, mode, get(&hash), value_or_undefined)
            }

            #[napi]
            pub fn delete(&self, mode: u32, hash: String) -> Js {
                call!(self, mode, delete(&hash))
            }

            #[napi]
            pub fn clear(&self, mode: u32, scope: Option<String>) -> Js {
                call!(self, mode, clear(scope.as_deref()))
            }

            #[napi]
            pub fn invalidate(&self, mode: u32, tags: Vec<String>) -> Js {
                let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
                call!(self, mode, invalidate_by_tags(&tags))
            }
        }
    };
}

/// Cached values in JSON.
#[napi]
pub struct NativeCache(Handle<Cache<Value>>);

common!(NativeCache);
cache!(NativeCache);

#[napi]
impl NativeCache {
    #[napi]
    pub fn set(&self, mode: u32, hash: String, value: String, ttl_ms: Option<f64>) -> Js {
        let value = given!(self, mode, parsed(&value));
        let ttl = given!(self, mode, ttl(ttl_ms));
        call!(self, mode, set_for(&hash, &value, ttl))
    }

    #[napi]
    pub fn set_with_tags(
        &self,
        mode: u32,
        hash: String,
        value: String,
        ttl_ms: Option<f64>,
        tags: Vec<String>,
    ) -> Js {
        let value = given!(self, mode, parsed(&value));
        let ttl = given!(self, mode, ttl(ttl_ms));
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        call!(self, mode, set_for_with_tags(&hash, &value, ttl, &tags))
    }
}

/// Cached bytes.
#[napi]
pub struct NativeBytesCache(Handle<Cache<Bytes>>);

common!(NativeBytesCache);
cache!(NativeBytesCache);

#[napi]
impl NativeBytesCache {
    #[napi]
    pub fn set(&self, mode: u32, hash: String, value: Uint8Array, ttl_ms: Option<f64>) -> Js {
        let value = Bytes::from(value.to_vec());
        let ttl = given!(self, mode, ttl(ttl_ms));
        call!(self, mode, set_for(&hash, &value, ttl))
    }

    #[napi]
    pub fn set_with_tags(
        &self,
        mode: u32,
        hash: String,
        value: Uint8Array,
        ttl_ms: Option<f64>,
        tags: Vec<String>,
    ) -> Js {
        let value = Bytes::from(value.to_vec());
        let ttl = given!(self, mode, ttl(ttl_ms));
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        call!(self, mode, set_for_with_tags(&hash, &value, ttl, &tags))
    }
}

/// Jobs in flight.
#[napi]
pub struct NativeDedupe(Handle<Dedupe<Value>>);

common!(NativeDedupe);

#[napi]
impl NativeDedupe {
    #[napi]
    pub fn register(&self, mode: u32, hash: String) -> Js {
        call!(self, mode, register(&hash))
    }

    #[napi]
    pub fn register_or_join(&self, mode: u32, hash: String) -> Js {
        call!(self, mode, register_or_join(&hash))
    }

    #[napi]
    pub fn complete(&self, mode: u32, hash: String, value: String) -> Js {
        let value = given!(self, mode, parsed(&value));
        call!(self, mode, complete(&hash, &value))
    }

    #[napi]
    pub fn fail(&self, mode: u32, hash: String, error: String) -> Js {
        call!(self, mode, fail(&hash, &error))
    }

    #[napi]
    pub fn is_in_progress(&self, mode: u32, hash: String) -> Js {
        call!(self, mode, is_in_progress(&hash))
    }

    #[napi]
    pub fn clear(&self, mode: u32, scope: Option<String>) -> Js {
        call!(self, mode, clear(scope.as_deref()))
    }

    #[napi]
    pub fn complete_owned(&self, mode: u32, hash: String, job: String, value: String) -> Js {
        let job = given!(self, mode, job.parse::<JobId>());
        let value = given!(self, mode, parsed(&value));
        call!(self, mode, complete_owned(&hash, &job, &value))
    }

    #[napi]
    pub fn fail_owned(&self, mode: u32, hash: String, job: String, error: String) -> Js {
        let job = given!(self, mode, job.parse::<JobId>());
        call!(self, mode, fail_owned(&hash, &job, &error))
    }

    #[napi]
    pub fn wait_for(&self, hash: String) -> Js {
        let handle = &self.0;
        if let Err(failure) = handle.begin() {
            return handle.refuse(0, failure);
        }
        handle.settler.promise_with(handle.store.wait_for(&hash), value_or_undefined)
    }
}

fn config(limit: f64, window: f64) -> Result<RateLimitConfig, Failure> {
    Ok(RateLimitConfig::per(whole(limit)?, span(window)?))
}

fn priority(user: bool) -> Priority {
    if user { Priority::User } else { Priority::Background }
}

/// Sliding windows.
#[napi]
pub struct NativeRateLimit(Handle<RateLimit>);

common!(NativeRateLimit);

#[napi]
impl NativeRateLimit {
    #[napi]
    pub fn acquire(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, acquire(&resource))
    }

    #[napi]
    pub fn can_proceed(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, can_proceed(&resource))
    }

    #[napi]
    pub fn record(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, record(&resource))
    }

    #[napi]
    pub fn status(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, status(&resource))
    }

    #[napi]
    pub fn reset(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, reset(&resource))
    }

    #[napi]
    pub fn wait_time(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, wait_time(&resource))
    }

    #[napi]
    pub fn set_resource_config(&self, mode: u32, resource: String, limit: f64, window: f64) -> Js {
        let config = given!(self, mode, config(limit, window));
        call!(self, mode, set_resource_config(&resource, config))
    }

    #[napi]
    pub fn resource_config(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, resource_config(&resource))
    }

    #[napi]
    pub fn set_cooldown(&self, mode: u32, origin: String, until: f64) -> Js {
        let until = given!(self, mode, whole(until));
        call!(self, mode, set_cooldown(&origin, until))
    }

    #[napi]
    pub fn cooldown(&self, mode: u32, origin: String) -> Js {
        call!(self, mode, cooldown(&origin))
    }

    #[napi]
    pub fn clear_cooldown(&self, mode: u32, origin: String) -> Js {
        call!(self, mode, clear_cooldown(&origin))
    }

    #[napi]
    pub fn clear(&self, mode: u32) -> Js {
        call!(self, mode, clear())
    }
}

/// Sliding windows shared by two priorities.
#[napi]
pub struct NativeAdaptiveRateLimit(Handle<AdaptiveRateLimit>);

common!(NativeAdaptiveRateLimit);

#[napi]
impl NativeAdaptiveRateLimit {
    #[napi]
    pub fn acquire(&self, mode: u32, resource: String, user: bool) -> Js {
        call!(self, mode, acquire(&resource, priority(user)))
    }

    #[napi]
    pub fn can_proceed(&self, mode: u32, resource: String, user: bool) -> Js {
        call!(self, mode, can_proceed(&resource, priority(user)))
    }

    #[napi]
    pub fn record(&self, mode: u32, resource: String, user: bool) -> Js {
        call!(self, mode, record(&resource, priority(user)))
    }

    #[napi]
    pub fn status(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, status(&resource))
    }

    #[napi]
    pub fn reset(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, reset(&resource))
    }

    #[napi]
    pub fn wait_time(&self, mode: u32, resource: String, user: bool) -> Js {
        call!(self, mode, wait_time(&resource, priority(user)))
    }

    #[napi]
    pub fn set_resource_config(&self, mode: u32, resource: String, limit: f64, window: f64) -> Js {
        let config = given!(self, mode, config(limit, window));
        call!(self, mode, set_resource_config(&resource, config))
    }

    #[napi]
    pub fn resource_config(&self, mode: u32, resource: String) -> Js {
        call!(self, mode, resource_config(&resource))
    }

    #[napi]
    pub fn set_cooldown(&self, mode: u32, origin: String, until: f64) -> Js {
        let until = given!(self, mode, whole(until));
        call!(self, mode, set_cooldown(&origin, until))
    }

    #[napi]
    pub fn cooldown(&self, mode: u32, origin: String) -> Js {
        call!(self, mode, cooldown(&origin))
    }

    #[napi]
    pub fn clear_cooldown(&self, mode: u32, origin: String) -> Js {
        call!(self, mode, clear_cooldown(&origin))
    }

    #[napi]
    pub fn clear(&self, mode: u32) -> Js {
        call!(self, mode, clear())
    }
}

#[napi(object)]
pub struct IdentityInput {
    pub tenant: String,
    pub user: String,
    pub session: String,
    pub run: String,
}

impl From<IdentityInput> for Identity {
    fn from(input: IdentityInput) -> Self {
        Identity::new(input.tenant, input.user, input.session, input.run)
    }
}

#[napi(object)]
pub struct RecordInput {
    pub id: String,
    pub identity: IdentityInput,
    pub kind: String,
    pub version: i64,
    pub bytes: Uint8Array,
    pub updated_at: Option<f64>,
}

impl RecordInput {
    fn record(self) -> Result<StateRecord, Failure> {
        let record = StateRecord::new(self.identity.into(), self.kind, self.bytes.to_vec())
            .with_id(EventId::from(self.id))
            .with_version(self.version);
        Ok(match self.updated_at {
            None => record,
            Some(at) => record.with_updated_at(whole(at)?),
        })
    }
}

#[napi(object)]
pub struct ExpectationInput {
    pub identity: IdentityInput,
    pub kind: String,
    pub expected: Option<String>,
}

impl From<ExpectationInput> for SlotExpectation {
    fn from(input: ExpectationInput) -> Self {
        match input.expected {
            None => SlotExpectation::absent(input.identity.into(), input.kind),
            Some(id) => {
                SlotExpectation::current(input.identity.into(), input.kind, EventId::from(id))
            }
        }
    }
}

fn expectations(inputs: Vec<ExpectationInput>) -> Vec<SlotExpectation> {
    inputs.into_iter().map(Into::into).collect()
}

fn scope(is_maintenance: bool) -> ListScope {
    if is_maintenance { ListScope::maintenance() } else { ListScope::default() }
}

/// Agent state.
#[napi]
pub struct NativeState(Handle<State>);

common!(NativeState);

#[napi]
impl NativeState {
    #[napi]
    pub fn save(&self, mode: u32, record: RecordInput) -> Js {
        let record = given!(self, mode, record.record());
        call!(self, mode, save(record))
    }

    #[napi]
    pub fn load(&self, mode: u32, identity: IdentityInput, kind: String) -> Js {
        let identity = Identity::from(identity);
        call!(self, mode, load(&identity, &kind))
    }

    #[napi]
    pub fn load_by_event_id(&self, mode: u32, id: String) -> Js {
        let id = EventId::from(id);
        call!(self, mode, load_by_event_id(&id))
    }

    #[napi]
    pub fn delete(&self, mode: u32, identity: IdentityInput, kind: String) -> Js {
        let identity = Identity::from(identity);
        call!(self, mode, delete(&identity, &kind))
    }

    #[napi]
    pub fn list_kind(&self, mode: u32, maintenance: bool, prefix: String) -> Js {
        call!(self, mode, list_kind(scope(maintenance), &prefix))
    }

    #[napi]
    pub fn list_kind_bounded(
        &self,
        mode: u32,
        maintenance: bool,
        prefix: String,
        limit: u32,
    ) -> Js {
        call!(self, mode, list_kind_bounded(scope(maintenance), &prefix, limit as usize))
    }

    #[napi]
    pub fn save_if(&self, mode: u32, expected: Vec<ExpectationInput>, next: RecordInput) -> Js {
        let expected = expectations(expected);
        let next = given!(self, mode, next.record());
        call!(self, mode, save_if(&expected, next))
    }

    #[napi]
    pub fn save_batch_if(
        &self,
        mode: u32,
        expected: Vec<ExpectationInput>,
        writes: Vec<RecordInput>,
    ) -> Js {
        let expected = expectations(expected);
        let writes = writes.into_iter().map(RecordInput::record).collect::<Result<Vec<_>, _>>();
        let writes = given!(self, mode, writes);
        call!(self, mode, save_batch_if(&expected, writes))
    }

    #[napi]
    pub fn delete_if(&self, mode: u32, expected: ExpectationInput) -> Js {
        let expected = SlotExpectation::from(expected);
        call!(self, mode, delete_if(&expected))
    }

    #[napi]
    pub fn delete_scope(&self, mode: u32, tenant: String, user: String, session: String) -> Js {
        call!(self, mode, delete_scope(&tenant, &user, &session))
    }

    #[napi]
    pub fn list_kind_for_identity(
        &self,
        mode: u32,
        identity: IdentityInput,
        prefix: String,
        limit: Option<u32>,
    ) -> Js {
        let identity = Identity::from(identity);
        let limit = limit.map(|limit| limit as usize);
        call!(self, mode, list_kind_for_identity(&identity, &prefix, limit))
    }

    #[napi]
    pub fn scan_kind_for_tenant(
        &self,
        mode: u32,
        maintenance: bool,
        tenant: String,
        prefix: String,
        limit: u32,
        cursor: Option<String>,
    ) -> Js {
        let Ok(cursor) = cursor.map(|text| text.parse::<Cursor>()).transpose() else {
            let refusal = Failure::new("INVALID_SCAN", "the cursor is not one of this scan");
            return self.0.refuse(mode, refusal);
        };
        call!(
            self,
            mode,
            scan_kind_for_tenant(
                scope(maintenance),
                &tenant,
                &prefix,
                limit as usize,
                cursor.as_ref()
            )
        )
    }
}

#[napi]
impl NativeRoom {
    fn store<S>(
        &self,
        make: impl FnOnce(&cloakroom::Cloakroom) -> Result<S, Failure>,
    ) -> Result<Handle<S>, Failure> {
        let store = make(self.open.room()?)?;
        let (settler, open) = (Rc::clone(&self.settler), Arc::clone(&self.open));
        Ok(Handle { settler, open, store })
    }

    /// Throws when there is no store.
    fn made<S, N>(&self, store: Result<Handle<S>, Failure>, wrap: fn(Handle<S>) -> N) -> Option<N> {
        match store {
            Ok(handle) => Some(wrap(handle)),
            Err(failure) => {
                self.settler.answer(Err::<(), _>(failure));
                None
            }
        }
    }

    #[napi]
    pub fn form_tokens(&self, level: Option<f64>, grace: Option<f64>) -> Option<NativeFormTokens> {
        let store = self.store(|room| {
            let mut store = room.form_tokens();
            if let Some(level) = level {
                store = store.with_durability(durability(level)?);
            }
            if let Some(grace) = grace {
                store = store.with_replay_grace(span(grace)?);
            }
            Ok(store)
        });
        self.made(store, NativeFormTokens)
    }

    #[napi]
    pub fn handoff(&self, level: Option<f64>, max_bytes: Option<f64>) -> Option<NativeHandoff> {
        let store = self.store(|room| {
            let mut store = room.handoff();
            if let Some(level) = level {
                store = store.with_durability(durability(level)?);
            }
            if let Some(bytes) = max_bytes {
                store = store.with_max_state_bytes(whole(bytes)?);
            }
            Ok(store)
        });
        self.made(store, NativeHandoff)
    }

    #[napi]
    pub fn cache(&self, name: String, options: CacheOptions) -> Option<NativeCache> {
        let store = self.store(|room| options.apply(room.cache(&name)));
        self.made(store, NativeCache)
    }

    #[napi]
    pub fn bytes_cache(&self, name: String, options: CacheOptions) -> Option<NativeBytesCache> {
        let store = self.store(|room| options.apply(room.cache(&name)));
        self.made(store, NativeBytesCache)
    }

    #[napi]
    pub fn dedupe(
        &self,
        name: String,
        level: Option<f64>,
        timeout: Option<f64>,
    ) -> Option<NativeDedupe> {
        let store = self.store(|room| {
            let mut store = room.dedupe(&name);
            if let Some(level) = level {
                store = store.with_durability(durability(level)?);
            }
            if let Some(timeout) = timeout {
                store = store.with_job_timeout(span(timeout)?);
            }
            Ok(store)
        });
        self.made(store, NativeDedupe)
    }

    #[napi]
    pub fn rate_limit(
        &self,
        name: String,
        limit: f64,
        window: f64,
        level: Option<f64>,
    ) -> Option<NativeRateLimit> {
        let store = self.store(|room| {
            let store = room.rate_limit(&name, config(limit, window)?)?;
            Ok(match level {
                None => store,
                Some(level) => store.with_durability(durability(level)?),
            })
        });
        self.made(store, NativeRateLimit)
    }

    #[napi]
    pub fn adaptive_rate_limit(
        &self,
        name: String,
        limit: Option<f64>,
        window: Option<f64>,
        adaptive: AdaptiveOptions,
        level: Option<f64>,
    ) -> Option<NativeAdaptiveRateLimit> {
        let store = self.store(|room| {
            let config = match (limit, window) {
                (Some(limit), Some(window)) => config(limit, window)?,
                _ => RateLimitConfig::adaptive_default(),
            };
            let store = room.adaptive_rate_limit(&name, config, adaptive.config()?)?;
            Ok(match level {
                None => store,
                Some(level) => store.with_durability(durability(level)?),
            })
        });
        self.made(store, NativeAdaptiveRateLimit)
    }

    #[napi]
    pub fn state(&self, level: Option<f64>, late_window: Option<f64>) -> Option<NativeState> {
        let store = self.store(|room| {
            let mut store = room.state();
            if let Some(level) = level {
                store = store.with_durability(durability(level)?);
            }
            if let Some(window) = late_window {
                store = store.with_late_window(span(window)?);
            }
            Ok(store)
        });
        self.made(store, NativeState)
    }
}

#[napi(object)]
pub struct CacheOptions {
    pub durability: Option<f64>,
    pub max_entry_bytes: Option<f64>,
    pub max_entries: Option<f64>,
    pub max_bytes: Option<f64>,
}

impl CacheOptions {
    fn apply<T>(&self, mut cache: Cache<T>) -> Result<Cache<T>, Failure> {
        if let Some(level) = self.durability {
            cache = cache.with_durability(durability(level)?);
        }
        if let Some(bytes) = self.max_entry_bytes {
            cache = cache.with_max_entry_bytes(whole(bytes)?);
        }
        if let Some(entries) = self.max_entries {
            cache = cache.with_max_entries(whole(entries)?);
        }
        if let Some(bytes) = self.max_bytes {
            cache = cache.with_max_bytes(whole(bytes)?);
        }
        Ok(cache)
    }
}

#[napi(object)]
pub struct AdaptiveOptions {
    pub monitoring_window: Option<f64>,
    pub high_activity_threshold: Option<f64>,
    pub moderate_activity_threshold: Option<f64>,
    pub recalculation_interval: Option<f64>,
    pub sustained_inactivity_threshold: Option<f64>,
    pub background_pause_on_increasing_trend: Option<bool>,
    pub max_user_scaling: Option<f64>,
    pub min_user_reserved: Option<f64>,
}

impl AdaptiveOptions {
    fn config(&self) -> Result<AdaptiveConfig, Failure> {
        let or = |given: Option<f64>, default: Duration| given.map_or(Ok(default), span);
        let count = |given: Option<f64>, default: u64| given.map_or(Ok(default), whole);
        let default = AdaptiveConfig::default();
        let monitoring = or(self.monitoring_window, default.monitoring_window)?;
        let high = count(self.high_activity_threshold, default.high_activity_threshold)?;
        let moderate =
            count(self.moderate_activity_threshold, default.moderate_activity_threshold)?;
        let recalculation = or(self.recalculation_interval, default.recalculation_interval)?;
        let inactivity =
            or(self.sustained_inactivity_threshold, default.sustained_inactivity_threshold)?;
        let pause = self
            .background_pause_on_increasing_trend
            .unwrap_or(default.background_pause_on_increasing_trend);
        let scaling = self.max_user_scaling.unwrap_or(default.max_user_scaling);
        let reserved = count(self.min_user_reserved, default.min_user_reserved)?;
        Ok(default
            .with_monitoring_window(monitoring)
            .with_high_activity_threshold(high)
            .with_moderate_activity_threshold(moderate)
            .with_recalculation_interval(recalculation)
            .with_sustained_inactivity_threshold(inactivity)
            .with_background_pause_on_increasing_trend(pause)
            .with_max_user_scaling(scaling)
            .with_min_user_reserved(reserved))
    }
}
