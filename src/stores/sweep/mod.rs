//! The sweeper: removes what has ended, by the expiry index, over every store with a time to live.
//!
//! # Why it may run at any time
//! 1. A row of the index is a hint. Under the serial lock the primary row is read again, and it
//!    alone decides, so an entry that was refreshed a moment before survives.
//! 2. An entry is removed with all its rows in one frame. Where that would be too much, its
//!    satellites are removed first, in parts, each of which leaves an entry that is whole to its
//!    store.
//! 3. What is removed was absent to every answer before, so no answer shows whether the sweeper has
//!    run.
//!
//! # Why it ends
//! Each index row that is looked at is removed, moves to a time that has not come, or is stepped
//! over. The sweep continues behind it and does not return to it in the same round. An entry that
//! is removed in parts has fewer rows after each.
//!
//! # What it costs others
//! A slice is one transaction with a bounded number of index rows, changes and bytes ([`Budget`]),
//! run dry without a lock before it is run. A sweep resumes behind the last index row, because
//! the rows before it have left tombstones that every scan from the beginning would meet again.

mod decide;
mod due;
mod pace;
mod progress;
mod report;
mod sweeper;
mod verdict;

#[cfg(test)]
pub(crate) use decide::{sweep_all, sweep_all_within};
pub(crate) use due::backlog;
pub(crate) use progress::Sweeper;
pub use report::SweepReport;
pub(crate) use sweeper::sweep_job;
pub(crate) use verdict::{Budget, Due, SweepTurn, Verdict};

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;
