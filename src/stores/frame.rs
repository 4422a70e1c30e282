//! What fits one frame of the log, and changes that need several.

pub(crate) use crate::engine::access::row_cost;

use crate::Pending;
use crate::durability::Durability;
use crate::engine::{Engine, Tx};
use crate::error::{Error, Result};

/// The most that a frame takes in addition to its rows.
const FRAME_OVERHEAD: usize = 64;

/// How many bytes a transaction may still stage, as [`row_cost`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameBudget {
    left: usize,
    /// Whether something was taken from it.
    begun: bool,
}

impl FrameBudget {
    /// No bound: a frame that is too large is refused when the transaction ends.
    pub(crate) const UNBOUNDED: Self = Self::of_bytes(usize::MAX);

    /// That of a frame whose rows may have so many bytes.
    pub(crate) const fn of_frame(max_frame_bytes: usize) -> Self {
        Self::of_bytes(max_frame_bytes.saturating_sub(FRAME_OVERHEAD))
    }

    /// So many bytes.
    pub(crate) const fn of_bytes(left: usize) -> Self {
        Self { left, begun: false }
    }

    /// Whether a change that takes `cost` fits.
    pub(crate) fn fits(&self, cost: usize) -> bool {
        cost <= self.left
    }

    /// Takes `cost`, unless that is more than is left. The first change may always take what it
    /// needs, so that a change in several frames goes on with each.
    pub(crate) fn take(&mut self, cost: usize) -> bool {
        if self.begun && !self.fits(cost) {
            return false;
        }
        (self.left, self.begun) = (self.left.saturating_sub(cost), true);
        true
    }
}

/// What one transaction of a change in several frames has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameStep<R> {
    /// The answer to the whole change, if this was the last step.
    pub(crate) answer: R,
    /// Whether nothing is left to do.
    pub(crate) is_last: bool,
}

/// Makes a change that may not fit one frame: calls `step` with a whole frame's budget, in one
/// transaction after another, until it says that nothing is left.
///
/// Each frame is whole by itself. No step waits for the ones before: frames become durable in their
/// order, so the answer, which is that of the last one, waits for all of them. The first error ends
/// the change; what the frames before it did stays.
pub(crate) fn in_frames<R, E: From<Error>>(
    engine: &Engine,
    durability: Durability,
    mut step: impl FnMut(&mut Tx<'_>, FrameBudget) -> Result<FrameStep<R>, E>,
) -> Pending<R, E> {
    let budget = FrameBudget::of_frame(engine.max_frame_bytes());
    loop {
        let mut is_last = false;
        let answer = engine.transact(durability, &[], |tx| {
            let done = step(tx, budget)?;
            is_last = done.is_last;
            Ok(done.answer)
        });
        if is_last || answer.has_failed() {
            return answer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_always_allowed_and_others_as_far_as_they_fit() {
        let mut budget = FrameBudget::of_bytes(100);
        assert!(budget.take(60));
        assert!(budget.fits(40) && !budget.fits(41));
        assert!(!budget.take(41));
        assert!(budget.take(40));
        assert!(!budget.take(1));
        let mut small = FrameBudget::of_bytes(10);
        assert!(!small.fits(11));
        assert!(small.take(11));
        assert!(!small.take(1));
        assert_eq!(FrameBudget::of_frame(1_000), FrameBudget::of_bytes(1_000 - FRAME_OVERHEAD));
        let mut unbounded = FrameBudget::UNBOUNDED;
        assert!(unbounded.take(1 << 40) && unbounded.take(1 << 40));
    }
}
