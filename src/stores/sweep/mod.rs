//! The sweeper: removes what has ended, by the expiry index, over every store with a time to live.
//!
//! # Why it may run at any time
//! 1. A row of the index is a hint. Under the serial lock the primary row is read again and decides
//!    alone, so what was refreshed a moment before survives.
//! 2. An entry goes with every row that belongs to it in one frame. Where that would be too much,
//!    its satellites go first, in parts each of which leaves the entry whole in the eyes of its
//!    store.
//! 3. What goes was absent to every answer before, so nobody can tell from an answer whether the
//!    sweeper has been by.
//!
//! # Why it ends
//! Each index row that is looked at goes, moves to a time that has not come, or is stepped over;
//! the sweep goes on behind it and never returns before it begins anew. An entry that goes in parts
//! has fewer rows after each.
//!
//! # What it costs others
//! A slice is one transaction with a bounded number of index rows, changes and bytes ([`Budget`]),
//! rehearsed without a lock before it is run. A sweep resumes behind the last index row, because
//! the rows before it have left tombstones that every scan from the beginning would meet again.

mod decide;
mod report;
mod sweeper;

pub(crate) use decide::{Budget, Due, SweepTurn, Verdict};
#[cfg(test)]
pub(crate) use decide::{sweep_all, sweep_all_within};
pub use report::SweepReport;
pub(crate) use sweeper::{Sweeper, backlog, sweep_job};

#[cfg(test)]
mod tests;
