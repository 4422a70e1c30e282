//! The contract of the stores, implemented with plain data structures.

use super::ops::{self, MAX_STATE_BYTES, StoreOp};
use crate::form_token::{FormTokenRecord, TokenConsumeOutcome, TokenSubject};
use crate::limits::MAX_KEY_LEN;
use crate::stores::handoff::JsonObject;
use std::collections::BTreeMap;

/// An answer, of the room or of the model.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelOutcome {
    /// Done, without a value.
    Done,
    /// Of a consume.
    Consumed(TokenConsumeOutcome, Option<String>),
    /// Of a read or a claim.
    State(Option<JsonObject>),
    /// Of the end of a claim.
    Ended(bool),
    /// An error.
    Refused(Refusal),
}

/// The kind of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A live record has the key.
    AlreadyExists,
    /// A string or a state is too long.
    TooLarge,
    /// A state cannot be encoded.
    Encode,
    /// A lease of zero.
    InvalidConfig,
    /// A refusal that the model does not have.
    Unexpected(String),
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) record: FormTokenRecord,
    pub(super) used: Option<ModelUse>,
}

#[derive(Debug, Clone)]
pub(super) struct ModelUse {
    pub(super) at: u64,
    pub(super) grace_ms: u128,
    pub(super) result_ref: Option<String>,
}

impl Token {
    /// Unexpired, or consumed and within its grace.
    pub(super) fn is_live(&self, now_ms: u128) -> bool {
        let grace_ms = self.used.as_ref().map_or(0, |used| used.grace_ms);
        now_ms < u128::from(self.record.expires_at) * 1_000 + grace_ms
    }
}

#[derive(Debug, Clone)]
pub(super) struct ModelState {
    pub(super) content: JsonObject,
    /// The size of its JSON.
    pub(super) bytes: usize,
    pub(super) expires_at_ms: u64,
    /// The number of the claim, and when it ends.
    pub(super) claim: Option<(usize, u64)>,
}

impl ModelState {
    pub(super) fn is_live(&self, now_ms: u64) -> bool {
        now_ms < self.expires_at_ms
    }

    pub(super) fn claimed_until_ms(&self, now_ms: u64) -> Option<u64> {
        self.claim.map(|(_, until_ms)| until_ms).filter(|until_ms| now_ms < *until_ms)
    }
}

/// Everything that is stored, expired or not.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// In the order of listings: lookup keys that are not hex first.
    pub(super) tokens: BTreeMap<(bool, String), Token>,
    pub(super) states: BTreeMap<String, ModelState>,
    /// How many claims were granted so far, also by aborted transactions.
    pub(super) claims: usize,
}

fn place(lookup_key: &str) -> (bool, String) {
    let is_hex = !lookup_key.is_empty()
        && lookup_key.len().is_multiple_of(2)
        && lookup_key.chars().all(|char| matches!(char, '0'..='9' | 'a'..='f'));
    (is_hex, lookup_key.into())
}

fn too_long(text: &str) -> bool {
    text.len() > MAX_KEY_LEN
}

const TOO_LARGE: ModelOutcome = ModelOutcome::Refused(Refusal::TooLarge);

impl Model {
    /// Applies `op` at `now_ms` and returns its answer.
    pub fn apply(&mut self, op: &StoreOp, now_ms: u64) -> ModelOutcome {
        match op {
            StoreOp::Insert { key, binding, ttl_seconds } => {
                self.insert(record(*key, *binding, *ttl_seconds, now_ms), now_ms)
            }
            StoreOp::Consume { candidates, binding, skew_seconds, grace } => {
                self.consume(candidates, *binding, caller_seconds(now_ms, *skew_seconds), *grace)
            }
            StoreOp::SetResult { candidates, result } => {
                self.set_result(candidates, *result, now_ms)
            }
            StoreOp::Set { id, body, ttl_seconds } => self.set(*id, *body, *ttl_seconds, now_ms),
            StoreOp::Get { id } => self.take(*id, now_ms, false),
            StoreOp::Take { id } => self.take(*id, now_ms, true),
            StoreOp::Delete { id } => {
                let id = ops::key_text(*id);
                if too_long(&id) {
                    return TOO_LARGE;
                }
                self.states.remove(&id);
                ModelOutcome::Done
            }
            StoreOp::Claim { id, lease_ms } => self.claim(*id, *lease_ms, now_ms),
            StoreOp::Ack { nth } => self.end_claim(*nth, now_ms, true),
            StoreOp::Release { nth } => self.end_claim(*nth, now_ms, false),
        }
    }

    fn insert(&mut self, record: FormTokenRecord, now_ms: u64) -> ModelOutcome {
        let subject_too_long = match &record.subject {
            TokenSubject::Anonymous => false,
            TokenSubject::Authenticated(id) | TokenSubject::Flow(id) => too_long(id),
        };
        if too_long(record.lookup_key.as_str()) || subject_too_long {
            return TOO_LARGE;
        }
        let place = place(record.lookup_key.as_str());
        if self.tokens.get(&place).is_some_and(|token| token.is_live(now_ms.into())) {
            return ModelOutcome::Refused(Refusal::AlreadyExists);
        }
        self.tokens.insert(place, Token { record, used: None });
        ModelOutcome::Done
    }

    fn consume(&mut self, candidates: &[u8], binding: u8, now: u64, grace: u8) -> ModelOutcome {
        let (subject, purpose, resource) = ops::binding(binding);
        let subject_too_long = matches!(&subject, TokenSubject::Flow(id) if too_long(id));
        if subject_too_long || candidates.iter().any(|key| too_long(&ops::key_text(*key))) {
            return TOO_LARGE;
        }
        let now_ms = u128::from(now) * 1_000;
        for key in candidates {
            let Some(token) = self.tokens.get_mut(&place(&ops::key_text(*key))) else { continue };
            if !token.is_live(now_ms) {
                continue;
            }
            let record = &token.record;
            if (&record.subject, &record.purpose, &record.bound_resource)
                != (&subject, &purpose, &resource)
            {
                break;
            }
            if let Some(used) = &token.used {
                return ModelOutcome::Consumed(
                    TokenConsumeOutcome::Replay,
                    used.result_ref.clone(),
                );
            }
            let grace_ms = ops::grace(grace).as_millis().min(u64::MAX.into());
            token.used = Some(ModelUse { at: now, grace_ms, result_ref: None });
            return ModelOutcome::Consumed(TokenConsumeOutcome::Proceed, None);
        }
        ModelOutcome::Consumed(TokenConsumeOutcome::Invalid, None)
    }

    fn set_result(&mut self, candidates: &[u8], result: u8, now_ms: u64) -> ModelOutcome {
        let result_ref = ops::result_ref(result);
        if too_long(&result_ref) || candidates.iter().any(|key| too_long(&ops::key_text(*key))) {
            return TOO_LARGE;
        }
        for key in candidates {
            let Some(token) = self.tokens.get_mut(&place(&ops::key_text(*key))) else { continue };
            let live = token.is_live(now_ms.into());
            if let Some(used) = token.used.as_mut().filter(|_| live) {
                used.result_ref = Some(result_ref);
                break;
            }
        }
        ModelOutcome::Done
    }

    fn set(&mut self, id: u8, body: u8, ttl_seconds: u8, now_ms: u64) -> ModelOutcome {
        let (id, content) = (ops::key_text(id), ops::body(body));
        if ops::is_too_deep(body) {
            // Which of two faults is reported is not specified.
            let refusal = if too_long(&id) { Refusal::TooLarge } else { Refusal::Encode };
            return ModelOutcome::Refused(refusal);
        }
        let bytes = encoded_len(&content);
        if too_long(&id) || bytes > MAX_STATE_BYTES {
            return TOO_LARGE;
        }
        let expires_at_ms = now_ms + u64::from(ttl_seconds) * 1_000;
        if ttl_seconds == 0 {
            self.states.remove(&id);
        } else {
            self.states.insert(id, ModelState { content, bytes, expires_at_ms, claim: None });
        }
        ModelOutcome::Done
    }

    fn take(&mut self, id: u8, now_ms: u64, and_delete: bool) -> ModelOutcome {
        let id = ops::key_text(id);
        if too_long(&id) {
            return TOO_LARGE;
        }
        let free = self
            .states
            .get(&id)
            .filter(|state| state.is_live(now_ms) && state.claimed_until_ms(now_ms).is_none());
        let content = free.map(|state| state.content.clone());
        if and_delete && content.is_some() {
            self.states.remove(&id);
        }
        ModelOutcome::State(content)
    }

    fn claim(&mut self, id: u8, lease_ms: u16, now_ms: u64) -> ModelOutcome {
        if too_long(&ops::key_text(id)) {
            return TOO_LARGE;
        }
        if lease_ms == 0 {
            return ModelOutcome::Refused(Refusal::InvalidConfig);
        }
        let free = self.take(id, now_ms, false);
        if let ModelOutcome::State(Some(_)) = free
            && let Some(state) = self.states.get_mut(&ops::key_text(id))
        {
            state.claim = Some((self.claims, now_ms + u64::from(lease_ms)));
            self.claims += 1;
        }
        free
    }

    fn end_claim(&mut self, nth: u8, now_ms: u64, and_delete: bool) -> ModelOutcome {
        let Some(number) = usize::from(nth).checked_rem(self.claims) else {
            return ModelOutcome::Ended(false);
        };
        let holds = |state: &ModelState| {
            state.is_live(now_ms)
                && state.claim.is_some_and(|(of, until_ms)| of == number && now_ms < until_ms)
        };
        let Some((id, state)) = self.states.iter_mut().find(|(_, state)| holds(state)) else {
            return ModelOutcome::Ended(false);
        };
        state.claim = None;
        if and_delete {
            let id = id.clone();
            self.states.remove(&id);
        }
        ModelOutcome::Ended(true)
    }
}

/// The token of an insert.
pub(super) fn record(key: u8, binding: u8, ttl_seconds: u8, now_ms: u64) -> FormTokenRecord {
    let (subject, purpose, bound_resource) = ops::binding(binding);
    let issued_at = now_ms / 1_000;
    FormTokenRecord {
        lookup_key: ops::lookup_key(key),
        key_version: format!("v{}", binding % 3),
        subject,
        purpose,
        bound_resource,
        issued_at,
        // Sometimes the greatest possible time.
        expires_at: if ttl_seconds == 255 { u64::MAX } else { issued_at + u64::from(ttl_seconds) },
    }
}

/// The caller's clock.
pub(super) fn caller_seconds(now_ms: u64, skew_seconds: i8) -> u64 {
    (now_ms / 1_000).saturating_add_signed(skew_seconds.into())
}

/// The bytes of a state's JSON.
pub(super) fn encoded_len(content: &JsonObject) -> usize {
    serde_json::to_vec(content).unwrap().len()
}
