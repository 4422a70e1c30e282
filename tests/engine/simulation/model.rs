//! What both stores must do, written a second time: a pure model over two maps, independent of the
//! engine.

use cloakroom::form_token::{FormTokenRecord, LookupKey, TokenConsumeOutcome, TokenSubject};
use cloakroom::handoff::JsonObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A value that is told from every other by its number, of any length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob {
    pub number: u64,
    pub len: usize,
}

impl Blob {
    pub fn text(self) -> String {
        let pattern = self.pattern();
        let mut text = self.beginning();
        while text.len() < self.len {
            text.push_str(&pattern);
        }
        text
    }

    fn beginning(self) -> String {
        format!("{}:{}:", self.number, self.len)
    }

    fn pattern(self) -> String {
        format!("{}-é-", self.number)
    }

    pub fn json(self) -> JsonObject {
        let value = json!({"blob": {"text": [self.text(), null]}});
        let Value::Object(object) = value else { unreachable!("it is an object") };
        object
    }

    /// The bytes of its JSON.
    pub fn json_len(self) -> u64 {
        let (beginning, pattern) = (self.beginning().len(), self.pattern().len());
        let text = beginning + self.len.saturating_sub(beginning).div_ceil(pattern) * pattern;
        (r#"{"blob":{"text":["",null]}}"#.len() + text) as u64
    }

    /// The blob that has exactly this JSON.
    pub fn of_json(object: &JsonObject) -> Option<Self> {
        let blob = Self::of_text(object.get("blob")?.get("text")?.get(0)?.as_str()?)?;
        (blob.json() == *object).then_some(blob)
    }

    /// The blob that has exactly this text.
    pub fn of_text(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let blob = Self { number: parts.next()?.parse().ok()?, len: parts.next()?.parse().ok()? };
        (blob.len <= 1 << 20 && blob.text() == text).then_some(blob)
    }
}

/// Subject, purpose and resource by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    pub subject: u8,
    pub purpose: u8,
    pub resource: u8,
}

impl Binding {
    pub fn subject(self) -> TokenSubject {
        match self.subject {
            0 => TokenSubject::Anonymous,
            1 => TokenSubject::Authenticated(String::new()),
            _ => TokenSubject::Flow("flow".into()),
        }
    }

    pub fn purpose(self) -> String {
        if self.purpose == 0 { "pay".into() } else { "delete-everything".repeat(20) }
    }

    pub fn resource(self) -> Option<String> {
        match self.resource {
            0 => None,
            1 => Some(String::new()),
            _ => Some("order/7".into()),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub serial: u64,
    pub binding: Binding,
    pub expires_at: u64,
    pub used: Option<Used>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Used {
    pub at: u64,
    pub grace_ms: u64,
    pub result: Option<Blob>,
}

impl Token {
    fn is_unconsumed(&self, now_ms: u64) -> bool {
        self.used.is_none() && now_ms < self.expires_at * 1_000
    }

    fn is_consumed(&self, now_ms: u64) -> bool {
        self.used.as_ref().is_some_and(|used| now_ms < self.expires_at * 1_000 + used.grace_ms)
    }

    fn is_there(&self, now_ms: u64) -> bool {
        self.is_unconsumed(now_ms) || self.is_consumed(now_ms)
    }
}

/// The record that a token of the model is handed in as.
pub fn record(key: u8, serial: u64, binding: Binding, expires_at: u64) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: lookup_key(key),
        key_version: format!("v{}", serial % 3),
        subject: binding.subject(),
        purpose: binding.purpose(),
        bound_resource: binding.resource(),
        issued_at: serial,
        expires_at,
    }
}

pub fn lookup_key(key: u8) -> LookupKey {
    // Both kinds of keys: lowercase hex, and any other text.
    if key.is_multiple_of(2) {
        LookupKey::new(format!("00{key:02x}"))
    } else {
        LookupKey::new(format!("Key {key}"))
    }
}

pub fn state_id(id: u8) -> String {
    if id == 0 { String::new() } else { format!("state.{id}") }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub value: Blob,
    pub expires_at_ms: u64,
    /// The number of the claim, and when its lease ends.
    pub claim: Option<(u64, u64)>,
}

impl State {
    fn claim_at(&self, now_ms: u64) -> Option<(u64, u64)> {
        self.claim.filter(|(_, until_ms)| now_ms < *until_ms)
    }
}

/// One operation, with everything that decides what it does but the clock.
#[derive(Clone, Debug)]
pub enum Op {
    Insert {
        key: u8,
        serial: u64,
        binding: Binding,
        expires_at: u64,
    },
    Consume {
        keys: Vec<u8>,
        binding: Binding,
        now: u64,
        grace_ms: u64,
    },
    SetResult {
        keys: Vec<u8>,
        result: Blob,
    },
    Set {
        id: u8,
        value: Blob,
        ttl_seconds: u64,
    },
    Get {
        id: u8,
    },
    Take {
        id: u8,
    },
    Delete {
        id: u8,
    },
    Claim {
        id: u8,
        number: u64,
        lease_ms: u64,
    },
    Ack {
        id: u8,
        number: u64,
    },
    Release {
        id: u8,
        number: u64,
    },
    /// All of them in one transaction, which fails in the end if `fails` says so.
    Batch {
        ops: Vec<Op>,
        fails: bool,
    },
}

impl Op {
    /// The tokens and the states that it names.
    pub fn names(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Op::Insert { key, .. } => (vec![*key], vec![]),
            Op::Consume { keys, .. } | Op::SetResult { keys, .. } => (keys.clone(), vec![]),
            Op::Set { id, .. }
            | Op::Get { id }
            | Op::Take { id }
            | Op::Delete { id }
            | Op::Claim { id, .. }
            | Op::Ack { id, .. }
            | Op::Release { id, .. } => (vec![], vec![*id]),
            Op::Batch { ops, .. } => {
                let (mut tokens, mut states) = (vec![], vec![]);
                for (more_tokens, more_states) in ops.iter().map(Op::names) {
                    tokens.extend(more_tokens);
                    states.extend(more_states);
                }
                (tokens, states)
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Unit,
    AlreadyExists,
    Consumed(TokenConsumeOutcome, Option<Blob>),
    State(Option<Blob>),
    Claimed(Option<Blob>),
    Held(bool),
    Batch(Vec<Answer>),
    RolledBack,
    /// Something that was never written.
    Garbage(String),
}

/// Everything that both stores hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub tokens: BTreeMap<u8, Token>,
    pub states: BTreeMap<u8, State>,
}

impl Model {
    /// Applies one operation at a time of the room's clock, and says what it answers.
    pub fn apply(&mut self, op: &Op, now_ms: u64) -> Answer {
        match op {
            Op::Insert { key, serial, binding, expires_at } => {
                if self.tokens.get(key).is_some_and(|token| token.is_there(now_ms)) {
                    return Answer::AlreadyExists;
                }
                let token = Token {
                    serial: *serial,
                    binding: *binding,
                    expires_at: *expires_at,
                    used: None,
                };
                self.tokens.insert(*key, token);
                Answer::Unit
            }
            Op::Consume { keys, binding, now, grace_ms } => {
                let (outcome, result) = self.consume(keys, *binding, *now, *grace_ms);
                Answer::Consumed(outcome, result)
            }
            Op::SetResult { keys, result } => {
                let consumed = keys.iter().find(|key| {
                    self.tokens.get(key).is_some_and(|token| token.is_consumed(now_ms))
                });
                let token = consumed.and_then(|key| self.tokens.get_mut(key));
                if let Some(used) = token.and_then(|token| token.used.as_mut()) {
                    used.result = Some(*result);
                }
                Answer::Unit
            }
            Op::Set { id, value, ttl_seconds } => {
                let expires_at_ms = now_ms + ttl_seconds * 1_000;
                self.states.insert(*id, State { value: *value, expires_at_ms, claim: None });
                Answer::Unit
            }
            Op::Get { id } => Answer::State(self.free(*id, now_ms)),
            Op::Take { id } => {
                let found = self.free(*id, now_ms);
                if found.is_some() {
                    self.states.remove(id);
                }
                Answer::State(found)
            }
            Op::Delete { id } => {
                self.states.remove(id);
                Answer::Unit
            }
            Op::Claim { id, number, lease_ms } => {
                let found = self.free(*id, now_ms);
                if let (Some(_), Some(state)) = (found, self.states.get_mut(id)) {
                    state.claim = Some((*number, now_ms + lease_ms));
                }
                Answer::Claimed(found)
            }
            Op::Ack { id, number } => {
                let held = self.holds(*id, *number, now_ms);
                if held {
                    self.states.remove(id);
                }
                Answer::Held(held)
            }
            Op::Release { id, number } => {
                let held = self.holds(*id, *number, now_ms);
                if let (true, Some(state)) = (held, self.states.get_mut(id)) {
                    state.claim = None;
                }
                Answer::Held(held)
            }
            Op::Batch { ops, fails } => {
                let before = fails.then(|| self.clone());
                let answers = ops.iter().map(|op| self.apply(op, now_ms)).collect();
                match before {
                    Some(before) => {
                        *self = before;
                        Answer::RolledBack
                    }
                    None => Answer::Batch(answers),
                }
            }
        }
    }

    fn consume(
        &mut self,
        keys: &[u8],
        binding: Binding,
        now: u64,
        grace_ms: u64,
    ) -> (TokenConsumeOutcome, Option<Blob>) {
        let now_ms = now * 1_000;
        let there = |key: &&u8| self.tokens.get(key).is_some_and(|token| token.is_there(now_ms));
        let Some(token) =
            keys.iter().find(there).copied().and_then(|key| self.tokens.get_mut(&key))
        else {
            return (TokenConsumeOutcome::Invalid, None);
        };
        if token.binding != binding {
            return (TokenConsumeOutcome::Invalid, None);
        }
        match &token.used {
            Some(used) => (TokenConsumeOutcome::Replay, used.result),
            None => {
                token.used = Some(Used { at: now, grace_ms, result: None });
                (TokenConsumeOutcome::Proceed, None)
            }
        }
    }

    fn free(&self, id: u8, now_ms: u64) -> Option<Blob> {
        let state = self.states.get(&id).filter(|state| now_ms < state.expires_at_ms)?;
        state.claim_at(now_ms).is_none().then_some(state.value)
    }

    fn holds(&self, id: u8, number: u64, now_ms: u64) -> bool {
        self.states.get(&id).is_some_and(|state| {
            now_ms < state.expires_at_ms
                && state.claim_at(now_ms).is_some_and(|(held, _)| held == number)
        })
    }

    /// What anybody can tell from the outside at that time.
    pub fn view(&self, now_ms: u64) -> View {
        let tokens =
            self.tokens.iter().filter(|(_, token)| token.is_there(now_ms)).map(|(key, token)| {
                let used = token.used.as_ref().map(|used| (used.at, used.result));
                (
                    *key,
                    TokenView {
                        serial: token.serial,
                        binding: token.binding,
                        expires_at: token.expires_at,
                        used,
                    },
                )
            });
        let states = self.states.iter().filter(|(_, state)| now_ms < state.expires_at_ms).map(
            |(id, state)| {
                let claimed_until_ms = state.claim_at(now_ms).map(|(_, until_ms)| until_ms);
                let seen = StateView {
                    expires_at_ms: state.expires_at_ms,
                    claimed_until_ms,
                    // The content of a claimed state cannot be read, but its size is listed.
                    value: claimed_until_ms.is_none().then_some(state.value),
                    bytes: state.value.json_len(),
                };
                (*id, seen)
            },
        );
        View { tokens: tokens.collect(), states: states.collect() }
    }
}

/// What can be told from the outside, in the model or in a room.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    pub tokens: BTreeMap<u8, TokenView>,
    pub states: BTreeMap<u8, StateView>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenView {
    pub serial: u64,
    pub binding: Binding,
    pub expires_at: u64,
    pub used: Option<(u64, Option<Blob>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateView {
    pub expires_at_ms: u64,
    pub claimed_until_ms: Option<u64>,
    pub value: Option<Blob>,
    pub bytes: u64,
}
