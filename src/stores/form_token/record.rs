//! What a form token is, and what a consume answers.

use crate::stores::hidden::Hidden;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// How much of a lookup key `Debug` shows.
const DEBUG_PREFIX_CHARS: usize = 6;

/// What a token is found by: a keyed hash of its secret, in lowercase hex. Opaque to the store; any
/// string up to [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN) is accepted, and lowercase hex takes
/// half the space.
///
/// A lookup key does not let its reader forge the token, but it tells tokens apart, so `Debug`
/// shows only its beginning. `Display` prints it whole.
///
/// ```
/// let key = cloakroom::form_token::LookupKey::new("3fa9c1d27b");
/// assert_eq!(key.as_str(), "3fa9c1d27b");
/// assert_eq!(format!("{key:?}"), "LookupKey(3fa9c1..)");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupKey(String);

impl LookupKey {
    /// The lookup key with this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LookupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix: String = self.0.chars().take(DEBUG_PREFIX_CHARS).collect();
        write!(f, "LookupKey({prefix}..)")
    }
}

impl FromStr for LookupKey {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

impl From<String> for LookupKey {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for LookupKey {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl AsRef<str> for LookupKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Whom a token was issued to. Two subjects are equal only when both kind and text are equal:
/// `Anonymous` never equals an empty authenticated id, and a flow never equals the user of the same
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenSubject {
    /// No particular subject.
    Anonymous,
    /// A signed-in user, by id.
    Authenticated(String),
    /// A flow that has no user yet, by id.
    Flow(String),
}

/// A form token as it is inserted. Times are seconds since the Unix epoch.
///
/// ```
/// use cloakroom::form_token::{FormTokenRecord, LookupKey, TokenSubject};
/// let key = LookupKey::new("3fa9c1d27b");
/// let subject = TokenSubject::Authenticated("ada".into());
/// let record = FormTokenRecord::new(key, subject, "pay", 1_700_003_600)
///     .with_bound_resource("order-7")
///     .with_issued_at(1_700_000_000);
/// assert_eq!(record.bound_resource.as_deref(), Some("order-7"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormTokenRecord {
    /// What the token is found by.
    pub lookup_key: LookupKey,
    /// The version of the key that made the lookup key. Kept for the caller; the store does not
    /// read it.
    pub key_version: String,
    /// Whom the token was issued to. A consume must name the same.
    pub subject: TokenSubject,
    /// What the token may be used for. A consume must name the same.
    pub purpose: String,
    /// What the token is bound to, if anything. A consume must name the same; `None` and `Some("")`
    /// differ.
    pub bound_resource: Option<String>,
    /// When the token was issued, in seconds since the Unix epoch. Kept for the caller; the store
    /// does not read it.
    pub issued_at: u64,
    /// When the token ends, in seconds since the Unix epoch. At this second it is expired.
    pub expires_at: u64,
}

impl FormTokenRecord {
    /// A token that ends at `expires_at`, in seconds since the Unix epoch: bound to no resource,
    /// issued at an unknown time (zero), with an empty key version.
    #[must_use]
    pub fn new(
        lookup_key: LookupKey,
        subject: TokenSubject,
        purpose: impl Into<String>,
        expires_at: u64,
    ) -> Self {
        Self {
            lookup_key,
            key_version: String::new(),
            subject,
            purpose: purpose.into(),
            bound_resource: None,
            issued_at: 0,
            expires_at,
        }
    }

    /// The same token, made with this version of the key that makes lookup keys.
    #[must_use]
    pub fn with_key_version(self, key_version: impl Into<String>) -> Self {
        Self { key_version: key_version.into(), ..self }
    }

    /// The same token, bound to this resource.
    #[must_use]
    pub fn with_bound_resource(self, bound_resource: impl Into<String>) -> Self {
        Self { bound_resource: Some(bound_resource.into()), ..self }
    }

    /// The same token, issued at this time, in seconds since the Unix epoch.
    #[must_use]
    pub fn with_issued_at(self, issued_at: u64) -> Self {
        Self { issued_at, ..self }
    }
}

/// What a consume says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenConsumeOutcome {
    /// This caller, and no other ever, may carry out what the token was for.
    Proceed,
    /// The token was consumed before. Nothing may be carried out again; the stored result, if there
    /// is one, is what the first caller answered.
    Replay,
    /// There is no such token, or it has ended, or it is bound to something else. The answer does
    /// not say which.
    Invalid,
}

/// Decides what a consume says. A pure function of the number of rows that a conditional update of
/// the token changed (unconsumed, unexpired and bound to what the caller names) and, when it
/// changed none, of what the row looks like.
///
/// - `changed`: how many rows the update changed. A lookup key is unique, so 1 means that this
///   caller won.
/// - `found`: whether the row exists; an expired one does not.
/// - `already_consumed`: whether it was consumed before.
/// - `binding_ok`: whether subject, purpose and resource are those of the row.
///
/// ```
/// use cloakroom::form_token::{TokenConsumeOutcome, classify_token_consume};
/// assert_eq!(classify_token_consume(1, true, false, true), TokenConsumeOutcome::Proceed);
/// assert_eq!(classify_token_consume(0, true, true, true), TokenConsumeOutcome::Replay);
/// assert_eq!(classify_token_consume(0, true, true, false), TokenConsumeOutcome::Invalid);
/// ```
#[must_use]
pub fn classify_token_consume(
    changed: usize,
    found: bool,
    already_consumed: bool,
    binding_ok: bool,
) -> TokenConsumeOutcome {
    match (changed, found, already_consumed, binding_ok) {
        (1, ..) => TokenConsumeOutcome::Proceed,
        (_, true, true, true) => TokenConsumeOutcome::Replay,
        _ => TokenConsumeOutcome::Invalid,
    }
}

/// A token in a listing: live, that is, unexpired, or consumed and within its replay grace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FormTokenEntry {
    /// The token as it was inserted.
    pub record: FormTokenRecord,
    /// What happened to it, or `None` while it is unconsumed.
    pub consumed: Option<TokenUse>,
}

/// What happened to a consumed token.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenUse {
    /// When it was consumed, by the clock of the caller that did, in seconds since the Unix epoch.
    pub consumed_at: u64,
    /// What a replay answers, if a result was stored.
    pub result_ref: Option<String>,
}

/// Keeps the result to itself.
impl fmt::Debug for TokenUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenUse")
            .field("consumed_at", &self.consumed_at)
            .field("result_ref", &self.result_ref.as_ref().map(Hidden::bytes))
            .finish()
    }
}

/// What a store of form tokens holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FormTokenStats {
    /// Tokens that can still be consumed.
    pub live: u64,
    /// Consumed tokens that still answer `Replay`.
    pub consumed: u64,
    /// Tokens that have ended and were not swept yet.
    pub expired: u64,
    /// Bytes of keys and values of all these, those not swept yet included; index rows are not
    /// counted.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use TokenConsumeOutcome::{Invalid, Proceed, Replay};

    #[test]
    fn a_lookup_key_is_its_text() {
        let key = LookupKey::from("3fa9c1d27b");
        assert_eq!((key.as_str(), key.as_ref()), ("3fa9c1d27b", "3fa9c1d27b"));
        assert_eq!(key.to_string(), "3fa9c1d27b");
    }

    #[test]
    fn exactly_one_changed_row_proceeds_and_a_bound_consumed_row_replays() {
        for found in [false, true] {
            for consumed in [false, true] {
                for binding_ok in [false, true] {
                    assert_eq!(classify_token_consume(1, found, consumed, binding_ok), Proceed);
                    let expected = if found && consumed && binding_ok { Replay } else { Invalid };
                    assert_eq!(classify_token_consume(0, found, consumed, binding_ok), expected);
                    // More than one row cannot be changed. If it were, no single caller would have
                    // won.
                    assert_ne!(classify_token_consume(2, found, consumed, binding_ok), Proceed);
                }
            }
        }
    }

    #[test]
    fn a_lookup_key_hides_its_tail_when_debugged_and_prints_whole() {
        let key = LookupKey::new("äöü456789");
        assert_eq!(format!("{key:?}"), "LookupKey(äöü456..)");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!(!format!("{:?}", LookupKey::from("0123456789abcdef")).contains("789"));
    }

    #[test]
    fn subjects_of_different_kinds_differ_even_when_empty() {
        let empty = [
            TokenSubject::Anonymous,
            TokenSubject::Authenticated(String::new()),
            TokenSubject::Flow(String::new()),
        ];
        for (a, left) in empty.iter().enumerate() {
            for (b, right) in empty.iter().enumerate() {
                assert_eq!(left == right, a == b);
            }
        }
    }
}
