//! The kernel: one serial order of transactions over a log, an in-memory table and a B-tree.
//!
//! It has no thread and no list of waiters. What a thread should do it asks for through its
//! [`signals`], and who waits for a change is told through its hook ([`observer`]).
//!
//! # Invariants
//! 1. The order of frames is the order of decisions: both happen under the serial lock.
//! 2. A position is published after all rows of its frame are in the in-memory table, so a reader
//!    sees whole frames.
//! 3. The B-tree holds exactly the frames up to the position it records, and that position is
//!    durable in the log.
//! 4. Every row of a newer position is in one of the in-memory tables of the view.
//!
//! # What may change in here without a word outside
//! How rows are held in memory ([`View`]), how the B-tree is fed ([`checkpoint`]), and how large
//! the log is.

pub(crate) mod access;
mod checkpoint;
mod checkpoints;
mod commit;
mod core;
mod counters;
pub(crate) mod cursor;
mod log_space;
mod merge;
mod observer;
mod prefetch;
mod signals;
mod snapshot;
mod space;
mod staged;
mod stats;
pub(crate) mod time_line;
mod turn;
mod tx;
mod view;

pub(crate) use self::core::HeldOpen;
pub(in crate::engine) use self::core::{Kernel, KernelParts, Scratch};
pub(in crate::engine) use checkpoint::keys_per_segment;
pub(in crate::engine) use checkpoints::NextCheckpoint;
pub(in crate::engine) use log_space::SegmentsOf;
pub(in crate::engine) use merge::read_page;
pub(crate) use observer::{
    CommitHook, CommitObserver, CommittedRows, HeldInterest, Interest, Wakeup,
};
pub(in crate::engine) use prefetch::Prefetched;
pub(crate) use prefetch::{Cost, DryRun};
pub(crate) use snapshot::Snapshot;
pub use stats::EngineStats;
pub(in crate::engine) use turn::TransactionTurn;
pub(crate) use tx::Tx;
pub(in crate::engine) use view::View;
