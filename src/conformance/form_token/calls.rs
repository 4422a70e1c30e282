//! Calls of a store of form tokens, and what the checks expect of them.

use crate::conformance::START;
use crate::error::Error;
use crate::stores::form_token::TokenConsumeOutcome::Replay;
use crate::stores::form_token::TokenSubject::Authenticated;
use crate::stores::form_token::{FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome};

/// How long the tokens of the checks live, in seconds.
pub(super) const TTL: u64 = 600;
/// When they end, in seconds since the Unix epoch.
pub(super) const END: u64 = START + TTL;
pub(super) type FormTokenDriver = dyn FormTokenStore;
pub(super) type ConsumeAnswer = (TokenConsumeOutcome, Option<String>);

pub(super) fn token(lookup_key: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(lookup_key),
        key_version: "v1".into(),
        subject: Authenticated("ada".into()),
        purpose: "pay".into(),
        bound_resource: Some("order-17".into()),
        issued_at: START,
        expires_at: END,
    }
}

pub(super) fn insert(store: &FormTokenDriver, record: &FormTokenRecord) {
    store.insert_form_token(record.clone()).wait().unwrap();
}

/// Consumes with the binding of `record`.
pub(super) fn consume(
    store: &FormTokenDriver,
    record: &FormTokenRecord,
    now: u64,
) -> ConsumeAnswer {
    consume_any(store, &[&record.lookup_key], record, now)
}

/// Peeks with the binding of `record`.
pub(super) fn peek(store: &FormTokenDriver, record: &FormTokenRecord, now: u64) -> ConsumeAnswer {
    let (subject, purpose) = (&record.subject, record.purpose.as_str());
    let bound_resource = record.bound_resource.as_deref();
    store.peek_form_token(&record.lookup_key, subject, purpose, bound_resource, now).wait().unwrap()
}

pub(super) fn consume_any(
    store: &FormTokenDriver,
    candidates: &[&LookupKey],
    record: &FormTokenRecord,
    now: u64,
) -> ConsumeAnswer {
    let (subject, purpose) = (&record.subject, record.purpose.as_str());
    let bound_resource = record.bound_resource.as_deref();
    match candidates {
        [only] => {
            store.consume_form_token(only, subject, purpose, bound_resource, now).wait().unwrap()
        }
        several => {
            let several: Vec<LookupKey> = several.iter().copied().cloned().collect();
            store
                .consume_form_token_any(&several, subject, purpose, bound_resource, now)
                .wait()
                .unwrap()
        }
    }
}

pub(super) fn set_result(store: &FormTokenDriver, record: &FormTokenRecord, result_ref: &str) {
    store.set_token_result(&record.lookup_key, result_ref).wait().unwrap();
}

pub(super) fn replay_of(result_ref: &str) -> ConsumeAnswer {
    (Replay, Some(result_ref.into()))
}

pub(super) fn assert_exists(store: &FormTokenDriver, record: &FormTokenRecord) {
    let answer = store.insert_form_token(record.clone()).wait();
    assert!(matches!(answer, Err(Error::AlreadyExists)), "{answer:?}");
}
