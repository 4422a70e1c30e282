//! What fits one frame of the log, and changes that are made in steps.

pub(crate) use crate::engine::access::row_cost;

use crate::Pending;
use crate::engine::Tx;
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;

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

/// The most bytes that one step of a change stages, beside its first entry: some hundreds of small
/// entries, which is about a millisecond under the serial lock.
const STEP_BYTES: usize = 32 << 10;

/// The part of a range of rows that a change in steps has still to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StepRange {
    /// Every key up to this one was looked at.
    pub(crate) after: Option<Vec<u8>>,
    /// The last key that the range had when the change began. So the change ends, however fast
    /// others add rows behind it. `None` is no bound, for a change that is one step.
    pub(crate) last: Option<Vec<u8>>,
}

impl StepRange {
    /// The rows of `table` whose keys begin with `prefix`, as they are now; `None` when there are
    /// none. They are read without a lock, page by page, so that the steps find them in memory.
    pub(crate) fn of(
        rows: &mut dyn Reader,
        table: Table,
        prefix: &[u8],
    ) -> Result<Option<StepRange>> {
        let (mut cursor, mut last) = (RowCursor::prefix(table, prefix), None);
        while let Some((key, _)) = cursor.next(rows)? {
            last = Some(key);
        }
        Ok(last.map(|last| StepRange { after: None, last: Some(last) }))
    }

    /// The rows that are left in it, of a range that begins with `prefix`.
    pub(crate) fn cursor<'k>(&self, table: Table, prefix: &'k [u8]) -> RowCursor<'k> {
        RowCursor::prefix(table, prefix).after(self.after.clone()).to(self.last.clone())
    }
}

/// What one transaction of a change in steps has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameStep<R> {
    /// The answer to the whole change, if this was the last step.
    pub(crate) answer: R,
    /// Whether nothing is left to do.
    pub(crate) is_last: bool,
}

/// Makes a change to many entries: calls `step` with the budget of a step, in one transaction after
/// another, until it says that nothing is left. Between two steps other callers get the serial
/// lock, and see what the steps before have done.
///
/// Each frame is whole by itself. No step waits for the ones before; the answer, which is that of
/// the last one, waits for all of them. The first error ends the change; what the frames before it
/// did stays.
///
/// All steps are done when this returns, unless the log is full: then it does not wait, and a
/// thread does the rest, whether or not the answer is waited for.
pub(crate) fn in_steps<R, E>(
    handle: &StoreHandle,
    step: impl FnMut(&mut Tx<'_>, FrameBudget) -> Result<FrameStep<R>, E> + Send + 'static,
) -> Pending<R, E>
where
    R: Copy + Send + 'static,
    E: From<Error> + Send + 'static,
{
    let mut steps = Steps { handle: handle.clone(), step };
    if let Some(answer) = steps.go_on() {
        return answer;
    }
    let (answer, pending) = Pending::channel();
    let rest = move || answer.send(steps.finish());
    match handle.engine().follow_up(Box::new(rest)) {
        Ok(()) => pending,
        Err(_) => Pending::ready(Err(handle.engine().log_is_full().into())),
    }
}

/// A change in steps that is under way.
struct Steps<F> {
    handle: StoreHandle,
    step: F,
}

impl<F> Steps<F> {
    /// Goes on until nothing is left, or the log has no space for more: then `None`.
    fn go_on<R: Copy, E: From<Error>>(&mut self) -> Option<Pending<R, E>>
    where
        F: FnMut(&mut Tx<'_>, FrameBudget) -> Result<FrameStep<R>, E>,
    {
        let Self { handle, step } = self;
        let bytes = handle.engine().max_frame_bytes().min(STEP_BYTES);
        let budget = FrameBudget::of_frame(bytes);
        while handle.engine().has_space_for_step(bytes) {
            let mut done = None;
            let answer = handle.transact(&[], |tx| {
                let step = step(tx, budget)?;
                done = Some(step);
                Ok(step.answer)
            });
            if answer.has_failed() {
                return Some(answer);
            }
            if let Some(FrameStep { answer, is_last: true }) = done {
                // The last step may have staged nothing, and does not know what the others depend
                // on.
                let durability = handle.durability();
                return Some(handle.engine().answer_after_all(Ok(answer), durability));
            }
        }
        None
    }

    /// Goes on to the end, and waits for space where there is none.
    fn finish<R: Copy, E: From<Error>>(mut self) -> Result<R, E>
    where
        F: FnMut(&mut Tx<'_>, FrameBudget) -> Result<FrameStep<R>, E>,
    {
        loop {
            self.handle.engine().wait_for_step_space()?;
            if let Some(answer) = self.go_on() {
                return answer.wait();
            }
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
