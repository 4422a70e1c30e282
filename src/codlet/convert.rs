//! Between the types of the crate `codlet` and ours.

use crate::error::{Error, Result};
use crate::stores::form_token as ours;
use crate::stores::form_token::row::TokenKey;
use ::codlet::store::{FormTokenRecord, StoreError, TokenSubject};
use ::codlet::{LookupKey, TokenConsumeOutcome};

/// A lookup key as our stores know it.
pub(super) fn lookup_key(key: &LookupKey) -> ours::LookupKey {
    ours::LookupKey::new(key.as_str())
}

/// Lookup keys as our stores know them, in the same order.
pub(super) fn lookup_keys(keys: &[LookupKey]) -> Vec<ours::LookupKey> {
    keys.iter().map(lookup_key).collect()
}

/// The keys of the rows under `keys`, in the same order.
pub(super) fn encode_keys(keys: &[LookupKey]) -> Result<Vec<TokenKey>> {
    keys.iter().map(|key| TokenKey::encode(&lookup_key(key))).collect()
}

/// A subject as our form tokens know it.
pub(super) fn subject(subject: &TokenSubject) -> ours::TokenSubject {
    match subject {
        TokenSubject::Anonymous => ours::TokenSubject::Anonymous,
        TokenSubject::Authenticated(id) => ours::TokenSubject::Authenticated(id.as_str().into()),
        TokenSubject::Flow(id) => ours::TokenSubject::Flow(id.as_str().into()),
    }
}

/// A form token as ours.
pub(super) fn form_token(record: FormTokenRecord) -> ours::FormTokenRecord {
    ours::FormTokenRecord {
        lookup_key: lookup_key(&record.lookup_key),
        key_version: record.key_version.as_str().into(),
        subject: subject(&record.subject),
        purpose: record.purpose,
        bound_resource: record.bound_resource,
        issued_at: record.issued_at,
        expires_at: record.expires_at,
    }
}

/// What a consume says, in the words of `codlet`.
pub(super) fn outcome(
    (outcome, result_ref): (ours::TokenConsumeOutcome, Option<String>),
) -> (TokenConsumeOutcome, Option<String>) {
    let outcome = match outcome {
        ours::TokenConsumeOutcome::Proceed => TokenConsumeOutcome::Proceed,
        ours::TokenConsumeOutcome::Replay => TokenConsumeOutcome::Replay,
        ours::TokenConsumeOutcome::Invalid => TokenConsumeOutcome::Invalid,
    };
    (outcome, result_ref)
}

/// An error in the words of `codlet`. The texts of our errors name tables, sizes and files, never
/// what is stored.
pub(super) fn store_error(error: Error) -> StoreError {
    match error {
        Error::Corrupted { .. } => StoreError::InvariantViolation(error.to_string()),
        _ => StoreError::Backend(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_a_broken_invariant_and_everything_else_the_backend() {
        let damage = store_error(Error::corrupted("a row of table codlet_code", "cut short"));
        assert!(
            matches!(damage, StoreError::InvariantViolation(text) if text.contains("cut short"))
        );
        assert!(matches!(store_error(Error::Closed), StoreError::Backend(_)));
        assert!(matches!(store_error(Error::AlreadyExists), StoreError::Backend(_)));
    }

    #[test]
    fn subjects_keep_their_kind() {
        assert_eq!(subject(&TokenSubject::Anonymous), ours::TokenSubject::Anonymous);
        let user = TokenSubject::Authenticated(::codlet::SubjectId::new("u".into()));
        assert_eq!(subject(&user), ours::TokenSubject::Authenticated("u".into()));
        let flow = TokenSubject::Flow(::codlet::CodeId::new("u".into()));
        assert_eq!(subject(&flow), ours::TokenSubject::Flow("u".into()));
    }
}
