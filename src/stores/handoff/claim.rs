//! The hold on a claimed state.

use super::JsonObject;
use crate::error::{Error, Result};
use crate::stores::hidden::Hidden;
use crate::stores::span::span_ms;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use ulid::Ulid;

/// A state that was claimed, and the id that ends the claim.
#[derive(Clone, PartialEq)]
pub struct Claim {
    /// The state.
    pub state: JsonObject,
    /// Names the claim in [`ack`](super::HandoffStateStore::ack) and
    /// [`release`](super::HandoffStateStore::release).
    pub id: ClaimId,
}

/// Keeps the state to itself.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Claim {
    /// The claim `id` on `state`, as a driver answers it.
    #[must_use]
    pub fn new(state: JsonObject, id: ClaimId) -> Self {
        Self { state, id }
    }
}

/// A state that was claimed as raw JSON, and the id that ends the claim.
#[derive(Clone, PartialEq, Eq)]
pub struct RawClaim {
    /// The JSON of the state, as it was set.
    pub state: String,
    /// Names the claim, as [`Claim::id`] does.
    pub id: ClaimId,
}

/// Keeps the state to itself.
impl fmt::Debug for RawClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawClaim")
            .field("state", &Hidden::bytes(&self.state))
            .field("id", &self.id)
            .finish()
    }
}

impl RawClaim {
    /// The claim `id` on `state`, as a driver answers it.
    #[must_use]
    pub fn new(state: impl Into<String>, id: ClaimId) -> Self {
        Self { state: state.into(), id }
    }
}

/// Names one claim on one state. Its string form is a ULID, a full stop and the id of the state,
/// and [`FromStr`] takes it back, so that another process can end the claim.
///
/// ```
/// let text = "01ARZ3NDEKTSV4RRFFQ69G5FAV.order.17";
/// let claim: cloakroom::handoff::ClaimId = text.parse().unwrap();
/// assert_eq!(claim.state_id(), "order.17");
/// assert_eq!(claim.to_string(), text);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClaimId {
    ulid: Ulid,
    state_id: String,
}

/// Keeps the id of the state to itself: a caller who has it can take the state. What
/// [`Display`](fmt::Display) prints is whole.
impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClaimId").field(&Hidden::bytes(&self.state_id)).finish()
    }
}

/// Why a string is no [`ClaimId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimIdParseError {
    /// There is no full stop between ULID and state id.
    #[error("no '.' in the claim id; pass back exactly what it printed")]
    NoSeparator,
    /// The part before the full stop is not a ULID in its canonical form.
    #[error("the claim id does not begin with a ULID; pass back exactly what it printed")]
    NotAUlid,
}

impl ClaimId {
    /// The claim `ulid` on the state `state_id`. A driver of one's own makes its claim ids with it.
    #[must_use]
    pub fn new(ulid: u128, state_id: impl Into<String>) -> Self {
        Self { ulid: Ulid::from(ulid), state_id: state_id.into() }
    }

    /// The number in the ULID, which distinguishes the claims on one state.
    #[must_use]
    pub fn ulid(&self) -> u128 {
        self.ulid.into()
    }

    /// The id of the state that was claimed.
    #[must_use]
    pub fn state_id(&self) -> &str {
        &self.state_id
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ulid, self.state_id)
    }
}

impl FromStr for ClaimId {
    type Err = ClaimIdParseError;

    fn from_str(text: &str) -> Result<Self, ClaimIdParseError> {
        let (ulid_text, state_id) = text.split_once('.').ok_or(ClaimIdParseError::NoSeparator)?;
        let ulid = Ulid::from_string(ulid_text).map_err(|_| ClaimIdParseError::NotAUlid)?;
        // Lower case, or a number past 128 bits, would come back as another string.
        if ulid.to_string() != ulid_text {
            return Err(ClaimIdParseError::NotAUlid);
        }
        Ok(Self { ulid, state_id: state_id.into() })
    }
}

/// A lease in milliseconds, rounded up, so that only a lease of zero ends at once.
pub(crate) fn lease_ms(lease: Duration) -> Result<u64> {
    if lease.is_zero() {
        return Err(Error::InvalidConfig(
            "a lease of zero would end before anybody could use it".into(),
        ));
    }
    Ok(span_ms(lease))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_claim_id_says_why() {
        use ClaimIdParseError::{NoSeparator, NotAUlid};
        for (text, why) in [
            ("", NoSeparator),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", NoSeparator),
            (".state", NotAUlid),
            ("01ARZ3NDEKTSV4RRFFQ69G5FA.s", NotAUlid),
            ("01arz3ndektsv4rrffq69g5fav.s", NotAUlid),
            ("81ARZ3NDEKTSV4RRFFQ69G5FAV.s", NotAUlid),
            ("éé.s", NotAUlid),
        ] {
            assert_eq!(text.parse::<ClaimId>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_lease_is_rounded_up_and_saturates() {
        assert!(matches!(lease_ms(Duration::ZERO), Err(Error::InvalidConfig(_))));
        assert_eq!(lease_ms(Duration::from_nanos(1)).unwrap(), 1);
        assert_eq!(lease_ms(Duration::from_millis(7)).unwrap(), 7);
        assert_eq!(lease_ms(Duration::MAX).unwrap(), u64::MAX);
    }

    proptest! {
        #[test]
        fn the_string_form_round_trips(ulid in any::<u128>(), state_id in ".{0,8}") {
            let claim = ClaimId::new(ulid, state_id);
            prop_assert_eq!(claim.to_string().parse(), Ok(claim));
        }
    }
}
