//! The operations of a run as calls of the stores, and their answers in the terms of the model.

use super::ops::{self, MAX_STATE_BYTES, StoreOp};
use super::reference::{ModelOutcome, Refusal, caller_seconds, record};
use crate::form_token::LookupKey;
use crate::stores::form_token::FormTokenStore;
use crate::stores::handoff::{Claim, ClaimId, HandoffStateStore, JsonObject};
use crate::{Cloakroom, Error, Pending, Transaction};
use std::time::Duration;

/// The answer of the room, and the claim if there is one.
pub(super) type ModelAnswer = (ModelOutcome, Option<ClaimId>);

fn refused(error: &Error) -> ModelAnswer {
    let refusal = match error {
        Error::AlreadyExists => Refusal::AlreadyExists,
        Error::TooLarge { .. } => Refusal::TooLarge,
        Error::Encode(_) => Refusal::Encode,
        Error::InvalidConfig(_) => Refusal::InvalidConfig,
        other => Refusal::Unexpected(other.to_string()),
    };
    (ModelOutcome::Refused(refusal), None)
}

/// An answer that can become a [`ModelOutcome`].
trait IntoAnswer: Send + 'static {
    fn into_answer(self) -> ModelAnswer;
}

impl IntoAnswer for () {
    fn into_answer(self) -> ModelAnswer {
        (ModelOutcome::Done, None)
    }
}

impl IntoAnswer for (crate::form_token::TokenConsumeOutcome, Option<String>) {
    fn into_answer(self) -> ModelAnswer {
        (ModelOutcome::Consumed(self.0, self.1), None)
    }
}

impl IntoAnswer for Option<JsonObject> {
    fn into_answer(self) -> ModelAnswer {
        (ModelOutcome::State(self), None)
    }
}

impl IntoAnswer for Option<Claim> {
    fn into_answer(self) -> ModelAnswer {
        match self {
            Some(Claim { state, id }) => {
                // Passed as a string, as by another process.
                let id = id.to_string().parse().unwrap();
                (ModelOutcome::State(Some(state)), Some(id))
            }
            None => (ModelOutcome::State(None), None),
        }
    }
}

impl IntoAnswer for bool {
    fn into_answer(self) -> ModelAnswer {
        (ModelOutcome::Ended(self), None)
    }
}

fn now<T: IntoAnswer>(answer: crate::Result<T>) -> ModelAnswer {
    answer.map_or_else(|error| refused(&error), IntoAnswer::into_answer)
}

fn later<T: IntoAnswer>(answer: Pending<T>) -> Box<dyn FnOnce() -> ModelAnswer> {
    Box::new(move || now(answer.wait()))
}

fn keys(candidates: &[u8]) -> Vec<LookupKey> {
    candidates.iter().map(|number| ops::lookup_key(*number)).collect()
}

/// One operation through the trait of a store. Its answer is awaited later.
pub(super) fn call(
    room: &Cloakroom,
    op: &StoreOp,
    claim: &ClaimId,
    now_ms: u64,
) -> Box<dyn FnOnce() -> ModelAnswer> {
    let tokens = room.form_tokens();
    let handoff = room.handoff().with_max_state_bytes(MAX_STATE_BYTES as u64);
    match op {
        StoreOp::Insert { key, binding, ttl_seconds } => {
            later(tokens.insert_form_token(record(*key, *binding, *ttl_seconds, now_ms)))
        }
        StoreOp::Consume { candidates, binding, skew_seconds, grace } => {
            let tokens = tokens.with_replay_grace(ops::grace(*grace));
            let (subject, purpose, resource) = ops::binding(*binding);
            let (purpose, resource) = (purpose.as_str(), resource.as_deref());
            let now = caller_seconds(now_ms, *skew_seconds);
            later(match &keys(candidates)[..] {
                [key] => tokens.consume_form_token(key, &subject, purpose, resource, now),
                keys => tokens.consume_form_token_any(keys, &subject, purpose, resource, now),
            })
        }
        StoreOp::SetResult { candidates, result } => {
            let result_ref = ops::result_ref(*result);
            later(match &keys(candidates)[..] {
                [key] => tokens.set_token_result(key, &result_ref),
                keys => tokens.set_token_result_any(keys, &result_ref),
            })
        }
        StoreOp::Set { id, body, ttl_seconds } => {
            later(handoff.set(&ops::key_text(*id), &ops::body(*body), (*ttl_seconds).into()))
        }
        StoreOp::Get { id } => later(handoff.get(&ops::key_text(*id))),
        StoreOp::Take { id } => later(handoff.get_and_delete(&ops::key_text(*id))),
        StoreOp::Delete { id } => later(handoff.delete(&ops::key_text(*id))),
        StoreOp::Claim { id, lease_ms } => {
            later(handoff.claim(&ops::key_text(*id), Duration::from_millis((*lease_ms).into())))
        }
        StoreOp::Ack { .. } => later(handoff.ack(claim)),
        StoreOp::Release { .. } => later(handoff.release(claim)),
    }
}

/// One operation inside a transaction.
pub(super) fn call_inside(
    tx: &mut Transaction<'_>,
    op: &StoreOp,
    claim: &ClaimId,
    now_ms: u64,
) -> ModelAnswer {
    match op {
        StoreOp::Insert { key, binding, ttl_seconds } => {
            now(tx.form_tokens().insert_form_token(record(*key, *binding, *ttl_seconds, now_ms)))
        }
        StoreOp::Consume { candidates, binding, skew_seconds, grace } => {
            let mut tokens = tx.form_tokens().with_replay_grace(ops::grace(*grace));
            let (subject, purpose, resource) = ops::binding(*binding);
            let (purpose, resource) = (purpose.as_str(), resource.as_deref());
            let at = caller_seconds(now_ms, *skew_seconds);
            now(match &keys(candidates)[..] {
                [key] => tokens.consume_form_token(key, &subject, purpose, resource, at),
                keys => tokens.consume_form_token_any(keys, &subject, purpose, resource, at),
            })
        }
        StoreOp::SetResult { candidates, result } => {
            let result_ref = ops::result_ref(*result);
            now(match &keys(candidates)[..] {
                [key] => tx.form_tokens().set_token_result(key, &result_ref),
                keys => tx.form_tokens().set_token_result_any(keys, &result_ref),
            })
        }
        op => {
            let mut handoff = tx.handoff().with_max_state_bytes(MAX_STATE_BYTES as u64);
            match op {
                StoreOp::Set { id, body, ttl_seconds } => {
                    now(handoff.set(&ops::key_text(*id), &ops::body(*body), (*ttl_seconds).into()))
                }
                StoreOp::Take { id } => now(handoff.get_and_delete(&ops::key_text(*id))),
                StoreOp::Delete { id } => now(handoff.delete(&ops::key_text(*id))),
                StoreOp::Claim { id, lease_ms } => {
                    now(handoff
                        .claim(&ops::key_text(*id), Duration::from_millis((*lease_ms).into())))
                }
                StoreOp::Ack { .. } => now(handoff.ack(claim)),
                StoreOp::Release { .. } => now(handoff.release(claim)),
                StoreOp::Get { id } => now(handoff.get(&ops::key_text(*id))),
                _ => unreachable!("form tokens are handled above"),
            }
        }
    }
}
