//! A consume as one value, and its answer as one value.

use super::ops::Binding;
use super::{LookupKey, TokenConsumeOutcome, TokenSubject};
use crate::stores::hidden::Hidden;
use std::fmt;
use std::slice;

/// What a caller presents to consume a token: its lookup key and everything that the token must be
/// bound to.
///
/// ```
/// use cloakroom::Cloakroom;
/// use cloakroom::form_token::{
///     Consume, FormTokenRecord, FormTokenStore, LookupKey, Outcome, TokenSubject,
/// };
///
/// let room = Cloakroom::builder().open_in_memory()?;
/// let tokens = room.form_tokens();
/// let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
/// let (key, subject) = (LookupKey::new("3fa9c1"), TokenSubject::Anonymous);
/// let record = FormTokenRecord::new(key.clone(), subject.clone(), "pay", now + 600);
/// tokens.insert_form_token(record.with_bound_resource("order-7")).wait()?;
///
/// let consume = Consume::new(&key, &subject, "pay", now).with_resource("order-7");
/// assert_eq!(tokens.consume(consume).wait()?, Outcome::Proceed);
/// tokens.set_token_result(&key, "receipt-7").wait()?;
/// let result = Some("receipt-7".into());
/// assert_eq!(tokens.consume(consume).wait()?, Outcome::Replay { result });
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing happens until this is passed to `consume` or `peek`"]
pub struct TokenConsume<'a> {
    pub(super) candidates: &'a [LookupKey],
    pub(super) binding: Binding<'a>,
    pub(super) now: u64,
}

impl<'a> TokenConsume<'a> {
    /// Consumes the token found by `lookup_key`, issued to `subject` for `purpose` and bound to no
    /// resource. `now` is the caller's time, in seconds since the Unix epoch, and alone decides
    /// whether the token has ended.
    pub fn new(
        lookup_key: &'a LookupKey,
        subject: &'a TokenSubject,
        purpose: &'a str,
        now: u64,
    ) -> Self {
        Self::any(slice::from_ref(lookup_key), subject, purpose, now)
    }

    /// As [`new`](Self::new), for the first of `candidates` that exists: the lookup keys of one
    /// token under several versions of the hashing key, the current one first. Without a candidate
    /// the outcome is [`Invalid`](TokenOutcome::Invalid).
    pub fn any(
        candidates: &'a [LookupKey],
        subject: &'a TokenSubject,
        purpose: &'a str,
        now: u64,
    ) -> Self {
        Self { candidates, binding: Binding { subject, purpose, bound_resource: None }, now }
    }

    /// The same consume, of a token that is bound to `bound_resource`.
    pub fn with_resource(self, bound_resource: &'a str) -> Self {
        self.with_bound_resource(Some(bound_resource))
    }

    /// The same consume, of a token that is bound to this resource, or to none.
    pub(super) fn with_bound_resource(mut self, bound_resource: Option<&'a str>) -> Self {
        self.binding.bound_resource = bound_resource;
        self
    }
}

/// What a consume says, with what belongs to it.
///
/// A caller must handle all three outcomes, and there will be no other, so a `match` needs no `_`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum TokenOutcome {
    /// This caller, and no other ever, may carry out what the token was for.
    Proceed,
    /// The token was consumed before. Nothing may be carried out again.
    Replay {
        /// What the first caller stored with `set_token_result`, or `None` when it has stored
        /// nothing yet.
        result: Option<String>,
    },
    /// There is no such token, or it has ended, or it is bound to something else. The answer does
    /// not say which.
    Invalid,
}

/// Keeps the result to itself.
impl fmt::Debug for TokenOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenOutcome::Proceed => f.write_str("Proceed"),
            TokenOutcome::Replay { result } => {
                let result = result.as_ref().map(Hidden::bytes);
                f.debug_struct("Replay").field("result", &result).finish()
            }
            TokenOutcome::Invalid => f.write_str("Invalid"),
        }
    }
}

impl From<(TokenConsumeOutcome, Option<String>)> for TokenOutcome {
    fn from((outcome, result): (TokenConsumeOutcome, Option<String>)) -> Self {
        match outcome {
            TokenConsumeOutcome::Proceed => Self::Proceed,
            TokenConsumeOutcome::Replay => Self::Replay { result },
            TokenConsumeOutcome::Invalid => Self::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Cloakroom;
    use crate::stores::form_token::{FormTokenRecord, FormTokenStore};

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn an_outcome_carries_what_belongs_to_it_also_in_a_transaction() {
        let room = Cloakroom::builder().open_in_memory().unwrap();
        let tokens = room.form_tokens();
        let keys = [LookupKey::new("aa"), LookupKey::new("bb")];
        let subject = TokenSubject::Authenticated("ada".into());
        let record = FormTokenRecord::new(keys[1].clone(), subject.clone(), "pay", u64::MAX)
            .with_bound_resource("order-7");
        tokens.insert_form_token(record).wait().unwrap();

        let unbound = TokenConsume::any(&keys, &subject, "pay", NOW);
        let bound = unbound.with_resource("order-7");
        let consume = |consume: TokenConsume<'_>| tokens.consume(consume).wait().unwrap();
        assert_eq!(consume(unbound), TokenOutcome::Invalid);
        let unknown = TokenConsume::new(&keys[0], &subject, "pay", NOW);
        assert_eq!(consume(unknown), TokenOutcome::Invalid);
        assert_eq!(consume(bound), TokenOutcome::Proceed);
        assert_eq!(consume(bound), TokenOutcome::Replay { result: None });
        tokens.set_token_result_any(&keys, "receipt-7").wait().unwrap();
        let result = Some("receipt-7".to_owned());
        let in_transaction = room.atomically(|tx| tx.form_tokens().consume(bound));
        let shown = format!("{:?}", TokenOutcome::Replay { result: result.clone() });
        assert!(shown.starts_with("Replay") && !shown.contains("receipt"), "{shown}");
        assert_eq!(in_transaction.wait().unwrap(), TokenOutcome::Replay { result });
    }
}
