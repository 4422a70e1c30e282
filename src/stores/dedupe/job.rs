//! The name of a job.

use std::fmt;
use std::str::FromStr;
use ulid::Ulid;

/// Names one job, so that an owner that lost it to a timeout cannot end the next owner's. Its
/// string form is a ULID, and [`FromStr`] takes it back.
///
/// ```
/// let text = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
/// let job: cloakroom::dedupe::JobId = text.parse().unwrap();
/// assert_eq!(job.to_string(), text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Ulid);

/// Why a string is no [`JobId`]: it is not a ULID in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a ULID; pass back exactly what the job id printed")]
#[non_exhaustive]
pub struct JobIdParseError;

impl JobId {
    /// The job with this number. A driver of one's own makes its job ids with it.
    #[must_use]
    pub fn new(ulid: u128) -> Self {
        Self(Ulid::from(ulid))
    }

    /// The number behind the ULID.
    #[must_use]
    pub fn ulid(&self) -> u128 {
        self.0.into()
    }

    /// The bytes of it in a row, in the byte order of ULIDs.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = JobIdParseError;

    fn from_str(text: &str) -> Result<Self, JobIdParseError> {
        let ulid = Ulid::from_string(text).map_err(|_| JobIdParseError)?;
        // Lower case, or a number past 128 bits, would come back as another string.
        if ulid.to_string() != text {
            return Err(JobIdParseError);
        }
        Ok(Self(ulid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_ulid_is_refused() {
        for text in [
            "",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01arz3ndektsv4rrffq69g5fav",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "é",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(JobIdParseError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_string_form_round_trips(ulid in any::<u128>()) {
            let job = JobId::new(ulid);
            prop_assert_eq!(job.to_string().parse(), Ok(job));
            prop_assert_eq!(JobId::from_bytes(job.to_bytes()), job);
        }
    }
}
