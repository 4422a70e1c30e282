//! The operations of the model, made on a room: through the traits, and inside `atomically`.

use super::model::{Answer, Blob, Op, lookup_key, record, state_id};
use cloakroom::form_token::{FormTokenStore, FormTokens};
use cloakroom::handoff::{Claim, ClaimId, Handoff, HandoffStateStore};
use cloakroom::{Cloakroom, Error, Pending, Transaction};
use std::time::Duration;

/// An answer, and the claims that came with it.
#[derive(Debug, Default)]
pub struct Done {
    pub answer: Option<Answer>,
    pub claims: Vec<(u64, u8, ClaimId)>,
}

pub type Outcome = Result<Done, Error>;

/// A call that was made.
pub struct Issued {
    pub wait: Box<dyn FnOnce() -> Outcome>,
    pub is_ready: bool,
}

/// Makes a call through the traits.
pub fn issue(
    room: &Cloakroom,
    tokens: FormTokens,
    states: Handoff,
    op: &Op,
    claims: &[(u64, u8, ClaimId)],
) -> Issued {
    fn later<T: 'static>(pending: Pending<T>, done: impl FnOnce(T) -> Done + 'static) -> Issued {
        let is_ready = pending.is_ready();
        Issued { wait: Box::new(move || pending.wait().map(done)), is_ready }
    }
    let plain = |answer| Done { answer: Some(answer), claims: vec![] };
    match op.clone() {
        Op::Insert { key, serial, binding, expires_at } => {
            let pending = tokens.insert_form_token(record(key, serial, binding, expires_at));
            let is_ready = pending.is_ready();
            let wait = move || match pending.wait() {
                Ok(()) => Ok(plain(Answer::Unit)),
                Err(Error::AlreadyExists) => Ok(plain(Answer::AlreadyExists)),
                Err(error) => Err(error),
            };
            Issued { wait: Box::new(wait), is_ready }
        }
        Op::Consume { keys, binding, now, grace_ms } => {
            let tokens = tokens.with_replay_grace(Duration::from_millis(grace_ms));
            let keys: Vec<_> = keys.into_iter().map(lookup_key).collect();
            let (subject, purpose, resource) =
                (binding.subject(), binding.purpose(), binding.resource());
            let pending = match keys.as_slice() {
                [key] => {
                    tokens.consume_form_token(key, &subject, &purpose, resource.as_deref(), now)
                }
                keys => tokens.consume_form_token_any(
                    keys,
                    &subject,
                    &purpose,
                    resource.as_deref(),
                    now,
                ),
            };
            later(pending, move |(outcome, result)| plain(consumed(outcome, result)))
        }
        Op::SetResult { keys, result } => {
            let keys: Vec<_> = keys.into_iter().map(lookup_key).collect();
            let pending = match keys.as_slice() {
                [key] => tokens.set_token_result(key, &result.text()),
                keys => tokens.set_token_result_any(keys, &result.text()),
            };
            later(pending, move |()| plain(Answer::Unit))
        }
        Op::Set { id, value, ttl_seconds } => {
            later(states.set(&state_id(id), &value.json(), ttl_seconds), move |()| {
                plain(Answer::Unit)
            })
        }
        Op::Get { id } => later(states.get(&state_id(id)), move |state| plain(state_answer(state))),
        Op::Take { id } => {
            later(states.get_and_delete(&state_id(id)), move |state| plain(state_answer(state)))
        }
        Op::Delete { id } => later(states.delete(&state_id(id)), move |()| plain(Answer::Unit)),
        Op::Claim { id, number, lease_ms } => {
            later(states.claim(&state_id(id), Duration::from_millis(lease_ms)), move |claim| {
                claimed(claim, id, number)
            })
        }
        Op::Ack { number, .. } => {
            later(states.ack(claim_id(claims, number)), move |held| plain(Answer::Held(held)))
        }
        Op::Release { number, .. } => {
            later(states.release(claim_id(claims, number)), move |held| plain(Answer::Held(held)))
        }
        Op::Batch { ops, fails } => {
            let pending = room.atomically(|tx| {
                let mut all = Done::default();
                let mut answers = vec![];
                for op in &ops {
                    let done = in_transaction(tx, op, claims)?;
                    answers.extend(done.answer);
                    all.claims.extend(done.claims);
                }
                if fails {
                    Err(BatchError::RolledBack)
                } else {
                    Ok(Done { answer: Some(Answer::Batch(answers)), ..all })
                }
            });
            let is_ready = pending.is_ready();
            let wait = move || match pending.wait() {
                Ok(done) => Ok(done),
                Err(BatchError::RolledBack) => Ok(plain(Answer::RolledBack)),
                Err(BatchError::Failed(error)) => Err(error),
            };
            Issued { wait: Box::new(wait), is_ready }
        }
    }
}

/// How a batch ends without an effect.
enum BatchError {
    RolledBack,
    Failed(Error),
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        BatchError::Failed(error)
    }
}

/// The same operation inside a transaction.
fn in_transaction(
    tx: &mut Transaction<'_>,
    op: &Op,
    claims: &[(u64, u8, ClaimId)],
) -> Result<Done, Error> {
    let answer = match op {
        Op::Insert { key, serial, binding, expires_at } => {
            match tx.form_tokens().insert_form_token(record(*key, *serial, *binding, *expires_at)) {
                Ok(()) => Answer::Unit,
                Err(Error::AlreadyExists) => Answer::AlreadyExists,
                Err(error) => return Err(error),
            }
        }
        Op::Consume { keys, binding, now, grace_ms } => {
            let keys: Vec<_> = keys.iter().copied().map(lookup_key).collect();
            let mut tokens = tx.form_tokens().with_replay_grace(Duration::from_millis(*grace_ms));
            let (subject, purpose, resource) =
                (binding.subject(), binding.purpose(), binding.resource());
            let (outcome, result) = tokens.consume_form_token_any(
                &keys,
                &subject,
                &purpose,
                resource.as_deref(),
                *now,
            )?;
            consumed(outcome, result)
        }
        Op::SetResult { keys, result } => {
            let keys: Vec<_> = keys.iter().copied().map(lookup_key).collect();
            tx.form_tokens().set_token_result_any(&keys, &result.text())?;
            Answer::Unit
        }
        Op::Set { id, value, ttl_seconds } => {
            tx.handoff().set(&state_id(*id), &value.json(), *ttl_seconds)?;
            Answer::Unit
        }
        Op::Get { id } => state_answer(tx.handoff().get(&state_id(*id))?),
        Op::Take { id } => state_answer(tx.handoff().get_and_delete(&state_id(*id))?),
        Op::Delete { id } => {
            tx.handoff().delete(&state_id(*id))?;
            Answer::Unit
        }
        Op::Claim { id, number, lease_ms } => {
            let claim = tx.handoff().claim(&state_id(*id), Duration::from_millis(*lease_ms))?;
            return Ok(claimed(claim, *id, *number));
        }
        Op::Ack { number, .. } => Answer::Held(tx.handoff().ack(claim_id(claims, *number))?),
        Op::Release { number, .. } => {
            Answer::Held(tx.handoff().release(claim_id(claims, *number))?)
        }
        Op::Batch { .. } => unreachable!("batches are not nested"),
    };
    Ok(Done { answer: Some(answer), claims: vec![] })
}

fn claim_id(claims: &[(u64, u8, ClaimId)], number: u64) -> &ClaimId {
    let (_, _, id) =
        claims.iter().find(|(known, ..)| *known == number).expect("a claim that was made");
    id
}

fn consumed(outcome: cloakroom::form_token::TokenConsumeOutcome, result: Option<String>) -> Answer {
    match result.as_deref().map(|text| Blob::of_text(text).ok_or(text)).transpose() {
        Ok(result) => Answer::Consumed(outcome, result),
        Err(text) => Answer::Garbage(text.into()),
    }
}

fn state_answer(state: Option<cloakroom::handoff::JsonObject>) -> Answer {
    match state.as_ref().map(|object| Blob::of_json(object).ok_or(object)).transpose() {
        Ok(value) => Answer::State(value),
        Err(object) => Answer::Garbage(format!("{object:?}")),
    }
}

fn claimed(claim: Option<Claim>, id: u8, number: u64) -> Done {
    let Some(Claim { state, id: claim_id, .. }) = claim else {
        return Done { answer: Some(Answer::Claimed(None)), claims: vec![] };
    };
    let answer = match Blob::of_json(&state) {
        Some(value) => Answer::Claimed(Some(value)),
        None => Answer::Garbage(format!("{state:?}")),
    };
    Done { answer: Some(answer), claims: vec![(number, id, claim_id)] }
}
