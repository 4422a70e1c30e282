//! Durability levels: what must be durable before a write returns.

use crate::error::{Error, Result};
use std::time::Duration;

/// When a write returns.
///
/// At every level a file opens consistent: a crash loses a suffix of the writes, never a part of
/// one write and never a write from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When the disk has it: it survives a power failure. The default of form tokens, claim checks
    /// and state.
    #[default]
    Sync,
    /// When the operating system has it, with a flush at most this much later: it survives a crash
    /// of the process at once, and a crash of the machine after at most that time. An interval of
    /// zero is [`Error::InvalidConfig`], from the opening of a room or from every call of a store.
    Interval(Duration),
    /// When the operating system has it: it survives a crash of the process.
    Os,
}

impl Durability {
    /// Refuses an interval of zero.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Durability::Interval(Duration::ZERO) => {
                Err(Error::InvalidConfig("a flush interval of zero; use `Durability::Sync`".into()))
            }
            Durability::Sync | Durability::Interval(_) | Durability::Os => Ok(()),
        }
    }

    /// What keeps the promises of both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Durability::Sync, _) | (_, Durability::Sync) => Durability::Sync,
            (Durability::Interval(one), Durability::Interval(two)) => {
                Durability::Interval(one.min(two))
            }
            (interval @ Durability::Interval(_), Durability::Os)
            | (Durability::Os, interval @ Durability::Interval(_)) => interval,
            (Durability::Os, Durability::Os) => Durability::Os,
        }
    }

    /// Whether a write waits for the disk.
    pub(crate) fn is_sync(self) -> bool {
        matches!(self, Durability::Sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_of_two_keeps_both() {
        use Durability::{Interval, Os, Sync};
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(1));
        for (one, other, both) in [
            (Os, Os, Os),
            (Os, Interval(long), Interval(long)),
            (Interval(short), Interval(long), Interval(short)),
            (Interval(short), Sync, Sync),
            (Sync, Os, Sync),
        ] {
            assert_eq!((one.and(other), other.and(one)), (both, both));
        }
        assert!(matches!(Interval(Duration::ZERO).check(), Err(Error::InvalidConfig(_))));
        assert!([Os, Sync, Interval(short)].iter().all(|durability| durability.check().is_ok()));
    }
}
