//! How long an entry lives.

use crate::engine::time_line::{Deadline, Moment};
use crate::stores::span::span_ms;
use std::time::Duration;

/// How long an entry of a cache lives from the moment it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// Without end: until it is removed, replaced or evicted.
    Never,
    /// For this long, rounded up to milliseconds. Zero is over at once: the earlier value is
    /// removed, and the new one is not stored.
    For(Duration),
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        Self::For(ttl)
    }
}

impl Ttl {
    /// What `set` means with these seconds: none is without end, and fewer are over at once.
    pub(super) fn of_seconds(ttl_seconds: i64) -> Self {
        match u64::try_from(ttl_seconds) {
            Ok(0) => Self::Never,
            Ok(seconds) => Self::For(Duration::from_secs(seconds)),
            Err(_) => Self::For(Duration::ZERO),
        }
    }

    /// When an entry that is stored `now` ends, or `None` when it is over at once.
    pub(super) fn ends_at(self, now: &Moment) -> Option<Deadline> {
        match self {
            Self::Never => Some(Deadline::NEVER),
            Self::For(ttl) if ttl.is_zero() => None,
            Self::For(ttl) => Some(now.deadline_in(span_ms(ttl))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_spans_end_when_they_say() {
        let end = |ttl: Ttl| ttl.ends_at(&Moment::manual(1_000)).map(|end| end.at_ms);
        assert_eq!(end(Ttl::of_seconds(2)), Some(3_000));
        assert_eq!(end(Ttl::of_seconds(0)), Some(u64::MAX));
        assert_eq!(end(Ttl::of_seconds(-1)), None);
        assert_eq!(end(Ttl::of_seconds(i64::MIN)), None);
        assert_eq!(end(Ttl::of_seconds(i64::MAX)), Some(u64::MAX));
        assert_eq!(end(Ttl::Never), Some(u64::MAX));
        assert_eq!(end(Duration::ZERO.into()), None);
        assert_eq!(end(Duration::from_nanos(1).into()), Some(1_001));
        assert_eq!(end(Duration::from_millis(1_500).into()), Some(2_500));
        assert_eq!(end(Duration::MAX.into()), Some(u64::MAX));
    }
}
